"""What runs cells: processes here, a Dask cluster, a Ray cluster."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import joblib

from twofold.errors import InputError, choose, whole
from twofold.tables.cell import work

if TYPE_CHECKING:
    from twofold.tables.runner import Task

BACKENDS = ("loky", "dask", "ray")
CRASHES = 2  # of a pool of processes; then what is left runs in a process each
DIED = "its process died again and again: out of memory, perhaps"


def check(jobs: int, backend: str, address: str | None, threads: int) -> None:
    """Raises `InputError` for a backend that is not known, an address that fits none, numbers below 1."""
    choose("backend", backend, BACKENDS)
    for name, value in (("jobs", jobs), ("threads", threads)):
        whole(name, value, 1)
    if address is not None and backend == "loky":
        raise InputError(f"address: {address!r}; it goes with --backend dask or ray")


def results(
    tasks: Sequence[Task], jobs: int, backend: str, address: str | None, how: tuple
) -> Iterator[tuple[Task, dict[str, Any]]]:
    """Each task with its result, as they end. A process that dies takes no other cell's result with it."""
    if backend == "loky" and jobs == 1:
        for task in tasks:
            yield task, work(*task.names, *how)
        return
    left = dict(enumerate(tasks))
    if backend == "ray" and how[1].startswith("cuda"):
        how = (how[0], "cuda", *how[2:])  # a worker sees one card, whatever its number
    call, more = (_own, (os.getpid(),)) if backend == "loky" else (_numbered, ())
    with _pool(backend, jobs, address, *how[1:]) as (pool, crash):
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
def _pool(backend: str, jobs: int, address: str | None, device: str, threads: int):
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
        with _ray(jobs, address, device, threads) as run:
            yield run, ()


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


def _call(function, args):
    return function(*args)


@contextmanager
def _ray(jobs: int, address: str | None, device: str, threads: int):
    """A function from tasks to their results, as they end, on the cluster at the address, or on a local one of `jobs`
    processes. Ray's own joblib backend gives nothing before the last has ended, and a kill would lose all."""
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise InputError("backend: ray is not installed; pip install 'twofold[ray]'") from None
    own = {"address": address} if address else {"num_cpus": jobs * threads}
    try:
        ray.init(**own, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RuntimeError) as error:
        what = f"address: no Ray cluster at {address!r}" if address else "backend: ray could not start"
        raise InputError(f"{what} ({' '.join(str(error).split())[:120]})") from None

    needs = {"num_cpus": threads, "num_gpus": int(device.startswith("cuda")), "max_retries": CRASHES}
    call: Any = ray.remote(**needs)(_call)
    died = ray.exceptions

    def run(tasks) -> Iterator[tuple[int, dict[str, Any]]]:
        waiting = {call.remote(function, args): args[0] for function, args, _ in tasks}
        while waiting:
            (done,), _ = ray.wait(list(waiting))
            i = waiting.pop(done)
            try:
                yield ray.get(done)
            except (died.WorkerCrashedError, died.OutOfMemoryError, died.NodeDiedError):
                yield i, {"error": DIED}
            except died.RayError as error:
                yield i, {"error": " ".join(str(error).split())[-300:]}

    try:
        yield run
    finally:
        ray.shutdown()
