"""What a few seeds can say: means with intervals, paired tests, and nothing that they can't."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Literal

from scipy import stats

from twofold.errors import InputError

LEVEL = 0.05  # of every test and, as its complement, of every interval


@dataclass(frozen=True)
class Summary:
    """Seeds as units: mean, standard deviation and Student's 95 % interval of the mean; one seed has the mean alone."""

    n: int
    mean: float
    sd: float | None = None
    low: float | None = None
    high: float | None = None


def summary(values: Sequence[float]) -> Summary:
    """Of one value a seed, at least one."""
    if not values:
        raise InputError("values: none; expected one a seed")
    n, mean = len(values), fmean(values)
    if n == 1:
        return Summary(1, mean)
    sd = stdev(values)
    half = float(stats.t.ppf(1 - LEVEL / 2, n - 1)) * sd / n**0.5
    return Summary(n, mean, sd, mean - half, mean + half)


def against(found: Summary, printed: float, better: str | None) -> Literal["ahead", "behind", "level"] | None:
    """Ours beside a printed value, which comes without a spread: ahead or behind if our whole interval is (a
    one-sample t-test at 5 %), else level. None where one seed, or a column without a better side, can't tell."""
    if better is None or found.low is None or found.high is None:
        return None
    if found.low <= printed <= found.high:
        return "level"
    return "ahead" if (found.mean > printed) == (better == "high") else "behind"


@dataclass(frozen=True)
class Paired:
    """One row less another over the seeds that both have: mean difference, 95 % interval, p of the paired t-test."""

    n: int
    difference: float
    low: float
    high: float
    p: float


def paired(a: Mapping[int, float], b: Mapping[int, float]) -> Paired | None:
    """`a - b`, each {seed: value}. None with fewer than two shared seeds.

    Student's t takes the differences as normal, which three seeds can't show; signs or ranks of three differences
    could never reach 5 % (the smallest p of Wilcoxon's test is 0.25 there), so this is the test that there is.
    Differences all alike (two deterministic rows, say) have no spread, and seeds then say nothing: p is 1.
    """
    seeds = sorted(a.keys() & b.keys())
    if len(seeds) < 2:
        return None
    found = summary([a[seed] - b[seed] for seed in seeds])
    assert found.sd is not None  # two seeds at least
    if found.sd <= 1e-12 * max(abs(found.mean), 1e-300):
        return Paired(found.n, found.mean, found.mean, found.mean, 1.0)
    t = found.mean / (found.sd / found.n**0.5)
    p = float(2 * stats.t.sf(abs(t), found.n - 1))
    return Paired(found.n, found.mean, found.low or 0.0, found.high or 0.0, p)


def holm(p: Sequence[float]) -> list[float]:
    """p-values adjusted for their number [Holm, 1979], in their order."""
    adjusted, running = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        running = max(running, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = running
    return adjusted


@dataclass(frozen=True)
class Best:
    """The row with the best mean; each other one's difference from it, with the corrected p; whether all are beaten."""

    name: str | None = None
    tests: Mapping[str, tuple[Paired, float]] = field(default_factory=dict)
    won: bool = False


def best(rows: Mapping[str, Mapping[int, float]], better: str) -> Best:
    """The row with the best mean, and whether it is better than every other one, each by a paired t-test at 5 % after
    Holm's correction; where a row shares fewer than two seeds with it, it isn't.

    `rows`: {row: {seed: value}}. With fewer than two rows there is no best.
    """
    rows = {name: values for name, values in rows.items() if values}
    if len(rows) < 2:
        return Best()
    sign = 1 if better == "high" else -1
    first = max(rows, key=lambda name: sign * fmean(rows[name].values()))
    tests = {name: test for name, values in rows.items() if name != first and (test := paired(values, rows[first]))}
    adjusted = holm([test.p for test in tests.values()])
    beaten = [p < LEVEL and sign * test.difference < 0 for test, p in zip(tests.values(), adjusted)]
    won = len(tests) == len(rows) - 1 and all(beaten)
    return Best(first, {name: (test, p) for (name, test), p in zip(tests.items(), adjusted)}, won)
