"""Errors that a user can act on. Each message is one line: the argument, the value it had, and what would be right."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any


class TwofoldError(Exception):
    """Base of all that twofold raises on purpose; the command line prints it as one line and exits with `status`."""

    status = 2


class InputError(TwofoldError, ValueError):
    """An argument, an array or a file that cannot be used as it is."""


class MissingFileError(InputError, FileNotFoundError):
    """A file or folder that is not there."""

    __str__ = Exception.__str__  # FileNotFoundError would print an errno tuple


class UnsupportedError(TwofoldError, NotImplementedError):
    """A method lacks the part that an operation needs (say, an encoder)."""


class DivergedError(TwofoldError, FloatingPointError):
    """A loss turned NaN or infinite. Names the step, the terms and the last good checkpoint."""


def shown(value: object, limit: int = 60) -> str:
    """`value` as it should stand in a message: shape and dtype for arrays, shortened text for all else."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"shape {tuple(value.shape)}, {str(value.dtype).removeprefix('torch.')}"  # pyright: ignore
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def whole(name: str, value: Any, low: int, high: int | None = None) -> int:
    """`value`, if it is a whole number in low..high; `InputError` otherwise."""
    good = isinstance(value, Integral) and not isinstance(value, bool)
    if not good or not low <= int(value) <= (math.inf if high is None else high):
        told = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise InputError(f"{name}: {shown(value)}; expected a whole number {told}")
    return int(value)


def choose(name: str, value: object, options) -> None:
    """Refuse a `value` that is not among `options`, naming the nearest."""
    options = list(options)
    if value not in options:
        import difflib

        near = difflib.get_close_matches(str(value), [str(o) for o in options], n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise InputError(f"{name}: {value!r} is not known{hint}; choose from {', '.join(map(str, options))}")
