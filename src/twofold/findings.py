"""The parts of what an evaluation found, and how they are read again from JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from twofold.metrics import Clustering, Diversity, Evidence, FewShot, Probe, Retrieval, Score
from twofold.metrics.common import Result


@dataclass(frozen=True)
class Factor:
    """What the halves tell of one factor, measured on the test part."""

    leakage: dict[str, Probe]
    """`{"s": Probe, "z": Probe}`: the strongest probe of the family, chosen without the test part."""
    clustering: dict[str, Clustering] = field(default_factory=dict)
    """Of classes: per half, clusters in its t-SNE map (of the factor that s is about) or in the code itself."""
    retrieval: dict[str, Retrieval] = field(default_factory=dict)
    """Of classes: per half, the precision among the nearest in the test part."""
    note: str = ""
    """Where the protocol differs from: train on the training part, test on the test part, all probes."""
    linear: dict[str, Probe] = field(default_factory=dict)
    """The linear probe of each half, as papers report it: accuracies, or errors in `unit`. The strongest may be it."""
    unit: str = ""
    parts: dict[str, Probe] = field(default_factory=dict)
    """Where s has a part for this grouping: the strongest probe of that part ("own"), and of all others ("others")."""

    def told(self, half: str) -> Probe:
        """What a verdict rests on: the probe chosen without the test part, or the linear one, where only that one beats
        chance. Among few observations the choice may fall on the wrong one."""
        chosen, linear = self.leakage[half], self.linear.get(half)
        return linear if linear and linear.beats_chance and not chosen.beats_chance else chosen


@dataclass(frozen=True, repr=False)
class PixelError(Result):
    """Squared and absolute error of a reconstruction, per pixel (or column), images in [0, 1]; 95 % intervals."""

    mse: float
    mse_low: float
    mse_high: float
    mae: float
    mae_low: float
    mae_high: float
    n: int

    def __str__(self) -> str:
        return f"MSE {self.mse:.3g} [{self.mse_low:.3g}, {self.mse_high:.3g}], MAE {self.mae:.3g}"


@dataclass(frozen=True, repr=False)
class Swap(Result):
    """What is found again when an image of one observation's s and another's z is encoded."""

    s: float | None  # share of the variance of s that comes back (R²; a constant scores 0); None: no such half
    z: float | None
    label: Probe | None  # the s found, classed by its neighbours: is it the class of what gave s?
    n: int

    def __str__(self) -> str:
        parts = [f"R² of {half} {value:.3f}" for half, value in (("s", self.s), ("z", self.z)) if value is not None]
        return ", ".join([*parts, *([f"class kept {self.label}"] if self.label else [])]) or "no halves to swap"


@dataclass(frozen=True)
class Consistency:
    """What a judge of one factor, which learned it from real training observations only, finds in made ones."""

    real: Score
    """In held-out real ones: no number below says more than this one allows."""
    reconstruction: Score | None = None
    swap_s: Score | None = None
    """In swapped ones: the value of what gave s."""
    swap_z: Score | None = None
    """The value of what gave z."""


@dataclass(frozen=True, repr=False)
class Generated(Result):
    """New observations (or real ones, to compare), of the classes of what s is about."""

    inception: float  # Inception Score by the judge: 1 to the number of classes; compare with the real ones'
    kept: Score | None  # the class that was asked for (of real ones: their own), found by the judge
    diversity: Diversity | None  # within classes; of images
    n: int

    def __str__(self) -> str:
        parts = [f"{interval(self.kept)} of the class that they should have"] if self.kept else []
        parts.append(f"Inception Score {self.inception:.2f}")
        parts += [f"intra-class diversity {self.diversity.without_self:.3f}"] if self.diversity else []
        return ", ".join(parts)


@dataclass(frozen=True, repr=False)
class Background(Result):
    """A target set beside its background, on the test part. Squares are summed over a half's dimensions."""

    w2: float  # squared Wasserstein distance of z, target to background [Contrast21, Eq. 9]
    w2_within: float  # the same between two halves of the background: what sampling alone makes
    s_target: float  # mean squared distance of the posterior mean of s from its reference value (`reference_s`)
    s_background: float
    variance_background: float  # the mean of the posterior's summed variance of s
    told_apart: dict[str, Probe]  # target or background? from s and from z; even numbers of both
    points: int  # in each of the sets that w2 and w2_within compare

    def __str__(self) -> str:
        return (
            f"squared W2 of z {self.w2:.3g} (within the background {self.w2_within:.3g}), squared size of s "
            f"{self.s_target:.3g} on the target and {self.s_background:.3g} on the background"
        )


def number(value: float, probe: Probe | Score) -> str:
    """A score of `probe`, rounded for people: accuracies to two decimals, errors to two digits that count."""
    return f"{value:.2f}" if probe.metric == "accuracy" else f"{value:.2g}" if abs(value) < 10 else f"{value:.4g}"


def interval(probe: Probe | Score) -> str:
    """`"0.97 [0.94, 0.98]"`: the score and its 95 % interval."""
    return "{} [{}, {}]".format(*(number(value, probe) for value in (probe.score, probe.low, probe.high)))


def _whole(keyed: Mapping[Any, float]) -> dict[Any, float]:
    """With the whole numbers that JSON made text of."""
    return {int(k) if str(k).isdigit() else k: value for k, value in keyed.items()}


def _with(fields: Mapping[str, Any], **changed: Any) -> dict[str, Any]:
    return {**fields, **changed}


def _probe(p: Mapping[str, Any]) -> Probe:
    return Probe(**_with(p, per_class=None if p["per_class"] is None else _whole(p["per_class"])))


def _cluster(c: Mapping[str, Any]) -> Clustering:
    direct = None if c["direct"] is None else _cluster(c["direct"])
    return Clustering(**_with(c, accuracies=tuple(c["accuracies"]), direct=direct))


def _retrieval(r: Mapping[str, Any]) -> Retrieval:
    return Retrieval(**_with(r, precision=_whole(r["precision"]), error=_whole(r["error"])))


def _factor(part: Mapping[str, Any]) -> Factor:
    read = {"leakage": _probe, "clustering": _cluster, "retrieval": _retrieval, "linear": _probe, "parts": _probe}
    halves = {name: {h: one(p) for h, p in part.get(name, {}).items()} for name, one in read.items()}
    return Factor(**halves, note=part["note"], unit=part.get("unit", ""))


def _score(s: Mapping[str, Any]) -> Score:
    return Score(**_with(s, per_class=None if s["per_class"] is None else _whole(s["per_class"])))


def _consistency(part: Mapping[str, Any]) -> Consistency:
    return Consistency(**{name: _score(score) for name, score in part.items() if score is not None})


def _generated(part: Mapping[str, Any]) -> Generated:
    if d := part["diversity"]:
        keyed = {name: _whole(d[name]) for name in ("per_class", "per_class_without_self")}
        d = Diversity(**_with(d, weights=tuple(d["weights"]), **keyed))
    return Generated(**_with(part, kept=part["kept"] and _score(part["kept"]), diversity=d))


def _trials(kind: type, part: Mapping[str, Any]) -> Any:
    tuples = {name: tuple(map(tuple, v)) if name != "k" else tuple(v) for name, v in part.items() if type(v) is list}
    return kind(**_with(part, **tuples))


def _swap(part: Mapping[str, Any]) -> Swap:
    return Swap(**_with(part, label=None if part["label"] is None else _probe(part["label"])))


def _background(part: Mapping[str, Any]) -> Background:
    return Background(**_with(part, told_apart={half: _probe(p) for half, p in part["told_apart"].items()}))


READ: dict[str, Callable[[Any], Any]] = {"swap": _swap, "background": _background}
"""Fields of an evaluation, each None or a part: what makes that of what JSON holds."""
READ_EACH: dict[str, Callable[[Any], Any]] = {
    "factors": _factor,
    "reconstruction": lambda part: PixelError(**part),
    "consistency": _consistency,
    "generation": _generated,
    "evidence": partial(_trials, Evidence),
    "few_shot": partial(_trials, FewShot),
}
"""The same of fields that are dictionaries of such parts."""
