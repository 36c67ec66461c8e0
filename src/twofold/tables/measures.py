"""Measures that tables share, and the independent judge of what rows make."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from twofold import metrics
from twofold.arrays import gather
from twofold.data import Dataset
from twofold.errors import UnsupportedError
from twofold.method import Code
from twofold.metrics.common import sample
from twofold.tables.cell import Cell
from twofold.tables.table import Column

KINDS = ("linear", "mlp", "knn")
COSTS = [
    Column(name="CPU seconds", format=".0f", about="of training, in all stages"),
    Column(name="CPU ms an image", format=".4f", about="to find the codes of 1,000 images in one call"),
]
SPLIT = [  # what `split` measures
    Column(name="s", better="high", about="accuracy of the strongest probe on s"),
    Column(name="z", better="low", about="accuracy of the strongest probe on z"),
    Column(name="z bits", better="low", format=".2f", about="what that probe reads in z"),
    Column(name="s - leak", better="high", about="s less z, or less the best constant if z is below that"),
    Column(name="class of s", better="high", about="of swapped observations, by an independent classifier"),
    Column(name="MSE", better="low", format=".4f", about="of reconstructions"),
]

_judges: dict[tuple[str, str, int | None], metrics.Classifier] = {}
_learned: dict[tuple[Any, ...], metrics.Judges] = {}


def judge(part: Dataset, factor: str, steps: int | None) -> metrics.Classifier:
    """The same for every row and seed on a data set, made once in a process: it saw real observations only."""
    key = (part.hash, factor, steps)
    if key not in _judges:
        _judges.clear()
        _judges[key] = metrics.classifier(part.x, part.factors[factor], steps=steps)
    return _judges[key]


def judged(part: Dataset, names: Sequence[str], seed: int, steps: int | None) -> metrics.Judges:
    """Judges of the factors `names`, of real observations; once in a process for the cells that need the same."""
    key = (part.hash, tuple(names), seed, steps)
    if key not in _learned:
        _learned[key] = metrics.judges(part.x, {name: part.factors[name] for name in names}, seed=seed, steps=steps)
    return _learned[key]


def to_encode(cell: Cell, points: int = 1_000) -> float | None:
    """CPU milliseconds an image: the codes of `points` test images in one call. None without an encoder."""
    part = cell.test[sample(len(cell.test), points, cell.protocol.split_seed)]
    start = time.process_time()
    try:
        cell.encode(part)
    except UnsupportedError:
        return None
    return 1e3 * (time.process_time() - start) / len(part)


def pixels(part: Dataset) -> torch.Tensor:
    return gather(part.x, torch.arange(len(part)))


def split(
    cell: Cell,
    *,
    kinds: Sequence[str] = KINDS,
    points: int = 5_000,
    images: int = 1_000,
    judge_steps: int | None = None,
) -> dict[str, Any]:
    """What s and z tell of the factor, by the strongest probe; how well both rebuild an observation; whether an
    observation made of one's s and another's z shows, to a classifier that never saw the method, the class of s."""
    name, seed = str(cell.factor), cell.protocol.split_seed
    train, test = (part[sample(len(part), points, seed)] for part in (cell.train, cell.test))
    y, method = test.factors[name], cell.method
    classifier = judge(cell.train, name, judge_steps)
    some = test[sample(len(test), images, seed + 1)]
    wanted = some.factors[name]
    extra: dict[str, Any] = {"classifier": classifier.accuracy(test.x, y)}

    def shown(code: Code) -> metrics.Score:
        return classifier.accuracy(method.decode(code), wanted)

    try:
        code = cell.encode(test)
    except UnsupportedError:  # it only generates
        return {"class of s": shown(method.prior(len(wanted), wanted)), "extra": extra}
    told = metrics.leakage(cell.encode(train), train.factors[name], code, y, cell.seed, kinds)
    found: dict[str, Any] = {"z": told["z"], "z bits": told["z"].information}
    own = cell.encode(some)
    found["MSE"] = float((method.decode(own) - pixels(some)).square().mean())
    if method.sizes[0]:
        other = torch.from_numpy(cell.random(41).permutation(len(some)))
        if method.sizes[1]:
            found["class of s"] = shown(Code(own.s, own.z[other]))
        if not cell.given:
            found["s"] = told["s"]
            found["s - leak"] = told["s"].score - max(told["z"].score, told["z"].chance)
    return found | {"extra": extra | {"s": told["s"]}}


def split_and_costs(cell: Cell, **how: Any) -> dict[str, Any]:
    """`split`, and what training and a code take."""
    return {"CPU ms an image": to_encode(cell), "CPU seconds": cell.cpu_seconds} | split(cell, **how)
