"""Renderings of cars, each from all sides [Reed et al. 2015]."""

from __future__ import annotations

import numpy as np
import torch

from twofold.data.dataset import Dataset
from twofold.data.npz import archive
from twofold.data.pixels import resized
from twofold.data.registry import Files, builtin
from twofold.errors import InputError, whole


@builtin(
    "cars3d",
    shape=(1, 64, 64),
    n=17_568,
    factors=("car", "elevation", "azimuth"),
    default="car",
    source="Reed et al. 2015, after Fidler et al. 2012",
    licence="none stated: research use only",
    files=("cars3d/cars3d_gray64.npz",),
)
def cars3d(files: Files, *, size: int = 64) -> Dataset:
    """183 car models from 4 elevations and 24 azimuths, grey. For unseen cars: `split((0.7, 0.1, 0.2), by="car")`.

    `cars3d_gray64.npz` holds `images [cars, elevations, azimuths, 64, 64]` uint8, `elevation_deg`, `azimuth_deg` and
    `car_id`, which become the classes' names. `size`: 8 to 64, by area averages.
    """
    path = files.need("cars3d", "cars3d/cars3d_gray64.npz", "cars3d_gray64.npz")
    held = archive(path, ("images", "car_id", "elevation_deg", "azimuth_deg"))
    images = held["images"]
    names = {"car": held["car_id"], "elevation": held["elevation_deg"], "azimuth": held["azimuth_deg"]}
    names = {name: [str(value) for value in values] for name, values in names.items()}
    if images.ndim != 5 or images.dtype != np.uint8 or images.shape[:3] != tuple(map(len, names.values())):
        raise InputError(
            f"{path}: images {images.dtype} {images.shape}; expected uint8 [cars, elevations, azimuths, H, W]"
        )
    classes = np.indices(images.shape[:3]).reshape(3, -1)
    size = whole("size", size, 8, min(images.shape[3:]))
    x = resized(torch.from_numpy(images.reshape(-1, 1, *images.shape[3:])), size)
    return Dataset(x, dict(zip(names, classes)), default="car", names=names)
