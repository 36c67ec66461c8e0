"""What is known about the observations: one class for each kind of weak supervision.

Each takes the observations `x` (images `[N, C, H, W]`, uint8 or float in [0, 1]; or vectors `[N, D]`) and the side
knowledge, checks both once, and gives batches: `draw(step, seed, rank, world, batch_size)` is a pure function of its
arguments, so that a resumed run sees what an undisturbed one would have seen. A batch comes as a NamedTuple of tensors
on the supervision's device, images as float32 in [0, 1].

The items (images, chunks of groups, triplets) are shuffled anew each epoch and cut into batches of constant size; a
batch may straddle two epochs. With `world` > 1 each rank takes an equal slice of the same global batch.
"""

from __future__ import annotations

import copy
import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from twofold.arrays import Observations, Rows, gather, generator, identities, observations
from twofold.arrays import classes as whole_numbers
from twofold.errors import InputError, whole


class ImagesDraw(NamedTuple):
    """`x [B, *shape]`, `index [B]`: the rows of the data set."""

    x: Tensor
    index: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]


class LabelsDraw(NamedTuple):
    """`x [B, *shape]`, `y [B]` (int64, -1 where the label is not known), `index [B]`."""

    x: Tensor
    y: Tensor
    index: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]


class GroupsDraw(NamedTuple):
    """`x [G, K, *shape]`, `mask [G, K]` (1.0 for members, 0.0 for padding), `group [G]`, `index [G, K]`,
    `groups [G, K, P]`: each observation's group in each of P groupings (of several; of one: `group`, repeated).

    Members come first. Padding repeats members of the same group, so that batch statistics see real images. With
    several groupings the chunks are made by one after the other, and `group` is the one that a chunk was made by.
    """

    x: Tensor
    mask: Tensor
    group: Tensor
    index: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]
    groups: Tensor


class TripletsDraw(NamedTuple):
    """`x [B, *shape]`, `x_same` (another of the same class), `x_other` (of another class), `y [B]`, `y_other [B]`."""

    x: Tensor
    x_same: Tensor
    x_other: Tensor
    y: Tensor
    y_other: Tensor


class ReferenceDraw(NamedTuple):
    """`target [B, *shape]`, `background [B, *shape]`."""

    target: Tensor
    background: Tensor


class _Stream:
    """An endless pass over items, as tables made anew each epoch: tensors whose first axis runs over the items."""

    def __init__(self, length: int, make):
        self.length, self.make, self.device = length, make, torch.device("cpu")
        self._tables: dict[tuple[int, int], tuple[Tensor, ...]] = {}

    def table(self, seed: int, epoch: int) -> tuple[Tensor, ...]:
        if (seed, epoch) not in self._tables:
            made = self.make(seed, epoch)
            tensors = tuple(torch.from_numpy(np.ascontiguousarray(t)).to(self.device) for t in made)
            self._tables = dict([*self._tables.items()][-1:]) | {(seed, epoch): tensors}  # two: batches straddle
        return self._tables[seed, epoch]

    def take(self, start: int, count: int, seed: int) -> tuple[Tensor, ...]:
        parts = []
        while count:
            epoch, first = divmod(start, self.length)
            here = min(count, self.length - first)
            parts.append(tuple(t[first : first + here] for t in self.table(seed, epoch)))
            start, count = start + here, count - here
        return parts[0] if len(parts) == 1 else tuple(torch.cat(same) for same in zip(*parts))


class Supervision(ABC):
    """Observations and what is known of them. `n` observations of `shape`; `facts()` is what a method may bind to."""

    x: Observations
    device = torch.device("cpu")

    @property
    def n(self) -> int:
        """Number of observations that one epoch passes over."""
        return len(self.x)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one observation."""
        return tuple(self.x.shape[1:])

    def __len__(self) -> int:
        return self.n

    def __repr__(self) -> str:
        known = ", ".join(f"{k}={v}" for k, v in self.facts().items())
        return f"{type(self).__name__}({known})"

    def facts(self) -> dict:
        """JSON-able facts that `Method.bind` may use; saved with the method, so that loading needs no data."""
        return {"n": self.n, "shape": list(self.shape)}

    def fingerprint(self) -> str:
        """Hash of what is known and of up to 4,096 evenly spaced observations: enough to notice other data."""
        digest = hashlib.blake2b(digest_size=16)
        for name, value in sorted(vars(self).items()):
            if isinstance(value, Tensor | np.ndarray | Rows) and name not in ("ids",):
                rows = np.linspace(0, len(value) - 1, min(len(value), 4096)).astype(int) if value.ndim > 1 else ...
                digest.update(f"{name} {tuple(value.shape)}".encode())
                digest.update(np.ascontiguousarray(np.asarray(value[rows])).tobytes())
        return digest.hexdigest()

    def steps_per_epoch(self, batch_size: int, draws: int = 1) -> int:
        """Steps in which `draws` batches a step pass over the data once, rounded up."""
        return max(1, math.ceil(self.n / (batch_size * draws)))

    def to(self, device) -> Self:
        """A copy whose observations and tables live on `device`; what is too large for it is gathered on the CPU."""
        device = torch.device(device)
        if device == self.device:
            return self
        moved = copy.copy(self)
        moved.device = device
        for name, value in vars(self).items():
            if isinstance(value, Tensor) and _fits(value, device):
                setattr(moved, name, value.to(device))
            if isinstance(value, _Stream):
                stream = _Stream(value.length, value.make)
                stream.device = device
                setattr(moved, name, stream)
        return moved

    def draw(self, step: int, seed: int = 0, rank: int = 0, world: int = 1, *, batch_size: int = 128):
        """The batch of `step` (from 0) for one of `world` ranks: `batch_size // world` images of a global batch.

        Pure: equal arguments give equal batches. Raises `InputError` if `world` doesn't divide `batch_size`.
        """
        if whole("batch_size", batch_size, 1) % (world * self._whole(world)):
            expected = f"expected a positive multiple of {world * self._whole(world)}"
            raise InputError(f"batch_size: {batch_size}; {expected}, so that {world} ranks have equal shares")
        if step < 0 or not 0 <= rank < world:
            raise InputError(f"step, rank: {step}, {rank}; expected step >= 0 and 0 <= rank < world = {world}")
        return self._draw(step * world + rank, seed, batch_size // world)

    def _whole(self, world: int) -> int:
        """What a rank's share must be a multiple of, for all shares together to be the batch of one process."""
        return 1

    @abstractmethod
    def _draw(self, turn: int, seed: int, batch: int) -> Any: ...


def _fits(tensor: Tensor, device: torch.device) -> bool:
    return device.type != "cuda" or tensor.nbytes < 0.6 * torch.cuda.mem_get_info(device)[0]


class _Shuffle:
    """Makes epochs of `rows` (or of `range(rows)`) in random order; `tag` keeps streams apart."""

    def __init__(self, rows: np.ndarray | int, tag: int):
        self.rows, self.tag = rows, tag

    def __call__(self, seed: int, epoch: int) -> tuple[np.ndarray]:
        return (generator(seed, self.tag, epoch).permutation(self.rows),)


class Images(Supervision):
    """Observations and nothing else: `Images(x)`."""

    def __init__(self, x):
        self.x = observations(x)
        self._items = _Stream(self.n, _Shuffle(self.n, 1))

    def _draw(self, turn: int, seed: int, batch: int) -> ImagesDraw:
        (index,) = self._items.take(turn * batch, batch, seed)
        return ImagesDraw(gather(self.x, index), index)


class Labels(Supervision):
    """Classes of some or all observations: `Labels(x, y)`, `y [N]` whole numbers from 0, -1 where not known.

    Where some are missing, half of each batch is labelled. `classes` is the largest label plus one unless given; where
    it is, all may be missing (to go on with a method that was trained on labelled observations before).
    Raises `InputError` for labels of one class only, or out of `range(classes)`.
    """

    def __init__(self, x, y, classes: int | None = None):
        self.x = observations(x)
        self.y = whole_numbers(y, self.n, missing=True)
        known = self.y[self.y >= 0]
        if len(known.unique()) < 2 and (classes is None or len(known)):
            raise InputError(f"y: {len(known.unique())} class among {len(known)} labels; expected at least two classes")
        largest = int(known.max()) if len(known) else -1
        self.classes = largest + 1 if classes is None else classes
        if classes is None and self.classes > max(1000, self.n):
            raise InputError(f"y: label {self.classes - 1} for {self.n} observations; expected classes numbered from 0")
        if self.classes <= largest:
            raise InputError(f"y: label {largest} is out of range; classes={classes} allows 0..{self.classes - 1}")
        self.never = sorted(set(range(self.classes)) - set(known.tolist())) if len(known) else []
        labelled, rest = (np.flatnonzero(self.y.numpy() >= 0), np.flatnonzero(self.y.numpy() < 0))
        self._labelled = _Stream(len(labelled), _Shuffle(labelled, 2)) if len(labelled) else None
        self._rest = _Stream(len(rest), _Shuffle(rest, 3)) if len(rest) else None

    def facts(self) -> dict:
        rest = self._rest.length if self._rest else 0
        never = {"never": self.never} if self.never else {}  # classes without a single label
        return super().facts() | {"classes": self.classes, "labelled": self.n - rest} | never

    def _whole(self, world: int) -> int:
        return 1 if world == 1 or self._rest is None or self._labelled is None else 2

    def _draw(self, turn: int, seed: int, batch: int) -> LabelsDraw:
        if self._rest is None or self._labelled is None:
            (index,) = (self._labelled or self._rest).take(turn * batch, batch, seed)  # pyright: ignore
        else:
            half = max(1, batch // 2)
            index = self._labelled.take(turn * half, half, seed)[0]
            if batch > half:
                index = torch.cat([index, self._rest.take(turn * (batch - half), batch - half, seed)[0]])
        return LabelsDraw(gather(self.x, index), self.y[index.to(self.y.device)], index)


class Groups(Supervision):
    """Observations that share something, nobody says what: `Groups(x, group, per_group=8)`, `group [N]` any ids.

    Each epoch every group is shuffled and cut into chunks of at most `per_group` members, as even as can be; a batch
    holds `batch_size // per_group` chunks (at least one), so a large group may stand in it as several disjoint ones.
    Groups of a single member are allowed; -1 says that nothing is known of an observation's group, and makes it one.

    Several groupings of the same observations are `{name: ids [N]}`, or ids `[N, P]`: who it is and in which session,
    say. Each is cut into chunks, and an epoch holds the chunks of all, shuffled: P passes over the data.
    Raises `InputError` if all groups of a grouping have a single member, or if it has only one group.
    """

    def __init__(self, x, group, per_group: int = 8):
        self.x = observations(x)
        named = groupings(group, self.n)
        self.names, alone = list(named), len(named) == 1
        checked = [_groups(ids, self.n, "group" if alone else f"group {name}") for name, ids in named.items()]
        sizes = [np.bincount(dense) for _, dense in checked]
        per_group = whole("per_group", per_group, 1)
        self.ids = checked[0][0]
        self.group = torch.from_numpy(np.stack([dense for _, dense in checked], 1))  # [N, P]
        self.counts = [len(each) for each in sizes]
        self.per_group = min(per_group, max(int(each.max()) for each in sizes))
        pieces = [int((-(-each // self.per_group)).sum()) for each in sizes]
        self._chunks = _Stream(sum(pieces), self._chunk)
        if alone:
            self.group = self.group[:, 0]

    @property
    def groups(self) -> int:
        """Number of groups, of the first grouping where there are several."""
        return self.counts[0]

    def facts(self) -> dict:
        several = {"groupings": dict(zip(self.names, self.counts))} if len(self.names) > 1 else {}
        return super().facts() | {"groups": self.groups, "per_group": self.per_group} | several

    def steps_per_epoch(self, batch_size: int, draws: int = 1) -> int:
        return max(1, math.ceil(self._chunks.length / (max(1, batch_size // self.per_group) * draws)))

    def _chunk(self, seed: int, epoch: int):
        """One epoch's chunks, shuffled: rows and mask `[chunks, K]`, group `[chunks]`."""
        random = generator(seed, 4, epoch)
        each = [self._cut(random, dense) for dense in self.group.cpu().reshape(self.n, -1).T.numpy()]
        whole = [np.concatenate(parts) for parts in zip(*each)]
        order = random.permutation(len(whole[0]))
        return tuple(part[order] for part in whole)

    def _cut(self, random: np.random.Generator, dense: np.ndarray):
        """The chunks of one grouping. No loop over groups."""
        shuffled = random.permutation(self.n)
        rows = shuffled[np.argsort(dense[shuffled], kind="stable")]
        sizes = np.bincount(dense)
        pieces = -(-sizes // self.per_group)
        place = np.arange(self.n) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # place of a row in its shuffled group
        each = np.repeat(pieces, sizes)
        chunk = np.repeat(np.cumsum(pieces) - pieces, sizes) + place % each  # dealt out like cards: even pieces
        slot = place // each
        index = np.zeros((pieces.sum(), self.per_group), np.int64)
        mask = np.zeros(index.shape, np.float32)
        index[chunk, slot], mask[chunk, slot] = rows, 1
        count = mask.sum(1, dtype=np.int64)
        index = np.take_along_axis(index, np.arange(self.per_group)[None] % count[:, None], 1)
        return index, mask, np.repeat(np.arange(len(sizes)), pieces)

    def _whole(self, world: int) -> int:
        return 1 if world == 1 else self.per_group

    def _draw(self, turn: int, seed: int, batch: int) -> GroupsDraw:
        count = max(1, batch // self.per_group)
        index, mask, group = self._chunks.take(turn * count, count, seed)
        if self.group.ndim == 1:
            groups = group[:, None, None].expand(*index.shape, 1)
        else:
            groups = self.group.to(index.device)[index]
        return GroupsDraw(gather(self.x, index), mask, group, index, groups)


def groupings(group, n: int) -> dict[str, Any]:
    """`{name: ids [n]}` from that, from ids `[n, P]` (called 1 to P), or from ids `[n]`."""
    if isinstance(group, Mapping):
        if not group:
            raise InputError("group: no groupings; expected one at least")
        return {str(name): ids for name, ids in group.items()}
    array = group.detach().cpu().numpy() if isinstance(group, Tensor) else np.asarray(group)
    if array.ndim == 2 and len(array) == n and array.shape[1] > 0:
        return {str(i + 1): ids for i, ids in enumerate(array.T)}
    return {"group": group}


def in_groups(ids, n: int, name: str = "group") -> tuple[np.ndarray, np.ndarray]:
    """Sorted ids, and each row's group; those not known (-1) are each in one of their own, after the others."""
    known, dense = identities(ids, n, name)
    if -1 in known.tolist():
        alone = dense == known.tolist().index(-1)
        dense = np.where(alone, len(known) + np.arange(n), dense)
        dense = np.unique(dense, return_inverse=True)[1]
    return known, dense


def _groups(ids, n: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """As `in_groups`, refused where they teach nothing."""
    known, dense = in_groups(ids, n, name)
    sizes = np.bincount(dense)
    if len(sizes) < 2:
        raise InputError(f"{name}: one group only; expected at least two, or nothing can be told apart")
    if sizes.max() == 1:
        raise InputError(f"{name}: all {len(sizes)} groups have a single member; expected some that share one")
    return known, dense


class Triplets(Supervision):
    """Same class or not: `Triplets(x, y)`, `y [N]` any ids. A draw pairs each observation with another of its class and
    one of another class (drawn evenly over all observations of other classes).

    Raises `InputError` for a class with a single member, or one class only.
    """

    def __init__(self, x, y):
        self.x = observations(x)
        self.ids, dense = identities(y, self.n, "y")
        if -1 in self.ids.tolist():
            raise InputError(
                f"y: -1 (not known) for {int((self.ids[dense] == -1).sum())} of {self.n}; pairs need all, drop those"
            )
        sizes = np.bincount(dense)
        if len(sizes) < 2:
            raise InputError("y: one class only; expected at least two")
        if sizes.min() < 2:
            alone = int((sizes < 2).sum())
            raise InputError(f"y: {alone} of {len(sizes)} classes have a single member; pairs need two in each")
        self.y, self.classes = torch.from_numpy(dense), len(sizes)
        self._items = _Stream(self.n, self._pairs)

    def facts(self) -> dict:
        return super().facts() | {"classes": self.classes}

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, ...]:
        y = self.y.cpu().numpy()
        rows = np.argsort(y, kind="stable")
        sizes = np.bincount(y)
        first = np.cumsum(sizes) - sizes
        place = np.empty(self.n, np.int64)
        place[rows] = np.arange(self.n) - np.repeat(first, sizes)
        return rows, first[y], sizes[y], place

    def _pairs(self, seed: int, epoch: int):
        random = generator(seed, 5, epoch)
        rows, first, size, place = self._sorted
        anchor = random.permutation(self.n)
        f, s, p = first[anchor], size[anchor], place[anchor]
        same = rows[f + (p + 1 + random.integers(0, s - 1)) % s]  # any member but the anchor
        other = rows[(f + s + random.integers(0, self.n - s)) % self.n]  # anything past the anchor's class, cyclically
        return anchor, same, other

    def _draw(self, turn: int, seed: int, batch: int) -> TripletsDraw:
        anchor, same, other = self._items.take(turn * batch, batch, seed)
        x, x_same, x_other = (gather(self.x, i) for i in (anchor, same, other))
        y = self.y.to(anchor.device)
        return TripletsDraw(x, x_same, x_other, y[anchor], y[other])


class Reference(Supervision):
    """Two sets: `Reference(target, background)`. The background lacks what is sought in the target.

    A draw holds `batch_size` of each; an epoch is one pass over the target. Raises `InputError` on unequal shapes.
    """

    def __init__(self, target, background):
        self.x = observations(target, "target")
        self.background = observations(background, "background")
        if self.x.shape[1:] != self.background.shape[1:]:
            found = tuple(self.background.shape[1:])
            raise InputError(f"background: observations of shape {found}; expected {self.shape} as in target")
        self._target = _Stream(self.n, _Shuffle(self.n, 6))
        self._background = _Stream(len(self.background), _Shuffle(len(self.background), 7))

    @property
    def target(self):
        return self.x

    def facts(self) -> dict:
        return super().facts() | {"background": len(self.background)}

    def _draw(self, turn: int, seed: int, batch: int) -> ReferenceDraw:
        (target,) = self._target.take(turn * batch, batch, seed)
        (background,) = self._background.take(turn * batch, batch, seed)
        return ReferenceDraw(gather(self.x, target), gather(self.background, background))
