"""What probes tell of a factor from s and from z, and which of its classes they may learn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from twofold import judging, metrics
from twofold.accumulation import FEWEST
from twofold.data import Dataset
from twofold.findings import Factor
from twofold.method import Code
from twofold.metrics import Probe
from twofold.metrics.common import Skip, take
from twofold.metrics.leakage import family

MANY = 50  # classes; beyond, no linear probe (slow) and no clusters
KS = (1, 5, 10)  # neighbours retrieved
LEARN, TEST, ONE = 10, 2, 3  # known values that probes take: to learn from, to test them, and of some class to learn


class Task(NamedTuple):
    """Codes and values of one factor: to train the probes on, to test them on, and all of the test part."""

    train: Code
    y_train: Tensor
    test: Code
    y_test: Tensor
    whole: Code
    y_whole: Tensor
    note: str


def too_few(y: Tensor) -> str:
    """What held-out classes `y [N]`, none of which training sees, are too few for; empty where they are enough."""
    counts = y[y >= 0].bincount()
    counts = counts[counts > 0]
    learn, test = (counts + 1) // 2, counts // 2  # halves of each class: see `task`
    probed = len(counts) > 1 and learn.sum() >= LEARN and test.sum() >= TEST and learn.max() >= ONE
    enough = {
        "leakage": bool(probed),
        "few-shot identification": int((counts > 1).sum()) > 1,
        "evidence": int((counts >= FEWEST).sum()) > 1,
    }
    lacking = [what for what, can in enough.items() if not can]
    if not lacking:
        return ""
    return (
        f"{int(counts.sum())} observations of {len(counts)} classes are too few to measure {', '.join(lacking)}; "
        f"{2 * LEARN} in all, {FEWEST} of each class, are enough"
    )


def strangers(fit: Dataset, held: Dataset, names: list[str], lacked: str) -> tuple[set[str], dict[str, str]]:
    """The factors of which most known test rows are of classes that `fit` lacks. Where fewer are, those rows become
    unknown in `held`, and the second says so: one stray class is no reason to measure all the others otherwise.

    lacked: what to say of such classes.
    """
    new, strays = set(), {}
    for name in names:
        y, y_test = fit.factors[name], held.factors.get(name)
        if y_test is None or y.is_floating_point():
            continue
        known = y_test >= 0
        unseen = known & ~torch.isin(y_test, y[y >= 0])
        if 2 * int(unseen.sum()) > int(known.sum()):
            new.add(name)
        elif unseen.any():
            held.factors[name] = torch.where(unseen, -1, y_test)
            strays[name] = (
                f"{len(y_test[unseen].unique())} of the test part's {len(y_test[known].unique())} classes {lacked}: "
                f"their {int(unseen.sum()):,} observations are left out"
            )
    return new, strays


def task(
    y_train: Tensor,
    y_test: Tensor | None,
    code: Code,
    code_test: Code,
    seed: int,
    lacked: str | None,
    note: str,
    names: Sequence[str] = (),
) -> Task:
    """Raises `Skip`. lacked: where most of the test part's classes are none of `y_train`'s, what to say of them."""
    if y_test is None:
        raise Skip("the test part lacks it")
    if y_train.is_floating_point():
        _varies(y_train, y_test, ())
        return Task(code, y_train, code_test, y_test, code_test, y_test, note)
    known, known_test = (y_train >= 0).nonzero()[:, 0], (y_test >= 0).nonzero()[:, 0]
    whole, y_whole = take(code_test, known_test), y_test[known_test]
    if lacked is None:
        y_train = y_train[known]
        _varies(y_train, y_whole, names)
        return Task(take(code, known), y_train, whole, y_whole, whole, y_whole, note)
    unseen = ~torch.isin(y_whole.unique(), y_train[known].unique())
    rank = judging.rank(y_whole.numpy(), seed)
    fit, held = (torch.from_numpy(np.flatnonzero(rank % 2 == k)) for k in (0, 1))
    _varies(y_whole[fit], y_whole[held], names)
    note = (
        f"{int(unseen.sum())} of the test part's {len(unseen)} classes {lacked}: the probes learn from "
        f"{len(fit):,} of its observations and are tested on the other {len(held):,}"
    )
    return Task(take(whole, fit), y_whole[fit], take(whole, held), y_whole[held], whole, y_whole, note)


def _varies(y_train: Tensor, y_test: Tensor, names: Sequence[str]) -> None:
    if len(y_test) < TEST or len(y_train) < LEARN:
        raise Skip(f"{len(y_train)} known values to train a probe on and {len(y_test)} to test it; too few")
    if len(y_train.unique()) < 2:
        value = y_train[0].item()
        raise Skip(f"it has one value only, {names[int(value)] if names else value}")
    if not y_train.is_floating_point() and y_train.bincount().max() < ONE:
        raise Skip("no class has the three observations that a probe needs")


def measure(
    task: Task, probes: Sequence[str], points: int, seeds: int, map_too: bool, seed: int, part: slice | None = None
) -> Factor:
    """part: the columns of s that are about this factor, where s is divided."""
    notes, classes = [task.note] if task.note else [], not task.y_train.is_floating_point()
    count = len(task.y_train.unique()) if classes else 0
    if count > MANY and len(probes) > 1 and "linear" in probes:
        probes = [kind for kind in probes if kind != "linear"]
        notes.append(f"{count} classes: no linear probe, no clusters")
    tried = family(task.train, task.y_train, task.test, task.y_test, seed, tuple(probes), also=("linear",))
    clusters, retrieval = {}, {}
    if classes and len(task.y_whole.unique()) > 1 and len(task.y_whole) > max(KS):
        for half in "sz":
            code = getattr(task.whole, half)
            retrieval[half] = metrics.retrieval_precision(code, task.y_whole, k=KS, seed=seed)
            if points and count <= MANY:
                clusters[half] = metrics.clustering(code, task.y_whole, None, map_too, seeds, seed, points)
    strongest = {half: next(iter(results.values())) for half, results in tried.items()}
    linear = {half: results["linear"] for half, results in tried.items() if "linear" in results}
    parts = {} if part is None else _parts(task, part, probes, seed)
    return Factor(strongest, clusters, retrieval, "; ".join(notes), linear, parts=parts)


def _parts(task: Task, part: slice, probes: Sequence[str], seed: int) -> dict[str, Probe]:
    rest = [i for i in range(task.train.s.shape[1]) if i not in range(part.start, part.stop)]
    train, test = (Code(code.s[:, part], code.s[:, rest]) for code in (task.train, task.test))
    told = metrics.leakage(train, task.y_train, test, task.y_test, seed, probes)
    return {"own": told["s"], "others": told["z"]}
