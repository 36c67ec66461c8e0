"""Leakage: what each half of a code tells of a factor, by the strongest probe that could be found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from twofold.errors import InputError, shown
from twofold.metrics.probe import KINDS, Probe, fit_probes


class Halves(Protocol):
    """Anything with the two halves of a code, as `twofold.Code`: s `[N, d_s]` and z `[N, d_z]`."""

    @property
    def s(self) -> Any: ...
    @property
    def z(self) -> Any: ...


def leakage(
    code_train: Halves, y_train, code_test: Halves, y_test, seed: int = 0, kinds: Sequence[str] = tuple(KINDS)
) -> dict[str, Any]:
    """Probe s and z for a factor with every kind of probe, and keep the strongest for each: `{"s": Probe, "z": Probe}`.

    Codes are anything with `.s` and `.z`, such as `Method.encode` returns; `y_*` are `[N]`, as in `probe`. The
    strongest is chosen on validation data from the training codes, never by the test result, so that the number is not
    the luckiest of three; `Probe.kind` says which it was, and `Probe.information` what it read, in bits.

    For several factors, give dictionaries of targets: the result is then `{factor: {"s": Probe, "z": Probe}}`. The
    training dictionary names the factors; the test one may hold more.

    Raises `InputError` as `probe` does, and for a factor that the test dictionary lacks.
    """
    for name, code in (("code_train", code_train), ("code_test", code_test)):
        if not (hasattr(code, "s") and hasattr(code, "z")):
            raise InputError(f"{name}: {shown(code)} has no halves; expected a Code with .s and .z")
    if isinstance(y_train, Mapping) != isinstance(y_test, Mapping):
        raise InputError("y_train, y_test: a dictionary of factors and a single factor; expected the same kind twice")
    if isinstance(y_train, Mapping):
        missing = [factor for factor in y_train if factor not in y_test]
        if missing:
            raise InputError(f"y_test: factors {', '.join(map(repr, missing))} of y_train are missing")
        return {
            factor: _halves(code_train, y_train[factor], code_test, y_test[factor], seed, kinds, f"[{factor!r}]")
            for factor in y_train
        }
    return _halves(code_train, y_train, code_test, y_test, seed, kinds, "")


def _halves(code_train, y_train, code_test, y_test, seed, kinds, suffix: str) -> dict[str, Probe]:
    found = family(code_train, y_train, code_test, y_test, seed, kinds, suffix=suffix)
    return {half: next(iter(probes.values())) for half, probes in found.items()}


def family(
    code_train: Halves,
    y_train,
    code_test: Halves,
    y_test,
    seed: int = 0,
    kinds: Sequence[str] = tuple(KINDS),
    also: Sequence[str] = (),
    suffix: str = "",
) -> dict[str, dict[str, Probe]]:
    """Of s and of z, `{kind: Probe}`: the strongest probe first, then those kinds that are wanted `also`."""
    found = {}
    for half in ("s", "z"):
        names = (f"code_train.{half}", f"y_train{suffix}"), (f"code_test.{half}", f"y_test{suffix}")
        fitted = fit_probes(getattr(code_train, half), y_train, kinds, seed, names[0], also)
        found[half] = {name: probe.test(getattr(code_test, half), y_test, names[1]) for name, probe in fitted.items()}
    return found
