"""What the pictures of a report are of: held-out observations, their codes, and what comes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from twofold.arrays import generator
from twofold.data import Dataset
from twofold.errors import UnsupportedError
from twofold.method import Code, Method
from twofold.metrics.common import sample
from twofold.supervision import Reference
from twofold.verdict import Evaluation

POINTS = 1_000  # in a map, and in the set that is searched


class Subject:
    """Some held-out observations, chosen by `seed`, and a method that they are shown to."""

    def __init__(
        self,
        method: Method,
        test: Dataset,
        evaluation: Evaluation,
        background: str | None,
        metrics: Sequence[Mapping[str, float]],
        seed: int,
        snapshots: Mapping[int, Method] | None = None,
    ):
        self.method, self.evaluation, self.metrics, self.seed = method, evaluation, metrics, seed
        self.snapshots = snapshots or {}
        self.background = None
        if background or (method.supervision is Reference and test.background is not None):
            test, self.background = test.apart(background)
        self.factor = evaluation.about if evaluation.about in test.factors else None
        if evaluation.given:
            test = test[test.factors[str(self.factor)] >= 0]
        self.test = test

    @cached_property
    def order(self) -> np.ndarray:
        """The rows of the test part in turn: one of each class, another of each class, and so on; values spread out."""
        rows = generator(self.seed, 31).permutation(len(self.test))
        if self.factor is None:
            return rows
        y = self.test.factors[self.factor].numpy()
        rows = rows[np.argsort(y[rows], kind="stable")]
        rows = rows[y[rows] >= 0] if y.dtype.kind == "i" and (y >= 0).any() else rows
        if y.dtype.kind == "f":  # a sequence that covers the values evenly
            return rows[np.argsort((np.arange(len(rows)) * 0.618033988749895) % 1, kind="stable")]
        counts = np.unique(y[rows], return_counts=True)[1]
        turn = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        return rows[np.argsort(turn, kind="stable")]

    def some(self, count: int, skip: int = 0) -> Dataset:
        """`count` different observations, sorted by the factor; `skip` gives others."""
        if skip + count > len(self.order):
            skip = max(0, len(self.order) - count)
        rows = self.order[skip : skip + count]
        if self.factor is not None:
            rows = rows[np.argsort(self.test.factors[self.factor].numpy()[rows], kind="stable")]
        return self.test[rows]

    def encode(self, part: Dataset) -> Code:
        return self.method.encode(part.x, self.labels(part))

    def labels(self, part: Dataset) -> Tensor | None:
        """For methods that are given them."""
        return part.factors[str(self.factor)] if self.evaluation.given else None

    def decode(self, s: Tensor, z: Tensor) -> Tensor:
        """Every s `[C, d_s]` with every z `[R, d_z]`: `[R, C, *shape]`."""
        s, z = s[None].expand(len(z), -1, -1), z[:, None].expand(-1, len(s), -1)
        return self.method.decode(Code(s.flatten(0, 1), z.flatten(0, 1))).unflatten(0, s.shape[:2])

    def named(self, part: Dataset) -> list[str] | None:
        """The classes of some observations, for people."""
        if self.factor is None or self.test.factors[self.factor].is_floating_point():
            return None
        return [self.name(k) for k in part.factors[self.factor].tolist()]

    def classes(self, count: int) -> list[int]:
        """The first of the classes that held-out observations have."""
        if self.factor is None or self.test.factors[self.factor].is_floating_point():
            raise UnsupportedError(f"{self.test.name} has no classes that s is about")
        y = self.test.factors[self.factor]
        return y[y >= 0].unique()[:count].tolist()

    def name(self, k: int) -> str:
        """Of a class, for people."""
        names = self.test.names.get(str(self.factor))
        return str(k) if names is None or k < 0 else names[k]

    def two_halves(self) -> None:
        for half, size in zip("sz", self.method.sizes):
            if size == 0:
                raise UnsupportedError(f"{type(self.method).__name__} has no {half}")

    def has_prior(self) -> None:
        """Of s."""
        if self.method.needs is not None or self.evaluation.given:
            need = {"examples": "images that give s", "y": "a class"}.get(self.method.needs or "y")
            raise UnsupportedError(f"{type(self.method).__name__} generates from {need} only: see above")

    @cached_property
    def rows(self) -> np.ndarray:
        return sample(len(self.test), POINTS, self.seed)

    @cached_property
    def mapped(self) -> tuple[Dataset, Code]:
        """Many observations, encoded once for all figures."""
        part = self.test[self.rows]
        return part, self.encode(part)

    def by_class(self, k: int) -> Code:
        """Two draws from the prior of a class, with the same noise for every class."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)
            return self.method.prior(2, torch.tensor([k, k]))
