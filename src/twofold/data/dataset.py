"""Observations with their factors, and the weak supervision that can be had from them."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol, Self, cast, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from twofold.arrays import Observations, Rows, generator, observations
from twofold.arrays import factor as checked
from twofold.data.options import class_number
from twofold.errors import InputError, choose, shown, whole
from twofold.supervision import Groups, Images, Labels, Reference, Triplets

if TYPE_CHECKING:
    from twofold.data.table import Scaling

HASHED = 1 << 26  # bytes of x
DECODED = 1 << 22  # bytes at a time, to stay in the cache
GOLDEN = (5**0.5 - 1) / 2


@runtime_checkable
class Encoded(Protocol):
    """Images in a compact form: `shape [N, C, H, W]` once decoded; `decode(rows [n])` gives uint8 `[n, C, H, W]`."""

    shape: tuple[int, ...]

    def decode(self, rows: np.ndarray) -> Tensor: ...


class Dataset:
    """Observations `x`, `factors` for evaluation, and supervision on demand.

    Only what a supervision is made of reaches a method; factors are there to measure it.

    Arguments:
        x: images `[N, C, H, W]`, uint8 or float in [0, 1]; or vectors `[N, D]`. A `np.memmap` stays on disk.
        factors: name -> one value an observation: classes (whole numbers from 0, -1 where not known; or text, numbered
            in sorted order), or real numbers.
        default: the factor of `labels()`, `groups()`, `triplets()` unless they are told another, and what `split`
            stratifies by; where there is a single factor of classes, that one.
        names: factor -> names of its classes, in order.
        units: factor of real numbers -> the unit it is in, for people ("px", say).
        splits: name -> rows of each part, for splits that the authors gave.
        background: the data set that `reference()` sets against this one.

    Attributes: `name`, `shape` (of one observation), `factors` (int64 classes, float32 real numbers), `names`, `units`,
    `default`, `background`, `scaling` (of a table's columns, else None), and `empty` (a folder's sub-folders that hold
    no images).

    Raises `InputError` for observations or factors that cannot be used as they are.
    """

    factors: dict[str, Tensor]
    empty: tuple[str, ...] = ()

    def __init__(
        self,
        x: Any,
        factors: Mapping[str, Any] | None = None,
        *,
        name: str = "data",
        default: str | None = None,
        names: Mapping[str, Sequence[str]] | None = None,
        splits: Mapping[str, Sequence[Any]] | None = None,
        background: Dataset | None = None,
        scaling: Scaling | None = None,
        units: Mapping[str, str] | None = None,
    ):
        if isinstance(x, np.memmap):
            observations(x[:1])  # shape and dtype; the supervision reads all of it, once
        source = x if isinstance(x, np.memmap | Encoded) else observations(x)
        self._source = source.base if isinstance(source, Rows) else source
        self._rows = source.index if isinstance(source, Rows) else np.arange(source.shape[0])
        self.name, self.background, self.scaling = name, background, scaling
        self.names = {factor: tuple(map(str, known)) for factor, known in (names or {}).items()}
        self.units = dict(units or {})
        self.factors = {}
        for factor, values in (factors or {}).items():
            array = values if isinstance(values, Tensor) else np.asarray(values)
            if isinstance(array, np.ndarray) and array.dtype.kind in "USO" and array.ndim == 1:
                known, array = np.unique(array.astype(str), return_inverse=True)
                self.names[factor] = tuple(known.tolist())
            self.factors[factor] = checked(array, len(self), factor, missing=True)
        known = self.classes()
        self.default = default if default is not None else known[0] if len(known) == 1 else None
        if self.default is not None:
            choose("default", self.default, known)
        self._splits = dict(splits or {})

    @classmethod
    def from_torch(cls, data: torch.utils.data.Dataset, *, name: str = "data") -> Dataset:
        """Reads a map-style torch data set of `x` or `(x, y)` into memory; y, if any, becomes the factor `label`.

        `x` is a tensor or array `[C, H, W]` or `[D]`, or a PIL image; all of one shape. Raises `InputError` otherwise.
        """
        from twofold.data.pixels import channels_first

        if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
            raise InputError(f"data: {type(data).__name__} has no length; expected a map-style torch Dataset")
        n = len(data)  # pyright: ignore[reportArgumentType]
        x: np.ndarray | None = None
        labels = []
        for i in range(n):
            item = data[i]
            if isinstance(item, tuple | list):
                if len(item) not in (1, 2):
                    raise InputError(f"data: item {i} is a tuple of {len(item)}; expected x or (x, y)")
                if len(item) == 2:
                    y = item[1]
                    labels.append(y.item() if isinstance(y, Tensor) and y.ndim == 0 else y)
                item = item[0]
            one = item.numpy(force=True) if isinstance(item, Tensor) else channels_first(item)
            if x is None:
                x = np.empty((n, *one.shape), one.dtype)
            if one.shape != x.shape[1:] or one.dtype != x.dtype:
                raise InputError(f"data: item {i} is {shown(one)}; expected {shown(x[0])} as item 0")
            x[i] = one
        if x is None or len(labels) not in (0, n):
            raise InputError(f"data: {len(labels)} labels for {n} items; expected x or (x, y) alike, at least one")
        return cls(x, {"label": labels} if labels else {}, name=name)

    @cached_property
    def x(self) -> Observations:
        """All observations `[N, ...]`: a tensor; or, for an array on disk, a memory map (or a view of its rows)."""
        source, rows = self._source, self._rows
        run = bool((np.diff(rows) == 1).all())
        if isinstance(source, Encoded):
            step = max(1, DECODED // int(np.prod(self.shape)))
            x = torch.empty((len(rows), *self.shape), dtype=torch.uint8)
            for i in range(0, len(rows), step):
                x[i : i + step] = source.decode(rows[i : i + step])
            return x
        if run:
            return cast(Observations, source[int(rows[0]) : int(rows[-1]) + 1])
        return source[torch.from_numpy(rows)] if isinstance(source, Tensor) else Rows(source, rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one observation."""
        return tuple(self._source.shape[1:])

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        factors = f"; factors {', '.join(self.factors)}" if self.factors else ""
        return f"Dataset {self.name}: {len(self):,} x {list(self.shape)}{factors}"

    def __iter__(self) -> Iterator[Dataset]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index) -> Self:
        """The rows at `index` (a number, a slice, whole numbers, or a mask) as a data set; nothing is copied yet.

        The background stays whole. Raises `InputError` for rows that don't exist, or none.
        """
        n = len(self)
        if not isinstance(index, slice):
            index = np.atleast_1d(index.numpy(force=True) if isinstance(index, Tensor) else np.asarray(index))
            if index.ndim != 1 or index.dtype.kind not in "iub":
                raise InputError(f"index: {shown(index)}; expected a number, a slice, whole numbers or a mask [{n}]")
            if index.dtype.kind == "b" and len(index) != n:
                raise InputError(f"index: a mask of {len(index)} for {n} observations")
            if index.dtype.kind != "b" and len(index) and not (-n <= index.min() and index.max() < n):
                wrong = index.max() if index.max() >= n else index.min()
                raise InputError(f"index: {wrong} is out of range for {n} observations")
        rows = np.arange(n)[index]
        if not len(rows):
            raise InputError(f"index: selects none of {n} observations; expected at least one")
        part = copy.copy(self)
        for cached in ("x", "hash"):
            part.__dict__.pop(cached, None)
        part._rows, part._splits = self._rows[rows], {}
        part.factors = {name: values[torch.from_numpy(rows)] for name, values in self.factors.items()}
        return part

    def split(
        self,
        fractions: Sequence[float] | str,
        seed: int = 0,
        *,
        by: str | None = None,
        stratify: str | Sequence[str] | None = None,
    ) -> tuple[Self, ...]:
        """Random disjoint parts, `fractions` of the whole each; exhaustive if they sum to 1. Rows keep their order.

        The classes of `stratify` (the default factor unless given; of several factors, of each within those before it)
        are dealt out evenly: each part has its share of each class, to a row or two, while the parts' sizes are exact.
        With `by`, a factor of classes, the parts share none of them: `split((0.7, 0.1, 0.2), by="car")` keeps 20 % of
        the cars unseen; rows whose class is not known (-1) go to the first part. Of few classes a part may get one,
        which can be told from no other. The background is split alike, at random.

        `split("official")` gives the authors' parts, where there are such.
        """
        if isinstance(fractions, str):
            if not self._splits:
                hint = "split(by=...) for parts of unseen classes, or " if self.classes() else ""
                raise InputError(
                    f"fractions: {fractions!r}; {self.name} (or this part of it) has no {fractions!r} split; "
                    f"use {hint}numbers, say split((0.8, 0.2))"
                )
            choose("fractions", fractions, self._splits)
            parts = [self[rows] for rows in self._splits[fractions]]
            backs = self.background.split(fractions) if self.background else None
        else:
            part = np.asarray(fractions)
            numbers = part.ndim == 1 and len(part) and part.dtype.kind in "fi"
            if not numbers or not (part > 0).all() or part.sum() > 1 + 1e-6:
                raise InputError(
                    f"fractions: {shown(fractions)}; expected positive numbers of sum 1 at most: (0.8, 0.2)"
                )
            parts = [self[rows] for rows in self._deal(part, whole("seed", seed, 0), by, stratify)]
            backs = self.background.split(fractions, seed) if self.background else None
        for i, back in enumerate(backs or ()):
            parts[i].background = back
        return tuple(parts)

    def _deal(
        self, fractions: np.ndarray, seed: int, by: str | None, stratify: str | Sequence[str] | None
    ) -> list[np.ndarray]:
        random = generator(seed, 11)
        names = [stratify] if isinstance(stratify, str) else list(stratify or ())
        for name in names:
            choose("stratify", name, self.classes())
            if by is not None:
                raise InputError(f"by, stratify: {by!r} and {name!r}; give one of the two")
        if by is not None:
            choose("by", by, self.classes())
            key = self.factors[by].numpy()
            order = random.permutation(np.unique(key[key >= 0]))
        else:
            order, key = random.permutation(len(self)), None
            even = names or ([] if self.default is None else [self.default])
            if even:  # rows sorted by class, dealt by a sequence that covers [0, 1) evenly
                order = order[np.lexsort([self.factors[name].numpy()[order] for name in reversed(even)])]
                order = order[np.argsort((np.arange(len(order)) * GOLDEN + random.random()) % 1)]
        edges = np.rint(np.cumsum([0, *fractions]) * len(order)).astype(int)
        parts = [order[a:b] for a, b in pairwise(edges)]
        for fraction, part in zip(fractions, parts):
            if not len(part):
                what = f"the {len(order)} classes of {by!r}" if by else f"{len(order)} observations"
                raise InputError(f"fractions: {fraction:g} of {what} is none; expected at least one in each part")
        if key is None:
            return [np.sort(part) for part in parts]
        parts[0] = np.append(parts[0], -1)
        return [np.flatnonzero(np.isin(key, part)) for part in parts]

    @cached_property
    def hash(self) -> str:
        """A hash of the contents, for run records: the factors, and `x` (beyond 64 MiB, evenly spaced rows of it)."""
        digest = hashlib.blake2b(digest_size=16)
        count = min(len(self), max(1, HASHED // cast(Tensor | np.memmap, self[:1].x).nbytes))
        x = np.asarray(self[np.linspace(0, len(self) - 1, count).astype(int)].x[:])
        digest.update(f"{len(self)} {self.shape} {x.dtype}".encode())
        digest.update(np.ascontiguousarray(x).data)
        for name, values in sorted(self.factors.items()):
            digest.update(f"{name} {self.names.get(name)}".encode())
            digest.update(values.numpy().data)
        if self.background is not None:
            digest.update(self.background.hash.encode())
        return digest.hexdigest()

    def unscale(self, x: Tensor) -> Tensor:
        """`x [N, D]` (decoded, say) in the units of the table that the data came from; as it is where none was scaled.

        `.scaling` tells what was done: which rows the mean and the deviation are of, what was dropped or filled in.
        """
        return x if self.scaling is None else self.scaling.undo(x)

    # Supervision

    def images(self) -> Images:
        """The observations and nothing else."""
        return Images(self.x)

    def labels(self, factor: str | None = None) -> Labels:
        """Each observation's class in `factor` (the default factor unless given)."""
        return Labels(self.x, self._classes("labels", factor))

    def groups(self, factor: str | Sequence[str] | None = None, per_group: int = 8) -> Groups:
        """Which observations share their class in `factor`, in chunks of at most `per_group`. Several factors give as
        many groupings of the same observations."""
        if factor is None or isinstance(factor, str):
            return Groups(self.x, self._classes("groups", factor), per_group)
        return Groups(self.x, {name: self._classes("groups", name) for name in factor}, per_group)

    def triplets(self, factor: str | None = None) -> Triplets:
        """Pairs of the same, and of another, class in `factor`."""
        return Triplets(self.x, self._classes("triplets", factor))

    def reference(self, background: str | None = None) -> Reference:
        """The target against a background set: see `contrast`."""
        target, back = self.contrast(background)
        return Reference(target.x, back.x)

    def contrast(self, background: str | None = None) -> tuple[Dataset, Dataset]:
        """The two data sets, target and background, that `reference` is made of.

        `background="FACTOR=VALUE"` (a class's name or number): the background is the rows with that value, the target
        those with any other known one. Without it: this data set against its own background.
        """
        target, back = self.apart(background)
        if back is None:
            factor, _, value = (part.strip() for part in str(background).partition("="))
            if factor not in self.names:
                y = self.factors[factor]
                choose(f"background ({factor})", value, map(str, y[y >= 0].unique().tolist()))
            raise self._one_sided(background, 0)
        return target, back

    def apart(self, background: str | None = None) -> tuple[Dataset, Dataset | None]:
        """As `contrast`, of a part that need not hold any of the background: it is None then."""
        if background is None:
            if self.background is None:
                from twofold.data.registry import available

                own = f"name one by FACTOR=VALUE (of {', '.join(self.classes())}), or " if self.classes() else ""
                able = ", ".join(entry.name for entry in available() if entry.background)
                raise InputError(f"background: {self.name} has no background set of its own; {own}load one of {able}")
            return self, self.background
        factor, equals, value = (part.strip() for part in background.partition("="))
        if not equals:
            raise InputError(f"background: {background!r}; expected FACTOR=VALUE, say 'group=control'")
        y = self._classes("reference", factor, "background")
        if factor in self.names:
            wanted = class_number(f"background ({factor})", value, self.names[factor])
        else:
            wanted = int(value) if value.isdecimal() else -2  # that no row has
        inside, outside = y == wanted, (y != wanted) & (y >= 0)
        if not outside.any():
            raise self._one_sided(background, int(inside.sum()))
        return self[outside], self[inside] if inside.any() else None

    def _one_sided(self, background: str | None, inside: int) -> InputError:
        return InputError(
            f"background: {background!r} holds {inside} of {len(self)} observations of {self.name}; "
            "expected some, and some others for the target"
        )

    def classes(self) -> list[str]:
        """The factors that are classes: all but those of real numbers."""
        return [name for name, values in self.factors.items() if not values.is_floating_point()]

    def _classes(self, kind: str, factor: str | None, argument: str = "factor") -> Tensor:
        known = self.classes()
        if self.scaling is not None and factor in self.scaling.columns and factor not in self.factors:
            raise InputError(
                f"{argument}: {factor!r} is a column of x; to have it as a factor, pass factors={factor!r} where the "
                "table is loaded"
            )
        if not known:
            raise InputError(
                f"{argument}: {self.name} has no classes, so {kind}() can't be had; images() can. For a folder, put "
                "the images into one sub-folder a class or group; for a table, name a column of classes as its factor"
            )
        if factor is None and self.default is None:
            raise InputError(f"{argument}: {self.name} has no default for {kind}(); choose from {', '.join(known)}")
        factor = self.default if factor is None else factor
        if factor in self.factors and factor not in known:
            raise InputError(f"{argument}: {factor!r} holds real numbers; {kind}() takes classes: {', '.join(known)}")
        choose(argument, factor, known)
        return self.factors[str(factor)]
