"""Do the neighbourhoods of a code follow the labels? Clusters and retrieval."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from statistics import fmean, stdev

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import silhouette_score
from sklearn.metrics.cluster import contingency_matrix
from sklearn.neighbors import NearestNeighbors

from twofold.errors import InputError
from twofold.metrics.common import Result, class_target, code_matrix, sample

PERPLEXITY = 30
EXAGGERATED, PLAIN = 250, 250  # iterations; twice the second changes the divergence by 2 %
ANGLE = 0.8  # of Barnes-Hut: half the time of 0.5, the divergence within 2 %


@dataclass(frozen=True, repr=False)
class Clustering(Result):
    """Clusters of a code against labels: means over the seeds, and `*_spread`, their standard deviation."""

    accuracy: float  # of the best one-to-one match of clusters and labels
    accuracy_spread: float
    silhouette: float  # of the true labels
    silhouette_spread: float
    silhouette_clusters: float  # of the clusters found
    silhouette_clusters_spread: float
    chance: float  # matched accuracy of the same clusters with their members drawn at random
    space: str  # what was clustered: "t-SNE" (its 2D map) or "code"
    k: int
    n: int
    accuracies: tuple[float, ...]  # one a seed
    direct: Clustering | None = None  # the same on the code itself

    def __float__(self) -> float:
        return self.accuracy

    def __str__(self) -> str:
        text = (
            f"{self.accuracy:.3f} ± {self.accuracy_spread:.3f} ({self.space}), chance {self.chance:.3f}, "
            f"silhouette {self.silhouette:.3f} (clusters {self.silhouette_clusters:.3f})"
        )
        return text if self.direct is None else f"{text}; {self.direct}"


def clustering(
    codes, labels, k: int | None = None, tsne: bool = True, seeds: int = 5, seed: int = 0, points: int = 5_000
) -> Clustering:
    """Cluster codes and match the clusters with labels [Contrast21, Sec. 4, "Evaluation Metrics"].

    The codes `[N, D]` are mapped to two dimensions by t-SNE (perplexity 30, or a third of the points if that is less),
    clustered there by k-means into `k` clusters (default: as many as there are labels), and the clusters matched one to
    one with the labels `[N]` (classes) so that the accuracy is largest. `silhouette` is that of the true labels in the
    map, `silhouette_clusters` that of the clusters; both lie in [-1, 1], and are 0 where there is only one cluster.

    t-SNE starts at random: all is done `seeds` times. The same by k-means on the code itself is always there, as
    `.direct` (or as the result itself with `tsne=False`). More than `points` codes are sampled once, by `seed`. Codes
    without width, or all equal, make one cluster: the share of the largest class.

    `chance` keeps the sizes of the clusters and draws their members at random; the match makes it larger than 1/k.

    Raises `InputError` for unequal or empty arrays, NaN, one label only, real-valued labels, and a `k` outside 1 to N.
    """
    x = code_matrix(codes, "codes")
    y = np.unique(class_target(labels, len(x), "labels"), return_inverse=True)[1]
    rows = sample(len(x), points, seed)
    x, y = x[rows].astype(np.float64), y[rows]
    if len(x) < 4:
        raise InputError(f"codes: {len(x)} codes; expected at least 4 to look for clusters in")
    if len(np.unique(y)) < 2:
        raise InputError("labels: only one class; clusters need at least two to be matched with")
    k = len(np.unique(y)) if k is None else k
    if not 1 <= k <= len(x):
        raise InputError(f"k: {k}; expected 1 to {len(x)}, the number of codes")
    if seeds < 1:
        raise InputError(f"seeds: {seeds}; expected at least 1")
    numbers = range(seed, seed + seeds)
    if x.shape[1] == 0:
        x = np.zeros((len(x), 1))
    same = bool((x == x[0]).all())
    direct = _summary([x], y, k, numbers, "code")
    if not tsne:
        return direct
    if same:  # so is its map
        return replace(direct, space="t-SNE", direct=direct)
    return replace(_summary(_maps(x, numbers), y, k, numbers, "t-SNE"), direct=direct)


def _maps(x: np.ndarray, seeds) -> list[np.ndarray]:
    """t-SNE's maps [N, 2], one a seed; the affinities are exact, hence the same for all."""
    from openTSNE import TSNEEmbedding, initialization  # takes long to load; maps alone need it
    from openTSNE.affinity import PerplexityBasedNN

    affinities = PerplexityBasedNN(x, perplexity=min(PERPLEXITY, (len(x) - 1) // 3), method="exact", n_jobs=1)
    maps = []
    for seed in seeds:
        start = initialization.random(len(x), n_components=2, random_state=seed)
        own = deepcopy(affinities)  # exaggeration rounds them in place: a seed's map would depend on those before
        plan = TSNEEmbedding(start, own, negative_gradient_method="bh", theta=ANGLE, n_jobs=1, random_state=seed)
        plan = plan.optimize(EXAGGERATED, exaggeration=12, momentum=0.8).optimize(PLAIN, momentum=0.8)
        maps.append(np.asarray(plan))
    return maps


def _summary(spaces: list[np.ndarray], y: np.ndarray, k: int, seeds, space: str) -> Clustering:
    """k-means in each space [N, d] (or, of one space, for each seed), against the labels y [N]."""
    rng = np.random.default_rng(seeds[0])
    runs, labelled = [], [_silhouette(x, y) for x in spaces]
    for i, seed in enumerate(seeds):
        x = spaces[i % len(spaces)]
        with warnings.catch_warnings():  # fewer distinct points than clusters: some stay empty, and match nothing
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = KMeans(k, n_init=10, random_state=seed).fit_predict(x)  # pyright: ignore[reportArgumentType]
        chance = fmean(matched_accuracy(y, rng.permutation(found)) for _ in range(20))
        runs.append((matched_accuracy(y, found), labelled[i % len(spaces)], _silhouette(x, found), chance))
    accuracies, of_labels, of_clusters, chances = zip(*runs)
    return Clustering(
        *(f(values) for values in (accuracies, of_labels, of_clusters) for f in (fmean, _spread)),
        chance=fmean(chances),
        space=space,
        k=k,
        n=len(y),
        accuracies=accuracies,
    )


def matched_accuracy(labels: np.ndarray, clusters: np.ndarray) -> float:
    """Accuracy of the best one-to-one match of clusters `[N]` and labels `[N]` (the Hungarian method)."""
    table = contingency_matrix(labels, clusters)
    return float(table[linear_sum_assignment(table, maximize=True)].sum() / len(labels))


def _silhouette(x: np.ndarray, groups: np.ndarray) -> float:
    return float(silhouette_score(x, groups)) if 1 < len(np.unique(groups)) < len(x) else 0.0


def _spread(values: tuple[float, ...]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


@dataclass(frozen=True, repr=False)
class Retrieval(Result):
    """Precision among the k nearest, for each k: the mean over the queries, and its standard error."""

    precision: dict[int, float]
    error: dict[int, float]
    chance: float  # the mean share of the query's label in the gallery
    queries: int
    gallery: int

    def __str__(self) -> str:
        text = ", ".join(f"{p:.3f} ± {self.error[k]:.3f} at {k}" for k, p in self.precision.items())
        return f"{text}, chance {self.chance:.3f}"


def retrieval_precision(
    query_codes,
    query_labels,
    gallery_codes=None,
    gallery_labels=None,
    k: Sequence[int] = (1, 5, 10),
    exclude_self: bool | None = None,
    seed: int = 0,
) -> Retrieval:
    """How many of a query's k nearest gallery codes (Euclidean) have the query's label.

    Codes are `[N, D]` and `[M, D]`, labels classes `[N]` and `[M]`. Without a gallery, the queries are their own and
    each leaves itself out; `exclude_self=True` says that query i also stands at i in the gallery that is given. Ties
    fall at random, by `seed`, so that codes without width score at chance.

    Raises `InputError` for unequal arrays, NaN, and a `k` below 1 or above the number of candidates.
    """
    x = code_matrix(query_codes, "query_codes")
    y = class_target(query_labels, len(x), "query_labels")
    if (gallery_codes is None) != (gallery_labels is None):
        raise InputError("gallery_codes, gallery_labels: one is missing; give both, or neither")
    own = gallery_codes is None if exclude_self is None else exclude_self
    pool = x if gallery_codes is None else code_matrix(gallery_codes, "gallery_codes", x.shape[1])
    names = y if gallery_labels is None else class_target(gallery_labels, len(pool), "gallery_labels")
    if y.dtype.kind != names.dtype.kind:
        raise InputError(f"gallery_labels: {names.dtype} beside {y.dtype} query labels; expected the same")
    if own and len(pool) != len(x):
        raise InputError(f"exclude_self: {len(x)} queries, {len(pool)} gallery codes; expected the same set twice")
    most = len(pool) - own
    if not k or min(k) < 1 or max(k) > most:
        raise InputError(f"k: {tuple(k)}; expected whole numbers from 1 to {most}, the codes to retrieve from")

    order = np.random.default_rng(seed).permutation(len(pool))  # ties are met in this order
    if x.shape[1] == 0:
        x, pool = np.zeros((len(x), 1)), np.zeros((len(pool), 1))
    search = NearestNeighbors(n_neighbors=max(k) + own, algorithm="brute").fit(pool[order])
    near = order[search.kneighbors(x, return_distance=False)]
    if own:  # the query, where it is among the nearest; else the last of them
        out = near == np.arange(len(x))[:, None]
        out[~out.any(1), -1] = True
        near = near[~out].reshape(len(x), -1)
    hits = (names[near] == y[:, None]).cumsum(1)
    means = {i: hits[:, i - 1] / i for i in k}
    values, counts = np.unique(names, return_counts=True)
    at = np.minimum(np.searchsorted(values, y), len(values) - 1)
    same = np.where(values[at] == y, counts[at], 0) - own
    return Retrieval(
        precision={int(i): float(p.mean()) for i, p in means.items()},
        error={int(i): float(p.std() / np.sqrt(len(x))) for i, p in means.items()},
        chance=float(same.mean() / most),
        queries=len(x),
        gallery=len(pool),
    )
