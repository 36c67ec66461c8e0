"""A table as data: its columns, its rows, what the paper printed, and the exact protocol at three scales."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from twofold import methods
from twofold.errors import InputError, choose

if TYPE_CHECKING:
    from twofold.method import Method
    from twofold.tables.cell import Cell

SCALES = ("smoke", "cpu", "paper")
CONTROLS = {
    "untrained": "the method's networks as they are before training",
    "shuffled": "the method, trained with the supervision dealt out at random",
    "pca": "principal components: the first are s, the next z",
    "constant": "a code that is always 0, decoded as the mean observation",
    "supervised": "an encoder of the same architecture trained on the labels themselves; it has no z",
}
COST = ("steps", "seconds")  # columns that the engine fills


@dataclass(frozen=True, kw_only=True)
class Column:
    """A number that is measured. `name` is its key in what measures return and in the printed values."""

    name: str
    better: Literal["low", "high"] | None = None  # None: no winner, no colours
    format: str = ".3f"
    about: str = ""
    comparable: bool = True  # with the printed values; False: they measure something else

    def show(self, value: float) -> str:
        return format(value, self.format)

    def show_printed(self, value: float) -> str:
        """With all the digits that were printed."""
        shown = self.show(value)
        return shown if float(shown) == value else f"{value:g}"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """All that a number follows from besides the method: data, training, measurement.

    data: a built-in set, or a path in the data folder. data_options: of `data.load`.
    split: "official" or fractions, the same for all seeds (`split_seed`); `by`: a factor whose classes no two parts
    share. The first part trains; `evaluate_on`: the last ("test") or the middle of three ("validation").
    n_train, n_test: at most so many observations (with `by`, about so many: of whole classes).
    factor, background, per_group: of the supervision.
    s, z, arch, options: of `Method.build`. steps or epochs, batch_size, optim, precision: of `fit`.
    measure: keywords of the table's measure.
    """

    data: str = ""
    data_options: Mapping[str, Any] = field(default_factory=dict)
    split: str | Sequence[float] = "official"
    by: str | None = None
    split_seed: int = 0
    evaluate_on: Literal["test", "validation"] = "test"
    n_train: int | None = None
    n_test: int | None = None
    factor: str | None = None
    background: str | None = None
    per_group: int | None = None
    s: int = 10
    z: int = 10
    arch: str = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)
    steps: int | None = None
    epochs: float | None = None
    batch_size: int | None = None
    optim: Mapping[str, Any] = field(default_factory=dict)
    precision: str = "fp32"
    measure: Mapping[str, Any] = field(default_factory=dict)

    def merged(self, changes: Mapping[str, Any]) -> Protocol:
        """With `changes`, dictionaries merged key by key. Raises `InputError` for unknown names."""
        known = {f.name for f in fields(self)}
        for name in changes:
            choose("protocol", name, known)
        new = {k: {**getattr(self, k), **v} if isinstance(v, Mapping) else v for k, v in changes.items()}
        if new.get("steps") is not None:  # one length replaces the other
            new.setdefault("epochs", None)
        if new.get("epochs") is not None:
            new.setdefault("steps", None)
        return replace(self, **new)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A method with its options, or a control, and what the paper printed for it.

    method: by command-line name; one that there is not (yet) is named in the row's place.
    control: one of `CONTROLS`; "untrained" and "shuffled" want a method too.
    block: the part of the table that it is compared in: a data set, say.
    printed: column -> the paper's value. protocol: changes for this row; at: for one scale, `{"cpu": {...}}`.
    train: `cell -> Method`, where one `fit` is not enough. measure: in place of the table's.
    competes: whether it can be the best of its block; an upper bound can't.
    note: stands beside the name. recipe: how to make the local copy that the row needs.
    version: raised where what its method does has changed beyond rounding; cells of another version are run again.
    """

    name: str
    method: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    control: str | None = None
    block: str = ""
    printed: Mapping[str, float] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)
    at: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    train: Callable[[Cell], Method] | None = None
    measure: Callable[..., Mapping[str, Any]] | None = None
    competes: bool = True
    note: str = ""
    recipe: str = ""
    version: int = 1

    def __post_init__(self):
        if self.control is not None:
            choose(f"row {self.name!r}: control", self.control, CONTROLS)
        if self.method is None and self.control in (None, "untrained", "shuffled"):
            raise InputError(f"row {self.name!r}: no method; expected one by its command-line name, or a control")
        for scale in self.at:
            choose(f"row {self.name!r}: at", scale, SCALES)

    @property
    def title(self) -> str:
        return f"{self.block}: {self.name}" if self.block else self.name

    @property
    def slug(self) -> str:
        """The title as a file name."""
        return slug(self.title)


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of a paper, or of ours: rows by columns, and how its numbers are made.

    name: short, `table-1`. source: `Contrast21, Table 1`. measure: `(cell, **protocol.measure) -> {column: value}`.
    protocol: what holds at all scales. scales: changes for "smoke" (seconds, for tests), "cpu" (minutes on a core) and
    "paper" (its own budget). about: the protocol in words, and what differs from the paper's.
    version: raised when a measure changes its meaning; cells of another version are run again.
    """

    name: str
    title: str
    source: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    measure: Callable[..., Mapping[str, Any]]
    protocol: Mapping[str, Any] = field(default_factory=dict)
    scales: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    about: str = ""
    version: int = 1

    def __post_init__(self):
        if self.name != slug(self.name):
            raise InputError(f"table: {self.name!r}; expected lower-case letters, digits and hyphens")
        for name, found in (("column", [c.name for c in self.columns]), ("row", [r.slug for r in self.rows])):
            twice = {n for n in found if found.count(n) > 1}
            if twice:
                raise InputError(f"table {self.name}: {name} {min(twice)!r} is there twice")
        for row in self.rows:
            for name in row.printed:
                choose(f"table {self.name}, row {row.title!r}: printed", name, [c.name for c in self.columns])
            for scale in self.scales:
                self.resolve(row, scale)
        for scale in self.scales:
            choose(f"table {self.name}: scales", scale, SCALES)

    def resolve(self, row: Row, scale: str) -> Protocol:
        """The protocol of a row at a scale: table, scale, row, row at that scale; each overrides those before.

        At the smoke scale the scale overrides the row, so that a row's own data (which may need files) gives way.
        """
        choose("scale", scale, self.scales)
        of_scale, of_row = self.scales[scale], {**row.protocol, "options": row.options}
        of_row["options"] = {**row.protocol.get("options", {}), **row.options}
        order = (of_row, of_scale) if scale == "smoke" else (of_scale, of_row)
        protocol = Protocol()
        for changes in (self.protocol, *order, row.at.get(scale, {})):
            protocol = protocol.merged(changes)
        return protocol

    def identity(self, row: Row, scale: str) -> dict[str, Any]:
        """All that decides a cell besides its seed, JSON-able: results with another identity are stale.

        Defaults of the method's options are in it, so that a changed default is noticed.
        """
        protocol = self.resolve(row, scale)
        found = asdict(protocol) | {"method": row.method, "control": row.control, "version": self.version}
        if row.method in methods.names():
            cls = methods.names()[row.method]
            defaults = {k: v for k, v in cls.options().items() if isinstance(v, str | int | float | bool | None)}
            found["options"] = {**defaults, **protocol.options}
            found["optim"] = {**cls.optim, **protocol.optim}
        found |= {"row version": row.version} if row.version > 1 else {}
        found["train"] = None if row.train is None else row.train.__name__
        found["measured by"] = (row.measure or self.measure).__name__
        return json.loads(json.dumps(found, default=str))


@dataclass(frozen=True, eq=False)
class Book:
    """The tables of one paper: a file of this folder."""

    name: str
    module: str
    about: str
    tables: Sequence[Table]

    def table(self, name: str) -> Table:
        by_name = {table.name: table for table in self.tables}
        choose("table", name, by_name)
        return by_name[name]

    def row(self, table: str, slug: str) -> Row:
        return next(row for row in self.table(table).rows if row.slug == slug)


def slug(text: str) -> str:
    """`text` in lower-case letters, digits and hyphens; signs that matter are spelt out, accents and the rest go."""
    for sign, word in (("λ", "lambda"), ("β", "beta"), ("+", " plus "), ("=", " "), (".", "-")):
        text = text.replace(sign, word)
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def finite(value: Any) -> float | None:
    """A number as JSON can have it; None for NaN and infinities."""
    return float(value) if value is not None and math.isfinite(float(value)) else None
