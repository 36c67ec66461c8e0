"""Measures and trainings of tables about groups: what accumulates, what it takes, who is it among the unseen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any, Literal

import torch

from twofold import judging, methods, metrics
from twofold.data import Dataset
from twofold.distributions import Gaussian
from twofold.errors import DivergedError, InputError
from twofold.method import Code, Method
from twofold.metrics.common import sample
from twofold.tables.cell import Cell
from twofold.tables.measures import KINDS, judged, split_and_costs
from twofold.tables.table import Column

K = (*range(1, 11), 20, 50, 100)
SHOTS = (1, 2, 5, 10)
ALMOST_NONE = -14.0  # log-variance of a point: all alike, so that their product is their mean
SHORT = 5  # a training that tries a weight is so many times shorter
Rule = Literal["product", "mixture"] | None


def halves(method: Method, pair: Sequence[Any]) -> tuple[Any, Any]:
    """(s, z) of codes or posteriors. The whole code of a method without s stands as s, and has nothing beside it: it is
    compared with what is to know the class, and nobody asks of it to know nothing."""
    s, z = pair
    return (s, z) if method.sizes[0] else (z, s)


def curves(cell: Cell, *, per_class: int = 100, rule: Rule = "product", trials: int = 5) -> dict[str, Any]:
    """Accuracy, and an upper bound of H(class | code) in bits, from codes of k test images: of s, put together by
    `rule` (a mixture's multiplied, too); of z as the paper has it, each image its own; and, which is harder, of z
    multiplied. Samples, and means. Without s, the whole code as s. Points are put together as their mean. All k are in
    the cell's `extra`."""
    test, ks = cell.test, [k for k in K if k <= per_class]
    y = test.factors[str(cell.factor)]
    large = (y[y >= 0].bincount() >= 3 * per_class).nonzero()[:, 0]  # of identities few have so many
    if len(large) < 2:
        raise InputError(f"per_class: {per_class}; {len(large)} classes have three times as many test images")
    if len(large) < len(y[y >= 0].unique()):
        test = test[torch.isin(y, large)]
        y = test.factors[str(cell.factor)]
    found: dict[str, Any] = {}
    extra: dict[str, Any] = {"test images": len(y), "per_class": per_class}
    for half, q in zip("sz", halves(cell.method, cell.method.posterior(test.x))):
        q = q if bool((q.variance > 0).all()) else Gaussian(q.mean, torch.full_like(q.mean, ALMOST_NONE))
        ways: dict[str, tuple[Rule, Literal["samples", "means"]]] = {
            "s": {"s": (rule, "samples"), "s means": (rule, "means")},
            "z": {"z": (None, "samples"), "z means": (None, "means"), "z together": ("product", "samples")},
        }[half]
        if half == "s" and rule == "mixture":
            ways["s multiplied"] = ("product", "samples")
        for name, (how, codes) in ways.items() if q.mean.shape[1] else ():
            made = metrics.evidence(q, y, per_class, k=ks, evidence=how, codes=codes, trials=trials, seed=cell.seed)
            extra[name] = made
            for k, right, bits in zip(ks, made.curve("accuracy")[0], made.curve("bits")[0]):
                found |= {f"{name}, k={k}": float(right), f"{name} bits, k={k}": float(bits)}
    known = {column.name for column in CURVES}
    return {name: value for name, value in found.items() if name in known} | {"extra": extra}


def costs(cell: Cell, *, points: int = 1_000, weights: Sequence[float] = (), **more: Any) -> dict[str, Any]:
    """What s and z tell, as `split` measures it, of codes of few images; and what it takes to find a code. `weights`:
    those that `tuned` tries."""
    found = split_and_costs(cell, points=points, **more)
    if not cell.method.sizes[0]:  # as in `halves`
        found["s"] = found.pop("z")
        del found["z bits"]
    if cell.notes:
        found["extra"]["weights tried"] = cell.notes
    return found


def in_two_stages(cell: Cell) -> Method:
    """A `GroupSVI`, then an encoder that learns from what it generates."""
    svi: Any = cell.fit(cell.build("group-svi"))
    two: Any = methods.get("svi-encode")
    return cell.fit(two(svi))


def tuned(cell: Cell, told: Callable[[Cell, Dataset, Dataset], dict[str, float]], by: str | None = None) -> Method:
    """The regularised objective at that `lambda_s` (of the protocol's `weights`) whose s tells the most, less what z
    tells, after a fifth of the length: of the part between training and test, or, where there is none, of a fifth of
    the training part that these trainings leave out."""
    p, best, most = cell.protocol, None, -float("inf")
    spare = len(cell.parts) < 3
    fit, held = cell.train.split((0.8, 0.2), p.split_seed, by=by) if spare else (cell.train, cell.validation)
    length = {"steps": max(1, p.steps // SHORT)} if p.steps else {"epochs": (p.epochs or SHORT) / SHORT}
    for weight in p.measure["weights"]:
        try:
            cell.method = cell.fit(cell.build(lambda_s=weight), cell.supervision(str(cell.row.method), fit), **length)
        except DivergedError as reason:
            cell.notes[f"lambda_s {weight:g}"] = str(reason)
            continue
        cell.notes[f"lambda_s {weight:g}"] = found = told(cell, fit, held)
        if found["s"] - found["z"] > most:
            best, most = weight, found["s"] - found["z"]
    if best is None:
        raise DivergedError(f"lambda_s: no weight trained to the end; tried: {', '.join(cell.notes)}")
    cell.notes["chosen"] = best
    return cell.fit(cell.build(lambda_s=best))


def of_class(cell: Cell, fit: Dataset, held: Dataset, points: int = 1_000) -> dict[str, float]:
    """What s and z tell of the class, by the strongest of the table's probes."""
    name, kinds = str(cell.factor), cell.protocol.measure.get("kinds", KINDS)
    few = [part[sample(len(part), points, cell.protocol.split_seed)] for part in (fit, held)]
    (a, y), (b, wanted) = ((cell.encode(part), part.factors[name]) for part in few)
    told = metrics.leakage(a, y, b, wanted, cell.seed, kinds)
    return {half: told[half].score for half in "sz"}


def of_identities(cell: Cell, _: Dataset, held: Dataset, points: int = 3_000) -> dict[str, float]:
    """What s and z tell of identities that training did not see, from 5 examples of each."""
    few = held[sample(len(held), points, cell.protocol.split_seed)]
    y = few.factors[str(cell.factor)]
    return {
        half: float(metrics.few_shot(q, y, (5,), seed=cell.seed).curve("centroid")[0][0])
        for half, q in zip("sz", cell.method.posterior(few.x))
    }


def best_for_classes(cell: Cell) -> Method:
    return tuned(cell, of_class)


def best_for_identities(cell: Cell) -> Method:
    return tuned(cell, of_identities, by=str(cell.factor))


def unseen(
    cell: Cell,
    *,
    pose: Sequence[str],
    points: int = 6_000,
    kinds: Sequence[str] = KINDS,
    judge_steps: int = 1_500,
    weights: Sequence[float] = (),
) -> dict[str, Any]:
    """Identities that training never saw: who is it, given k images of each; what z and s tell of the `pose`; and
    whether a swap shows, to judges of real images, whose s and which z it has. Probes for the pose and judges learn
    from half of these images, of all identities, and see the other half. Without s, the whole code as s. `weights`:
    those that `tuned` tries."""
    name, seed = str(cell.factor), cell.protocol.split_seed
    part = cell.test[sample(len(cell.test), points, seed)]
    found: dict[str, Any] = {}
    extra: dict[str, Any] = {"weights tried": cell.notes} if cell.notes else {}
    product = getattr(cell.method, "evidence", "product") == "product"
    for half, q in zip("sz", halves(cell.method, cell.method.posterior(part.x))):
        if q.mean.shape[1]:
            made = metrics.few_shot(q if product else q.mean, part.factors[name], SHOTS, seed=cell.seed)
            extra[f"{half} few-shot"] = made
            for k, near, probe in zip(SHOTS, made.curve("centroid")[0], made.curve("probe")[0]):
                found |= {f"{half}, k={k}": float(near), f"{half} probe, k={k}": float(probe)}
    learned, rest = part.split((0.5, 0.5), seed, stratify=name)
    a, b = (Code(*halves(cell.method, cell.encode(piece))) for piece in (learned, rest))
    told = {
        about: metrics.leakage(a, learned.factors[about], b, rest.factors[about], cell.seed, kinds) for about in pose
    }
    for half in "sz" if all(cell.method.sizes) else "s":
        found[f"{half} pose"] = fmean(each[half].score for each in told.values())
    if all(cell.method.sizes):
        judges = judged(learned, [name, *pose], seed, judge_steps)
        other = torch.from_numpy(cell.random(41).permutation(len(rest)))
        swapped = cell.method.decode(Code(b.s, b.z[other]))
        seen = judging.consistency(judges, rest, rest, None, swapped, other)

        def score(factor: str, what: str) -> float:
            return getattr(seen[factor], what).score

        found |= {"swap shows s": score(name, "swap_s"), "judge": score(name, "real")}
        found["swap shows z"] = fmean(score(about, "swap_z") for about in pose)
        found["judge pose"] = fmean(score(about, "real") for about in pose)
        extra["judges"] = seen
    known = {column.name for column in UNSEEN}
    return {k: v for k, v in found.items() if k in known} | {"extra": extra | {"pose": told}}


UNSEEN = [
    *(Column(name=f"s, k={k}", better="high", about="accuracy of the nearest centroid in s") for k in SHOTS),
    *(Column(name=f"z, k={k}", better="low", about="accuracy of the nearest centroid in z") for k in SHOTS),
    Column(name="s probe, k=5", better="high", about="accuracy of a logistic regression on s"),
    Column(name="z probe, k=5", better="low", about="accuracy of a logistic regression on z"),
    Column(name="z pose", better="high", about="accuracy of the strongest probe on z, mean over the pose's factors"),
    Column(name="s pose", better="low", about="the same on s"),
    Column(name="swap shows s", better="high", about="a judge's accuracy for the identity that s came from"),
    Column(name="swap shows z", better="high", about="the same for the pose that z came from"),
    Column(name="judge", about="its accuracy for the identity on real images"),
    Column(name="judge pose", about="the same for the pose, mean over its factors"),
    Column(name="seconds", format=".0f"),
]
CURVES = [
    *(Column(name=f"s, k={k}", better="high", about="accuracy from s, samples") for k in (1, 2, 5, 10, 100)),
    *(
        Column(name=f"s bits, k={k}", better="low", format=".2f", about="of H(digit | s), at most")
        for k in (1, 10, 100)
    ),
    *(Column(name=f"s means, k={k}", better="high", about="accuracy from the means of s") for k in (1, 10, 100)),
    *(
        Column(name=f"s multiplied, k={k}", better="high", about="accuracy from a mixture's s, multiplied, samples")
        for k in (1, 10)
    ),
    Column(name="z, k=1", better="low", about="accuracy from z, samples, each image its own"),
    Column(name="z bits, k=1", better="high", format=".2f", about="of H(digit | z), at most"),
    Column(name="z means, k=1", better="low", about="accuracy from the means of z, each image its own"),
    *(
        Column(name=f"z together, k={k}", better="low", about="accuracy from k images' z together")
        for k in (1, 10, 100)
    ),
    Column(name="z together bits, k=10", better="high", format=".2f", about="of H(digit | z together), at most"),
    Column(name="seconds", format=".0f", about="of training"),
]
