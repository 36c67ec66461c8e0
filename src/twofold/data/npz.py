"""Arrays from `.npz` and `.npy` files. Nothing in them is executed: `allow_pickle=False`."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from twofold.data.dataset import Dataset
from twofold.errors import InputError, choose

UNREADABLE = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)


def archive(path: Path, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays `names` (all, unless given) of an `.npz` file; `InputError` where it isn't one, or lacks some."""
    try:
        with path.open("rb") as file:  # np.load would leave a broken file open
            held = np.load(file, allow_pickle=False)
            if not isinstance(held, np.lib.npyio.NpzFile):
                raise InputError(f"{path}: not an .npz archive")
            lacking = [name for name in names or () if name not in held.files]
            if lacking:
                found = ", ".join(held.files) or "none"
                raise InputError(f"{path}: no array {', '.join(lacking)}; found {found}")
            return {name: held[name] for name in names or held.files}
    except InputError:
        raise
    except UNREADABLE as error:
        raise _unreadable(path, error) from None


def npz(path: Path, *, x: str = "x", factors: Sequence[str] | None = None, factor: str | None = None) -> Dataset:
    """An `.npz` file: the array `x` (its name may be told), and its factors.

    Every other array is a factor, one value an observation (or tell which, by `factors`); `factor` is the default one.
    Grey uint8 images may lack the channel axis, colour ones may have it last.
    """
    found = [factors] if isinstance(factors, str) else factors
    if found is not None:
        held = archive(path, tuple(dict.fromkeys((x, *found, *([factor] if factor else [])))))
    else:
        held = archive(path)
    if x not in held:
        raise InputError(f"{path}: no array {x!r}; found {', '.join(held) or 'none'}; tell which one by x=")
    array = held.pop(x)
    if factor is not None:
        choose("factor", factor, held)
    return Dataset(_usual(array), held, name=path.name, default=factor)


def npy(path: Path) -> Dataset:
    """An `.npy` file of observations. uint8 images and float32 arrays stay on disk, so they may exceed the memory.

    Grey uint8 images may lack the channel axis, colour ones may have it last.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise InputError(f"{path}: an .npz archive, not a single array; rename it to .npz")
        stays = array.dtype == np.float32 or (array.dtype == np.uint8 and array.ndim > 2)
        if not (stays and array.dtype.isnative and array.size):
            array = np.array(array)
    except InputError:
        raise
    except UNREADABLE as error:
        raise _unreadable(path, error) from None
    return Dataset(_usual(array), name=path.name)


def _usual(x: np.ndarray) -> np.ndarray:
    """Channels first: as views, so that a memory map stays one; uint8 only, for floats might be anything else."""
    if not x.dtype.isnative:
        return x.astype(x.dtype.newbyteorder("="))
    if x.dtype == np.uint8 and x.ndim == 3:
        return x[:, None]
    if x.dtype == np.uint8 and x.ndim == 4 and x.shape[1] > 4 and x.shape[3] in (1, 3, 4):
        return x.transpose(0, 3, 1, 2)
    return x


def _unreadable(path: Path, error: Exception) -> InputError:
    if "pickle" in str(error):
        return InputError(f"{path}: holds Python objects (or is no NumPy file at all); expected plain arrays only")
    return InputError(f"{path}: can't be read ({' '.join(str(error).split())}); truncated, or not a NumPy file")
