"""Checks of the data sets' options."""

from __future__ import annotations

from collections.abc import Sequence

from twofold.errors import InputError, choose


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
