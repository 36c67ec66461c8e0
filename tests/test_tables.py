"""The tables: what they are, how cells run and are kept, what the pages say, and every row at its smallest."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import joblib
import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.decomposition import PCA

from twofold import data, methods, tables
from twofold.__main__ import main
from twofold.data import Dataset
from twofold.errors import DivergedError, InputError
from twofold.method import Code
from twofold.tables import backends, clusters, grouped, render, ruiz19, runner, statistics
from twofold.tables.cell import Cell, lacks, thinned, work
from twofold.tables.table import Book, Column, Protocol, Row, Table

BOOKS = tables.books()
RESULTS = Path(__file__).parents[1] / "results"


def sketch(*names: str) -> Book:
    book = tables.read("tables_sketch")
    assert book is not None
    return replace(book, tables=tuple(t for t in book.tables if t.name in names))


def files(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*.json"))}


def ran(folder: Path) -> list[str]:
    mark = folder / "mark"
    return [line.rpartition(", ")[0] for line in mark.read_text().splitlines()] if mark.exists() else []


def go(book: Book, out: Path, desk: Path, seeds: int = 1, only=(), scale: str = "smoke", **how):
    plan = runner.plan([book], scale, range(seeds), out, desk, only)
    return runner.run(plan, data_dir=desk, **{"progress": False, **how})


# -- every table, at its smallest --------------------------------------------------------------------------------------


def smallest():
    """One row for each method or control that a table trains and measures in its own way, on its smallest data."""
    for book in BOOKS.values():
        for table in book.tables:
            chosen: dict[tuple, tuple[int, Row]] = {}
            for row in table.rows:
                if "smoke" not in table.scales or lacks(table, row, "smoke", None) is not None:
                    continue
                protocol = table.resolve(row, "smoke")
                entry = next(entry for entry in data.available() if entry.name == protocol.data)
                key = (row.method, row.control, row.train, row.measure)
                size = math.prod(entry.shape)
                if key not in chosen or size < chosen[key][0]:
                    chosen[key] = (size, row)
            yield from (
                pytest.param(book, table, row, id=f"{book.name}-{table.name}-{row.slug}") for _, row in chosen.values()
            )


@pytest.mark.parametrize(("book", "table", "row"), list(smallest()))
def test_every_kind_of_row_runs_at_the_smoke_scale(book, table, row):
    found = work(book.module, table.name, row.slug, "smoke", 0, None, "cpu", 1)
    assert "error" not in found, found["error"]
    assert set(found["values"]) == {column.name for column in table.columns}
    assert any(value is not None for value in found["values"].values())
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("table", [pytest.param(t, id=f"{b.name}-{t.name}") for b in BOOKS.values() for t in b.tables])
def test_tables_are_whole(table):
    assert {"cpu", "paper"} <= set(table.scales)
    for row in table.rows:
        for scale in table.scales:
            protocol = table.resolve(row, scale)
            assert protocol.data
            assert (protocol.steps is None) != (protocol.epochs is None) or row.control in (
                "pca",
                "constant",
                "untrained",
            )
            json.dumps(table.identity(row, scale))
            if row.method in methods.names() and row.control is None and row.train is None:
                unknown = set(protocol.options) - set(methods.get(row.method).options())
                assert not unknown, f"{row.title}: {unknown}"
        if row.method is None:
            assert row.control is not None
        known = {entry.name for entry in data.available()}
        assert table.resolve(row, "cpu").data in known or row.recipe, f"{row.title}: local data without a recipe"


def test_the_tables_of_all_methods_hold_every_method():
    """Each on each data set of the package whose supervision it can use, and is about what s is judged by."""
    (table,) = BOOKS["all-methods"].tables
    named = {(row.block, row.method) for row in table.rows if row.control is None}
    there = {entry.name: set(entry.supervision) for entry in data.available() if not entry.files}
    there["digit-style, colour"] = set(there["digit-style"])
    there["digit-style"] -= {"reference"}  # plain digits are digits, too: it says nothing of them
    kinds = {name: method.supervision.__name__.lower() for name, method in methods.names().items()}
    assert named == {(block, name) for block, given in there.items() for name in kinds if kinds[name] in given}
    assert {name for _, name in named} == set(methods.names())
    for row in table.rows:
        assert table.resolve(row, "cpu").factor == ("colour" if row.block == "digit-style, colour" else None)


def test_kept_cells_belong_to_rows():
    """A row that was renamed or dropped leaves none behind."""
    kept = {path.parent / path.name.rsplit(".", 2)[0] for path in RESULTS.glob("*/*/*/*.json")}
    rows = {
        RESULTS / book.name / scale / table.name / row.slug
        for book in BOOKS.values()
        for table in book.tables
        for scale in table.scales
        for row in table.rows
    }
    assert not kept - rows


def test_files_are_found_by_walking():
    here = Path(tables.__file__).parent
    written = {p.stem.replace("_", "-") for p in here.glob("*.py") if re.search(r"^TABLES\b", p.read_text(), re.M)}
    assert set(BOOKS) == written
    with pytest.raises(InputError, match=r"^table: 'contrast' is not known \(did you mean 'contrast21'"):
        tables.get("contrast")


def test_contrast21_reads_each_expression():
    """Table 2, on data that nobody may hand out: here noise that the label shifts."""
    book = BOOKS["contrast21"]
    table = book.table("table-2")
    y = np.arange(210) % 7
    x = (np.random.default_rng(0).random((210, 1, 8, 8)) + y[:, None, None, None]) / 8
    names = {"expression": clusters.EMOTIONS}
    whole = Dataset(x, {"expression": y}, names=names, background=Dataset(x[:30]))
    row = next(row for row in table.rows if row.name == "Eq. 8")
    made = Cell(table, replace(row, protocol={"data": "x", "s": 4, "z": 4}), "smoke", 0)
    made.__dict__["whole"], made.__dict__["parts"] = whole, whole.split((0.5, 0.5))
    values = made.run()["values"]
    assert set(values) == set(clusters.EMOTIONS)
    assert np.mean(list(values.values())) > 0.4


# -- protocols ---------------------------------------------------------------------------------------------------------


def one(**more) -> Table:
    own = {"protocol": {"z": 3, "measure": {"b": 2}}, "at": {"cpu": {"z": 4}}}
    given = {
        "rows": [Row(name="a", method="vae", options={"beta": 2.0}, **own)],
        "columns": [Column(name="c")],
        "protocol": {"data": "digits", "steps": 5, "measure": {"a": 1}},
        "scales": {"smoke": {"z": 1}, "cpu": {"z": 2, "epochs": 1.5}},
    }
    return Table(**{"name": "t", "title": "", "source": "", "measure": lambda cell: {}, **given, **more})


def test_protocols_override_in_order():
    table = one()
    cpu, smoke = (table.resolve(table.rows[0], scale) for scale in ("cpu", "smoke"))
    assert (cpu.z, cpu.steps, cpu.epochs, smoke.z, smoke.steps) == (4, None, 1.5, 1, 5)
    assert cpu.measure == {"a": 1, "b": 2}
    assert cpu.options == {"beta": 2.0}
    identity = table.identity(table.rows[0], "cpu")
    assert identity["options"]["beta"] == 2.0
    assert identity["options"]["likelihood"] == methods.get("vae").options()["likelihood"]
    assert identity["optim"] == methods.get("vae").optim
    assert Protocol().merged({"epochs": 2}).merged({"steps": 1}).epochs is None


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: one(scales={"cpu": {"epoch": 1}}), r"^protocol: 'epoch' is not known \(did you mean 'epochs'"),
        (lambda: one(scales={"gpu": {}}), r"'gpu' is not known"),
        (lambda: one(name="Table 1"), r"^table: 'Table 1'"),
        (lambda: one(rows=[Row(name="a", method="vae"), Row(name="A", method="vae")]), r"row 'a' is there twice"),
        (lambda: one(columns=[Column(name="c"), Column(name="c")]), r"column 'c' is there twice"),
        (lambda: one(rows=[Row(name="a", method="vae", printed={"d": 1})]), r"printed: 'd' is not known"),
        (lambda: Row(name="a", method="vae", control="pcs"), r"did you mean 'pca'"),
        (lambda: Row(name="a"), r"^row 'a': no method"),
        (lambda: Row(name="a", control="shuffled"), r"^row 'a': no method"),
        (lambda: Row(name="a", method="vae", at={"gpu": {}}), r"at: 'gpu' is not known"),
    ],
)
def test_tables_that_make_no_sense_are_refused(make, says):
    with pytest.raises(InputError, match=says):
        make()


# -- running and keeping -----------------------------------------------------------------------------------------------


def test_what_is_there_is_kept_and_what_is_missing_is_run(tmp_path):
    book, out = sketch("sizes"), tmp_path / "results"
    outcome = go(book, out, tmp_path)
    assert (outcome.done, outcome.failed) == (4, {})
    assert outcome.plan.lacking == {
        "tables-sketch, sizes, absent": "the method method-of-tomorrow",
        "tables-sketch, sizes, elsewhere": "faces in the data folder",
    }
    before = files(out)
    assert set(before) == {f"tables-sketch/smoke/sizes/{name}.0.json" for name in ("plain", "wide", "raw", "mean")}
    plain = json.loads(before["tables-sketch/smoke/sizes/plain.0.json"])
    assert plain["values"]["steps"] == plain["protocol"]["steps"] == plain["steps"] == 2
    assert plain["extra"]["rows"] == 30
    assert {"seed", "protocol", "versions", "commit", "device", "seconds", "total_seconds", "data"} <= set(plain)

    assert go(book, out, tmp_path).plan.kept == 4
    assert files(out) == before
    (out / "tables-sketch/smoke/sizes/raw.0.json").write_text('{"values"')  # as a full disk might leave it
    (out / "tables-sketch/smoke/sizes/mean.0.json").unlink()
    assert go(book, out, tmp_path).done == 2
    timed = re.compile(r'"(total_)?(cpu_)?seconds": [\d.e-]+|"started": "[^"]+"')
    assert {k: timed.sub("", v) for k, v in files(out).items()} == {k: timed.sub("", v) for k, v in before.items()}
    assert go(book, out, tmp_path, seeds=2, only=["WID"]).done == 1


def test_another_protocol_makes_cells_stale(tmp_path, monkeypatch):
    book, out = sketch("sizes"), tmp_path / "results"
    go(book, out, tmp_path, only=["plain"])
    table = book.tables[0]
    longer = replace(book, tables=(replace(table, protocol={**table.protocol, "batch_size": 9}),))
    plan = runner.plan([longer], "smoke", [0], out, tmp_path, ["plain"])
    assert list(plan.stale.values()) == ["batch_size was 8, is 9"]
    assert len(plan.tasks) == 1
    raised = replace(book, tables=(replace(table, version=2),))
    assert runner.plan([raised], "smoke", [0], out, tmp_path, ["plain"]).stale
    cls = methods.get("vae")
    monkeypatch.setitem(cls.__init__.__kwdefaults__, "beta", 1.5)  # a default of the method
    assert "options was" in next(iter(runner.plan([book], "smoke", [0], out, tmp_path, ["plain"]).stale.values()))
    shown = render.sections(book, out, tmp_path)[0].lines[0]
    assert shown.cells == []
    assert shown.why == "1 cell of an earlier protocol left out"


def test_a_cell_that_fails_stops_no_other_and_is_tried_again(tmp_path):
    book, out = sketch("faults"), tmp_path / "results"
    outcome = go(book, out, tmp_path)
    assert outcome.done == 2
    assert list(outcome.failed.values()) == ["ValueError: no such luck"]
    kept = json.loads((out / "tables-sketch/smoke/faults/fails.0.json").read_text())
    assert kept["error"] == "ValueError: no such luck"
    assert kept["seed"] == 0
    assert len(go(book, out, tmp_path).failed) == 1
    assert ran(tmp_path) == ["fails, 0", "works, 0", "works too, 0", "fails, 0"]
    line = render.sections(book, out, tmp_path)[0].lines[0]
    assert line.why == "1 of 1 seeds failed: ValueError: no such luck"


def test_processes_side_by_side(tmp_path):
    book = sketch("sizes")
    assert go(book, tmp_path / "one", tmp_path, seeds=2).done == 8
    assert go(book, tmp_path / "two", tmp_path, seeds=2, jobs=2).done == 8
    one, two = ({k: json.loads(v)["values"] for k, v in files(tmp_path / name).items()} for name in ("one", "two"))
    assert one == two  # where a cell runs decides nothing
    pids = {line.split()[-1] for line in (tmp_path / "mark").read_text().splitlines()}
    assert len(pids) == 3
    assert str(os.getpid()) in pids


class Died(Exception):
    """A process."""


def test_a_process_that_dies_takes_only_its_cell(tmp_path, monkeypatch):
    """With others twice, then alone; what takes a process with it each time is told, all else is run."""
    lives, pools = {"dies": 9, "dies once": 1}, []

    @contextmanager
    def pool(backend, jobs, address, device, threads):
        def run(tasks):
            pools.append(tasks := list(tasks))
            for function, args, _ in tasks:
                name = args[1][2].replace("-", " ")
                if lives.get(name, 0):
                    lives[name] -= 1
                    raise Died
                yield function(*args)

        yield run, Died

    monkeypatch.setattr(backends, "_pool", pool)
    nothing = dict.fromkeys(("size", "half", "seed", "steps"))
    monkeypatch.setattr(backends, "work", lambda *names: {"values": nothing, **FILE})
    outcome = go(sketch("deaths", "sizes", "fright"), tmp_path / "results", tmp_path, jobs=2)
    assert outcome.done == 7
    assert outcome.failed == {"tables-sketch, deaths, dies, seed 0": backends.DIED}
    assert list(map(len, pools)) == [8, 4, 1, 1]


FILE = {"protocol": {}, "seed": 0, "total_seconds": 0.0}


def test_pools_tell_of_a_death():
    """Not by waiting for ever, which is what joblib does with Dask."""
    distributed = pytest.importorskip("distributed")
    with backends._pool("loky", 2, None, "cpu", 1) as (run, crash):
        assert list(run([joblib.delayed(abs)(-1)])) == [1]
        with pytest.raises(crash):
            list(run([joblib.delayed(os._exit)(1)]))
    dask = pytest.importorskip("dask")
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(n_workers=1, dashboard_address=None, silence_logs="CRITICAL") as cluster,
        backends._pool("dask", 1, cluster.scheduler_address, "cpu", 1) as (run, crash),
    ):
        assert list(run([joblib.delayed(abs)(-1)])) == [1]
        with pytest.raises(crash):
            list(run([joblib.delayed(os._exit)(1)]))
        assert list(run([joblib.delayed(abs)(-2)])) == [2]


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from twofold import tables
from twofold.tables import runner
book = tables.read("tables_sketch")
plan = runner.plan([book], "smoke", [0], Path({out!r}), Path({desk!r}), [{rows!r}])
runner.run(plan, data_dir=Path({desk!r}), progress=False, jobs={jobs})
"""


def test_killed_and_run_again(tmp_path):
    out = tmp_path / "results"
    code = KILLED.format(tests=str(Path(__file__).parent), out=str(out), desk=str(tmp_path), rows="slow", jobs=1)
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        deadline = time.monotonic() + 300
        while len(ran(tmp_path)) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = len(ran(tmp_path))
    assert 2 <= before < 4
    kept = len(list(out.rglob("*.json")))
    assert kept >= 1
    assert go(sketch("slow"), out, tmp_path).plan.kept == kept
    assert len(list(out.rglob("*.json"))) == 4
    assert len(ran(tmp_path)) - before == 4 - kept


def test_workers_end_with_a_table_that_is_killed(tmp_path):
    """They would go on for hours: a pool's processes hold their next cells already."""
    out, mark = tmp_path / "results", tmp_path / "mark"
    code = KILLED.format(tests=str(Path(__file__).parent), out=str(out), desk=str(tmp_path), rows="long", jobs=2)
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    try:
        while not ran(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    workers = {int(line.split()[-1]) for line in mark.read_text().splitlines()}
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(alive, workers))
    assert len(ran(tmp_path)) < 4


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_dask_cluster_that_loses_a_worker(tmp_path, monkeypatch):
    """Real processes, one of them killed half-way: its cells run elsewhere, and none is missing."""
    distributed = pytest.importorskip("distributed")
    out, killed, write = tmp_path / "results", [], runner.write
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**options, silence_logs="CRITICAL") as cluster:
        plan = runner.plan([sketch("slow")], "smoke", [0], out, tmp_path)

        def written(path, text):
            write(path, text)
            if list(out.rglob("*.json")) and not killed:  # the one whose cell began last
                killed.append(int((tmp_path / "mark").read_text().split()[-1]))
                os.kill(killed[0], signal.SIGKILL)

        monkeypatch.setattr(runner, "write", written)
        how = {"backend": "dask", "address": cluster.scheduler_address, "data_dir": tmp_path, "progress": False}
        outcome = runner.run(plan, **how)
    assert killed
    assert (outcome.done, outcome.failed) == (4, {})
    assert sum("values" in json.loads(text) for text in files(out).values()) == 4


def test_a_ray_cluster_whose_processes_die(tmp_path, monkeypatch):
    """Each cell is written as it ends; one whose process dies is run again, one that kills each is told."""
    pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    for name, done, failed in (("fright", 2, []), ("deaths", 1, [backends.DIED])):
        out = tmp_path / name
        plan = runner.plan([sketch(name)], "smoke", [0], out, tmp_path)
        outcome = runner.run(plan, backend="ray", jobs=2, data_dir=tmp_path, progress=False)
        assert (outcome.done, list(outcome.failed.values())) == (done, failed)
        assert len(files(out)) == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_cells_may_use_joblib_themselves_on_dask(tmp_path, workers):
    """The slot that a cell gives up while it waits must not go to a cell that waits for it."""
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": workers, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(**options, silence_logs="CRITICAL") as cluster:
        plan = runner.plan([sketch("nests")], "smoke", [0], tmp_path / "results", tmp_path)
        how = {"backend": "dask", "address": cluster.scheduler_address, "data_dir": tmp_path, "progress": False}
        assert runner.run(plan, **how).done == 3


def test_what_runs_the_cells_is_checked_first(tmp_path, capsys):
    plan = runner.plan([sketch("sizes")], "smoke", [0], tmp_path / "results", tmp_path)
    for how, says in (
        ({"backend": "spark"}, "^backend: 'spark' is not known"),
        ({"jobs": 0}, "^jobs: 0; expected a whole number of at least 1"),
        ({"address": "here:1"}, "^address: 'here:1'; it goes with"),
        *([] if find_spec("ray") else [({"backend": "ray"}, "^backend: ray is not installed")]),
    ):
        with pytest.raises(InputError, match=says):
            runner.run(plan, progress=False, **how)
    (tmp_path / "file").write_text("")
    blocked = runner.plan([sketch("sizes")], "smoke", [0], tmp_path / "file", tmp_path)
    with pytest.raises(InputError, match=r"^out: can't write"):
        runner.run(blocked, progress=False)
    assert ran(tmp_path) == []


def test_curves_are_of_classes_that_have_enough():
    """Three sets of K images are wanted of each; people with fewer are left out, and none is no curve."""
    y = torch.tensor([0] * 6 + [1] * 6 + [2] * 4)
    x = torch.rand(16, 6)
    method = methods.MLVAE.build((6,), s=2, z=2)
    cell = SimpleNamespace(test=Dataset(x, {"who": y}), factor="who", method=method, seed=0)
    made = grouped.curves(cell, per_class=2, trials=1)  # pyright: ignore
    assert made["extra"]["test images"] == 12
    assert made["s, k=2"] is not None
    with pytest.raises(InputError, match=r"^per_class: 3; 0 classes have three times as many test images"):
        grouped.curves(cell, per_class=3, trials=1)  # pyright: ignore


def test_of_a_mixture_z_is_multiplied(monkeypatch):
    """By a mixture's own rule, which draws one of its members, z could show no more than one image's does."""
    asked, evidence = [], grouped.metrics.evidence

    def noted(*given, **how):
        asked.append((how["evidence"], how["codes"]))
        return evidence(*given, **how)

    monkeypatch.setattr(grouped.metrics, "evidence", noted)
    data = Dataset(torch.rand(12, 6), {"who": torch.arange(12) % 2})
    method = methods.MLVAE.build((6,), s=2, z=2, evidence="mixture")
    cell = SimpleNamespace(test=data, factor="who", method=method, seed=0)
    grouped.curves(cell, per_class=2, rule="mixture", trials=1)  # pyright: ignore
    of_s, of_z = asked[:3], asked[3:]
    assert of_s == [("mixture", "samples"), ("mixture", "means"), ("product", "samples")]
    assert of_z == [(None, "samples"), (None, "means"), ("product", "samples")]


# -- statistics --------------------------------------------------------------------------------------------------------


def test_summaries_and_standings():
    found = statistics.summary([1.0, 2.0, 4.0])
    low, high = stats.t.interval(0.95, 2, loc=7 / 3, scale=stats.sem([1.0, 2.0, 4.0]))
    assert (found.n, found.mean, found.low, found.high) == (3, pytest.approx(7 / 3), *map(pytest.approx, (low, high)))
    for printed in (-2.0, 1.0, 2.0, 6.0, 7.0):
        p = stats.ttest_1samp([1.0, 2.0, 4.0], printed).pvalue
        standing = statistics.against(found, printed, "low")
        assert (standing == "level") == (p > 0.05)
        assert standing != ("behind" if printed > found.mean else "ahead")
    assert statistics.against(statistics.summary([1.0]), 5.0, "low") is None
    assert statistics.against(found, 100.0, None) is None
    with pytest.raises(InputError):
        statistics.summary([])


def test_paired_comparisons():
    a, b = {0: 1.0, 1: 2.0, 2: 3.5, 7: 9.0}, {0: 0.5, 1: 1.7, 2: 2.4, 8: 3.0}
    found = statistics.paired(a, b)
    expected = stats.ttest_rel([1.0, 2.0, 3.5], [0.5, 1.7, 2.4])
    interval = expected.confidence_interval()
    assert found.n == 3
    assert (found.difference, found.low, found.high) == tuple(
        map(pytest.approx, (1.9 / 3, interval.low, interval.high))
    )
    assert found.p == pytest.approx(expected.pvalue)
    assert statistics.paired({0: 1.0}, {0: 2.0}) is None
    assert statistics.paired({0: 1.0, 1: 1.0}, {0: 1.0, 1: 1.0}).p == 1
    assert statistics.paired({0: 1.0, 1: 1.0}, {0: 2.0, 1: 2.0}).p == 1  # no spread: seeds say nothing
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([0.6, 0.7]) == [1.0, 1.0]


def test_a_winner_needs_every_test():
    near = {"a": {0: 1.0, 1: 1.1, 2: 0.9}, "b": {0: 2.0, 1: 2.11, 2: 1.9}, "c": {0: 1.1, 1: 1.0, 2: 0.95}}
    found = statistics.best(near, "low")
    assert (found.name, found.won, set(found.tests)) == ("a", False, {"b", "c"})  # c is too near
    clear = {"a": near["a"], "b": near["b"]}
    for better, first in (("low", "a"), ("high", "b")):
        found = statistics.best(clear, better)
        assert (found.name, found.won) == (first, True)
    assert not statistics.best({"a": {0: 1.0}, "b": {0: 2.0}}, "low").won  # one seed tells nothing
    assert statistics.best({"a": {0: 1.0}}, "low") == statistics.Best()
    found = statistics.best({"d": {5: 9.0, 6: 9.0}} | clear, "low")  # no seeds in common: no test
    assert (found.name, found.won, set(found.tests)) == ("a", False, {"b"})


# -- pages -------------------------------------------------------------------------------------------------------------


def fake(book: Book, out: Path, scale: str, row: str, at: int, **values) -> None:
    """A cell's file, of the present protocol."""
    table = book.tables[0]
    found = next(r for r in table.rows if r.name == row)
    cell = {"table": table.name, "row": found.title, "scale": scale, "seed": at, "values": values, "extra": {}}
    cell |= {"protocol": table.identity(found, scale), "versions": {}, "commit": "c0ffee", "device": "cpu"}
    path = runner.cell_path(out, book, scale, table, found, at)
    runner.write(path, json.dumps(cell | {"total_seconds": 1.0, "seconds": 0.5, "machine": "m", "gpu": None}))


@pytest.fixture
def page(tmp_path) -> tuple[Path, str, str]:
    """A folder of results with its two pages."""
    book, out = sketch("sizes"), tmp_path / "results"
    (sizes,) = book.tables
    sizes = replace(sizes, rows=[*sizes.rows, Row(name="bound", method="vae", competes=False)])
    book = replace(book, tables=[sizes])
    for seed, (plain, wide) in enumerate([(1.0, 0.1), (1.1, 0.21), (1.2, 0.3)]):
        fake(book, out, "cpu", "plain", seed, size=plain, seed=seed)
        fake(book, out, "cpu", "wide", seed, size=wide, half=wide / 2 if seed else None, seed=seed)
        fake(book, out, "cpu", "bound", seed, size=0.0, seed=seed)  # the best, but no method's doing
    fake(book, out, "cpu", "mean", 0, size=0.0, seed=0)  # the best, but a control
    fake(book, out, "smoke", "plain", 0, size=7.0, seed=0)  # not shown beside results
    (out / "notes.md").write_text("## The end\n")
    (out / "tables-sketch/notes.md").write_text("What we tried <b>.\n")
    made = render.render([book], out, tmp_path / "RESULTS.md", tmp_path)
    return out, made[0].read_text(), made[1].read_text()


def test_the_markdown_page(page):
    _, text, _ = page
    assert "| **0.203 ± 0.100** / 0.500 ▲ |" in text  # bold by a test, controls apart; ahead of the printed value
    assert text.count("**0") == 1
    assert "| 0.1 ± 0.0 (n = 2) / 0.25 ≠ |" in text  # another quantity; not of all seeds; all printed digits
    assert "| [plain](results/tables-sketch/cpu/sizes/plain.0.json) | 1.100 ± 0.100 |" in text
    assert "_needs the method method-of-tomorrow_" in text
    assert "/ 1.000 _needs faces in the data folder_" in text
    assert "How to make the local copies: Put faces/ there." in text
    assert "7.000" not in text
    assert text.index("What we tried") < text.index("## The end")
    assert "| tables-sketch sizes | 1 | 0 | 0 |  |" in text


def test_the_page_for_browsers(page):
    _, _, html = page
    assert not re.search(r"(src|href)=[\"'](?!#)", html)  # it asks nothing of the network
    assert "<script" not in html
    targets = set(re.findall(r'href="#([^"]+)"', html))
    assert targets <= set(re.findall(r'id="([^"]+)"', html))
    assert '<td class="ahead"' in html
    assert "95 % interval of the mean" in html
    assert "paired t-test, 3 seeds, p = " in html
    assert "What we tried &lt;b&gt;." in html
    assert "<h2>The end</h2>" in html
    assert "not to be compared" in html
    assert "batch_size" in html  # a configuration


def test_the_summary_for_machines(page):
    out, _, _ = page
    found = json.loads((out / "tables-sketch/sizes.cpu.json").read_text())
    rows = {row["row"]: row for row in found["rows"]}
    wide = rows["wide"]["values"]["size"]
    assert wide["seeds"] == {"0": 0.1, "1": 0.21, "2": 0.3}
    assert wide["standing"] == "ahead"
    assert wide["best"] is True
    assert wide["sd"] == pytest.approx(np.std([0.1, 0.21, 0.3], ddof=1))
    assert rows["plain"]["values"]["size"]["from best"]["row"] == "wide"
    assert rows["plain"]["protocol"]["batch_size"] == 8
    assert rows["elsewhere"]["note"] == "needs faces in the data folder"


def test_tables_without_cells_stand_beside_those_that_have_some(tmp_path):
    book = sketch("sizes", "slow")
    fake(book, tmp_path, "cpu", "plain", 0, size=1.0)
    assert [(s.table.name, s.scale) for s in render.sections(book, tmp_path, tmp_path)] == [
        ("sizes", "cpu"),
        ("slow", "cpu"),
    ]
    assert not render.sections(sketch("slow"), tmp_path, tmp_path)


def test_a_page_of_somebody_else_is_not_written_over(tmp_path):
    (tmp_path / "RESULTS.md").write_text("# My results\n")
    with pytest.raises(InputError, match=r"^page: .*RESULTS.md is not a page of results"):
        render.render([sketch("sizes")], tmp_path, tmp_path / "RESULTS.md")


def test_the_smoke_scale_makes_no_claims(tmp_path):
    book = sketch("sizes")
    for seed in range(3):
        fake(book, tmp_path, "smoke", "plain", seed, size=1.0 + seed / 10)
        fake(book, tmp_path, "smoke", "wide", seed, size=0.1)
    section = render.sections(book, tmp_path, tmp_path)[0]
    assert not any(value.best or value.standing for line in section.lines for value in line.values)
    assert "These are not results" in render.markdown(section, tmp_path)


# -- controls ----------------------------------------------------------------------------------------------------------


def cell(control: str, method: str | None = None, seed: int = 0, **protocol) -> Cell:
    row = Row(name="x", method=method, control=control)
    given = {"data": "digits", "split": (0.8, 0.2), "s": 3, "z": 4, "steps": 30, "n_train": 300, "n_test": 100}
    made = Cell(one(rows=[row], protocol=given | protocol, scales={"cpu": {}}), row, "cpu", seed)
    made.method = made.trained()
    return made


def test_principal_components():
    made = cell("pca")
    x = made.train.x.flatten(1).double().numpy() / 255
    expected = PCA(7, svd_solver="full").fit(x)
    code = torch.cat(list(made.encode(made.train)), 1)
    assert np.allclose(code.abs(), np.abs(expected.transform(x)), atol=1e-4)
    assert made.method.sizes == (3, 4)
    undone = expected.inverse_transform(expected.transform(x)).clip(0, 1)
    assert np.allclose(made.method.decode(made.encode(made.train)).flatten(1), undone, atol=1e-4)
    prior = made.method.prior(4_000)
    assert torch.allclose(torch.cat(list(prior), 1).std(0), code.std(0), rtol=0.1)
    wide = cell("pca", data="toy", split=(0.5, 0.5), s=3, z=2)  # two dimensions: the rest is 0
    assert (torch.cat(list(wide.encode(wide.test)), 1)[:, 2:] == 0).all()


def test_the_best_constant():
    made = cell("constant")
    code = made.encode(made.test)
    assert (code.s == 0).all()
    assert (code.z == 0).all()
    assert torch.allclose(made.method.decode(code)[0], made.train.x.float().mean(0) / 255, atol=1e-5)


def test_the_supervised_bound_learns_and_has_no_z():
    made = cell("supervised", steps=150)
    code, y = made.encode(made.test), made.test.factors["digit"]
    assert made.method.sizes == (3, 0)
    assert code.z.shape == (100, 0)
    head = made.method.head(code.s).argmax(1)
    assert (head == y).float().mean() > 0.5
    real = Dataset(torch.rand(50, 1, 8, 8), {"a": np.arange(50) % 2, "b": np.linspace(0, 5, 50)})
    row = Row(name="x", control="supervised", options={"factors": ("a", "b")})
    both = Cell(one(rows=[row], scales={"cpu": {}}), row, "cpu", 0)
    both.__dict__["whole"], both.__dict__["parts"] = real, (real, real)
    assert both.trained().widths == [2, 1]
    faces = Dataset(torch.rand(20, 3, 8, 8), {"who": np.arange(20) % 2})  # whose decoder gives variances, too
    row = Row(name="x", control="supervised", protocol={"arch": "bouchacourt18-faces", "steps": 2, "batch_size": 10})
    told = Cell(one(rows=[row], scales={"cpu": {}}), row, "cpu", 0)
    told.__dict__["whole"], told.__dict__["parts"] = faces, (faces, faces)
    assert told.trained().sizes == (10, 0)


def test_untrained_is_as_built_and_shuffled_knows_nothing():
    raw = cell("untrained", "ml-vae")
    built = raw.build()
    assert all(torch.equal(a, b) for a, b in zip(raw.method.enc.parameters(), built.enc.parameters()))
    assert raw.steps == 0
    shuffled = cell("shuffled", "ml-vae", steps=1)
    group, y = shuffled.supervision("ml-vae").group, shuffled.train.factors["digit"]
    assert torch.equal(torch.as_tensor(group).bincount().sort()[0], y.bincount().sort()[0])
    assert (torch.as_tensor(group) == y).float().mean() < 0.3
    told = {"data": "grassy-digits", "split": "official", "steps": 1}
    mixed = cell("shuffled", "contrastive", **told).supervision("contrastive")
    plain = cell("untrained", "contrastive", **told).supervision("contrastive")
    table = cell("shuffled", "contrastive", data="wine", split=(1.0,), background="cultivar=0", steps=1)
    assert len(table.supervision("contrastive").background) == 59
    assert len(mixed.target) == len(plain.target)
    assert len(mixed.background) == len(plain.background)
    pool = [torch.cat([s.target, s.background]).float().sum() for s in (mixed, plain)]
    assert pool[0] == pool[1]
    assert not torch.equal(mixed.target, plain.target)
    with pytest.raises(InputError, match="no supervision to shuffle"):
        cell("shuffled", "vae")


def test_samples_follow_the_cells_seed():
    a, b, c = (cell("untrained", "ml-vae", seed=seed) for seed in (1, 1, 2))
    state = torch.get_rng_state()
    first, again, other = (made.encode(made.test, samples=True) for made in (a, b, c))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first.s, again.s)
    assert not torch.equal(first.s, a.encode(a.test).s)
    assert not torch.equal(first.s, other.s)
    assert a.train.hash == c.train.hash  # the split is the same for all seeds


def test_a_games_cell_keeps_its_losses():
    row = Row(name="x", method="abid-zou", protocol={"data": "grassy-digits", "split": "official", "steps": 60})
    run = Cell(one(rows=[row], measure=lambda cell, **_: {}, scales={"cpu": {}}), row, "cpu", 0).run()
    last = run["history"][-1]
    assert last["step"] == 60
    assert {"model/grad_norm", "discriminator/grad_norm", "discriminator/joint"} < set(last)
    long = [{"step": float(i), "loss": 1 / 3} for i in range(100)]
    kept = thinned(long, most=12)
    assert [row["step"] for row in kept] == sorted({round(99 * i / 11) for i in range(12)})
    assert {row["loss"] for row in kept} == {0.3333}
    assert thinned(long[:3]) == [{"step": i, "loss": 0.3333} for i in (0, 1, 2)]
    assert thinned([]) == []


def test_a_tuned_weight_is_chosen_without_the_test_part(monkeypatch):
    """The least error on the second half of the probe part, of regressions fitted on the first; what fails is noted."""
    row = Row(name="x", method="vae")
    measure = {"weights": (1.0, 2.0, 5.0, 10.0)}
    made = Cell(one(rows=[row], protocol={"measure": measure}, scales={"cpu": {}}), row, "cpu", 0)
    probe = Dataset(torch.zeros(40, 1, 8, 8), {"i": np.arange(40), "width": np.linspace(0, 1, 40)})
    made.__dict__["parts"] = (None, probe, None)  # to touch the others is an error
    errors, asked = {1.0: 0.3, 2.0: 0.1, 10.0: 0.2}, []

    def fitted(self, method):
        if method == 5.0:
            raise DivergedError("loss: NaN")
        return method

    def judged(cell, half, seen, test):
        asked.append((half, set(seen.factors["i"].tolist()), set(test.factors["i"].tolist())))
        return {"R": SimpleNamespace(score=errors[cell.method])}

    monkeypatch.setattr(Cell, "build", lambda self, **options: options["beta"])
    monkeypatch.setattr(Cell, "fit", fitted)
    monkeypatch.setattr(ruiz19, "half_of", lambda method: "z")
    monkeypatch.setattr(ruiz19, "probes", judged)
    assert ruiz19.tuned(made, "beta") == 2.0
    assert made.notes == {"beta 1": 0.3, "beta 2": 0.1, "beta 5": "loss: NaN", "beta 10": 0.2, "chosen": 2.0}
    assert [half for half, *_ in asked] == ["z"] * 3
    assert all(len(seen) == len(rest) == 20 and not seen & rest for _, seen, rest in asked)
    monkeypatch.setattr(Cell, "fit", lambda self, method: fitted(self, 5.0))
    with pytest.raises(DivergedError, match="beta: no weight trained to the end; the last: loss: NaN"):
        ruiz19.tuned(made, "beta")


def test_expressions_are_tuned_by_the_mean_over_classes():
    y = np.repeat([0, 1], (30, 10))
    faces = Dataset(torch.from_numpy(y).float()[:, None].expand(40, 6), {"expression": y})
    blind = SimpleNamespace(method=SimpleNamespace(sizes=(2, 2)), factor="expression", seed=0)
    blind.encode = lambda part: Code(torch.zeros(len(part), 2), part.x[:, :2])
    assert ruiz19.error(blind, faces, faces) == 0.5  # all of one class: right for that, and for no other
    blind.encode = lambda part: Code(part.x[:, :2], torch.zeros(len(part), 2))
    assert ruiz19.error(blind, faces, faces) == 0


@pytest.mark.parametrize("spare", [False, True])
def test_a_pull_is_chosen_by_short_trainings_without_the_test_part(monkeypatch, spare):
    """Without a part between, on identities that these trainings leave out; then all of the training part is used."""
    row = Row(name="x", method="group-klvae")
    protocol = {"measure": {"weights": (0.3, 3.0, 5.0, 30.0)}, "steps": 100}
    made = Cell(one(rows=[row], protocol=protocol, scales={"cpu": {}}), row, "cpu", 0)
    train, middle = (
        Dataset(torch.zeros(40, 1, 8, 8), {"who": np.arange(40) // 4, "i": start + np.arange(40)}) for start in (0, 40)
    )
    made.__dict__["parts"] = (train, None) if spare else (train, middle, None)  # to touch the test part is an error
    halves = {0.3: (0.7, 0.6), 3.0: (0.6, 0.3), 30.0: (0.1, 0.1)}  # what s and z tell
    asked, lengths = [], []

    def fitted(self, method, part=None, **length):
        if part is not None and method == 5.0:
            raise DivergedError("loss: NaN")
        lengths.append((part is None, length))
        return method

    def told(cell, fit, held):
        asked.append((fit, held))
        return dict(zip("sz", halves[cell.method]))

    monkeypatch.setattr(Cell, "build", lambda self, **options: options["lambda_s"])
    monkeypatch.setattr(Cell, "supervision", lambda self, method, data: data)
    monkeypatch.setattr(Cell, "fit", fitted)
    assert grouped.tuned(made, told, by="who") == 3.0
    assert made.notes["chosen"] == 3.0
    assert made.notes["lambda_s 3"] == {"s": 0.6, "z": 0.3}
    assert made.notes["lambda_s 5"] == "loss: NaN"
    assert lengths == [(False, {"steps": 20})] * 3 + [(True, {})]
    for fit, held in asked:
        assert (len(fit), len(held)) == ((32, 8) if spare else (40, 40))
        assert not set(fit.factors["i"].tolist()) & set(held.factors["i"].tolist())
        assert not spare or not set(fit.factors["who"].tolist()) & set(held.factors["who"].tolist())
    monkeypatch.setattr(Cell, "fit", lambda self, method, part, **length: fitted(self, 5.0, part))
    with pytest.raises(DivergedError, match="lambda_s: no weight trained to the end"):
        grouped.tuned(made, told, by="who")


@pytest.mark.parametrize("name", ["fig-6c", "side-by-side", "unseen"])
def test_a_whole_code_stands_under_s_and_wins_nothing_under_z(name):
    table = BOOKS["bouchacourt18"].table(name)
    row = next(row for row in table.rows if row.method == "vae" and lacks(table, row, "smoke", None) is None)
    values = Cell(table, row, "smoke", 0).run()["values"]
    filled = {column for column, value in values.items() if value is not None}
    assert filled & {"s", "s, k=1"}
    assert not [column for column in filled if re.match(r"z\b", column)]
    assert not filled & {"s - leak", "swap shows z"}


# -- the command line --------------------------------------------------------------------------------------------------


@pytest.fixture
def listed(monkeypatch):
    monkeypatch.setattr(tables, "books", lambda: {"tables-sketch": sketch("sizes", "faults")})
    monkeypatch.setattr(tables, "get", lambda name: tables.books()[name])


def test_the_command(tmp_path, listed, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = ["table", "tables-sketch", "--scale", "smoke", "--seeds", "1", "--data-dir", str(tmp_path), "--only"]
    assert main([*line, "sizes"]) == 0
    out, err = capsys.readouterr()
    assert out.split() == ["RESULTS.md", "results/index.html"]
    assert "note: tables-sketch, sizes, absent: needs the method method-of-tomorrow; left out" in err
    assert "[4/4] tables-sketch, sizes, mean, seed 0: size 0.000" in err
    assert main([*line, "faults"]) == 1
    out, err = capsys.readouterr()
    assert err.splitlines()[-1].startswith(
        "error: 1 of 3 cells failed: tables-sketch, faults, fails, seed 0: ValueError"
    )
    assert "failed: ValueError: no such luck" in (tmp_path / "RESULTS.md").read_text()
    assert main([*line, "sizes", "--out", "elsewhere"]) == 0
    assert (tmp_path / "elsewhere/RESULTS.md").is_file()
    before = (tmp_path / "RESULTS.md").read_text()
    assert main(["table", "--render"]) == 0
    assert (tmp_path / "RESULTS.md").read_text() == before
    capsys.readouterr()
    assert main(["table"]) == 0
    assert "4 of 6" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("contrast", "did you mean 'contrast21'"),
        ("contrast21 --seeds 0", "seeds: 0; expected at least 1"),
        ("contrast21 --scale gpu", "scale"),
        ("contrast21 --only nothing-like-it", "only: 'nothing-like-it' is in no row's name"),
        ("contrast21 --jobs 0 --only lambda_z", "jobs: 0; expected a whole number of at least 1"),
        ("contrast21 --address a:1 --only lambda_z", "it goes with --backend"),
        ("contrast21 --device tpu", "device"),
        ("contrast21 --data-dir nowhere", "data-dir"),
        ("mathieu16 --scale paper --only NORB --data-dir .", "nothing of this can run without norb/"),
        ("nowhere --render", "nowhere"),
    ],
)
def test_wrong_words_get_one_line(words, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["table", *words.split()]) == 2
    err = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("note:")]
    assert len(err) == 1
    assert says in err[0]
    assert not list(tmp_path.rglob("*.json"))
