"""Generated images: are they like the classes, and unlike each other?"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, overload

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from twofold.arrays import gather, observations
from twofold.errors import InputError, shown
from twofold.metrics.common import Result, class_target, to_numpy

MSSSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of five scales, fine to coarse
BATCH = 1 << 19  # pixel values compared at a time


@overload
def inception_score(probabilities, splits: None = None, seed: int = 0) -> float: ...
@overload
def inception_score(probabilities, splits: int, seed: int = 0) -> tuple[float, float]: ...
def inception_score(probabilities, splits=None, seed=0):
    """The Inception Score exp(E_x KL(p(y|x) || p(y))) [Zheng19, Sec. 4.2], from 1 to the number of classes.

    `probabilities` `[N, C]`: a classifier's p(y|x) of generated images, rows summing to 1; p(y) is their mean. With
    `splits`, the mean and the standard deviation over that many disjoint parts, drawn at random by `seed` (samples
    often come sorted by class, and a part with one class scores 1). The score depends on the classifier and on N.

    Raises `InputError` for another shape, entries outside [0, 1], rows that don't sum to 1, and more splits than rows.
    """
    p = to_numpy(probabilities)
    if p.ndim != 2 or min(p.shape) == 0 or p.dtype.kind not in "fiub":
        raise InputError(f"probabilities: {shown(p)}; expected [N, C], one row an image")
    p = p.astype(np.float64)
    off = ~((p >= 0).all(1) & (np.abs(p.sum(1) - 1) < 1e-3))  # NaN and Inf fail here too
    if off.any():
        raise InputError(
            f"probabilities: {int(off.sum())} of {len(p)} rows lie outside [0, 1] or don't sum to 1; softmax?"
        )
    p /= p.sum(1, keepdims=True)
    if splits is None:
        return _inception(p)
    if not 1 <= splits <= len(p):
        raise InputError(f"splits: {splits}; expected 1 to {len(p)}, the number of rows")
    parts = [_inception(part) for part in np.array_split(np.random.default_rng(seed).permutation(p), splits)]
    return fmean(parts), stdev(parts) if splits > 1 else 0.0


def _inception(p: np.ndarray) -> float:
    return float(np.exp(stats.entropy(p, p.mean(0, keepdims=True), axis=1).mean()))


@dataclass(frozen=True, repr=False)
class Diversity(Result):
    """Intra-class diversity, 0 (all images equal) to 1: means over the classes."""

    score: float  # Eq. 12 as printed, self-pairs included
    score_spread: float  # standard deviation over the classes
    without_self: float  # distinct pairs only: does not depend on the number of images
    without_self_spread: float
    per_class: dict[Any, float]  # Eq. 12
    per_class_without_self: dict[Any, float]
    scales: int  # of the MS-SSIM, chosen from the image size
    kernel: int  # its Gaussian window, pixels
    weights: tuple[float, ...]  # of the scales, fine to coarse
    pairs: int  # distinct pairs compared, all classes together
    n: int

    def __float__(self) -> float:
        return self.score

    def __str__(self) -> str:
        return (
            f"{self.score:.4f} ± {self.score_spread:.4f}, without self-pairs {self.without_self:.4f} "
            f"(MS-SSIM: {self.scales} scales, window {self.kernel}; {self.pairs} pairs)"
        )


def intra_class_diversity(images, labels=None, pairs: int = 1_000, seed: int = 0) -> Diversity:
    """One minus the mean MS-SSIM over all pairs of a class's images [Zheng19, Eq. 12], averaged over the classes.

    `images`: `[N, C, H, W]`, uint8 or floats in [0, 1]; `labels` `[N]`: classes of at least two images (None: one
    class). Eq. 12 counts every image against itself, which shrinks it by the factor 1 - 1/|X|; `without_self` leaves
    these out. Of a class with more than `pairs` pairs, so many are drawn, by `seed`.

    MS-SSIM has five scales and an 11-pixel window (sigma 1.5) from 176 pixels up. Smaller images get a 7-pixel window
    (sigma 0.8), under 14 pixels one of 3 (sigma 0.3), and as many scales as leave room for it, with the first of the
    usual weights, rescaled to sum to 1: values compare only at one image size. The result says what was used.

    Raises `InputError` for another shape or range, NaN, and a class with a single image.
    """
    # here, for it imports matplotlib
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as ms_ssim

    x = observations(images, "images")
    if x.ndim != 4:
        raise InputError(f"images: {shown(x)}; expected images [N, C, H, W]")
    y = np.zeros(len(x), int) if labels is None else class_target(labels, len(x), "labels")
    classes, inverse, counts = np.unique(y, return_inverse=True, return_counts=True)
    if counts.min() < 2:
        raise InputError(f"labels: class {classes[counts.argmin()]} has one image; expected at least two, to compare")
    if pairs < 1:
        raise InputError(f"pairs: {pairs}; expected at least 1")
    kernel, sigma, weights = _scales(min(x.shape[2:]))
    rng = np.random.default_rng(seed)
    chosen = [torch.from_numpy(np.flatnonzero(inverse == c)[_pairs(n, pairs, rng)]) for c, n in enumerate(counts)]

    def similarity(pair: Tensor) -> Tensor:
        a, b = gather(x, pair)
        return ms_ssim(a, b, kernel_size=kernel, sigma=sigma, betas=weights, data_range=1.0, reduction="none")

    size = max(1, BATCH // x[0].numel() if isinstance(x, Tensor) else BATCH // x[0].size)
    with torch.no_grad():
        apart = [1 - torch.cat([similarity(p) for p in pair.split(size, 1)]).double().mean().item() for pair in chosen]
    printed = [d * (1 - 1 / n) for d, n in zip(apart, counts.tolist())]
    names = classes.tolist()
    return Diversity(
        score=fmean(printed),
        score_spread=stdev(printed) if len(printed) > 1 else 0.0,
        without_self=fmean(apart),
        without_self_spread=stdev(apart) if len(apart) > 1 else 0.0,
        per_class=dict(zip(names, printed)),
        per_class_without_self=dict(zip(names, apart)),
        scales=len(weights),
        kernel=kernel,
        weights=weights,
        pairs=sum(p.shape[1] for p in chosen),
        n=len(x),
    )


def _pairs(n: int, most: int, rng: np.random.Generator) -> np.ndarray:
    """[2, P] of n images: every pair once, or `most` different ordered ones at random (MS-SSIM is symmetric)."""
    if n * (n - 1) // 2 <= most:
        return np.stack(np.triu_indices(n, 1))
    first, second = np.divmod(rng.choice(n * (n - 1), most, replace=False), n - 1)
    return np.stack([first, second + (second >= first)])


def _scales(side: int) -> tuple[int, float, tuple[float, ...]]:
    """Window, its sigma, and the weights of the scales for images whose shorter side has so many pixels."""
    kernel, sigma = (11, 1.5) if side >= 176 else (7, 0.8) if side >= 14 else (3, 0.3)
    # the window fits the coarsest image; torchmetrics also asks for kernel <= side // (scales - 1)²
    fits = [m for m in range(1, 6) if side // max(2 ** (m - 1), (m - 1) ** 2) >= kernel and side >= 2**m]
    weights = MSSSIM_WEIGHTS[: fits[-1]]
    return kernel, sigma, tuple(w / sum(weights) for w in weights)
