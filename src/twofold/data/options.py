"""Checks of the data sets' options."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from twofold.errors import InputError, choose


def whole(name: str, value: object, low: int, high: int | None = None) -> int:
    """`value`, if it is a whole number in low..high; `InputError` otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < low or (high and value > high):
        raise InputError(f"{name}: {value!r}; expected a whole number, {low} {f'to {high}' if high else 'or more'}")
    return int(value)


def fraction(name: str, value: object) -> float:
    """`value`, if it is a number in [0, 1]; `InputError` otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InputError(f"{name}: {value!r}; expected a number in [0, 1]")
    return float(value)


def class_number(name: str, value: str, names: Sequence[str]) -> int:
    """The number of the class that `names` call `value`; of true and false, however they are written."""
    if {*names} <= {"False", "True"} and value.capitalize() in names:
        value = value.capitalize()
    choose(name, value, names)
    return list(names).index(value)
