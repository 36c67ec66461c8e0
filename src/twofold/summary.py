"""What the tables of a report say: an evaluation in rows of words and rounded numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from twofold.findings import interval, number
from twofold.metrics import Retrieval
from twofold.verdict import Evaluation

PARTS = {"own": "its part", "others": "other parts"}


class Row(NamedTuple):
    factor: str
    unit: str
    half: str
    score: str
    chance: str
    bits: str
    clusters: str
    nearest: str
    probe: str


def probes(evaluation: Evaluation) -> list[Row]:
    rows = []
    for name, found in evaluation.factors.items():
        for half, p in found.leakage.items():
            c, r = found.clustering.get(half), found.retrieval.get(half)
            rows.append(
                Row(
                    factor=name,
                    unit="" if p.metric == "accuracy" else f"(mean error{f', {found.unit}' if found.unit else ''})",
                    half=half,
                    score=interval(p),
                    chance=number(p.chance, p),
                    bits="" if p.information is None else f"{p.information:.2f} of {p.entropy:.2f}",
                    clusters="" if c is None else f"{c.accuracy:.2f} ± {c.accuracy_spread:.2f} ({c.chance:.2f})",
                    nearest="" if r is None else _nearest(r),
                    probe=p.kind + ("" if p.converged else ", not converged"),
                )
            )
        for which, p in found.parts.items():
            half, kind = f"s, {PARTS[which]}", p.kind + ("" if p.converged else ", not converged")
            bits = "" if p.information is None else f"{p.information:.2f} of {p.entropy:.2f}"
            rows.append(Row(name, "", half, interval(p), number(p.chance, p), bits, "", "", kind))
    return rows


def _nearest(found: Retrieval) -> str:
    return f"{', '.join(f'{found.precision[k]:.2f}' for k in sorted(found.precision))} ({found.chance:.2f})"


def linear(evaluation: Evaluation) -> list[tuple[str, ...]]:
    """The linear probes, as papers report them: factor, unit, from s, from z, the best constant."""
    rows = []
    for name, found in evaluation.factors.items():
        if found.linear:
            s, z = (found.linear[half] for half in "sz")
            unit = found.unit or ("accuracy" if s.metric == "accuracy" else "mean error")
            rows.append((name, unit, interval(s), interval(z), number(s.chance, s)))
    return rows


def per_class(evaluation: Evaluation, names: Sequence[str] | None) -> list[tuple[str, ...]]:
    """Of what s is about, a row a class: what the linear probes find, and the judge in swapped and generated ones."""
    about = evaluation.about or ""
    linear = evaluation.factors[about].linear if about in evaluation.factors else {}
    judged, made = evaluation.consistency.get(about), evaluation.generation.get("class")
    columns = {
        "linear, s": linear["s"].per_class if linear else None,
        "linear, z": linear["z"].per_class if linear else None,
        "swapped": judged and judged.swap_s and judged.swap_s.per_class,
        "generated": made and made.kept and made.kept.per_class,
        "real": judged and judged.real.per_class,
    }
    shown = {title: values for title, values in columns.items() if values}
    classes = sorted({k for values in shown.values() for k in values})
    if not 2 <= len(classes) <= 30:
        return []
    head = (about, *shown)
    rows = [[str(k) if names is None else names[k], *(values.get(k) for values in shown.values())] for k in classes]
    return [head, *(tuple(v if isinstance(v, str) else "" if v is None else f"{v:.2f}" for v in row) for row in rows)]


def judged(evaluation: Evaluation) -> list[tuple[str, ...]]:
    """What judges find: factor, unit, in real observations, in reconstructed ones, in swaps (as s, as z), chance."""
    rows = []
    for name, c in evaluation.consistency.items():
        unit = ""
        if c.real.metric != "accuracy":
            known = evaluation.factors[name].unit if name in evaluation.factors else ""
            unit = f"(mean error, {known})" if known else "(mean error)"
        scores = ["" if score is None else interval(score) for score in (c.real, c.reconstruction, c.swap_s, c.swap_z)]
        rows.append((name, unit, *scores, number(c.real.chance, c.real)))
    return rows


def generated(evaluation: Evaluation) -> list[tuple[str, ...]]:
    """What is generated, and how: the class asked for, Inception Score, diversity within classes, how many."""
    titles = {
        "real": "real, held-out",
        "class": "of a class",
        "examples": "with the s of examples",
        "prior": "from the prior",
    }
    return [
        (
            titles[source],
            "" if made.kept is None else f"{interval(made.kept)} ({number(made.kept.chance, made.kept)})",
            f"{made.inception:.2f}",
            "" if made.diversity is None else f"{made.diversity.score:.3f} ({made.diversity.without_self:.3f})",
            f"{made.n:,}",
        )
        for source, made in evaluation.generation.items()
    ]


def others(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """What else was measured: name, value, what to compare it with."""
    titles = {"both": "reconstruction", "s": "s alone", "z": "z alone", "mean": "the mean training observation"}
    hints = {"both": "", "s": "z at 0", "z": "s at its reference value", "mean": "the level to beat"}
    found = []
    for which, error in evaluation.reconstruction.items():
        squared = f"{error.mse:.3g} [{error.mse_low:.3g}, {error.mse_high:.3g}]"
        hint = hints[which] or f"on {error.n:,} held-out observations"
        found.append((f"Error per value, {titles[which]}", f"MSE {squared}, MAE {error.mae:.3g}", hint))
    if swap := evaluation.swap:
        for half, value in (("s", swap.s), ("z", swap.z)):
            if value is not None:
                hint = "R² of what was put in, in a swapped observation's code; 1 is perfect, 0 a constant"
                found.append((f"{half} found again after a swap", f"{value:.3f}", hint))
        if swap.label is not None:
            hint = f"by the nearest training observations in s; chance {number(swap.label.chance, swap.label)}"
            found.append((f"Swaps that keep the {evaluation.about} of s", interval(swap.label), hint))
    if back := evaluation.background:
        within = f"{back.w2_within:.3g} between two halves of the background ({back.points:,} each)"
        found.append(("z, target to background: squared W2", f"{back.w2:.3g}", within))
        if evaluation.sizes[0]:
            size = f"mean squared distance from its reference value; on the target {back.s_target:.3g}"
            found.append(("Size of s on the background", f"{back.s_background:.3g}", size))
            spread = "summed over dimensions; 0.01 a dimension is almost a point, 1 is the prior's"
            found.append(("Its posterior variance there", f"{back.variance_background:.3g}", spread))
        for half, p in back.told_apart.items():
            found.append((f"Target or background, from {half}", interval(p), f"accuracy; chance {number(p.chance, p)}"))
    return found


def notes(evaluation: Evaluation) -> list[str]:
    """What differs from the plan, and what could not be measured."""
    notes = [f"{name}: {found.note}." for name, found in evaluation.factors.items() if found.note]
    return notes + [f"Not measured: {what}: {why}." for what, why in evaluation.skipped.items()]
