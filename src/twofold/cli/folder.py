"""Run folders: a new one, and what an old one holds."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from twofold.cli import source
from twofold.cli.settings import Settings
from twofold.errors import InputError, MissingFileError

if TYPE_CHECKING:
    from twofold.data import Dataset
    from twofold.method import Method


class Kept(NamedTuple):
    """A run, read back."""

    told: Settings
    method: Method
    train: Dataset
    test: Dataset


@contextmanager
def fresh(out: Path | None, label: str) -> Iterator[Path]:
    """The folder of a new run: `out`; or runs/LABEL-001, the next free number, made here so that two runs that start at
    once get two. Of a run that never began, nothing stays."""
    if out is not None:
        yield out
        return
    above = Path("runs")
    made = not above.exists()
    label = re.sub(r"[^\w.-]+", "-", label).strip("-.")
    number = 1
    while True:
        folder = above / f"{label}-{number:03d}"
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:
            if not above.is_dir():
                raise InputError("out: runs is a file here; name a folder for the run by --out") from None
            number += 1
    try:
        yield folder
    finally:
        with suppress(OSError):  # not empty: the run began
            folder.rmdir()
            if made:
                above.rmdir()


def empty(run: Path) -> bool:
    """Whether no training has begun there: a kill may have come before the first checkpoint."""
    return not (run / "checkpoint.safetensors").is_file()


def config(run: Path) -> dict[str, Any]:
    """What `fit` wrote into a run's config.json."""
    path = run / "config.json"
    if not path.is_file():
        what = "holds no run (no config.json)" if run.is_dir() else "is no folder"
        raise MissingFileError(f"RUN: {str(run)!r} {what}; expected the folder of a training")
    found = _json(path)
    if not {"about", "plan", "data"} <= found.keys():
        raise InputError(f"RUN: {path} is not what a training writes; expected the folder of a training")
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"RUN: {path} is damaged ({error})") from None
    return found if isinstance(found, dict) else {}


def settings(run: Path) -> Settings:
    """What a run was told."""
    told = config(run)["about"].get("settings")
    if told is None:
        raise InputError(f"RUN: {run} was trained from Python and does not tell its data; measure it from Python, too")
    try:
        return Settings(**told | {"data_dir": Path(told["data_dir"]) if "data_dir" in told else None})
    except TypeError as error:
        raise InputError(f"RUN: {run / 'config.json'} is of another version of twofold ({error})") from None


def weights(run: Path) -> tuple[Path, bool]:
    """The file that holds the run's newest weights, and whether the training came to its end."""
    whole, begun = run / "method.safetensors", run / "checkpoint.safetensors"
    ended = whole.is_file() and not (begun.is_file() and begun.stat().st_mtime_ns > whole.stat().st_mtime_ns)
    return (whole if ended else begun), ended


def measured(run: Path) -> dict[str, Any] | None:
    """What evaluation.json holds, if it is about the run's newest weights."""
    path = run / "evaluation.json"
    if not path.is_file() or path.stat().st_mtime_ns < weights(run)[0].stat().st_mtime_ns:
        return None
    return _json(path)


def load(run: Path, data_dir: Path | None = None) -> Kept:
    """The run's method with its data; of a training that did not end, its checkpoint, and a word on that."""
    from twofold import methods
    from twofold.method import read_tensors

    told = settings(run)
    if data_dir is not None:
        told = replace(told, data_dir=data_dir)
    file, ended = weights(run)
    method = methods.load(file)
    if not ended:
        about = read_tensors(file)[1]
        step, steps = about["step"], about["plan"]["steps"]
        note(f"the training in {run} has not ended: this is its checkpoint, of step {step:,} of {steps:,}")
    train, test = source.parts(told)
    if source.supervision(type(method), train, told).fingerprint() != config(run)["data"]:
        note(
            f"{train.name} has changed since it was trained on, or an earlier version divided it otherwise: what is "
            "held out here may have been seen"
        )
    return Kept(told, method, train, test)


def note(text: str) -> None:
    print("note:", text, file=sys.stderr)
