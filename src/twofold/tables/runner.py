"""Runs the cells that are missing, here or on a cluster, and keeps each as one JSON file."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from twofold.errors import InputError, TwofoldError
from twofold.tables.backends import check, results
from twofold.tables.cell import lacks
from twofold.tables.table import Book, Row, Table

NEAREST = 8  # names that a message shows


@dataclass(frozen=True)
class Task:
    """A cell to run, and where its result goes."""

    book: Book
    table: Table
    row: Row
    scale: str
    seed: int
    path: Path

    @property
    def names(self) -> tuple[str, str, str, str, int]:
        """What another process finds the cell by."""
        return self.book.module, self.table.name, self.row.slug, self.scale, self.seed

    def __str__(self) -> str:
        return f"{self.book.name}, {self.table.name}, {self.row.title}, seed {self.seed}"


@dataclass
class Plan:
    """What is to be run, what is there already, and what can't be had."""

    tasks: list[Task] = field(default_factory=list)
    kept: int = 0
    stale: dict[Path, str] = field(default_factory=dict)  # why
    lacking: dict[str, str] = field(default_factory=dict)  # row -> what it needs


@dataclass
class Outcome:
    """Of a run: how many cells ended well, and the errors of the others."""

    plan: Plan
    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)


class CellsFailed(TwofoldError):
    """Some cells failed; the others, and what they left, are whole."""

    status = 1


def cell_path(out: Path, book: Book, scale: str, table: Table, row: Row, seed: int) -> Path:
    return out / book.name / scale / table.name / f"{row.slug}.{seed}.json"


def plan(
    books: Sequence[Book], scale: str, seeds: Sequence[int], out: Path, data_dir: Path | None, only: Sequence[str] = ()
) -> Plan:
    """Seed by seed over all rows, so that a run cut short leaves whole columns of few seeds.

    `only`: those whose "table, block: row" holds one of these texts. A cell is run again where its protocol, its
    method's defaults or its measure changed since, or where it failed. Raises `InputError` for `only` that fits none.
    """
    found, names = Plan(), []
    for seed in seeds:
        for book in books:
            for table in book.tables:
                for row in table.rows:
                    name = f"{table.name}, {row.title}"
                    names.append(name)
                    if only and not any(text.lower() in name.lower() for text in only):
                        continue
                    missing = lacks(table, row, scale, data_dir)
                    if missing is not None:
                        found.lacking[f"{book.name}, {name}"] = missing
                        continue
                    path = cell_path(out, book, scale, table, row, seed)
                    why = stale(path, table.identity(row, scale))
                    if why is None:
                        found.kept += 1
                        continue
                    if why:
                        found.stale[path] = why
                    found.tasks.append(Task(book, table, row, scale, seed, path))
    if only and not (found.tasks or found.kept or found.lacking):
        told = sorted(set(names), key=lambda name: -max(SequenceMatcher(None, name, text).ratio() for text in only))
        more = f"; and {len(told) - NEAREST} more" if len(told) > NEAREST else ""
        nearest = "; ".join(told[:NEAREST]) + more
        raise InputError(f"only: {', '.join(map(repr, only))} is in no row's name; there are: {nearest}")
    return found


def stale(path: Path, identity: dict[str, Any]) -> str | None:
    """None: a good result of this very protocol is there. "": nothing is, or a failure. Else what has changed."""
    found = read(path)
    if found is None or "error" in found:
        return ""
    old = found["protocol"]
    if old == identity:
        return None
    changed = [k for k in sorted(old.keys() | identity.keys()) if old.get(k) != identity.get(k)]
    return "; ".join(f"{k} was {json.dumps(old.get(k))}, is {json.dumps(identity.get(k))}" for k in changed)


def read(path: Path) -> dict[str, Any] | None:
    """A cell's file; None where there is none, or none that is whole."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(found, dict) and ("error" in found or {"values", "protocol", "seed"} <= found.keys())
    return found if whole else None


def write(path: Path, text: str) -> None:
    """Atomically. Raises `InputError` where that can't be done."""
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise InputError(f"out: can't write {path} ({error.strerror or error})") from None


def run(
    made: Plan,
    *,
    jobs: int = 1,
    backend: str = "loky",
    address: str | None = None,
    data_dir: Path | None = None,
    device: str = "cpu",
    threads: int = 1,
    progress: bool = True,
) -> Outcome:
    """Run a plan's cells and write each as it ends; a cell that fails leaves its error and stops no other.

    jobs: processes at a time ("loky", or a local Dask cluster); at an address, all workers that are there. threads: of
    each cell. device: of the training. Raises `InputError` for a backend or an address that can't be used.
    """
    check(jobs, backend, address, threads)
    outcome, start = Outcome(made), time.perf_counter()
    root = None if data_dir is None else str(data_dir)
    if made.tasks:
        write(made.tasks[0].path.parent / ".try", "")  # better now than after the first cell
        (made.tasks[0].path.parent / ".try").unlink()
    with _shown(len(made.tasks), progress) as show:
        for task, result in results(made.tasks, jobs, backend, address, (root, device, threads)):
            write(task.path, json.dumps(result | ({"seed": task.seed} if "error" in result else {}), indent=1))
            if "error" in result:
                outcome.failed[str(task)] = result["error"]
                text = f"failed: {result['error']}"
            else:
                outcome.done += 1
                text = _told(task, result)
            at = outcome.done + len(outcome.failed)
            left = (time.perf_counter() - start) / at * (len(made.tasks) - at)
            show(at, f"{task}: {text} ({result.get('total_seconds', 0.0):.0f} s)", left)
    return outcome


def _told(task: Task, result: dict[str, Any]) -> str:
    values = [(c, result["values"][c.name]) for c in task.table.columns]
    return ", ".join(f"{c.name} {c.show(v)}" for c, v in values[:4] if v is not None)


@contextmanager
def _shown(total: int, on: bool):
    """A function `(at, text, seconds left)` that shows a cell's end: above a bar on a terminal, else as a line."""
    if not on or not total:
        yield lambda at, text, left: None
        return
    if not sys.stderr.isatty():
        yield lambda at, text, left: print(f"[{at}/{total}] {text}{_left(left)}", file=sys.stderr, flush=True)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(32), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.fields[left]}"))
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total, left="")

        def show(at: int, text: str, left: float) -> None:
            bar.console.print(f"{text}", markup=False, highlight=False)
            bar.update(task, completed=at, left=_left(left).lstrip("; "))

        yield show


def _left(seconds: float) -> str:
    if seconds < 1:
        return ""
    return f"; {seconds:.0f} s left" if seconds < 120 else f"; {seconds / 60:.0f} min left"
