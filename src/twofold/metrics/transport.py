"""Optimal transport between two sets of codes."""

from __future__ import annotations

from twofold.errors import TwofoldError
from twofold.metrics.common import code_matrix, sample


def wasserstein2(a, b, seed: int = 0, points: int = 2_000) -> float:
    """The *squared* 2-Wasserstein distance between the empirical distributions of two sets [Contrast21, Eq. 9].

        min over T >= 0 of sum_ij T_ij |a_i - b_j|^2, with rows of T summing to 1/N and columns to 1/M

    `a` is `[N, D]`, `b` is `[M, D]`; the plan is exact (network simplex). Of a set larger than `points`, a sample drawn
    by `seed` stands in, with the same indices for sets of equal size. Between two samples of *one* distribution the
    value is above zero, more so in many dimensions: compare with the value between two halves of a set.

    Raises `InputError` for empty sets, NaN, or unequal widths.
    """
    import ot  # takes half a second to load; needed here alone

    a = code_matrix(a, "a")
    b = code_matrix(b, "b", width=a.shape[1])
    if a.shape[1] == 0:
        return 0.0
    a, b = (x[sample(len(x), points, seed)].astype(float) for x in (a, b))
    value, log = ot.emd2([], [], ot.dist(a, b), numItermax=10_000_000, log=True)
    if log["warning"]:
        raise TwofoldError(f"wasserstein2: no exact plan between {len(a)} and {len(b)} points: {log['warning']}")
    return max(0.0, float(value))
