"""Small NORB: toys under a grid of cameras and lamps, from the authors' binary files [LeCun, Huang & Bottou 2004]."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch

from twofold.data.dataset import Dataset
from twofold.data.pixels import resized
from twofold.data.registry import Files, builtin
from twofold.errors import InputError, shown, whole

PARTS = {  # the parts' instances stand in their names
    "training": "smallnorb-5x46789x9x18x6x2x96x96-training",
    "testing": "smallnorb-5x01235x9x18x6x2x96x96-testing",
}
CATEGORIES = ("animal", "human", "plane", "truck", "car")
RANGES = {"instance": 10, "elevation": 9, "azimuth": 18, "lighting": 6}  # how many values each column of info has
MAGIC = {0x1E3D4C55: np.dtype("u1"), 0x1E3D4C54: np.dtype("<i4")}


@builtin(
    "norb",
    shape=(1, 96, 96),
    n=48_600,
    factors=("category", "instance", "elevation", "azimuth", "lighting", "identity"),
    default="identity",
    source="LeCun, Huang & Bottou 2004, small NORB 1.0",
    licence="research use only, not to be sold",
    files=tuple(f"norb/{stem}-{kind}.mat.gz" for stem in PARTS.values() for kind in ("dat", "cat", "info")),
)
def norb(files: Files, *, stereo: bool = False, size: int = 96) -> Dataset:
    """50 toys of 5 categories from 9 elevations and 18 azimuths in 6 lights; official split: 25 toys each, none shared.

    The authors' six files (`smallnorb-5x46789x9x18x6x2x96x96-training-dat.mat`, `-cat.mat`, `-info.mat`, and those of
    `smallnorb-5x01235x9x18x6x2x96x96-testing`), gzipped or not, are looked for in `norb/` and in the data folder
    itself. An identity is a category and an instance in it; `instance` is the number within its category.

    Options:
        stereo: both cameras, as two channels; else the first one only.
        size: images of size x size, 8 to 96, by area averages.
    """
    if not isinstance(stereo, bool):
        raise InputError(f"stereo: {shown(stereo)}; expected True (both cameras) or False (the first)")
    read = [_part(files, stem, stereo, size) for stem in PARTS.values()]
    x, category, info = (torch.cat([part[0] for part in read]), *(np.concatenate([p[i] for p in read]) for i in (1, 2)))
    factors = {"category": category} | dict(zip(RANGES, info.T))
    factors["azimuth"] = factors["azimuth"] // 2  # the files count by tens of degrees, in twenties
    factors["identity"] = category * RANGES["instance"] + factors["instance"]
    names = {
        "category": list(CATEGORIES),
        "elevation": [str(30 + 5 * i) for i in range(RANGES["elevation"])],
        "azimuth": [str(20 * i) for i in range(RANGES["azimuth"])],
        "identity": [f"{name} {i}" for name in CATEGORIES for i in range(RANGES["instance"])],
    }
    first = len(read[0][0])
    official = (np.arange(first), np.arange(first, len(x)))
    return Dataset(x, factors, default="identity", names=names, splits={"official": official})


def _part(files: Files, stem: str, stereo: bool, size: int) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Images uint8 `[n, 1 or 2, size, size]`, categories `[n]`, and info `[n, 4]`, in `RANGES`."""
    paths = [_path(files, f"{stem}-{kind}.mat") for kind in ("dat", "cat", "info")]
    images, category, info = map(matrix, paths)
    n = len(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != 2 or not n:
        raise InputError(f"{paths[0]}: {images.dtype} {images.shape}; expected bytes [n, 2 cameras, height, width]")
    if category.shape != (n,) or info.shape != (n, 4):
        wrong = paths[1] if category.shape != (n,) else paths[2]
        raise InputError(f"{wrong}: does not fit the {n} pairs of images in {paths[0].name}")
    high = np.array([*RANGES.values()]) * [1, 1, 2, 1]
    if not ((category >= 0) & (category < len(CATEGORIES))).all():
        raise InputError(f"{paths[1]}: category {category.min()} to {category.max()}; expected 0 to 4")
    if not ((info >= 0) & (info < high)).all() or (info[:, 2] % 2).any():
        expected = ", ".join(f"{name} 0 to {count - 1}" for name, count in zip(RANGES, high))
        raise InputError(f"{paths[2]}: values out of range; expected {expected}, azimuths even")
    size = whole("size", size, 8, min(images.shape[2:]))
    x = torch.from_numpy(images[:, : 2 if stereo else 1])
    return resized(x, size).contiguous(), category.astype(np.int64), info.astype(np.int64)


def _path(files: Files, name: str) -> Path:
    path = files.find(f"norb/{name}", f"norb/{name}.gz", name, f"{name}.gz")
    if path is None:
        how = "get it (gzipped will do) from cs.nyu.edu/~ylclab/data/norb-v1.0-small and put it there; or "
        raise files.missing("norb", f"norb/{name}", how)
    return path


def matrix(path: Path) -> np.ndarray:
    """The array in a file of NORB's: a magic number for the type, the number of axes, their lengths (at least three
    are written, the spare ones 1), and the values; all little-endian."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = bytearray(file.read())  # writable, as torch wants it
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: can't be read ({error}); truncated, or not gzipped") from None
    magic, axes = np.frombuffer(content[:8], "<u4").tolist() if len(content) >= 8 else (0, 0)
    if magic not in MAGIC or not 1 <= axes <= 8:
        raise InputError(f"{path}: not a matrix of NORB's (bytes or integers); its first bytes are {content[:8].hex()}")
    start, dtype = 8 + 4 * max(3, axes), MAGIC[magic]
    shape = tuple(int.from_bytes(content[i : i + 4], "little") for i in range(8, 8 + 4 * axes, 4))
    if len(content) != start + math.prod(shape) * dtype.itemsize:
        raise InputError(f"{path}: {len(content):,} bytes for an array {list(shape)}; truncated, or of another kind")
    return np.frombuffer(content, dtype, offset=start).reshape(shape)
