"""What `twofold table` does: list, run, render."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from twofold import tables
from twofold.errors import InputError, MissingFileError
from twofold.tables import render as pages
from twofold.tables import runner
from twofold.tables.cell import lacks
from twofold.training import there


def show(data_dir: Path | None) -> None:
    """Print what tables there are."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("NAME", "table", "rows", "title"):
        shown.add_column(column)
    for book in tables.books().values():
        for table in book.tables:
            can = [row for row in table.rows if any(lacks(table, row, s, data_dir) is None for s in ("cpu", "paper"))]
            count = f"{len(can)} of {len(table.rows)}" if len(can) < len(table.rows) else str(len(can))
            shown.add_row(book.name, table.name, count, f"{table.title} ({table.source})")
    Console(width=None if sys.stdout.isatty() else 140, highlight=False).print(shown)
    print("rows: those that can be run here, of all. Run some: twofold table NAME --scale cpu")


def run(
    name: str, scale: str, seeds: int, only: list[str], out: Path, page: Path, data_dir: Path | None, **how: Any
) -> None:
    """Run what is missing of NAME's cells, then write the pages. Raises `CellsFailed` at the end where some failed, and
    `MissingFileError` where nothing can run."""
    books = list(tables.books().values()) if name == "all" else [tables.get(name)]
    if seeds < 1:
        raise InputError(f"seeds: {seeds}; expected at least 1")
    root = _data_dir(data_dir)
    how["device"] = there(how["device"])
    runner.check(*(how[name] for name in ("jobs", "backend", "address", "threads")))
    pages.refuse(page)
    plan = runner.plan(books, scale, range(seeds), out, root, only)
    needed: dict[str, list[str]] = {}
    for row, what in plan.lacking.items():
        needed.setdefault(what, []).append(row)
    for what, rows in needed.items():
        _note(f"{rows[0]}{f' and {len(rows) - 1} more' if rows[1:] else ''}: needs {what}; left out")
    if needed and not (plan.tasks or plan.kept):
        raise MissingFileError(f"nothing of this can run without {'; '.join(needed)}")
    if plan.stale:
        first = next(iter(plan.stale.values()))
        _note(f"{len(plan.stale)} cells are of an earlier protocol ({first}); they are run again")
    if plan.kept:
        _note(f"{plan.kept} cells are there already")
    try:
        outcome = runner.run(plan, data_dir=root, **how)
    except KeyboardInterrupt:
        render(out, page, root)
        raise KeyboardInterrupt("; the cells that had ended are kept: the same command goes on") from None
    render(out, page, root)
    if outcome.failed:
        which = "; ".join(f"{cell}: {error}" for cell, error in list(outcome.failed.items())[:3])
        raise runner.CellsFailed(f"{len(outcome.failed)} of {len(plan.tasks)} cells failed: {which}")


def render(out: Path, page: Path, data_dir: Path | None, name: str | None = None) -> None:
    """Write the pages from all that is in `out`, whatever NAME; one that there is not is refused all the same."""
    if name not in (None, "all"):
        tables.get(name)
    for path in pages.render(list(tables.books().values()), out, page, data_dir):
        print(path)


def _data_dir(data_dir: Path | None) -> Path | None:
    """Absolute, for processes elsewhere."""
    root = data_dir or (Path(os.environ["TWOFOLD_DATA"]) if os.environ.get("TWOFOLD_DATA") else None)
    if root is not None and not root.expanduser().is_dir():
        raise MissingFileError(f"data-dir (or TWOFOLD_DATA): {str(root)!r} is not a folder; expected that of the data")
    return None if root is None else root.expanduser().resolve()


def _note(text: str) -> None:
    print("note:", text, file=sys.stderr)
