"""Observations and factors as arrays: checked once, at the door; gathered in batches ever after."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from twofold.errors import InputError, shown

CHUNK = 1 << 26  # bytes read at a time when a memory map is scanned


class Rows:
    """Some rows of a memory map, in any order, read only when asked for (indexing the map would copy them at once).

    `index [n]` whole numbers; a row, a slice or an integer array of rows gives an ndarray.
    """

    def __init__(self, base: np.memmap, index: np.ndarray):
        self.base, self.index = base, index
        self.shape, self.ndim, self.dtype = (len(index), *base.shape[1:]), base.ndim, base.dtype

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows) -> np.ndarray:
        return np.asarray(self.base[self.index[rows]])


Observations = Tensor | np.memmap | Rows


def observations(x, name: str = "x") -> Observations:
    """Check and normalise observations.

    Images `[N, C, H, W]`: uint8 in 0..255, or floating in [0, 1]. Vectors `[N, D]`: any finite real numbers.
    Tensors, arrays and nested sequences are taken; a `np.memmap` stays on disk. Returns uint8 or float32.
    Raises `InputError` for another shape, dtype or range, for NaN and Inf, and for no observations at all.
    """
    if isinstance(x, Tensor):
        array = x.detach().cpu()
    elif isinstance(x, np.memmap | Rows):
        array = x
    else:
        if isinstance(x, torch.utils.data.Dataset):
            raise InputError(f"{name}: a torch Dataset; make it one of ours first: twofold.data.load(dataset)")
        try:
            array = np.asarray(x)
            if array.dtype == object:
                raise ValueError
        except ValueError:
            raise InputError(f"{name}: rows differ in length or hold no numbers; give one array [N, ...]") from None
    if array.ndim not in (2, 4):
        hint = "; for grey images add the channel axis: x[:, None]" if array.ndim == 3 else ""
        raise InputError(f"{name}: {shown(array)}; expected images [N, C, H, W] or vectors [N, D]{hint}")
    if min(array.shape) == 0:
        raise InputError(f"{name}: {shown(array)} holds nothing; expected at least one observation")
    if array.ndim == 4 and array.shape[1] not in (1, 2, 3, 4) and array.shape[3] in (1, 3, 4):
        raise InputError(f"{name}: {shown(array)} has channels last; put them first: x.transpose(0, 3, 1, 2)")
    if array.ndim == 4 and min(array.shape[2:]) < 8:
        raise InputError(f"{name}: {shown(array)}; images need at least 8 x 8 pixels (flatten smaller ones to [N, D])")
    kind = str(array.dtype).removeprefix("torch.")
    floating = kind in ("float16", "bfloat16", "float32", "float64")
    whole = kind.startswith(("int", "uint")) or kind == "bool"
    if not (floating or kind == "uint8" or (whole and array.ndim == 2)):
        raise InputError(f"{name}: {shown(array)}; images are uint8 in 0..255 or floats in [0, 1]")
    if isinstance(array, np.memmap | Rows):
        if kind != "float32" and not (kind == "uint8" and array.ndim == 4):
            raise InputError(f"{name}: {shown(array)} on disk; a memory map must hold uint8 images or float32")
        rows = max(1, CHUNK // max(1, array[0].nbytes))
        if floating:
            for i in range(0, len(array), rows):
                _finite_in_range(torch.from_numpy(np.array(array[i : i + rows])), name)
        return array
    tensor = array if isinstance(array, Tensor) else torch.from_numpy(np.array(array))
    if kind == "uint8" and tensor.ndim == 4:
        return tensor.contiguous()
    tensor = tensor.to(torch.float32).contiguous()
    _finite_in_range(tensor, name)
    return tensor


def _finite_in_range(x: Tensor, name: str) -> None:
    low, high = x.aminmax()  # NaN propagates, so this finds NaN, Inf and the range in one pass
    if not (torch.isfinite(low) and torch.isfinite(high)):
        bad = int((~torch.isfinite(x)).flatten(1).any(1).sum())
        raise InputError(f"{name}: NaN or Inf in {bad} of {len(x)} observations; drop or impute them first")
    if x.ndim == 4 and (low < 0 or high > 1):
        raise InputError(
            f"{name}: float images range over [{low:.4g}, {high:.4g}]; expected [0, 1] (divide by 255, or pass uint8)"
        )


def factor(y, n: int, name: str = "y", missing: bool = False) -> Tensor:
    """Check a factor: one value an observation. Returns int64 `[n]` for whole numbers, float32 `[n]` for real ones.

    Strings are numbered in sorted order. `missing` allows -1 ("not known"). Raises `InputError` on another length or
    shape, NaN, Inf, or a negative class.
    """
    array = y.detach().cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
    if array.ndim != 1:
        raise InputError(f"{name}: {shown(array)}; expected one value an observation, [{n}]")
    if len(array) != n:
        raise InputError(f"{name}: {len(array)} values for {n} observations; expected as many as there are in x")
    if array.dtype.kind in "USO":
        absent = np.array([v is None or v != v for v in array.tolist()])
        if absent.any() and not missing:
            raise InputError(f"{name}: {int(absent.sum())} of {n} values are missing; expected one for each")
        numbers = np.full(n, -1, np.int64)
        numbers[~absent] = np.unique(array[~absent].astype(str), return_inverse=True)[1]
        array = numbers
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise InputError(f"{name}: NaN or Inf in {int((~np.isfinite(array)).sum())} of {n} values")
        return torch.from_numpy(array.astype(np.float32))
    if array.dtype.kind not in "iub":
        raise InputError(f"{name}: {shown(array)}; expected whole numbers (classes) or real numbers")
    low = int(array.min()) if n else 0
    if low < (-1 if missing else 0):
        extra = " (-1 where the label is not known)" if missing else ""
        raise InputError(f"{name}: {low} is out of range; classes are numbered from 0{extra}")
    return torch.from_numpy(array.astype(np.int64))


def identities(ids, n: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Who shares something with whom: any whole numbers or names. Returns sorted ids and each row's place in them."""
    array = ids.detach().cpu().numpy() if isinstance(ids, Tensor) else np.asarray(ids)
    if array.dtype.kind == "f" and array.ndim == 1 and (array == np.floor(array)).all() and np.isfinite(array).all():
        array = array.astype(np.int64)
    if array.dtype.kind in "ib" and array.ndim == 1 and len(array) == n:
        return np.unique(array, return_inverse=True)  # also negative ones
    known = classes(array, n, name).numpy()
    if array.dtype.kind in "USO":
        return np.unique(array.astype(str), return_inverse=True)
    return np.unique(known, return_inverse=True)


def classes(y, n: int, name: str = "y", missing: bool = False) -> Tensor:
    """A `factor` that must be whole numbers."""
    y = factor(y, n, name, missing)
    if y.is_floating_point():
        raise InputError(f"{name}: {shown(y)}; expected whole numbers, one class or group an observation")
    return y


def gather(x: Observations, index: Tensor) -> Tensor:
    """Rows `index` of `x` as float32 in a method's range (images [0, 1]), on the index's device."""
    if isinstance(x, Tensor):  # index_select: an order of magnitude faster than x[index] on a CPU
        rows = x.index_select(0, index.flatten().to(x.device))
    else:
        rows = torch.from_numpy(np.asarray(x[index.flatten().cpu().numpy()]))
    rows = unit(rows.to(index.device))
    return rows if index.ndim == 1 else rows.unflatten(0, index.shape)


def unit(x: Tensor) -> Tensor:
    """uint8 pixels as float32 in [0, 1]; floats as they are."""
    return x.to(torch.float32).mul_(1 / 255) if x.dtype == torch.uint8 else x


def mix(*parts: int) -> int:
    """One well-spread 63-bit seed from several whole numbers (splitmix64): (seed 0, step 1) and (1, 0) differ."""
    state = 0
    for part in parts:
        state = (state ^ (part & 0xFFFFFFFFFFFFFFFF)) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1


def generator(*parts: int) -> np.random.Generator:
    """A random generator that is a pure function of `parts`."""
    return np.random.Generator(np.random.Philox(key=mix(*parts)))
