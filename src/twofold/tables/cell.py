"""One cell: a row of a table at one scale with one seed, from the data to the numbers."""

from __future__ import annotations

import copy
import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from twofold import data, methods
from twofold.arrays import generator, mix
from twofold.data import Dataset
from twofold.data.registry import Files
from twofold.errors import InputError, MissingFileError, TwofoldError, UnsupportedError
from twofold.method import Code, Method
from twofold.runs import record
from twofold.supervision import Labels, Supervision
from twofold.tables import controls
from twofold.tables.table import COST, Protocol, Row, Table, finite
from twofold.training import fit

POINTS = 24  # of a game's losses and gradient norms, in a cell
ONE_AT_A_TIME = threading.Lock()  # training draws from PyTorch's global generator, which a process's threads share


@dataclass
class Cell:
    """What measures and stages work with. `method` is the trained one when measures are called."""

    table: Table
    row: Row
    scale: str
    seed: int
    data_dir: Path | None = None
    device: str = "cpu"
    steps: int = 0  # of all that was fitted
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    """What the last `fit` logged."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What a `train` leaves for its measure."""
    method: Method = None  # pyright: ignore[reportAssignmentType]

    @cached_property
    def protocol(self) -> Protocol:
        return self.table.resolve(self.row, self.scale)

    # -- data ----------------------------------------------------------------------------------------------------------

    @cached_property
    def whole(self) -> Dataset:
        return _load(self.protocol.data, json.dumps(dict(self.protocol.data_options)), self.data_dir)

    @cached_property
    def parts(self) -> tuple[Dataset, ...]:
        p = self.protocol
        fractions = p.split if isinstance(p.split, str) else tuple(p.split)
        parts = self.whole.split(fractions, p.split_seed, by=p.by)
        most = [p.n_train, *[p.n_test] * (len(parts) - 1)]
        return tuple(
            part if n is None or n >= len(part) else part.split((n / len(part),), p.split_seed, by=p.by)[0]
            for n, part in zip(most, parts)
        )

    @property
    def train(self) -> Dataset:
        """The part to train on; of a method with a reference set, with it as `.background`."""
        return self.parts[0]

    @property
    def test(self) -> Dataset:
        """The part that the numbers are about."""
        return self.validation if self.protocol.evaluate_on == "validation" else self.parts[-1]

    @property
    def validation(self) -> Dataset:
        """The middle of three parts. Raises `InputError` where the split has two."""
        if len(self.parts) < 3:
            raise InputError(f"split: {self.protocol.split} has no validation part; expected three parts")
        return self.parts[1]

    @property
    def factor(self) -> str | None:
        """What s is about."""
        return self.protocol.factor or self.whole.default

    # -- training ------------------------------------------------------------------------------------------------------

    def build(self, name: str | None = None, **options: Any) -> Method:
        """An untrained method, by default the row's with its options; sizes and architecture are the protocol's."""
        p = self.protocol
        cls = methods.get(name or self.row.method or "")
        given = {**(p.options if name in (None, self.row.method) else {}), **options}
        sizes = {k: given.pop(k, getattr(p, k)) for k in ("s", "z", "arch")}
        return cls.build(self.train.shape, sizes["s"], sizes["z"], None, sizes["arch"], seed=self.seed, **given)

    def supervision(self, method: type[Method] | str, data: Dataset | None = None, **flags: Any) -> Supervision:
        """What `method` learns from, made of the training part (or `data`); `flags` win over the protocol's."""
        cls = methods.get(method) if isinstance(method, str) else method
        kind = cls.supervision.__name__.lower()
        wanted = {"images": (), "reference": ("background",), "groups": ("factor", "per_group")}.get(kind, ("factor",))
        p = self.protocol
        given = {name: flags.get(name, getattr(p, name)) for name in wanted}
        part = self.train if data is None else data
        if self.row.control == "shuffled":
            part = self._shuffled(part, kind)
            given.pop("background", None)  # the two sets are apart now
        return getattr(part, kind)(**{k: v for k, v in given.items() if v is not None})

    def _shuffled(self, part: Dataset, kind: str) -> Dataset:
        """The data with their classes, or their membership of the two sets, dealt out anew."""
        order = torch.from_numpy(self.random(31).permutation(len(part)))
        if kind == "images":
            raise InputError("control: shuffled; images alone have no supervision to shuffle")
        dealt = copy.copy(part)
        if kind != "reference":
            dealt.factors = {name: values[order] for name, values in part.factors.items()}
            return dealt
        target, back = part.contrast(self.protocol.background)
        both = torch.cat([torch.as_tensor(np.asarray(half.x[:])) for half in (target, back)])
        both = both[torch.from_numpy(self.random(32).permutation(len(both)))]
        return Dataset(both[: len(target)], name=part.name, background=Dataset(both[len(target) :]))

    def fit(self, method: Method, supervision: Supervision | None = None, **overrides: Any) -> Method:
        """`fit` with the protocol's settings, `overrides` (steps, epochs, optim, batch_size, ...) over them; what it
        takes is added to the cell's steps and seconds."""
        p = self.protocol
        settings: dict[str, Any] = {"steps": p.steps, "epochs": p.epochs}
        settings |= {"batch_size": p.batch_size, "optim": dict(p.optim) or None, "precision": p.precision}
        if overrides.get("steps") is not None:
            settings["epochs"] = None
        if overrides.get("epochs") is not None:
            settings["steps"] = None
        settings |= {"seed": self.seed, "device": self.device, "progress": False} | overrides
        supervision = self.supervision(type(method)) if supervision is None else supervision
        start = time.process_time()
        run = fit(method, supervision, **settings)
        self.cpu_seconds += time.process_time() - start
        self.steps, self.seconds, self.history = self.steps + run.steps, self.seconds + run.seconds, run.metrics
        return run.method

    def trained(self) -> Method:
        """The row's method or control, trained as the row says."""
        row = self.row
        if row.train is not None:
            return row.train(self)
        if row.control == "pca":
            return controls.pca(self.train, self.protocol.s, self.protocol.z, self.seed)
        if row.control == "constant":
            return controls.constant(self.train, self.protocol.s, self.protocol.z)
        if row.control == "supervised":
            made, images = controls.supervised(self.train, self.factor, self.protocol, self.seed)
            return self.fit(made, images, optim=None)
        if row.control == "untrained":
            method = self.build()
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(mix(self.seed, 12))
                method.bind(self.supervision(type(method)))
            return method.eval()
        return self.fit(self.build())

    # -- measuring -----------------------------------------------------------------------------------------------------

    def encode(self, part: Dataset, samples: bool = False) -> Code:
        """Codes of a part, with its labels where the method's encoder takes them: means, or one `sample` each."""
        y = None
        if self.method.supervision is Labels and self.factor is not None:
            try:
                self.method.encode(part[:1].x)
            except UnsupportedError:
                raise
            except InputError:
                y = part.factors[self.factor]
        if not samples:
            return self.method.encode(part.x, y)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix(self.seed, 33))
            return Code(*(q.sample() for q in self.method.posterior(part.x, y)))

    @property
    def given(self) -> bool:
        """Whether the method's encoder takes the label, so that s tells it by construction."""
        if self.method.supervision is not Labels:
            return False
        try:
            self.method.encode(self.test[:1].x)
        except UnsupportedError:
            return False
        except InputError:
            return True
        return False

    def random(self, *parts: int) -> np.random.Generator:
        """A generator that follows from the cell's seed and `parts`."""
        return generator(self.seed, *parts)

    def run(self) -> dict[str, Any]:
        """Train and measure: `values`, `extra`, cost, identity, environment; JSON-able. Raises what goes wrong."""
        start, cpu = time.perf_counter(), time.process_time()
        about = {"table": self.table.name, "row": self.row.title, "scale": self.scale, "seed": self.seed}
        about |= {"protocol": self.table.identity(self.row, self.scale)}
        self.method = self.trained()
        measure = self.row.measure or self.table.measure
        found = dict(measure(self, **self.protocol.measure))
        extra = dict(found.pop("extra", {}))
        found |= {name: getattr(self, name) for name in COST}
        for name, value in found.items():
            if hasattr(value, "as_dict"):
                extra[name] = value.as_dict()
        unknown = found.keys() - {c.name for c in self.table.columns} - {*COST}
        if unknown:
            raise InputError(f"measure: gave {min(unknown)!r}, which is no column of {self.table.name}")
        done = {
            "values": {c.name: finite(found.get(c.name)) for c in self.table.columns},
            "extra": extra,
            "data": self.train.hash,
            "steps": self.steps,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "history": thinned(self.history) if len(self.method.players) > 1 else [],
            "total_seconds": time.perf_counter() - start,
            "total_cpu_seconds": time.process_time() - cpu,
            "device": torch.cuda.get_device_name() if self.method.device.type == "cuda" else self.method.device.type,
        }
        return json.loads(json.dumps(about | done | record(), default=_plain))


def thinned(history: Sequence[Mapping[str, float]], most: int = POINTS) -> list[dict[str, float]]:
    """At most so many of the rows, evenly spread, the last among them; to four digits."""
    kept = np.unique(np.linspace(len(history) - 1, 0, min(most, len(history))).round().astype(int))
    return [{name: float(f"{value:.4g}") for name, value in history[row].items()} for row in kept]


def _plain(value: Any) -> Any:
    """What JSON has no word for: arrays and tensors as lists, results as dictionaries."""
    if hasattr(value, "as_dict"):
        return value.as_dict()
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)


@lru_cache(maxsize=2)  # a worker's next cell is often on the same data
def _load(name: str, options: str, root: Path | None) -> Dataset:
    return data.load(_place(name, root), root=root, **json.loads(options))


def _place(name: str, root: Path | None) -> str | Path:
    """A built-in set by its name; anything else is a path in the data folder."""
    return name if name in {entry.name for entry in data.available()} else _folder(root) / name


def _folder(root: Path | None) -> Path:
    try:
        return Files.under(root, False).root
    except MissingFileError:
        return Path(root or ".")


def lacks(table: Table, row: Row, scale: str, data_dir: Path | None) -> str | None:
    """What a row needs that is not here: "the method x", "x in the data folder"; None if it can be run."""
    if scale not in table.scales:
        return f"a protocol at the {scale} scale"
    if row.method is not None and row.method not in methods.names():
        return f"the method {row.method}"
    name, root = table.resolve(row, scale).data, _folder(data_dir)
    entry = next((entry for entry in data.available() if entry.name == name), None)
    if entry is None:
        return None if (root / name).exists() else f"{name} in the data folder"
    for file in entry.files:
        path = Path(file)
        tried = {file, path.name, file.removesuffix(".gz"), path.name.removesuffix(".gz")}
        if not any((root / candidate).is_file() for candidate in tried):
            return f"{file} in the data folder"
    return None


def work(module: str, table: str, slug: str, scale: str, seed: int, data_dir: str | None, device: str, threads: int):
    """Run one cell, named so that any process can: its results, or `{"error": one line}`."""
    import joblib

    from twofold.tables import read

    # what a cell calls may use joblib itself: on a Dask worker that would wait for the slot that the cell holds
    with ONE_AT_A_TIME, joblib.parallel_config("sequential"):
        torch.set_num_threads(threads)
        start = time.perf_counter()
        try:
            book = read(module)
            if book is None:
                raise InputError(f"tables: {module} has no TABLES")
            root = None if data_dir is None else Path(data_dir)
            cell = Cell(book.table(table), book.row(table, slug), scale, seed, root, device)
            return cell.run()
        except Exception as error:  # whatever it was: the other cells go on
            text = " ".join(str(error).split())
            what = text if isinstance(error, TwofoldError) else f"{type(error).__name__}: {text}"
            return {"error": what[:300], "total_seconds": time.perf_counter() - start}
