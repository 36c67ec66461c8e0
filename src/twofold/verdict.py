"""What an evaluation found as a whole: in numbers, in words, as a table, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table

from twofold.errors import InputError
from twofold.findings import (
    READ,
    READ_EACH,
    Background,
    Consistency,
    Factor,
    Generated,
    PixelError,
    Swap,
    interval,
    number,
)
from twofold.metrics import Evidence, FewShot, Probe

NOTHING = 0.02  # of what a reconstruction gains over the mean observation
LATER = ("consistency", "generation", "evidence", "few_shot")  # files of the first versions lack them
Verdict = Literal["clean", "empty", "leaks", "failed", "weak", "no s", "no z", "given", "unknown"]


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found. `headline` says it in words, `table()` for a terminal, `as_dict()` for JSON."""

    method: str
    data: str
    sizes: tuple[int, int]
    about: str | None
    """The factor that s is about: the one that `headline` is on."""
    given: bool
    """Whether the label itself was handed to the encoder, as s."""
    factors: dict[str, Factor]
    reconstruction: dict[str, PixelError]
    """From "both", "s" (z at 0), "z" (s at its reference), and "mean": the mean training observation, for scale."""
    swap: Swap | None
    background: Background | None
    skipped: dict[str, str]
    """What could not be measured, and why."""
    n_train: int
    n_test: int
    seed: int
    consistency: dict[str, Consistency] = field(default_factory=dict)
    """By factor: what independent judges find in reconstructed and in swapped observations."""
    generation: dict[str, Generated] = field(default_factory=dict)
    """Of "class" (s of that class), "examples" (s of held-out observations), "prior", and "real": held-out ones."""
    evidence: dict[str, Evidence] = field(default_factory=dict)
    """Of "s" and "z" put together over k observations of a class, and of "single z"."""
    few_shot: dict[str, FewShot] = field(default_factory=dict)
    """By half: classes that training never saw, identified from k examples of each."""

    @property
    def verdict(self) -> Verdict:
        """Of the factor that s is about, by the intervals of the probes alone (`Factor.told`); where no factor says
        what that is, of target or background.

        "clean": s beats chance, z does not. "empty": the same, but z holds next to nothing. "leaks": both beat chance.
        "weak": neither does. "failed": z does, and s no better. "no s", "no z": it has no dimensions. "given": s is the
        label. "unknown": nothing was probed.
        """
        if self._told is None:
            return "unknown"
        s, z = self._told
        if self.sizes[0] == 0:
            return "no s"
        if self.given:
            return "given"
        if self.sizes[1] == 0:
            return "no z"
        if not s.beats_chance:
            return "failed" if z.beats_chance else "weak"
        if not z.beats_chance:
            return "empty" if "z" in self._unused else "clean"
        apart = z.high < s.low if s.metric == "accuracy" else z.low > s.high
        return "leaks" if apart else "failed"

    @property
    def _told(self) -> tuple[Probe, Probe] | None:
        """What `verdict` and `headline` rest on, from s and from z."""
        if self.about is None and self.background:
            return self.background.told_apart["s"], self.background.told_apart["z"]
        found = self.factors.get(self.about or "")
        return found and (found.told("s"), found.told("z"))

    @property
    def caveats(self) -> list[str]:
        """What speaks against the split beside the probes, a sentence each."""
        found, errors = [], self.reconstruction
        if errors and errors["both"].mse_high >= errors["mean"].mse:
            found.append("Reconstructions are no better than the mean training observation.")
        for half in self._unused:
            found.append(f"{half} is hardly used: reconstructions without it are as good.")
        found += self._told_by_judges() + self._told_by_parts()
        if back := self.background:
            if self.sizes[0] and back.s_background > 0.25 * back.s_target:
                size = f"{back.s_background:.2g} beside {back.s_target:.2g} on the target"
                found.append(f"s is not at its reference value on the background: squared distance {size}.")
            if (told := back.told_apart["z"]).beats_chance and self.about is not None:  # else the headline says it
                found.append(f"z tells target from background: {interval(told)}, chance {number(told.chance, told)}.")
        return found

    def _told_by_judges(self) -> list[str]:
        found, judged = [], self.consistency.get(self.about or "")
        if judged and not judged.real.beats_chance:
            where = f"{interval(judged.real)}, chance {number(judged.real.chance, judged.real)}"
            return [f"Its judge does not tell the {self.about} of real observations: {where}; ignore what it says."]
        kept = (judged and judged.swap_s) or (self.swap and self.swap.label)
        if kept and not kept.beats_chance:
            found.append(f"Swapped observations do not keep the {self.about} of s: {interval(kept)}.")
        if judged and judged.swap_z and judged.swap_z.beats_chance:
            often = f"{interval(judged.swap_z)}, chance {number(judged.swap_z.chance, judged.swap_z)}"
            found.append(f"Swapped observations show the {self.about} of what gave z: {often}.")
        made = self.generation.get("class")
        if made and made.kept and not made.kept.beats_chance:
            found.append(f"Observations generated for a class are not of that class: {interval(made.kept)}.")
        return found

    def _told_by_parts(self) -> list[str]:
        """Of several groupings: is each told by its own part of s, and by nothing else?"""
        found = []
        for name, factor in self.factors.items():
            if not factor.parts:
                continue
            told = factor.parts | {"z": factor.told("z")}
            chance = f"chance {number(told['z'].chance, told['z'])}"
            if not told["own"].beats_chance:
                found.append(f"The part of s for the {name} does not tell it: {interval(told['own'])}, {chance}.")
            if told["others"].beats_chance:
                found.append(f"Other parts of s tell the {name}: {interval(told['others'])}, {chance}.")
            if name != self.about and told["z"].beats_chance:  # else the headline says it
                found.append(f"z tells the {name}: {interval(told['z'])}, {chance}.")
        return found

    @property
    def _unused(self) -> list[str]:
        """Halves that reconstructions can do without."""
        errors = self.reconstruction
        if "s" not in errors or (gain := errors["mean"].mse - errors["both"].mse) <= 0:
            return []
        alone = {"s": errors["z"], "z": errors["s"]}
        return [half for half, rest in alone.items() if rest.mse - errors["both"].mse < NOTHING * gain]

    @property
    def headline(self) -> str:
        """What s and z tell of the factor that s is about (of target or background, where there is none), in one or two
        sentences."""
        if self._told is None:
            none = self.skipped.get("background", "no factor says what s is about")
            why = none if self.about is None else self.skipped.get(f"factor {self.about}", none)
            return f"What s and z tell was not measured: {self.skipped.get('codes', why)}."
        s, z = self._told
        what = "target from background" if self.about is None else f"the {self.about}"
        accuracy, told_z = s.metric == "accuracy", interval(z)
        by = "with accuracy" if accuracy else "with a mean error of"
        chance = f"{'chance' if accuracy else 'the best constant'} {number(s.chance, s)}"
        told_s = f"s tells {what} {by} {interval(s)}, {chance}"
        match self.verdict:
            case "no s":
                return f"This method has no s. z, its whole code, tells {what} {by} {told_z}, {chance}."
            case "no z":
                return f"This method has no z. s, its whole code, tells {what} {by} {interval(s)}, {chance}."
            case "given":
                end = "z still tells it" if z.beats_chance else "from z no probe tells it better than chance"
                return f"s is {what} itself, given to the encoder; {end}: {told_z}, {chance}."
            case "clean":
                return (
                    f"{told_s}; from z no probe tells it better than chance: {told_z}. "
                    f"A clean split, as far as {z.n_test:,} test observations can show."
                )
            case "empty":
                return f"{told_s}; z does not tell it: {told_z}. But z holds next to nothing else, either."
            case "leaks":
                return f"{told_s}; z {_extent(s, z)} tells it: {told_z}."
            case "weak":
                return (
                    f"Neither half tells {what} better than {chance}: s {by} {interval(s)}, z {told_z}. "
                    "s has not learned what it should hold."
                )
            case _ if s.beats_chance:
                return f"{told_s}, but z tells it as well: {told_z}. This is not a split."
        return f"z tells {what} {by} {told_z}, {chance}; s does not: {interval(s)}. The split failed."

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain Python values, ready for `json.dumps`."""
        return asdict(self) | {"verdict": self.verdict, "headline": self.headline, "caveats": self.caveats}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Evaluation:
        """The evaluation that `as_dict` wrote, through JSON or not. Raises `InputError` for another dictionary."""
        try:
            plain = {f.name: found[f.name] for f in fields(cls) if f.name not in LATER or f.name in found}
            plain["sizes"] = tuple(plain["sizes"])
            plain |= {name: None if plain[name] is None else read(plain[name]) for name, read in READ.items()}
            for name, read in READ_EACH.items():
                plain[name] = {key: read(part) for key, part in plain.get(name, {}).items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"evaluation: not one that as_dict() gave ({error!r})") from None
        return cls(**plain)

    def table(self) -> Table:
        """For `rich.print`, 80 columns wide: two rows a factor, each half beside the best constant, 95 % intervals."""
        table = Table(
            title=f"What s and z tell: {self.method} on {self.data}, {self.n_test:,} test observations",
            caption=self._caption(),
            title_justify="left",
            caption_justify="left",
            box=SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
        )
        table.add_column("factor", overflow="fold", min_width=12)
        table.add_column("")
        for column in ("score [95 %]", "linear", "chance", "bits", "clusters", "P@5"):
            table.add_column(column, justify="right", no_wrap=True)
        back = {"target or background": Factor(self.background.told_apart)} if self.background else {}
        for name, factor in (self.factors | back).items():
            for half, p in factor.leakage.items():
                c, r, accuracy = factor.clustering.get(half), factor.retrieval.get(half), p.metric == "accuracy"
                unit = "" if accuracy else f"(mean error{', ' if factor.unit else ''}{factor.unit})"
                table.add_row(
                    name + " *" * (name == self.about) if half == "s" else unit,
                    half,
                    interval(p),
                    number(factor.linear[half].score, p) if half in factor.linear else "",
                    number(p.chance, p),
                    "" if p.information is None else f"{p.information:.2f}",
                    "" if c is None else f"{c.accuracy:.2f} ±{c.accuracy_spread:.2f}",
                    "" if r is None else f"{r.precision[5]:.2f}",
                    end_section=half == "z" and not factor.parts,
                )
            for which, p in factor.parts.items():
                half, row = f"s, {which}", [interval(p), "", number(p.chance, p)]
                table.add_row("", half, *row, end_section=which == "others")
        return table

    def _caption(self) -> str:
        rows = [f"* what s is about. {self.headline}"] if self.about in self.factors else [self.headline]
        rows += self.caveats
        rows += [f"{_WHICH[which]}: {error}" for which, error in self.reconstruction.items()]
        rows += [f"swapped observations: {self.swap}"] if self.swap else []
        rows += [
            f"{name}, by a judge that learned it from real observations: {_told(j)}"
            for name, j in self.consistency.items()
        ]
        rows += [f"{_SOURCE[source]}: {made}" for source, made in self.generation.items()]
        rows += [f"put together, {name}: {told}" for name, told in self.evidence.items()]
        rows += [f"never seen, identified by {half}: {told}" for half, told in self.few_shot.items()]
        rows += [str(self.background)] if self.background else []
        return "\n".join(rows)


_WHICH = {
    "both": "reconstruction",
    "s": "from s alone",
    "z": "from z alone",
    "mean": "the mean training observation",
}


_SOURCE = {
    "real": "real held-out observations",
    "class": "generated for a class",
    "examples": "generated with the s of examples",
    "prior": "generated from the prior",
}


def _told(judged: Consistency) -> str:
    parts = {
        "real": judged.real,
        "reconstructed": judged.reconstruction,
        "swapped, of what gave s": judged.swap_s,
        "of what gave z": judged.swap_z,
    }
    told = [f"{name} {number(score.score, score)}" for name, score in parts.items() if score]
    return f"{', '.join(told)}; chance {number(judged.real.chance, judged.real)}"


def _extent(s: Probe, z: Probe) -> str:
    """How much of what s gains over the constant z gains too, by the end of its interval that is worse for us."""
    worst = z.high if z.metric == "accuracy" else z.low
    share = (worst - z.chance) / (s.score - s.chance)
    return "slightly" if share < 0.1 else "partly" if share < 0.5 else "still largely"
