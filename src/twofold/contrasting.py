"""Target and background: what varies in the one only, and how far apart their codes lie."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from twofold import metrics
from twofold.arrays import generator
from twofold.data import Dataset
from twofold.findings import Background
from twofold.method import Code, Method
from twofold.metrics.common import Skip, sample, take

FEWEST = 5  # of the target, and of the background, in either part: with fewer the two are not compared


def too_few(*parts: tuple[Dataset, Dataset | None]) -> str:
    """Why the target and the background of these parts (training, test) can't be compared; empty where they can."""
    sizes = [[0 if side is None else len(side) for side in part] for part in parts]
    if min(map(min, sizes)) >= FEWEST:
        return ""
    (target, back), (target_test, back_test) = sizes
    return (
        f"too few to compare target and background, which takes {FEWEST} of each: {target} and {back} to train on, "
        f"{target_test} and {back_test} held out"
    )


def salient(target: Dataset, back: Dataset | None) -> str | None:
    """A factor that varies in the target only, the default one first; None if nothing is known of the background's."""
    if back is None:
        return None

    def varies(part: Dataset, name: str) -> bool:
        return name in part.factors and len(part.factors[name].unique()) > 1

    names = [name for name in target.factors if back.factors and varies(target, name) and not varies(back, name)]
    return target.default if target.default in names else next(iter(names), None)


def compare(
    method: Method,
    train: Dataset,
    test: Dataset,
    codes: Code,
    codes_test: Code,
    back_train: Dataset | None,
    back_test: Dataset | None,
    probes: Sequence[str],
    train_points: int,
    test_points: int,
    seed: int,
) -> Background:
    """Codes of `train` and `test` beside those of the two parts of the background. Raises `Skip`."""
    few = too_few((train, back_train), (test, back_test))
    if few or back_train is None or back_test is None:
        raise Skip(few)

    def even(target: Code, back: Code) -> tuple[Code, Tensor]:
        n = min(len(target.s), len(back.s))
        rows = [take(code, torch.from_numpy(sample(len(code.s), n, seed))) for code in (target, back)]
        return Code(*map(torch.cat, zip(*rows))), torch.arange(2).repeat_interleave(n)

    def size(s: Tensor) -> float:
        return float((s - method.reference_s(1)).double().square().sum(1).mean())

    seen = back_train[sample(len(back_train), min(len(train), train_points // 2), seed)]
    q_s, q_z = method.posterior(back_test[sample(len(back_test), test_points, seed)].x)
    code, y = even(_first(codes, train_points // 2, seed), method.encode(seen.x))
    code_test, y_test = even(_first(codes_test, test_points // 2, seed), Code(q_s.mean, q_z.mean))
    told = metrics.leakage(code, y, code_test, y_test, seed, tuple(probes))
    points = min(len(test), len(q_z.mean) // 2, 1_000)
    shuffled = torch.from_numpy(generator(seed, 23).permutation(len(q_z.mean)))
    one, other = (q_z.mean[shuffled[i * points : (i + 1) * points]] for i in (0, 1))
    return Background(
        w2=metrics.wasserstein2(_first(codes_test, points, seed).z, one),
        w2_within=metrics.wasserstein2(one, other),
        s_target=size(codes_test.s),
        s_background=size(q_s.mean),
        variance_background=float(q_s.variance.double().sum(1).mean()),
        told_apart=told,
        points=points,
    )


def _first(code: Code, limit: int, seed: int) -> Code:
    """At most so many of them, at random."""
    return take(code, torch.from_numpy(sample(len(code.s), limit, seed)))
