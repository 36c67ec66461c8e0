"""`evaluate`: all that is measured of one split code, in one go, for any method and any data set."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor

from twofold import metrics, operations
from twofold.arrays import generator, unit
from twofold.data import Dataset
from twofold.errors import InputError, UnsupportedError, choose
from twofold.method import Code, Method
from twofold.metrics import Clustering, Probe, Retrieval
from twofold.metrics.common import Result, sample
from twofold.metrics.probe import KINDS
from twofold.progress import Progress
from twofold.supervision import Labels, Reference

MANY = 50  # classes; beyond, no linear probe (slow) and no clusters
KS = (1, 5, 10)  # neighbours retrieved
NOTHING = 0.02  # of what a reconstruction gains over the mean observation
Verdict = Literal["clean", "empty", "leaks", "failed", "weak", "no s", "given", "unknown"]


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

    @property
    def verdict(self) -> Verdict:
        """Of the factor that s is about, by the intervals of the probes alone.

        "clean": s beats chance, z does not. "empty": the same, but z holds next to nothing. "leaks": both beat chance.
        "weak": neither does. "failed": z does, and s no better. "no s": s has no dimensions. "given": s is the label.
        "unknown": nothing was probed.
        """
        if self.about not in self.factors:
            return "unknown"
        s, z = (self.factors[self.about].leakage[half] for half in "sz")
        if self.sizes[0] == 0:
            return "no s"
        if self.given:
            return "given"
        if not s.beats_chance:
            return "failed" if z.beats_chance else "weak"
        if not z.beats_chance:
            return "empty" if "z" in self._unused else "clean"
        apart = z.high < s.low if s.metric == "accuracy" else z.low > s.high
        return "leaks" if apart else "failed"

    @property
    def caveats(self) -> list[str]:
        """What speaks against the split beside the probes, a sentence each."""
        found, errors = [], self.reconstruction
        if errors and errors["both"].mse_high >= errors["mean"].mse:
            found.append("Reconstructions are no better than the mean training observation.")
        for half in self._unused:
            found.append(f"{half} is hardly used: reconstructions without it are as good.")
        if self.swap and self.swap.label and not self.swap.label.beats_chance:
            found.append(f"Swapped observations do not keep the {self.about} of s: {interval(self.swap.label)}.")
        if back := self.background:
            if back.s_background > 0.25 * back.s_target:
                size = f"{back.s_background:.2g} beside {back.s_target:.2g} on the target"
                found.append(f"s is not at its reference value on the background: squared distance {size}.")
            if (told := back.told_apart["z"]).beats_chance:
                found.append(f"z tells target from background: {interval(told)}, chance {number(told.chance, told)}.")
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
        """What s and z tell of the factor that s is about, in one or two sentences."""
        if self.about not in self.factors:
            why = self.skipped.get(f"factor {self.about}", "no factor says what s is about")
            return f"What s and z tell was not measured: {self.skipped.get('codes', why)}."
        s, z = (self.factors[self.about].leakage[half] for half in "sz")
        accuracy, told_z = s.metric == "accuracy", interval(z)
        by = "with accuracy" if accuracy else "with a mean error of"
        chance = f"{'chance' if accuracy else 'the best constant'} {number(s.chance, s)}"
        told_s = f"s tells the {self.about} {by} {interval(s)}, {chance}"
        match self.verdict:
            case "no s":
                return f"This method has no s. z, its whole code, tells the {self.about} {by} {told_z}, {chance}."
            case "given":
                end = "z still tells it" if z.beats_chance else "from z no probe tells it better than chance"
                return f"s is the {self.about} itself, given to the encoder; {end}: {told_z}, {chance}."
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
                    f"Neither half tells the {self.about} better than {chance}: s {by} {interval(s)}, z {told_z}. "
                    "s has not learned what it should hold."
                )
            case _ if s.beats_chance:
                return f"{told_s}, but z tells it as well: {told_z}. This is not a split."
        return f"z tells the {self.about} {by} {told_z}, {chance}; s does not: {interval(s)}. The split failed."

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain Python values, ready for `json.dumps`."""
        return asdict(self) | {"verdict": self.verdict, "headline": self.headline, "caveats": self.caveats}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Evaluation:
        """The evaluation that `as_dict` wrote, through JSON or not. Raises `InputError` for another dictionary."""
        try:
            plain: dict[str, Any] = {f.name: found[f.name] for f in fields(cls)}
            plain["sizes"] = tuple(plain["sizes"])
            plain["factors"] = {name: _factor(part) for name, part in plain["factors"].items()}
            plain["reconstruction"] = {w: PixelError(**part) for w, part in plain["reconstruction"].items()}
            if (swap := plain["swap"]) is not None:
                plain["swap"] = Swap(**_with(swap, label=None if swap["label"] is None else _probe(swap["label"])))
            if (back := plain["background"]) is not None:
                told = {half: _probe(p) for half, p in back["told_apart"].items()}
                plain["background"] = Background(**_with(back, told_apart=told))
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
        for column in ("score [95 %]", "chance", "bits", "clusters", "nearest 5"):
            table.add_column(column, justify="right", no_wrap=True)
        for name, factor in self.factors.items():
            for half, p in factor.leakage.items():
                c, r, accuracy = factor.clustering.get(half), factor.retrieval.get(half), p.metric == "accuracy"
                table.add_row(
                    name + " *" * (name == self.about) if half == "s" else "" if accuracy else "(mean error)",
                    half,
                    interval(p),
                    number(p.chance, p),
                    "" if p.information is None else f"{p.information:.2f}",
                    "" if c is None else f"{c.accuracy:.2f} ±{c.accuracy_spread:.2f}",
                    "" if r is None else f"{r.precision[5]:.2f}",
                    end_section=half == "z",
                )
        return table

    def _caption(self) -> str:
        rows = [f"* what s is about. {self.headline}"] if self.about in self.factors else [self.headline]
        rows += self.caveats
        rows += [f"{_WHICH[which]}: {error}" for which, error in self.reconstruction.items()]
        rows += [f"swapped images: {self.swap}"] if self.swap else []
        rows += [str(self.background)] if self.background else []
        return "\n".join(rows)


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
    read = {"leakage": _probe, "clustering": _cluster, "retrieval": _retrieval}
    return Factor(**{name: {h: one(p) for h, p in part[name].items()} for name, one in read.items()}, note=part["note"])


def number(value: float, probe: Probe) -> str:
    """A score of `probe`, rounded for people: accuracies to two decimals, errors to two digits that count."""
    return f"{value:.2f}" if probe.metric == "accuracy" else f"{value:.2g}" if abs(value) < 10 else f"{value:.4g}"


def interval(probe: Probe) -> str:
    """`"0.97 [0.94, 0.98]"`: the score and its 95 % interval."""
    return "{} [{}, {}]".format(*(number(value, probe) for value in (probe.score, probe.low, probe.high)))


_WHICH = {
    "both": "reconstruction",
    "s": "from s alone",
    "z": "from z alone",
    "mean": "the mean training observation",
}


def evaluate(
    method: Method,
    train: Dataset,
    test: Dataset,
    *,
    seed: int = 0,
    factor: str | None = None,
    factors: Sequence[str] | None = None,
    background: str | None = None,
    clustering: bool = True,
    probes: Sequence[str] = tuple(KINDS),
    train_points: int = 10_000,
    test_points: int = 5_000,
    images: int = 1_000,
    cluster_points: int = 1_000,
    cluster_seeds: int = 3,
    progress: bool = False,
) -> Evaluation:
    """Measure the split of `method`, trained on `train`, on `test`.

    For each factor: leakage (the strongest probe from s and from z: score, 95 % interval, the best constant, bits) and,
    for classes, clusters and the precision of retrieval. Further, the error per pixel of reconstructions from both
    halves and from either, what is found again in swapped images and, for methods that learn from a reference set, the
    distance of target and background in z, the size of s on the background, and whether a probe tells the two apart.

    factor: what s is about (default: the data's default factor). factors: those to probe (default: all).
    background: "FACTOR=VALUE", as in `Dataset.reference`; for methods that learn from a reference set.
    clustering: whether to look for clusters, by t-SNE for `factor`, in the code itself for the others.
    probes: kinds to choose the strongest from.
    train_points, test_points, images: at most so many observations are encoded, and reconstructed; drawn by `seed`.
    cluster_points, cluster_seeds: at most so many are clustered, so many times.
    progress: whether to show it.

    Where the test part holds classes that training never saw (other identities), one half of it trains that factor's
    probes and the other tests them; the factor's `note` says so. Rows whose class is not known (-1) are left out.

    Raises `InputError` for unknown factors, observations of another shape, and numbers below 1. What a method or a data
    set can't have is in `.skipped`, with the reason.
    """
    for name, value in (("train_points", train_points), ("test_points", test_points), ("images", images)):
        if value < 1:
            raise InputError(f"{name}: {value}; expected at least 1")
    for name, part in (("train", train), ("test", test)):
        if not isinstance(part, Dataset):
            raise InputError(f"{name}: {type(part).__name__}; expected a Dataset, such as data.load gives")
    factor = train.default if factor is None else factor
    for argument, names in (("factor", [factor] if factor else []), ("factors", factors or [])):
        for name in names:
            choose(argument, name, train.factors)
    backs = None
    if method.supervision is Reference and (background or train.background is not None):
        (train, back_train), (test, back_test) = train.contrast(background), test.contrast(background)
        backs = back_train, back_test
    fit = train[sample(len(train), train_points, seed)]
    held = test[sample(len(test), test_points, seed)]
    made = partial(
        Evaluation,
        method=type(method).__name__,
        data=train.name,
        about=factor,
        n_train=len(fit),
        n_test=len(held),
        seed=seed,
    )
    try:
        encode, given = _encoder(method, fit, factor)
        code, code_test = encode(fit), encode(held)
    except UnsupportedError as error:
        none = {"factors": {}, "reconstruction": {}, "swap": None, "background": None}
        return made(sizes=(0, 0), given=False, skipped={"codes": str(error)}, **none)
    chosen = [name for name in train.factors if factors is None or name in factors]
    chosen.sort(key=lambda name: name != factor)  # the one first
    skipped: dict[str, str] = {}
    found: dict[str, Factor] = {}
    with Progress("evaluate", len(chosen) + 3, progress) as bar:
        for i, name in enumerate(chosen):
            try:
                task = _task(fit.factors[name], held.factors.get(name), code, code_test, seed)
            except _Skip as reason:
                skipped[f"factor {name}"] = str(reason)
            else:
                points = cluster_points if clustering else 0
                found[name] = _measure(task, probes, points, cluster_seeds, name == factor, seed)
            bar.update(i + 1)

        some = held[sample(len(held), images, seed + 1)]
        y = some.factors[factor] if given and factor else None
        reconstruction = _reconstruction(method, some, y, _pixels(fit[sample(len(fit), 2_000, seed)]).mean(0))
        bar.update(len(chosen) + 1)

        swap = contrast = None
        if len(some) < 2:
            skipped["swap"] = "the test part holds one observation only"
        elif min(method.sizes) == 0:
            skipped["swap"] = f"{type(method).__name__} has no {'s' if method.sizes[0] == 0 else 'z'}"
        else:
            known = None
            if factor in found and not (given or found[factor].note or fit.factors[factor].is_floating_point()):
                known = (code.s, fit.factors[factor], some.factors[factor])
            swap = _swap(method, some, y, known, seed)
        bar.update(len(chosen) + 2)

        if backs is not None:
            contrast = _background(method, fit, held, *backs, probes, train_points, test_points, seed)
        elif method.supervision is Reference:
            skipped["background"] = f"{train.name} has no background set; name one by background='FACTOR=VALUE'"
        bar.update(len(chosen) + 3)
    return made(
        sizes=method.sizes,
        given=given,
        factors=found,
        reconstruction=reconstruction,
        swap=swap,
        background=contrast,
        skipped=skipped,
    )


class _Skip(Exception):
    """Why a factor can't be measured."""


class _Task(NamedTuple):
    """Codes and values of one factor: to train the probes on, to test them on, and all of the test part."""

    train: Code
    y_train: Tensor
    test: Code
    y_test: Tensor
    whole: Code
    y_whole: Tensor
    note: str


def _encoder(method: Method, train: Dataset, factor: str | None) -> tuple[Callable[[Dataset], Code], bool]:
    """How to encode a part, and whether that takes the label."""
    try:
        method.encode(train[:1].x)
        return lambda part: method.encode(part.x), False
    except UnsupportedError:
        raise
    except InputError:
        if method.supervision is not Labels or factor is None:
            raise
    return lambda part: method.encode(part.x, part.factors[factor]), True


def _task(y_train: Tensor, y_test: Tensor | None, code: Code, code_test: Code, seed: int) -> _Task:
    if y_test is None:
        raise _Skip("the test part lacks it")
    if y_train.is_floating_point():
        _varies(y_train, y_test)
        return _Task(code, y_train, code_test, y_test, code_test, y_test, "")
    known, known_test = (y_train >= 0).nonzero()[:, 0], (y_test >= 0).nonzero()[:, 0]
    whole, y_whole = _rows(code_test, known_test), y_test[known_test]
    unseen = ~torch.isin(y_whole.unique(), y_train[known].unique())
    if not unseen.any():
        y_train = y_train[known]
        _varies(y_train, y_whole)
        return _Task(_rows(code, known), y_train, whole, y_whole, whole, y_whole, "")
    rank = _rank(y_whole.numpy(), seed)
    fit, held = (torch.from_numpy(np.flatnonzero(rank % 2 == k)) for k in (0, 1))
    _varies(y_whole[fit], y_whole[held])
    note = (
        f"{int(unseen.sum())} of the test part's {len(unseen)} classes were never seen in training: the probes learn "
        f"from {len(fit):,} of its observations and are tested on the other {len(held):,}"
    )
    return _Task(_rows(whole, fit), y_whole[fit], _rows(whole, held), y_whole[held], whole, y_whole, note)


def _varies(y_train: Tensor, y_test: Tensor) -> None:
    if len(y_test) < 2 or len(y_train) < 10:
        raise _Skip(f"{len(y_train)} known values to train a probe on and {len(y_test)} to test it; too few")
    if len(y_train.unique()) < 2:
        raise _Skip(f"it has one value only, {y_train[0].item()}")
    if not y_train.is_floating_point() and y_train.bincount().max() < 3:
        raise _Skip("no class has the three observations that a probe needs")


def _rows(code: Code, rows: Tensor) -> Code:
    return Code(code.s[rows], code.z[rows])


def _rank(y: np.ndarray, seed: int) -> np.ndarray:
    """Each row's place, at random, among those of its class."""
    order = generator(seed, 21).permutation(len(y))
    order = order[np.argsort(y[order], kind="stable")]
    counts = np.unique(y, return_counts=True)[1]
    rank = np.empty(len(y), np.int64)
    rank[order] = np.arange(len(y)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rank


def _measure(task: _Task, probes: Sequence[str], points: int, seeds: int, map_too: bool, seed: int) -> Factor:
    notes, classes = [task.note] if task.note else [], not task.y_train.is_floating_point()
    count = len(task.y_train.unique()) if classes else 0
    if count > MANY and len(probes) > 1 and "linear" in probes:
        probes = [kind for kind in probes if kind != "linear"]
        notes.append(f"{count} classes: no linear probe, no clusters")
    leakage = metrics.leakage(task.train, task.y_train, task.test, task.y_test, seed, tuple(probes))
    clusters, retrieval = {}, {}
    if classes and len(task.y_whole.unique()) > 1 and len(task.y_whole) > max(KS):
        for half in "sz":
            code = getattr(task.whole, half)
            retrieval[half] = metrics.retrieval_precision(code, task.y_whole, k=KS, seed=seed)
            if points and count <= MANY:
                clusters[half] = metrics.clustering(code, task.y_whole, None, map_too, seeds, seed, points)
    return Factor(leakage, clusters, retrieval, "; ".join(notes))


def _pixels(part: Dataset) -> Tensor:
    return unit(torch.as_tensor(np.asarray(part.x[:])))


def _reconstruction(method: Method, part: Dataset, y: Tensor | None, constant: Tensor) -> dict[str, PixelError]:
    x = _pixels(part)
    which: tuple[Literal["both", "s", "z"], ...] = ("both", "s", "z") if min(method.sizes) > 0 else ("both",)
    outputs = {w: operations.reconstruct(method, part.x, w, y) for w in which} | {"mean": constant}
    return {w: _error(out - x) for w, out in outputs.items()}


def _error(difference: Tensor) -> PixelError:
    values: list[float] = []
    for error in (difference.square(), difference.abs()):
        each = error.flatten(1).mean(1).double()
        half = 1.96 * float(each.std()) / math.sqrt(len(each)) if len(each) > 1 else 0.0
        values += [float(each.mean()), max(0.0, float(each.mean()) - half), float(each.mean()) + half]
    return PixelError(*values, n=len(difference))


def _swap(method: Method, part: Dataset, y: Tensor | None, known: tuple | None, seed: int) -> Swap:
    """s of each with the z of another. `known`: s and classes to find neighbours among, and `part`'s classes."""
    order = generator(seed, 22).permutation(len(part))
    other = torch.from_numpy(np.roll(order, 1)[np.argsort(order)])  # one cycle: none keeps its own
    code = method.encode(part.x, y)
    made = Code(code.s, code.z[other])
    again = method.encode(method.decode(made), y)
    label = None
    if known is not None:
        s, classes, wanted = known
        fit, held = classes >= 0, wanted >= 0
        label = metrics.probe(s[fit], classes[fit], again.s[held], wanted[held], "knn", seed)
    return Swap(None if y is not None else _found(made.s, again.s), _found(made.z, again.z), label, len(part))


def _found(given: Tensor, again: Tensor) -> float | None:
    spread = float((given - given.mean(0)).double().square().sum())
    return 1 - float((again - given).double().square().sum()) / spread if spread > 0 else None


def _background(
    method: Method,
    train: Dataset,
    test: Dataset,
    back_train: Dataset,
    back_test: Dataset,
    probes: Sequence[str],
    train_points: int,
    test_points: int,
    seed: int,
) -> Background:
    def even(target: Dataset, back: Dataset, limit: int) -> tuple[Code, Tensor]:
        n = min(len(target), len(back), limit)
        parts = [part[sample(len(part), n, seed)] for part in (target, back)]
        codes = [method.encode(part.x) for part in parts]
        return Code(*map(torch.cat, zip(*codes))), torch.arange(2).repeat_interleave(n)

    def size(s: Tensor) -> float:
        return float((s - method.reference_s(1)).double().square().sum(1).mean())

    code, y = even(train, back_train, train_points // 2)
    code_test, y_test = even(test, back_test, test_points // 2)
    if len(y) < 10 or len(y_test) < 4:
        raise InputError(f"background: {len(y) // 2} and {len(y_test) // 2} observations; expected 5 in each part")
    told = metrics.leakage(code, y, code_test, y_test, seed, tuple(probes))
    back = back_test[sample(len(back_test), test_points, seed)]
    q_s, q_z = method.posterior(back.x)
    points = min(len(test), len(back) // 2, 1_000)
    shuffled = torch.from_numpy(generator(seed, 23).permutation(len(back)))
    one, other = (q_z.mean[shuffled[i * points : (i + 1) * points]] for i in (0, 1))
    target = method.encode(test[sample(len(test), points, seed)].x)
    return Background(
        w2=metrics.wasserstein2(target.z, one),
        w2_within=metrics.wasserstein2(one, other),
        s_target=size(target.s),
        s_background=size(q_s.mean),
        variance_background=float(q_s.variance.double().sum(1).mean()),
        told_apart=told,
        points=points,
    )


def _extent(s: Probe, z: Probe) -> str:
    """How much of what s gains over the constant z gains too, by the end of its interval that is worse for us."""
    worst = z.high if z.metric == "accuracy" else z.low
    share = (worst - z.chance) / (s.score - s.chance)
    return "slightly" if share < 0.1 else "partly" if share < 0.5 else "still largely"
