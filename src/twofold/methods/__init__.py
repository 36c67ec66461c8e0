"""The methods, one file a paper. Whatever class in this folder is a `Method` with a `name` is found by walking it."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

from twofold.errors import choose
from twofold.method import Method, restore


def _discover() -> dict[str, type[Method]]:
    found = {}
    for module in pkgutil.iter_modules(__path__):
        for cls in vars(importlib.import_module(f"{__name__}.{module.name}")).values():
            if inspect.isclass(cls) and issubclass(cls, Method) and "name" in vars(cls):
                found[cls.__name__] = cls
    return found


CLASSES = _discover()
globals().update(CLASSES)
__all__ = ["CLASSES", "get", "load", "names", *CLASSES]  # pyright: ignore[reportUnsupportedDunderAll]


def names() -> dict[str, type[Method]]:
    """Command-line name -> class, sorted."""
    return {cls.name: cls for cls in sorted(CLASSES.values(), key=lambda cls: cls.name)}


def get(name: str) -> type[Method]:
    """The class with this command-line name (or class name). Raises `InputError` naming the nearest."""
    if name in CLASSES:
        return CLASSES[name]
    choose("method", name, names())
    return names()[name]


def load(path, method: Method | None = None) -> Method:
    """The method saved at `path` (a file, or a run's folder), in eval mode, on the CPU. Runs no code from the file.

    A method with networks of your own is loaded into one that you made: `load(path, method=MLVAE(encoder, decoder))`.
    Raises `InputError` for a file that is missing, truncated, of another kind or of another method.
    """
    return restore(CLASSES, path, method)


def __getattr__(name: str) -> type[Method]:  # for type checkers, and to name the nearest
    if name.startswith("_"):
        raise AttributeError(name)
    near = ", ".join(CLASSES)
    raise AttributeError(f"no method {name!r}; there are {near}")
