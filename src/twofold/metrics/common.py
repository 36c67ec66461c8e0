"""What all measurements share: checked inputs, and results that print as one line and go to JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict
from numbers import Integral
from typing import Any

import numpy as np
from torch import Tensor

from twofold import arrays
from twofold.errors import InputError, shown
from twofold.method import Code


class Result:
    """Base of the frozen dataclasses that the metrics return; `str()` gives one line for people."""

    def as_dict(self) -> dict[str, Any]:
        """All fields as plain Python values, ready for `json.dumps`."""
        return asdict(self)  # pyright: ignore[reportArgumentType]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self})"


def to_numpy(value) -> np.ndarray:
    """A tensor on any device, an array, or nested sequences as an array."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        return (value if value.dtype.itemsize > 2 or not value.is_floating_point() else value.float()).numpy()
    try:
        return np.asarray(value)
    except ValueError:
        raise InputError("rows differ in length; expected one array") from None


def code_matrix(value, name: str, width: int | None = None) -> np.ndarray:
    """Codes `[N, D]` as float32 or float64, N >= 1, D >= 0, finite; `width` is the D that they must have."""
    array = to_numpy(value)
    if array.ndim != 2:
        hint = "; one number an observation is code[:, None]" if array.ndim == 1 else ""
        raise InputError(f"{name}: {shown(array)}; expected codes [N, D]{hint}")
    if array.dtype.kind not in "fiub":
        raise InputError(f"{name}: {shown(array)}; expected real numbers")
    if len(array) == 0:
        raise InputError(f"{name}: {shown(array)} holds no codes; expected at least one")
    if width is not None and array.shape[1] != width:
        raise InputError(f"{name}: codes are {array.shape[1]} wide; expected {width}, as the codes they go with")
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise InputError(f"{name}: NaN or Inf in {int((~np.isfinite(array)).any(1).sum())} of {len(array)} codes")
    return array


def target(value, n: int, name: str, missing: bool = False) -> np.ndarray:
    """A factor `[n]`: int64 classes (-1, "not known", if `missing`), float64 values, or strings as they are."""
    array = to_numpy(value)
    checked = arrays.factor(array, n, name, missing).numpy()
    if array.dtype.kind in "USO":
        return array.astype(str)
    return array.astype(np.float64) if checked.dtype.kind == "f" else checked


def class_target(value, n: int, name: str) -> np.ndarray:
    """A `target` that names classes: whole numbers or strings."""
    array = target(value, n, name)
    if array.dtype.kind == "f":
        raise InputError(f"{name}: {shown(array)}; expected classes (whole numbers or strings)")
    return array


def wholes(name: str, value, most: int | None = None, of: str = "") -> tuple[int, ...]:
    """One whole number or several, from 1 to `most` (which a message calls `of`), as a tuple."""
    value = value.tolist() if isinstance(value, np.ndarray | np.generic | Tensor) else value
    found = tuple(value) if isinstance(value, Iterable) else (value,)
    good = (isinstance(n, Integral) and not isinstance(n, bool) and 1 <= int(n) <= (most or math.inf) for n in found)
    if not found or not all(good):
        told = "of at least 1" if most is None else f"from 1 to {of} = {most}"
        raise InputError(f"{name}: {shown(value)}; expected a whole number {told}, or several")
    return tuple(map(int, found))


def sample(n: int, limit: int, seed: int) -> np.ndarray:
    """Sorted indices of at most `limit` of `n` observations, without replacement; all of them where they fit."""
    if n <= limit:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, limit, replace=False))


class Skip(Exception):
    """Why something can't be measured."""


def take(code: Code, rows: Tensor) -> Code:
    return Code(code.s[rows], code.z[rows])
