"""Runs the cells that are missing, here or on a cluster, and keeps each as one JSON file."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import joblib

from twofold.errors import InputError, TwofoldError, choose
from twofold.tables.cell import lacks, work
from twofold.tables.table import Book, Row, Table

NEAREST = 8  # names that a message shows
BACKENDS = ("loky", "dask", "ray")
CRASHES = 2  # of a pool of processes; then what is left runs in a process each
DIED = "its process died, twice with others and then alone: out of memory, perhaps"


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
    choose("backend", backend, BACKENDS)
    for name, value in (("jobs", jobs), ("threads", threads)):
        if value < 1:
            raise InputError(f"{name}: {value}; expected at least 1")
    if address is not None and backend == "loky":
        raise InputError(f"address: {address!r}; it goes with --backend dask or ray")
    outcome, start = Outcome(made), time.perf_counter()
    root = None if data_dir is None else str(data_dir)
    if made.tasks:
        write(made.tasks[0].path.parent / ".try", "")  # better now than after the first cell
        (made.tasks[0].path.parent / ".try").unlink()
    with _shown(len(made.tasks), progress) as show:
        for task, result in _results(made.tasks, jobs, backend, address, (root, device, threads)):
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


def _results(
    tasks: Sequence[Task], jobs: int, backend: str, address: str | None, how: tuple
) -> Iterator[tuple[Task, dict[str, Any]]]:
    """Each task with its result, as they end. A process that dies takes no other cell's result with it."""
    if backend == "loky" and jobs == 1:
        for task in tasks:
            yield task, work(*task.names, *how)
        return
    left = dict(enumerate(tasks))
    call, more = (_own, (os.getpid(),)) if backend == "loky" else (_numbered, ())
    with _pool(backend, jobs, address, how[-1]) as (pool, crash):
        crashes = 0
        while left and crashes < CRASHES:
            try:
                for i, result in pool(
                    joblib.delayed(call)(i, task.names, how, *more) for i, task in list(left.items())
                ):
                    yield left.pop(i), result
            except crash:
                crashes += 1
        for i, task in list(left.items()):
            try:
                ((_, result),) = pool([joblib.delayed(call)(i, task.names, how, *more)])
            except crash:
                result = {"error": DIED}
            yield left.pop(i), result


def _numbered(i: int, names: tuple, how: tuple) -> tuple[int, dict[str, Any]]:
    return i, work(*names, *how)


def _own(i: int, names: tuple, how: tuple, parent: int) -> tuple[int, dict[str, Any]]:
    """As `_numbered`, in a process that ends with the one that started it, killed or not."""
    if not _watching and os.getpid() != parent:
        _watching.append(threading.Thread(target=_outlive_nobody, args=(parent,), daemon=True))
        _watching[0].start()
    return _numbered(i, names, how)


_watching: list[threading.Thread] = []


def _outlive_nobody(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


@contextmanager
def _pool(backend: str, jobs: int, address: str | None, threads: int):
    """A function from tasks to their results, as they end; and what it raises when a process dies."""
    options: dict[str, Any] = {"batch_size": 1, "pre_dispatch": "all", "return_as": "generator_unordered"}

    def run(tasks) -> Iterator[tuple[int, dict[str, Any]]]:
        return joblib.Parallel(**options)(tasks)  # pyright: ignore[reportReturnType]

    if backend == "loky":
        from joblib.externals.loky.process_executor import BrokenProcessPool

        with joblib.parallel_config("loky", n_jobs=max(jobs, 2), inner_max_num_threads=threads):
            yield run, BrokenProcessPool
    elif backend == "dask":
        with _dask(jobs, address) as (cluster, crash), joblib.parallel_config(cluster):
            yield run, crash
    else:
        with _ray(jobs, address) as crash, joblib.parallel_config("ray", n_jobs=-1):
            yield run, crash


@contextmanager
def _dask(jobs: int, address: str | None):
    """A joblib backend on the cluster at the address, or on a local one of `jobs` processes."""
    try:
        from distributed import Client, KilledWorker, LocalCluster
        from joblib._dask import DaskDistributedBackend
    except ImportError:
        raise InputError("backend: dask is not installed; pip install 'twofold[cluster]'") from None

    class Backend(DaskDistributedBackend):
        """joblib's own, but that it tells of a task whose workers died, for which joblib would wait for ever."""

        def submit(self, func, callback=None):
            future = super().submit(func, callback)
            if callback is not None:
                future.add_done_callback(lambda done: done.exception() and callback(done.exception()))
            return future

        def retrieve_result_callback(self, out):
            if isinstance(out, BaseException):
                raise out
            return super().retrieve_result_callback(out)

    if address is None:
        own = {"n_workers": jobs, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
        with LocalCluster(**own) as cluster, Client(cluster) as client:
            yield Backend(client=client), KilledWorker
        return
    try:
        client = Client(address, timeout=10)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"address: no Dask scheduler at {address!r} ({' '.join(str(error).split())[:120]})") from None
    with client:
        yield Backend(client=client), KilledWorker


@contextmanager
def _ray(jobs: int, address: str | None):
    """Ray's own backend for joblib, on the cluster at the address, or on a local one of `jobs` processes."""
    try:
        import ray  # pyright: ignore[reportMissingImports]
        from ray.util.joblib import register_ray  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise InputError("backend: ray is not installed; pip install ray") from None
    try:
        ray.init(address=address, **({} if address else {"num_cpus": jobs}), include_dashboard=False)
    except (ConnectionError, ValueError) as error:
        raise InputError(f"address: no Ray cluster at {address!r} ({' '.join(str(error).split())[:120]})") from None
    try:
        register_ray()
        yield ray.exceptions.RayError
    finally:
        ray.shutdown()


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
