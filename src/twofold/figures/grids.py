"""Observations in rows and columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from twofold.errors import InputError, choose, shown
from twofold.figures.page import DPI, FAINT, HALVES, INK, MARK, SOFT, S, Z, put, short, width

TILE, VECTOR = 144, (176, 112)
GAP, BREAK, EDGE = 6, 22, 10


class Span(NamedTuple):
    """A label over columns (or beside rows) `first` to `last`, both counted."""

    first: int
    last: int
    text: str
    colour: str = INK


def image_grid(
    images,
    *,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    row_spans: Sequence[Span] = (),
    column_spans: Sequence[Span] = (),
    row_breaks: Sequence[int] = (),
    column_breaks: Sequence[int] = (),
    frames=None,
) -> Figure:
    """Observations `[R, C, *shape]` in rows and columns; a tile of NaN stays empty.

    rows, columns: a label each. row_spans, column_spans: labels of several. row_breaks, column_breaks: a wider gap
    before these. frames `[R][C]`: a colour around a tile, or None. Images are enlarged by whole factors, without
    smoothing; those of more than 144 pixels are reduced. Raises `InputError` for another shape.
    """
    x = torch.as_tensor(images)
    if x.ndim not in (3, 5) or min(x.shape) == 0:
        raise InputError(f"images: {shown(x)}; expected images [R, C, channels, H, W] or vectors [R, C, D]")
    count = x.shape[:2]
    for name, labels, wanted in (
        ("rows", rows, count[0]),
        ("columns", columns, count[1]),
        ("frames", frames, count[0]),
    ):
        if labels is not None and len(labels) != wanted:
            raise InputError(f"{name}: {len(labels)}; expected {wanted}, as in images")
    tiles = _tiles(x) if x.ndim == 5 else None
    high, wide = VECTOR[::-1] if tiles is None else tiles.shape[2:4]
    left = EDGE + max((width(label) + 14 for label in rows or ()), default=0) + 40 * bool(row_spans)
    head = EDGE + 34 * (columns is not None) + 44 * bool(column_spans)
    top, down = _places(count[0], high, head, row_breaks)
    start, across = _places(count[1], wide, left, column_breaks)
    figure, axes = _canvas(across - GAP + EDGE, down - GAP + EDGE)

    if tiles is None:
        _profiles(axes, x.float().numpy(), start, top)
    else:
        page = np.full((int(axes.get_ylim()[0]), int(axes.get_xlim()[1]), 3), 255, np.uint8)
        for r, y in enumerate(top):
            for c, a in enumerate(start):
                page[y : y + high, a : a + wide] = tiles[r, c]
        axes.imshow(page, extent=(0, page.shape[1], page.shape[0], 0), interpolation="nearest")
    for r, row in enumerate(frames or ()):
        for c, colour in enumerate(row):
            if colour:
                box = Rectangle((start[c] - 3, top[r] - 3), wide + 6, high + 6, fill=False, ec=colour, lw=1.6)
                axes.add_patch(box)
    for y, label in zip(top, rows or ()):
        put(axes, left - 14, y + high / 2, short(label), ha="right")
    for a, label in zip(start, columns or ()):
        put(axes, a + wide / 2, head - 16, short(label, wide // 14), color=SOFT)
    for span in column_spans:
        ends, y = (start[span.first], start[span.last] + wide), EDGE + 34
        axes.plot(ends, (y, y), color=span.colour, lw=1.2, solid_capstyle="butt")
        put(axes, sum(ends) / 2, y - 18, span.text, color=span.colour)
    for span in row_spans:
        ends, a = (top[span.first], top[span.last] + high), EDGE + 28
        axes.plot((a, a), ends, color=span.colour, lw=1.2, solid_capstyle="butt")
        put(axes, a - 16, sum(ends) / 2, span.text, color=span.colour, rotation=90)
    return figure


def swap_grid(gives_s, gives_z, swapped) -> Figure:
    """s from the first row, `gives_s [C, *shape]`, z from the first column, `gives_z [R, *shape]`, in `swapped [R, C,
    *shape]` [Mathieu16, Fig. 2a; Bouchacourt18, Fig. 4]."""
    s, z, made = _stack(("gives_s", gives_s, 1), ("gives_z", gives_z, 1), ("swapped", swapped, 2))
    if made.shape[:2] != (len(z), len(s)):
        raise InputError(f"swapped: {shown(made)}; expected [{len(z)}, {len(s)}, ...]: a row a z, a column an s")
    empty = torch.full_like(s[:1], torch.nan)
    body = torch.cat([torch.cat([empty, s])[None], torch.cat([z[:, None], made], 1)])
    frames = [[None] + [S] * len(s)] + [[Z] + [None] * len(s)] * len(z)
    return image_grid(
        body,
        frames=frames,
        row_breaks=(1,),
        column_breaks=(1,),
        column_spans=[Span(1, len(s), "s of these", S)],
        row_spans=[Span(1, len(z), "z of these", Z)],
    )


def interpolation_grid(images) -> Figure:
    """`[R, C, *shape]`: s changes along a row, z down a column; the ends are framed [Mathieu16, Fig. 2b]."""
    (x,) = _stack(("images", images, 2))
    rows, columns = x.shape[:2]
    frames = [
        [MARK if (r, c) in ((0, 0), (rows - 1, columns - 1)) else None for c in range(columns)] for r in range(rows)
    ]
    return image_grid(
        x,
        frames=frames,
        column_spans=[Span(0, columns - 1, "s changes →", S)],
        row_spans=[Span(0, rows - 1, "← z changes", Z)],
    )


def reconstruction_rows(x, both, s=None, z=None) -> Figure:
    """Originals above what comes back from both halves, from s alone and from z alone: `[N, *shape]` each; s and z may
    be left out [Contrast21, Fig. 5]."""
    named = {"original": x, "reconstruction": both, "s alone": s, "z alone": z}
    rows = {name: value for name, value in named.items() if value is not None}
    stacked = _stack(*((name, value, 1) for name, value in rows.items()))
    return image_grid(_rows(stacked), rows=list(rows), row_breaks=(1,))


def generation_rows(examples, generated, names: Sequence[str] | None = None, keeps: Literal["s", "z"] = "s") -> Figure:
    """Each row: an example `[R, *shape]`, then new observations `[R, N, *shape]` with its s (or z: `keeps`), the other
    half from the prior [Ruiz19, Fig. 4]; `names` label the rows."""
    given, made = _stack(("examples", examples, 1), ("generated", generated, 2))
    if len(given) != len(made):
        raise InputError(f"generated: {len(made)} rows for {len(given)} examples; expected as many")
    drawn, (own, other) = "z" if keeps == "s" else "s", (S, Z) if keeps == "s" else (Z, S)
    spans = [Span(0, 0, f"{keeps} of", own), Span(1, made.shape[1], f"with {drawn} from the prior", other)]
    frames = [[own, *[None] * made.shape[1]]] * len(made)
    return image_grid(
        torch.cat([given[:, None], made], 1), rows=names, column_breaks=(1,), column_spans=spans, frames=frames
    )


def retrieval_rows(query, by_s=None, by_z=None, same_s=None, same_z=None) -> Figure:
    """Each row: a query `[R, *shape]`, its nearest in s and its nearest in z `[R, K, *shape]` (either may be left out).

    `same_s`, `same_z` `[R, K]`: whether they are of the query's class; these are framed.
    """
    halves = {h: (v, same) for h, v, same in (("s", by_s, same_s), ("z", by_z, same_z)) if v is not None}
    first, *found = _stack(("query", query, 1), *((f"by_{h}", v, 2) for h, (v, _) in halves.items()))
    parts, breaks, spans, at = [first[:, None]], [], [Span(0, 0, "query")], 1
    frames: list[list[str | None]] = [[None] for _ in first]
    for (half, (_, same)), images in zip(halves.items(), found):
        if len(images) != len(first):
            raise InputError(f"by_{half}: {len(images)} rows for {len(first)} queries; expected as many")
        last = at + images.shape[1] - 1
        breaks.append(at)
        spans.append(Span(at, last, f"nearest in {half}", HALVES[half]))
        marks = np.zeros(images.shape[:2], bool) if same is None else np.asarray(same)
        for row, hits in zip(frames, marks):
            row.extend(MARK if hit else None for hit in hits)
        parts.append(images)
        at = last + 1
    return image_grid(torch.cat(parts, 1), column_breaks=breaks, column_spans=spans, frames=frames)


def walks(images, dimensions: Sequence[int], values: Sequence[float], half: str = "z") -> Figure:
    """Rows `[R, N, *shape]`, one a dimension of `half`, that takes the `values [N]` while all else stays
    [Zheng19, Fig. 5]."""
    choose("half", half, HALVES)
    (x,) = _stack(("images", images, 2))
    rows, columns = [f"{half}[{d}]" for d in dimensions], [f"{value:+.2g}" for value in values]
    return image_grid(x, rows=rows, columns=columns)


def class_walks(images, names: Sequence[str], half: str = "s", fixed: str = "") -> Figure:
    """Rows `[R, N, *shape]`, one a class of `names [R]`: along a row only `half` changes, and a column shares it as far
    as classes can share it [Zheng19, Fig. 4]. `fixed` tells what stays."""
    choose("half", half, HALVES)
    (x,) = _stack(("images", images, 2))
    label = f"{half} changes →" + (f"   {fixed}" if fixed else "")
    return image_grid(x, rows=names, column_spans=[Span(0, x.shape[1] - 1, label, HALVES[half])])


def inpainting_rows(x, corrupted, filled, names: Sequence[str] | None = None) -> Figure:
    """Originals `[N, *shape]`, then for each of M masks the corrupted and the filled in, `[M, N, *shape]` each;
    `names [M]` say which mask [Zheng19, Sec. 4.5]."""
    original, before, after = _stack(("x", x, 1), ("corrupted", corrupted, 2), ("filled", filled, 2))
    if before.shape != after.shape:
        raise InputError(f"filled: {shown(after)}; expected {tuple(before.shape)}, as corrupted")
    names = [f"mask {i + 1}" for i in range(len(before))] if names is None else names
    rows = [original, *(row for pair in zip(before, after) for row in pair)]
    labels = ["original", *(label for name in names for label in (name, "filled in"))]
    return image_grid(_rows(rows), rows=labels, row_breaks=range(1, len(rows), 2))


def _canvas(wide: int, high: int) -> tuple[Figure, Axes]:
    """A figure of so many dots, and axes over all of it that count them from the top left."""
    figure = Figure(figsize=(wide / DPI, high / DPI), dpi=DPI, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, wide)
    axes.set_ylim(high, 0)
    axes.set_autoscale_on(False)
    return figure, axes


def _places(count: int, size: int, start: int, breaks: Sequence[int]) -> tuple[list[int], int]:
    """Where each of `count` tiles begins, and where one more would."""
    steps = [size + GAP + (BREAK - GAP) * (i in breaks) for i in range(1, count + 1)]
    begins = np.cumsum([start, *steps]).tolist()
    return begins[:-1], begins[-1]


def _tiles(x: Tensor) -> np.ndarray:
    """Images `[R, C, channels, H, W]` as `[R, C, h, w, 3]` uint8 in dots; empty tiles white."""
    x = x.float() / 255 if x.dtype == torch.uint8 else x.float()
    lead, (channels, height, width) = x.shape[:2], x.shape[2:]
    x = x.flatten(0, 1).clamp(0, 1)
    colour = {1: lambda: x.expand(-1, 3, -1, -1), 3: lambda: x, 4: lambda: x[:, :3] * x[:, 3:] + 1 - x[:, 3:]}
    x = colour.get(channels, lambda: x.mean(1, keepdim=True).expand(-1, 3, -1, -1))()
    factor = TILE / max(height, width)
    if factor >= 1:
        size = (height * round(factor), width * round(factor))
        x = F.interpolate(x, size=size, mode="nearest")
    else:
        x = F.interpolate(x, size=(max(1, round(height * factor)), max(1, round(width * factor))), mode="area")
    return x.nan_to_num(1.0).mul(255).round().byte().permute(0, 2, 3, 1).unflatten(0, lead).numpy()


def _profiles(axes: Axes, x: np.ndarray, start: Sequence[int], top: Sequence[int]) -> None:
    """Vectors `[R, C, D]` as bars from zero (up to 32 values) or lines, all to one scale."""
    wide, high = VECTOR
    low, up = min(0.0, float(np.nanmin(x))), max(0.0, float(np.nanmax(x)))
    span = (up - low) or 1.0
    length = x.shape[2]
    along = (np.arange(length) + 0.5) * wide / length
    boxes, zeros, lines = [], [], []
    for r, y in enumerate(top):
        for c, a in enumerate(start):
            if np.isnan(x[r, c]).all():
                continue
            height = y + high * (up - x[r, c]) / span
            zero = y + high * up / span
            boxes.append(Rectangle((a, y), wide, high))
            zeros.append([(a, zero), (a + wide, zero)])
            if length <= 32:
                lines += [[(a + i, zero), (a + i, h)] for i, h in zip(along, height)]
            else:
                lines.append(np.stack([a + along, height], 1))
    for box in boxes:
        box.set(facecolor="#f3f5f7", edgecolor="none")
        axes.add_patch(box)
    axes.add_collection(LineCollection(zeros, colors=FAINT, linewidths=0.6))
    thick = max(0.8, 0.55 * wide / length * 72 / DPI) if length <= 32 else 0.9
    axes.add_collection(LineCollection(lines, colors=INK, linewidths=thick, capstyle="butt"))


def _rows(rows: Sequence[Tensor]) -> Tensor:
    lengths = {len(row) for row in rows}
    if len(lengths) > 1:
        raise InputError(f"rows: {sorted(lengths)} observations; expected as many in each")
    return torch.stack(list(rows))


def _stack(*named: tuple[str, Any, int]) -> list[Tensor]:
    """Observations with so many axes in front, as floats, all of one shape."""
    found = []
    for name, value, lead in named:
        x = torch.as_tensor(value)
        if x.ndim - lead not in (1, 3) or (found and x.shape[lead:] != found[0][0].shape[found[0][1] :]):
            raise InputError(f"{name}: {shown(x)}; expected {lead} axes of observations, alike and of one shape")
        found.append((x.float() / 255 if x.dtype == torch.uint8 and x.ndim - lead == 3 else x.float(), lead))
    return [x for x, _ in found]
