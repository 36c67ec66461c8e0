"""The pictures of a report: what each shows, how to read it, and how it is drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from twofold import figures, operations
from twofold.arrays import generator, unit
from twofold.data import Dataset
from twofold.errors import InputError, UnsupportedError
from twofold.findings import Evaluation
from twofold.method import Code, Method
from twofold.metrics.common import sample
from twofold.supervision import Labels, Reference

ACROSS, DOWN, STEPS = 9, 6, 8  # tiles
POINTS = 1_000  # in a map, and in the set that is searched


class Subject:
    """What the figures show: some held-out observations, their codes, and what comes of them."""

    def __init__(
        self,
        method: Method,
        test: Dataset,
        evaluation: Evaluation,
        background: str | None,
        metrics: Sequence[Mapping[str, float]],
        seed: int,
    ):
        self.method, self.evaluation, self.metrics, self.seed = method, evaluation, metrics, seed
        self.background = None
        if method.supervision is Reference and (background or test.background is not None):
            test, self.background = test.contrast(background)
        self.test, self.factor = test, evaluation.about if evaluation.about in test.factors else None

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
        names = self.test.names.get(self.factor)
        return [str(k) if names is None or k < 0 else names[k] for k in part.factors[self.factor].tolist()]

    def two_halves(self) -> None:
        for half, size in zip("sz", self.method.sizes):
            if size == 0:
                raise UnsupportedError(f"{type(self.method).__name__} has no {half}")

    @cached_property
    def mapped(self) -> tuple[Dataset, Code]:
        part = self.test[sample(len(self.test), POINTS, self.seed)]
        return part, self.encode(part)


def _pixels(part: Dataset) -> Tensor:
    return unit(torch.as_tensor(np.asarray(part.x[:])))


def _leakage(on: Subject) -> Figure:
    if not on.evaluation.factors:
        why = on.evaluation.skipped.get("codes", f"{on.test.name} has no factor that could be probed")
        raise UnsupportedError(why)
    return figures.leakage_chart({name: found.leakage for name, found in on.evaluation.factors.items()})


def _map(on: Subject) -> Figure:
    part, code = on.mapped
    values = None if on.factor is None else part.factors[on.factor]
    names = on.test.names.get(on.factor or "")
    back = None
    if on.background is not None:
        back = on.method.encode(on.background[sample(len(on.background), len(part) // 2 or 1, on.seed)].x)._asdict()
    return figures.code_map(code._asdict(), values, factor=on.factor or "", names=names, background=back, seed=on.seed)


def _reconstruction(on: Subject) -> Figure:
    part = on.some(ACROSS)
    y = on.labels(part)
    halves = {h: operations.reconstruct(on.method, part.x, h, y) for h in ("s", "z")} if min(on.method.sizes) else {}
    return figures.reconstruction_rows(_pixels(part), operations.reconstruct(on.method, part.x, "both", y), **halves)


def _swap(on: Subject) -> Figure:
    on.two_halves()
    give_s, give_z = on.some(ACROSS), on.some(DOWN, ACROSS)
    return figures.swap_grid(_pixels(give_s), _pixels(give_z), on.decode(on.encode(give_s).s, on.encode(give_z).z))


def _interpolation(on: Subject) -> Figure:
    on.two_halves()
    part = on.test[on.order[:2]]
    if len(part) < 2:
        raise UnsupportedError(f"{on.test.name}: the test part holds one observation; a line needs two")
    (s, z), t = on.encode(part), torch.linspace(0, 1, STEPS)[:, None]
    return figures.interpolation_grid(on.decode(torch.lerp(s[:1], s[1:], t), torch.lerp(z[:1], z[1:], t)))


def _generation(on: Subject) -> Figure:
    if on.method.supervision is Labels and on.factor is not None:
        try:
            classes = on.test.factors[on.factor].unique().tolist()[:DOWN]
            made = [operations.generate(on.method, STEPS, y=k, seed=on.seed) for k in classes]
        except InputError as error:
            raise UnsupportedError(str(error)) from None
        names = on.test.names.get(on.factor)
        return figures.image_grid(torch.stack(made), rows=[str(k) if names is None else names[k] for k in classes])
    on.two_halves()
    part = on.some(DOWN)
    made = [operations.generate(on.method, STEPS, examples=part[i].x, seed=on.seed) for i in range(len(part))]
    return figures.generation_rows(_pixels(part), torch.stack(made), on.named(part))


def _prior(on: Subject) -> Figure:
    if on.method.needs is not None or on.evaluation.given:
        need = {"examples": "images that give s", "y": "a class"}.get(on.method.needs or "y")
        raise UnsupportedError(f"{type(on.method).__name__} generates from {need} only: see above")
    if min(on.method.sizes) == 0:
        made = operations.generate(on.method, ACROSS * (DOWN - 2), seed=on.seed)
        return figures.image_grid(made.unflatten(0, (DOWN - 2, ACROSS)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(on.seed)
        code = on.method.prior(ACROSS)
    return figures.image_grid(
        on.decode(code.s, code.z[:DOWN]),
        column_spans=[figures.Span(0, ACROSS - 1, "s from the prior, one a column", figures.S)],
        row_spans=[figures.Span(0, DOWN - 1, "z from the prior, one a row", figures.Z)],
    )


def _retrieval(on: Subject) -> Figure:
    count = min(DOWN, len(on.order) // 2)
    rows = on.order[:count], on.order[count : count + POINTS]
    queries, gallery = (on.test[r] for r in rows if len(r)) if count else (None, None)
    if queries is None or gallery is None:
        raise UnsupportedError(f"{on.test.name}: the test part holds one observation; nothing to search")
    y = None if on.named(queries) is None else [part.factors[str(on.factor)] for part in (queries, gallery)]
    found: dict[str, Any] = {}
    for half in (h for h, size in zip("sz", on.method.sizes) if size):
        near = operations.retrieve(on.method, queries.x, gallery.x, min(5, len(gallery)), half)[0]  # pyright: ignore
        found[f"by_{half}"] = _pixels(gallery)[near]
        found[f"same_{half}"] = None if y is None else y[1][near] == y[0][:, None]
    return figures.retrieval_rows(_pixels(queries), **found)


def _walk(on: Subject, half: str) -> Figure:
    """From one observation's code, dimension by dimension, through two standard deviations of the codes either way."""
    at = "sz".index(half)
    if on.method.sizes[at] == 0:
        raise UnsupportedError(f"{type(on.method).__name__} has no {half}")
    if half == "s" and on.evaluation.given:
        raise UnsupportedError("s is the label; it has no directions to walk in")
    codes = on.mapped[1][at]
    spread, values = codes.std(0, correction=0), torch.linspace(-2, 2, ACROSS)
    widest = spread.argsort(descending=True)[:DOWN].sort()[0]
    start = on.encode(on.test[on.order[:1]])
    moved = start[at].repeat(len(widest), len(values), 1)
    for row, d in enumerate(widest):
        moved[row, :, d] = codes[:, d].mean() + values * spread[d]
    still = start[1 - at].expand(len(widest) * len(values), -1)
    halves = (moved.flatten(0, 1), still) if half == "s" else (still, moved.flatten(0, 1))
    made = on.method.decode(Code(*halves)).unflatten(0, moved.shape[:2])
    return figures.walks(made, widest.tolist(), values.tolist(), half)


def _inpainting(on: Subject) -> Figure:
    if len(on.method.shape) != 3:
        raise UnsupportedError("vectors have no halves or squares to cover")
    part = on.some(ACROSS)
    height, width = on.method.shape[1:]
    masks = torch.zeros(3, height, width)
    masks[0, :, width // 2 :] = 1
    masks[1, height // 2 :] = 1
    masks[2, height // 4 : -(height // 4), width // 4 : -(width // 4)] = 1
    x = _pixels(part)
    filled = [operations.inpaint(on.method, part.x, mask, on.labels(part)) for mask in masks]
    corrupted = [x * (1 - mask) for mask in masks]
    return figures.inpainting_rows(
        x, torch.stack(corrupted), torch.stack(filled), ["right half", "bottom half", "centre"]
    )


def _losses(on: Subject) -> Figure:
    if not on.metrics:
        raise UnsupportedError("no losses were handed over (Run.metrics, or the metrics.csv of a run)")
    return figures.loss_curves(on.metrics)


class Picture(NamedTuple):
    title: str
    how: str
    draw: Callable[[Subject], Figure]


PICTURES = {
    "leakage": Picture(
        "What each half tells",
        "A bar is the strongest probe of that half on held-out observations, the line across its end the 95 % "
        "interval, the dashed line the best constant guess. Where s should hold a factor, look for blue far from the "
        "dashed line and orange at it.",
        _leakage,
    ),
    "map": Picture(
        "s and z in two dimensions",
        "Each point is a held-out observation. Neighbours in the map are neighbours in the code; distances between "
        "clusters mean nothing. A good split keeps the classes apart in s and mixes them in z.",
        _map,
    ),
    "reconstruction": Picture(
        "Reconstruction",
        "Top row: held-out originals. Below: through the whole code, through s alone (z at 0) and z alone (s at "
        "its reference value).",
        _reconstruction,
    ),
    "swap": Picture(
        "Swap",
        "Each tile has the s of the blue original above it and the z of the orange original to its left. In a good "
        "split, columns keep what s is about and rows keep everything else.",
        _swap,
    ),
    "interpolation": Picture(
        "Interpolation",
        "From one reconstruction (framed, top left) to another (bottom right): only s changes along a row, only z "
        "down a column.",
        _interpolation,
    ),
    "generation": Picture(
        "Conditional generation",
        "New observations: a row shares its s (of the framed original, or of the class), z is drawn from the prior. "
        "Rows should keep what s is about and vary in the rest.",
        _generation,
    ),
    "prior": Picture(
        "Generation from the prior",
        "New observations without any example: both halves are drawn from the prior. Where there are two, a column "
        "shares its s and a row its z.",
        _prior,
    ),
    "retrieval": Picture(
        "Retrieval",
        "The held-out observations nearest to each query, by s and by z; green frames are of the query's class. A "
        "good split has many frames under s and few under z.",
        _retrieval,
    ),
    "walk-s": Picture(
        "Single dimensions of s",
        "One original's code; a row moves one dimension of s through two standard deviations either way (of the codes "
        "of held-out observations) and keeps all else.",
        partial(_walk, half="s"),
    ),
    "walk-z": Picture(
        "Single dimensions of z",
        "The same for z: what s is about should not change anywhere.",
        partial(_walk, half="z"),
    ),
    "inpainting": Picture(
        "Inpainting",
        "The part that is covered is encoded as 0 and filled in from the reconstruction; what is not covered stays.",
        _inpainting,
    ),
    "losses": Picture(
        "Training",
        "What each player descends, term by term, averaged over the steps between two points; its sum; the norm of "
        "its gradient. A curve that still falls asks for more steps.",
        _losses,
    ),
}
