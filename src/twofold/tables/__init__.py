"""The tables: every claim of the papers that can be checked, one command each. One file a paper, found by walking."""

from __future__ import annotations

import importlib
import pkgutil

from twofold.errors import choose
from twofold.tables.table import CONTROLS, SCALES, Book, Column, Protocol, Row, Table

__all__ = ["CONTROLS", "SCALES", "Book", "Column", "Protocol", "Row", "Table", "books", "get"]


def books() -> dict[str, Book]:
    """Command-line name -> the tables of that file, sorted; files are those of this folder that have `TABLES`."""
    found = {}
    for module in sorted(m.name for m in pkgutil.iter_modules(__path__)):
        book = read(f"{__name__}.{module}")
        if book is not None:
            found[book.name] = book
    return found


def get(name: str) -> Book:
    """The tables with this command-line name. Raises `InputError` naming the nearest."""
    found = books()
    choose("table", name, found)
    return found[name]


def read(module: str) -> Book | None:
    """The tables in an importable module, if it has any."""
    imported = importlib.import_module(module)
    if not hasattr(imported, "TABLES"):
        return None
    about = (imported.__doc__ or "").strip().partition("\n")[0]
    return Book(module.rpartition(".")[2].replace("_", "-"), module, about, tuple(imported.TABLES))
