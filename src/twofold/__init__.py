# ruff: noqa: F401
"""twofold: weakly supervised disentangled representation learning.

A method splits the code of an observation in two: s, what the supervision is about, and z, all the rest.

    import twofold
    from twofold import methods

    method = methods.MLVAE.build(shape=(1, 28, 28), s=10, z=10)
    run = twofold.fit(method, twofold.Groups(images, group), epochs=20)
    code = method.encode(images)                        # code.s, code.z
    mixed = twofold.swap(method, images[:8], images[8:16])

Names are loaded when first used, so that `import twofold` (and `twofold --help`) does not wait for PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "twofold.supervision": ("Groups", "Images", "Labels", "Reference", "Triplets"),
    "twofold.distributions": ("Gaussian", "Point"),
    "twofold.method": ("Code", "Method"),
    "twofold.methods": ("load",),
    "twofold.training": ("Run", "fit"),
    "twofold.evaluation": ("evaluate",),
    "twofold.operations": ("accumulate", "generate", "inpaint", "interpolate", "reconstruct", "retrieve", "swap"),
    "twofold.errors": ("DivergedError", "InputError", "MissingFileError", "TwofoldError", "UnsupportedError"),
}
_MODULES = ("data", "distributions", "divergences", "figures", "methods", "metrics", "networks", "report", "tables")
_HOME = {name: module for module, names in _HOMES.items() for name in names}
__all__ = ["__version__", *_HOME, *_MODULES]  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from twofold import data, distributions, divergences, figures, methods, metrics, networks, report, tables
    from twofold.distributions import Gaussian, Point
    from twofold.errors import DivergedError, InputError, MissingFileError, TwofoldError, UnsupportedError
    from twofold.evaluation import evaluate
    from twofold.method import Code, Method
    from twofold.methods import load
    from twofold.operations import accumulate, generate, inpaint, interpolate, reconstruct, retrieve, swap
    from twofold.supervision import Groups, Images, Labels, Reference, Triplets
    from twofold.training import Run, fit


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"twofold.{name}")
    raise AttributeError(f"module 'twofold' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
