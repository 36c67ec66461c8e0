"""Handwritten digits, 8 x 8, that come with scikit-learn."""

from __future__ import annotations

import numpy as np

from twofold.data.dataset import Dataset
from twofold.data.registry import builtin


@builtin(
    "digits",
    shape=(1, 8, 8),
    n=1797,
    factors=("digit",),
    default="digit",
    source="scikit-learn, from Alpaydin & Kaynak 1998 (UCI)",
    licence="CC BY 4.0",
)
def digits() -> Dataset:
    """Handwritten digits of 8 x 8 pixels; the 17 grey levels 0..16 are spread over 0..255."""
    from sklearn.datasets import load_digits

    images, digit = load_digits(return_X_y=True)
    images = np.rint(images.reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    return Dataset(images, {"digit": digit})
