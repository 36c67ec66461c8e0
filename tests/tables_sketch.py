"""Tables for the tests: rows that work, that are slow, and that fail."""

from __future__ import annotations

import os
import time

import joblib

from twofold.tables.table import Column, Row, Table


def measured(cell, *, do: str = "", rest: float = 0.0):
    mark = cell.data_dir / "mark"
    with open(mark, "a") as file:  # who ran
        file.write(f"{cell.row.name}, {cell.seed}, {os.getpid()}\n")
    time.sleep(rest)
    if do == "fail":
        raise ValueError("no such\nluck")
    if do == "die" or (do == "die once" and mark.read_text().count(f"{cell.row.name},") < 2):
        os._exit(1)
    if do == "nest":  # as nearest neighbours of scikit-learn do
        joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(i) for i in range(4))
    code = cell.encode(cell.test)
    return {"size": float(code.z.square().mean()), "seed": cell.seed, "extra": {"rows": len(cell.test)}}


def table(name: str, rows) -> Table:
    return Table(
        name=name,
        title="Sizes | of codes",
        source="Nobody20, Table 1",
        columns=[
            Column(name="size", better="low"),
            Column(name="half", better="low", format=".1f", comparable=False),
            Column(name="seed", format=".0f"),
            Column(name="steps"),
        ],
        rows=rows,
        measure=measured,
        protocol={"data": "toy", "data_options": {"n": 60}, "split": (0.5, 0.5), "s": 2, "z": 2, "batch_size": 8},
        scales={"smoke": {"steps": 2}, "cpu": {"steps": 3}},
    )


def row(name: str, **more) -> Row:
    return Row(name=name, method="vae", **more)


TABLES = [
    table(
        "sizes",
        [
            row("plain"),
            row("wide", protocol={"z": 3}, printed={"size": 0.5, "half": 0.25}),
            row("raw", control="untrained"),
            Row(name="mean", control="constant"),
            Row(name="absent", method="method-of-tomorrow"),
            row("elsewhere", protocol={"data": "faces"}, recipe="Put faces/ there.", printed={"size": 1.0}),
        ],
    ),
    table("slow", [row(f"row {i}", protocol={"measure": {"rest": 0.3}}) for i in range(4)]),
    table("long", [row(f"row {i}", protocol={"measure": {"rest": 5.0}}) for i in range(4)]),
    table("faults", [row("fails", protocol={"measure": {"do": "fail"}}), row("works"), row("works too")]),
    table("nests", [row(f"row {i}", protocol={"measure": {"do": "nest"}}) for i in range(3)]),
    table("fright", [row("dies once", protocol={"measure": {"do": "die once"}}), row("works")]),
    table("deaths", [row("dies", protocol={"measure": {"do": "die"}}), row("works")]),
]
