"""A trained method as one HTML file: what was measured, in words and numbers, and what it looks like."""

from __future__ import annotations

import base64
import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from twofold import figures, runs
from twofold.data import Dataset
from twofold.errors import InputError, MissingFileError, TwofoldError
from twofold.evaluation import evaluate
from twofold.findings import Evaluation, interval, number
from twofold.method import Method
from twofold.methods import load
from twofold.metrics import Retrieval
from twofold.pictures import PICTURES, Subject
from twofold.progress import Progress

VERDICTS = {
    "clean": ("good", "A clean split, as far as measured"),
    "empty": ("fair", "z is empty"),
    "leaks": ("fair", "z leaks"),
    "failed": ("bad", "Not a split"),
    "weak": ("bad", "Nothing learned"),
    "no s": ("plain", "One code, no split"),
    "given": ("plain", "s is given"),
    "unknown": ("plain", "Not measured"),
}


def write(
    path: str | os.PathLike,
    *,
    method: Method,
    train: Dataset,
    test: Dataset,
    metrics: Sequence[Mapping[str, float]] = (),
    snapshots: Mapping[int, Method] | None = None,
    config: Mapping[str, Any] | None = None,
    evaluation: Evaluation | Mapping[str, Any] | None = None,
    seed: int = 0,
    factor: str | None = None,
    background: str | None = None,
    figures_dir: str | os.PathLike | None = None,
    progress: bool = False,
) -> Path:
    """Write the report on `method`, trained on `train`, shown on `test`, to the HTML file `path`; returns it.

    The file holds everything: it asks nothing of the network and runs nothing.

    metrics: what the training logged (`Run.metrics`). snapshots: the method as it was at earlier steps; of points in
    the plane. config: the run's configuration, any JSON-able mapping.
    evaluation: of `evaluate`, or its `as_dict()`; made here, with `factor` and `background`, unless given.
    seed: decides which observations are shown, and all that is drawn.
    figures_dir: a folder for the figures as PNG files, too.

    What a method or a data set can't have is named in its place, with the reason. Raises `InputError` for a path that
    is a folder, for arguments of another kind, and as `evaluate` does.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"path: {path} is a folder; expected a file, say {path / 'report.html'}")
    for name, value, wanted in (("method", method, Method), ("train", train, Dataset), ("test", test, Dataset)):
        if not isinstance(value, wanted):
            raise InputError(f"{name}: {type(value).__name__}; expected a {wanted.__name__}")
    if evaluation is None:
        evaluation = evaluate(method, train, test, seed=seed, factor=factor, background=background, progress=progress)
    elif not isinstance(evaluation, Evaluation):
        evaluation = Evaluation.from_dict(evaluation)
    subject = Subject(method, test, evaluation, background, metrics, seed, snapshots)
    sections: list[Section] = []
    with Progress("report", len(PICTURES), progress) as bar:
        for i, (key, (title, how, draw)) in enumerate(PICTURES.items()):
            try:
                figure = draw(subject)
            except TwofoldError as reason:
                sections.append(Section(key, title, how, None, 0, str(reason)))
            else:
                image = figures.png(figure)
                if figures_dir is not None:
                    figures.write(Path(figures_dir) / f"{key}.png", image)
                wide = round(100 * figure.get_size_inches()[0])
                sections.append(Section(key, title, how, base64.b64encode(image).decode(), wide, ""))
            bar.update(i + 1)
    page = _template().render(
        evaluation=evaluation,
        verdict=VERDICTS[evaluation.verdict],
        rows=_rows(evaluation),
        others=_others(evaluation),
        linear=_linear(evaluation),
        judged=_judged(evaluation),
        generated=_generated(evaluation),
        per_class=_per_class(evaluation, test.names.get(evaluation.about or "")),
        notes=_notes(evaluation),
        sections=[section for section in sections if section.image],
        absent=[section for section in sections if not section.image],
        settings=_settings(method, train, test, evaluation, config, seed),
    )
    return figures.write(path, page.encode())


def from_run(
    folder: str | os.PathLike,
    *,
    train: Dataset,
    test: Dataset,
    path: str | os.PathLike | None = None,
    evaluation: Evaluation | Mapping[str, Any] | None = None,
    **options: Any,
) -> Path:
    """The report on the run in `folder` (that `fit(out=...)` left), by default as report.html in it. Returns its path.

    `train` and `test`: the data that the method was trained on, and those held out. evaluation: by default what
    evaluation.json holds, if it is there and not older than the weights; else made. Other options as in `write`.

    Raises `MissingFileError` for a folder without a run, `InputError` for files that are broken.
    """
    folder = Path(folder)
    config = folder / "config.json"
    if not config.is_file():
        raise MissingFileError(f"folder: {folder} holds no run (no config.json); expected what fit(out=...) left")
    method = load(folder)
    kept = folder / "evaluation.json"
    weights = next(p for p in (folder / "method.safetensors", folder / "checkpoint.safetensors") if p.is_file())
    if evaluation is None and kept.is_file() and kept.stat().st_mtime_ns >= weights.stat().st_mtime_ns:
        evaluation = Evaluation.from_dict(_json(kept))
    return write(
        folder / "report.html" if path is None else path,
        method=method,
        train=train,
        test=test,
        metrics=_metrics(folder / "metrics.csv"),
        snapshots=runs.RunFolder.snapshots(folder),
        config=_json(config),
        evaluation=evaluation,
        **options,
    )


class Section(NamedTuple):
    """A figure with its title and how to read it, or the reason why there is none."""

    key: str
    title: str
    how: str
    image: str | None
    """PNG, base64."""
    width: int
    reason: str


class _Row(NamedTuple):
    factor: str
    unit: str
    half: str
    score: str
    chance: str
    bits: str
    clusters: str
    nearest: str
    probe: str


def _rows(evaluation: Evaluation) -> list[_Row]:
    rows = []
    for name, found in evaluation.factors.items():
        for half, p in found.leakage.items():
            c, r = found.clustering.get(half), found.retrieval.get(half)
            rows.append(
                _Row(
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
    return rows


def _nearest(found: Retrieval) -> str:
    return f"{', '.join(f'{found.precision[k]:.2f}' for k in sorted(found.precision))} ({found.chance:.2f})"


def _linear(evaluation: Evaluation) -> list[tuple[str, ...]]:
    """The linear probes, as papers report them: factor, unit, from s, from z, the best constant."""
    rows = []
    for name, found in evaluation.factors.items():
        if found.linear:
            s, z = (found.linear[half] for half in "sz")
            unit = found.unit or ("accuracy" if s.metric == "accuracy" else "mean error")
            rows.append((name, unit, interval(s), interval(z), number(s.chance, s)))
    return rows


def _per_class(evaluation: Evaluation, names: Sequence[str] | None) -> list[tuple[str, ...]]:
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


def _judged(evaluation: Evaluation) -> list[tuple[str, ...]]:
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


def _generated(evaluation: Evaluation) -> list[tuple[str, ...]]:
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


def _others(evaluation: Evaluation) -> list[tuple[str, str, str]]:
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


def _notes(evaluation: Evaluation) -> list[str]:
    """What differs from the plan, and what could not be measured."""
    notes = [f"{name}: {found.note}." for name, found in evaluation.factors.items() if found.note]
    return notes + [f"Not measured: {what}: {why}." for what, why in evaluation.skipped.items()]


def _settings(
    method: Method,
    train: Dataset,
    test: Dataset,
    evaluation: Evaluation,
    config: Mapping[str, Any] | None,
    seed: int,
) -> list[tuple[str, list[tuple[str, str]]]]:
    """Titled lists of names and values: all that the numbers follow from."""
    config = dict(config) if config is not None else {"config": method.config, "record": runs.record()}
    titles = {"plan": "Training", "record": "Environment", "about": "As told", "config": "Method", "facts": "Data"}
    own = {
        "method": type(method).__name__,
        "learns from": method.supervision.__name__,
        "data": train.name,
        "observations": f"{len(train):,} to train on, {len(test):,} held out",
        "of shape": " × ".join(map(str, method.shape)),
        "dimensions of s, z": " and ".join(map(str, evaluation.sizes)),
        "seed of this report": seed,
    }
    plain = {k: v for k, v in config.items() if not isinstance(v, Mapping) and k not in ("method", "supervision")}
    groups = {"Run": own | ({"data, hash": plain.pop("data")} if "data" in plain else {}) | plain}
    groups |= {titles.get(name, name): value for name, value in config.items() if isinstance(value, Mapping)}
    automatic = {titles["config"]: "automatic"}  # a method's options that it chooses by itself
    return [(title, rows) for title, values in groups.items() if (rows := _flat(values, "", automatic.get(title, "")))]


def _flat(values: Mapping[str, Any], prefix: str = "", none: str = "") -> list[tuple[str, str]]:
    """Names and values as text, and `none` for what is None; without it such are left out."""
    rows = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}.", none)
        elif value is not None or none:
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            rows.append((f"{prefix}{name}", none if value is None else text))
    return rows


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: truncated, or no JSON ({error})") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: holds a {type(found).__name__}; expected an object")
    return found


def _metrics(path: Path) -> list[dict[str, float]]:
    """The rows logged; a line that a kill cut off ends them."""
    rows: list[dict[str, float]] = []
    if path.is_file():
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                try:
                    rows.append({name: float(value) for name, value in row.items()})
                except (TypeError, ValueError):
                    break
    return rows


def _template():
    environment = Environment(
        loader=PackageLoader("twofold"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")
