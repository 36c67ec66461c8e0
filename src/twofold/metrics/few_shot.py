"""Few-shot identification: who is it, given k observations of each of some that training never saw?"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from twofold.arrays import generator
from twofold.distributions import Point
from twofold.errors import InputError, whole
from twofold.metrics.common import class_target, code_matrix, wholes
from twofold.metrics.evidence import Trials, gaussian

WAYS = 100  # identities told apart at a time, unless said


@dataclass(frozen=True, repr=False)
class FewShot(Trials):
    """Accuracies in [0, 1] on queries, `[trials][len(k)]` each."""

    k: tuple[int, ...]
    centroid: tuple[tuple[float, ...], ...]
    probe: tuple[tuple[float, ...], ...]
    ways: int  # identities told apart in each trial
    queries: int  # of each identity
    left_out: int  # identities with too few observations
    chance: float

    def __str__(self) -> str:
        lines = f"nearest centroid {self._line('centroid')}; probe {self._line('probe')}"
        return f"{lines}; {self.ways} ways, chance {self.chance:.3f}"


def few_shot(
    codes,
    y,
    k: int | Sequence[int] = (1, 2, 5),
    *,
    ways: int | None = None,
    queries: int = 15,
    trials: int = 10,
    seed: int = 0,
) -> FewShot:
    """Identify observations from k examples of each identity, by codes of identities that training never saw.

    codes: `[N, d]`, or their Gaussians, as `Method.posterior` gives for s: then an identity's centroid is the mean of
    the examples' product [Bouchacourt18, Eqs. 6-7], else their average. y `[N]`: identities, whole numbers or names.
    k: how many examples, a number or several. ways: identities in a trial, drawn at random (default: all, at most 100).
    queries: at most so many observations of each identity are identified, the same for every k, never an example of any
    k.

    "centroid" is the nearest one by Euclidean distance. "probe" is a logistic regression on the examples (C = 1, codes
    standardised by them): with so few, nothing can be tuned. Both take the queries' means. An identity with no more
    than max(k) observations is left out, and counted in `left_out`.

    Raises `InputError` if fewer than two identities are left, and for numbers that are not whole or out of range.
    """
    codes = codes.mean if isinstance(codes, Point) else codes
    q = gaussian(codes, "codes") if hasattr(codes, "variance") else None
    x = torch.from_numpy(code_matrix(codes, "codes")) if q is None else q.mean
    names, dense = np.unique(class_target(y, len(x), "y"), return_inverse=True)
    trials, queries, seed = whole("trials", trials, 1), whole("queries", queries, 1), whole("seed", seed, 0)
    ways = None if ways is None else whole("ways", ways, 2)
    ks = wholes("k", k)
    counts = np.bincount(dense)
    able = np.flatnonzero(counts > max(ks))
    if len(able) < 2:
        raise InputError(f"k: {max(ks)}; {len(able)} of {len(names)} identities have more observations, expected two")
    if ways is not None and ways > len(able):
        raise InputError(f"ways: {ways}; {len(able)} identities have more than {max(ks)} observations")
    ways = ways or min(len(able), WAYS)
    queries = min(queries, int(counts[able].min()) - max(ks))
    first = np.cumsum(counts) - counts
    found = []
    for trial in range(trials):
        random = generator(seed, 43, trial)
        shuffled = random.permutation(len(dense))
        rows = shuffled[np.argsort(dense[shuffled], kind="stable")]
        who = random.choice(able, ways, replace=False)
        chosen = rows[first[who][:, None] + np.arange(max(ks) + queries)]
        asked, label = x[chosen[:, max(ks) :].ravel()], np.repeat(np.arange(ways), queries)
        found.append([])
        for size in ks:
            examples = torch.from_numpy(chosen[:, :size])
            centroids = x[examples].mean(1) if q is None else q[examples].product(dim=1).mean
            near = torch.cdist(asked, centroids).argmin(1).numpy()
            told = _probe(x[examples.flatten()].numpy(), np.repeat(np.arange(ways), size), asked.numpy())
            found[-1].append((float((near == label).mean()), float((told == label).mean())))
    centroid, probe = (tuple(tuple(at[i] for at in each) for each in found) for i in (0, 1))
    return FewShot(ks, centroid, probe, ways, queries, len(names) - len(able), 1 / ways)


def _probe(x: np.ndarray, y: np.ndarray, asked: np.ndarray) -> np.ndarray:
    mean, scale = x.mean(0), x.std(0)
    scale[scale == 0] = 1
    with warnings.catch_warnings():  # with one example each, there are as many classes as examples
        warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%", UserWarning)
        model = LogisticRegression(max_iter=1000).fit((x - mean) / scale, y)
    return model.predict((asked - mean) / scale)
