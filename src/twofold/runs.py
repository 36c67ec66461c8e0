"""A run's folder: configuration, metrics, checkpoints. Written atomically, read without running code."""

from __future__ import annotations

import csv
import json
import platform
import shutil
import subprocess
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from twofold import __version__
from twofold.errors import InputError
from twofold.method import Method, read_tensors, write_tensors
from twofold.methods import load

FREE = ("plan.steps", "plan.device", "plan.devices", "plan.checkpoint_every")
"""Settings that may differ when a run goes on."""


class RunFolder:
    """`config.json`, `metrics.csv`, `checkpoint.safetensors`, `method.safetensors`; TensorBoard logs where installed.

    Made by rank 0; other ranks only read. With `path` None nothing is kept but the metrics' rows.
    """

    def __init__(self, path: str | None, writes: bool = True):
        self.path, self.writes = None if path is None else Path(path), writes and path is not None
        self.rows: list[dict[str, float]] = []
        self.good = 0  # the step of the last checkpoint
        self.board = None
        self.made: list[Path] | None = None  # the folders that `begin` made; None if a run had begun there

    @property
    def checkpoint(self) -> Path:
        assert self.path is not None
        return self.path / "checkpoint.safetensors"

    def claim(self, resume: bool) -> None:
        """Refuse a folder in use, before anything is written. Raises `InputError`."""
        if self.path is None:
            if resume:
                raise InputError("resume: needs out, the folder of the run to go on with")
            return
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"out: {self.path} is a file; expected a folder for the run")
        begun = (file for file in self.path.iterdir() if file.name != ".config.json.part") if self.path.is_dir() else ()
        used = any(begun)  # a kill while the configuration was written leaves nothing of worth
        if used and not resume:
            raise InputError(f"out: {self.path} exists and is not empty; choose another, or go on with it by resume")
        if used and not (self.path / "config.json").is_file():
            raise InputError(f"out: {self.path} holds no run to resume; choose another folder")

    def begin(self, config: dict[str, Any], fresh: bool) -> None:
        """Write the configuration; `fresh`: and drop what an earlier start left."""
        if self.path is not None and self.writes:
            if not (self.path / "config.json").exists():
                self.made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
            part = self.path / ".config.json.part"
            part.write_text(json.dumps(config, indent=1))
            part.replace(self.path / "config.json")
            (self.path / "method.safetensors").unlink(missing_ok=True)  # finished once, and now to go on
            if fresh:
                (self.path / "metrics.csv").unlink(missing_ok=True)

    def resume(self, now: dict[str, Any]) -> tuple[dict[str, Tensor], int] | None:
        """The last checkpoint's tensors and step, if there is one. Refuses settings other than the run's so far."""
        if self.path is None or not self.checkpoint.is_file():
            return None
        tensors, about = read_tensors(self.checkpoint)
        keys = ("method", "config", "facts", "data", "plan")
        old, new = (_flat({k: d.get(k) for k in keys}) for d in (json.loads(json.dumps(d)) for d in (about, now)))
        for key in sorted(new.keys() | old.keys()):
            if key not in FREE and old.get(key) != new.get(key):
                raise InputError(f"resume: {key} was {old.get(key)} and is now {new.get(key)}; expected the same")
        if about["step"] > now["plan"]["steps"]:
            raise InputError(f"steps: {now['plan']['steps']}; the run has taken {about['step']} already")
        self.good = about["step"]
        self._keep_rows()
        return tensors, self.good

    def open_board(self) -> None:
        if self.writes:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                return
            self.board = SummaryWriter(f"{self.path}/tensorboard", purge_step=self.good)

    def log(self, row: dict[str, float]) -> None:
        self.rows.append(row)
        if self.path is None or not self.writes:
            return
        path = self.path / "metrics.csv"
        new = not path.exists()
        with open(path, "a", newline="") as file:
            writer = csv.DictWriter(file, list(self.rows[0]), extrasaction="ignore")
            if new:
                writer.writeheader()
            writer.writerow(row)
        for name, value in row.items() if self.board is not None else ():
            self.board.add_scalar(name, value, int(row["step"]))  # pyright: ignore[reportOptionalMemberAccess]

    def save(self, step: int, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        if self.writes:
            write_tensors(self.checkpoint, tensors, about | {"step": step})
        self.good = step

    def snapshot(self, step: int, method: Method) -> None:
        """Keep the method as it is at a step."""
        assert self.path is not None
        method.save(self.path / "snapshots" / f"{step}.safetensors")

    @staticmethod
    def snapshots(path: Path) -> dict[int, Method]:
        """Those that were kept in the run folder `path`, by step."""
        found = sorted((path / "snapshots").glob("*.safetensors"), key=lambda file: int(file.stem))
        return {int(file.stem): load(file) for file in found}

    def undo(self) -> None:
        """Take away what `begin` and the first `save` wrote, where no run had begun."""
        self.close()
        if self.path is not None and self.made is not None:
            for file in (self.path / "config.json", self.checkpoint):
                file.unlink(missing_ok=True)
            shutil.rmtree(self.path / "tensorboard", ignore_errors=True)
            with suppress(OSError):  # not empty: others wrote there
                for folder in self.made:
                    folder.rmdir()

    def close(self) -> None:
        if self.board is not None:
            self.board.close()

    def _keep_rows(self) -> None:
        """Drop what was logged after the checkpoint; a line cut off by a kill goes with it."""
        assert self.path is not None
        path = self.path / "metrics.csv"
        if path.exists():
            with open(path, newline="") as file:
                for row in csv.DictReader(file):
                    if None in row.values() or not row["step"] or int(row["step"]) > self.good:
                        break
                    self.rows.append({k: int(v) if k == "step" else float(v) for k, v in row.items() if v})
        if not self.writes:
            return
        if not self.rows:
            path.unlink(missing_ok=True)
            return
        part = path.with_name(".metrics.csv.part")
        try:
            with open(part, "w", newline="") as file:
                writer = csv.DictWriter(file, list(self.rows[0]))
                writer.writeheader()
                writer.writerows(self.rows)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def record() -> dict[str, Any]:
    """Where a number comes from: versions, commit, machine. JSON-able."""
    names = ("torch", "numpy", "lightning-fabric", "scikit-learn", "POT", "openTSNE")
    return {
        "versions": {"twofold": __version__, "python": platform.python_version()} | {n: _installed(n) for n in names},
        "commit": _commit(),
        "machine": platform.machine(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Of the checkout that the package runs from, "-dirty" if its code is not the commit's (results may differ: runs
    write them); None for an installed one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + "-dirty" * bool(git("status", "--porcelain", "--", "src", "benchmarks"))
    except (OSError, subprocess.SubprocessError):
        return None


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {k: v for name, sub in tree.items() for k, v in _flat(sub, f"{prefix}.{name}".strip(".")).items()}
