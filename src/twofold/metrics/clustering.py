"""Do the neighbourhoods of a code follow the labels? Clusters and retrieval."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from statistics import fmean, stdev

import numpy as np
from openTSNE import TSNEEmbedding, initialization
from openTSNE.affinity import PerplexityBasedNN
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
    clustered there by k-means into `k` clusters (default: as many as there are labels), and the clusters matched one to one
    with the labels `[N]` (classes) so that the accuracy is largest. `silhouette` is that of the true labels in the map,
    `silhouette_clusters` that of the clusters; both lie in [-1, 1], and are 0 where there is only one cluster.

    t-SNE starts at random: all is done `seeds` times. The same by k-means on the code itself is always there, as `.direct`
    (or as the result itself with `tsne=False`). More than `points` codes are sampled once, by `seed`. Codes without width,
    or all equal, make one cluster: the share of the largest class.

    `chance` keeps the sizes of the clusters and draws their members at random; the match makes it larger than 1/k.

    Raises `InputError` for unequal or empty arrays, NaN, one label only, real-valued labels, and a `k` below 1 or above N.
    """
    x = code_matrix(codes, "codes")
    y = np.unique(class_target(labels, len(x), "labels"), return_inverse=True)[1]
    rows = sample(len(x), points, seed)
    x, y = x[rows].astype(np.float64), y[rows]
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
    if same or len(x) < 4:
        return replace(direct, space="t-SNE", direct=direct)
    return replace(_summary(_maps(x, numbers), y, k, numbers, "t-SNE"), direct=direct)


def _maps(x: np.ndarray, seeds) -> list[np.ndarray]:
    """t-SNE's maps [N, 2], one a seed; the affinities are exact, hence the same for all."""
    affinities = PerplexityBasedNN(x, perplexity=min(PERPLEXITY, (len(x) - 1) / 3), method="exact", n_jobs=1)
    maps = []
    for seed in seeds:
        start = initialization.random(len(x), n_components=2, random_state=seed)
        plan = TSNEEmbedding(start, affinities, negative_gradient_method="bh", theta=ANGLE, n_jobs=1, random_state=seed)
        plan = plan.optimize(EXAGGERATED, exaggeration=12, momentum=0.8).optimize(PLAIN, momentum=0.8)
        maps.append(np.asarray(plan))
    return maps
