"""Pictures of a split code: arrays in, a matplotlib `Figure` out. No pyplot, no state; `save` writes PNG, SVG or PDF.

Blue is s, orange is z, throughout (Okabe and Ito's, told apart by colour-blind eyes too). Observations are images
`[C, H, W]`, uint8 or floats in [0, 1] (clipped to it), or vectors `[D]`, drawn as small profiles to a common scale.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import AbstractPathEffect, withStroke
from matplotlib.textpath import TextPath
from torch import Tensor

from twofold.errors import InputError, choose, shown

S, Z, MARK = "#0072B2", "#D55E00", "#009E73"
INK, SOFT, FAINT = "#1f2328", "#6e7781", "#d8dee4"
HALVES = {"s": S, "z": Z}
CLASSES = (
    "#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499", "#777777"
)  # fmt: skip
"""Paul Tol's "muted" and grey: ten colours that colour-blind eyes tell apart."""
DPI = 200  # two dots a pixel of a usual screen; sizes below are in dots
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
    left = EDGE + max((_width(label) + 14 for label in rows or ()), default=0) + 40 * bool(row_spans)
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
        _write(axes, left - 14, y + high / 2, _short(label), ha="right")
    for a, label in zip(start, columns or ()):
        _write(axes, a + wide / 2, head - 16, _short(label, wide // 14), color=SOFT)
    for span in column_spans:
        ends, y = (start[span.first], start[span.last] + wide), EDGE + 34
        axes.plot(ends, (y, y), color=span.colour, lw=1.2, solid_capstyle="butt")
        _write(axes, sum(ends) / 2, y - 18, span.text, color=span.colour)
    for span in row_spans:
        ends, a = (top[span.first], top[span.last] + high), EDGE + 28
        axes.plot((a, a), ends, color=span.colour, lw=1.2, solid_capstyle="butt")
        _write(axes, a - 16, sum(ends) / 2, span.text, color=span.colour, rotation=90)
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


def generation_rows(examples, generated, names: Sequence[str] | None = None) -> Figure:
    """Each row: an example `[R, *shape]`, then new observations `[R, N, *shape]` with its s; `names` label the rows."""
    given, made = _stack(("examples", examples, 1), ("generated", generated, 2))
    if len(given) != len(made):
        raise InputError(f"generated: {len(made)} rows for {len(given)} examples; expected as many")
    spans = [Span(0, 0, "s of", S), Span(1, made.shape[1], "with z from the prior", Z)]
    frames = [[S, *[None] * made.shape[1]]] * len(made)
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


def loss_curves(metrics: Sequence[Mapping[str, float]]) -> Figure:
    """What a training logged (`Run.metrics`): a panel for each term of each player, their sum, its gradient norm."""
    if not metrics:
        raise InputError("metrics: no rows; expected what a training logged")
    steps = [row["step"] for row in metrics]
    panels: list[tuple[str, str, list[float]]] = []
    for player in dict.fromkeys(name.split("/")[0] for name in metrics[0] if "/" in name):
        series = {n: [row[n] for row in metrics] for n in metrics[0] if n.startswith(f"{player}/")}
        norm = series.pop(f"{player}/grad_norm", None)
        if len(series) > 1:
            panels.append((f"{player}: sum", INK, [sum(values) for values in zip(*series.values())]))
        panels += [(name.replace("/", ": "), S, values) for name, values in series.items()]
        panels += [(f"{player}: gradient norm", SOFT, norm)] if norm else []
    if not panels:
        raise InputError(f"metrics: {', '.join(metrics[0])}; expected terms named player/term")
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(9, 1.9 * rows + 0.2), dpi=DPI, facecolor="white", layout="constrained")
    figure.get_layout_engine().set(hspace=0.1)  # pyright: ignore
    grid = figure.subplots(rows, columns, squeeze=False).flat
    for axes, (title, colour, values) in zip(grid, panels):
        _style(axes)
        if np.min(values) > 0 and np.max(values) > 30 * np.median(values):
            axes.set_yscale("log")
        axes.plot(steps, values, color=colour, lw=1.1, marker="o" if len(steps) < 8 else None, ms=3)
        axes.set_title(title, fontsize=9, color=INK, loc="left")
        axes.grid(axis="y", color=FAINT, lw=0.6)
    for i, axes in enumerate(grid := list(figure.axes)):
        axes.set_visible(i < len(panels))
        if i + columns >= len(panels):
            axes.set_xlabel("step", fontsize=8, color=SOFT)
    return figure


def leakage_chart(leakage: Mapping[str, Mapping[str, Any]]) -> Figure:
    """`{factor: {"s": Probe, "z": Probe}}` as bars with 95 % intervals, each factor beside its chance level.

    Accuracies on the left; errors of real-valued factors on the right, as parts of the best constant's.
    """
    kinds = {
        kind: {name: pair for name, pair in leakage.items() if pair["s"].metric == kind} for kind in ("accuracy", "mae")
    }
    kinds = {kind: pairs for kind, pairs in kinds.items() if pairs}
    if not kinds:
        raise InputError("leakage: no factors; expected {factor: {'s': Probe, 'z': Probe}}")
    most = max(map(len, kinds.values()))
    figure = Figure(figsize=(9, 0.75 + 0.62 * most), dpi=DPI, facecolor="white", layout="constrained")
    for axes, (kind, pairs) in zip(figure.subplots(1, len(kinds), squeeze=False).flat, kinds.items()):
        _style(axes)
        worst = 1.0
        for i, pair in enumerate(pairs.values()):
            for half, offset in (("s", -0.2), ("z", 0.2)):
                p = pair[half]
                unit = 1.0 if kind == "accuracy" else p.chance or 1.0
                score, low, high = (v / unit for v in (p.score, p.low, p.high))
                worst = max(worst, high)
                axes.barh(i + offset, score, height=0.36, color=HALVES[half], label=half if i == 0 else None)
                axes.plot((low, high), (i + offset,) * 2, color=INK, lw=1.2, solid_capstyle="butt")
                text = f"{p.score:.2f}" if kind == "accuracy" else f"{p.score:.2g}"
                axes.text(high + 0.012, i + offset, text, fontsize=8, color=INK, va="center")
            level = pair["s"].chance if kind == "accuracy" else 1.0
            ends = (i - 0.44, i + 0.44)
            axes.plot((level,) * 2, ends, color=INK, lw=1.2, ls=(0, (2, 1.5)), label="chance" if i == 0 else None)
        axes.set_yticks(range(len(pairs)), list(map(_short, pairs)), fontsize=9, color=INK)
        axes.set_ylim(len(pairs) - 0.5, -0.5)
        axes.set_xlim(0, 1.12 * worst)
        axes.set_xlabel("accuracy" if kind == "accuracy" else "mean error, best constant = 1", fontsize=8, color=SOFT)
        axes.grid(axis="x", color=FAINT, lw=0.6)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    order = [labels.index(name) for name in ("s", "z", "chance")]
    figure.legend(
        [handles[i] for i in order],
        ["from s", "from z", "best constant"],
        loc="outside upper right",
        ncols=3,
        frameon=False,
        fontsize=8,
    )
    return figure


def code_map(
    codes: Mapping[str, Any],
    values=None,
    *,
    factor: str = "",
    names: Sequence[str] | None = None,
    background: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Figure:
    """Each half of some codes, `{"s": [N, d_s], "z": [N, d_z]}`, in two dimensions (see `embed`), a panel a half.

    values `[N]`: what colours the points, classes (whole numbers; -1 unknown) or real numbers; `factor` is its name,
    `names` its classes'. background: codes of a second set in the same map, drawn as grey crosses [Contrast21, Fig. 4].
    Halves without spread are left out; raises `InputError` if none is left.
    """
    halves = {half: _array(codes[half]) for half in HALVES if half in codes}
    others = {half: _array(background[half]) for half in halves} if background else {}
    halves = {half: code for half, code in halves.items() if _spread(np.concatenate([code, *_of(others, half)]))}
    if not halves:
        raise InputError("codes: neither half varies; there is nothing to map")
    figure = Figure(figsize=(9, 4.5 if len(halves) > 1 else 5.4), dpi=DPI, facecolor="white", layout="constrained")
    y = None if values is None else _array(values)
    for axes, (half, code) in zip(figure.subplots(1, len(halves), squeeze=False).flat, halves.items()):
        if y is not None and len(y) != len(code):
            raise InputError(f"values: {len(y)} for {len(code)} codes; expected as many")
        places = embed(np.concatenate([code, *_of(others, half)]), seed)
        own, rest = places[: len(code)], places[len(code) :]
        size = float(np.clip(9_000 / len(places), 4, 22))
        _style(axes)
        axes.set_xticks([])
        axes.set_yticks([])
        how = "t-SNE of " if code.shape[1] > 2 and len(places) > 12 else ""
        wide = code.shape[1]
        axes.set_title(f"{how}{half} ({wide} dimension{'s' * (wide > 1)})", fontsize=10, color=HALVES[half], loc="left")
        if len(rest):
            axes.scatter(*rest.T, s=size, c=SOFT, marker="x", lw=0.6, alpha=0.7, label="background")
        points = _colour(axes, own, y, names, size, half)
        if points is not None and axes is figure.axes[len(halves) - 1]:
            bar = figure.colorbar(points, ax=figure.axes[: len(halves)], fraction=0.03, pad=0.01)
            bar.ax.tick_params(labelsize=8, colors=SOFT)
            bar.set_label(_short(factor), fontsize=8, color=SOFT)
            bar.outline.set_visible(False)  # pyright: ignore
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if len(labels) > bool(others):
        figure.legend(
            handles, labels, loc="outside lower center", ncols=11, frameon=False, fontsize=8, handletextpad=0.2,
            columnspacing=1.2, markerscale=1.5,
        )  # fmt: skip
    return figure


def embed(codes, seed: int = 0) -> np.ndarray:
    """Codes `[N, D]` as points `[N, 2]`: t-SNE (perplexity 30 or a third of the points) from three dimensions up, from
    two the codes themselves, from one a strip; PCA where there are 12 points at most. The same for the same seed."""
    x = _array(codes).astype(np.float64)
    if x.ndim != 2 or min(x.shape) == 0 or not np.isfinite(x).all():
        raise InputError(f"codes: {shown(x)}; expected finite codes [N, D]")
    if x.shape[1] == 1:
        return np.concatenate([x, np.random.default_rng(seed).uniform(-0.2, 0.2, x.shape) * (np.ptp(x) or 1)], 1)
    if x.shape[1] == 2:
        return x
    if len(x) <= 12:
        centred = x - x.mean(0)
        u, s, _ = np.linalg.svd(centred, full_matrices=False)
        places = np.zeros((len(x), 2))
        places[:, : min(2, len(s))] = (u * s)[:, :2]
        return places
    from openTSNE import TSNE

    near = min(30, (len(x) - 1) // 3)
    return np.asarray(TSNE(perplexity=near, random_state=seed, n_jobs=1, negative_gradient_method="bh").fit(x))


def png(figure: Figure) -> bytes:
    """The figure as PNG, the same bytes for the same figure."""
    return _render(figure, "png")


def save(figure: Figure, path: str | os.PathLike) -> Path:
    """Write the figure to `path`, as PNG, SVG or PDF by its suffix; complete or not at all. Makes the folder."""
    kind = Path(path).suffix.lower().lstrip(".")
    choose("path: suffix", kind, ("png", "svg", "pdf"))
    return write(path, _render(figure, kind))


def write(path: str | os.PathLike, data: bytes) -> Path:
    """Write a file, complete or not at all; its folder is made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _render(figure: Figure, kind: str) -> bytes:
    undated = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=DPI, facecolor="white", metadata=undated)
    return buffer.getvalue()


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


def _colour(axes: Axes, places: np.ndarray, y: np.ndarray | None, names, size: float, half: str):
    """Scatter by class, with names at the classes' medians; or by value, returning what a colour bar needs."""
    style: dict[str, Any] = {"s": size, "lw": 0, "alpha": 0.85}
    if y is None:
        axes.scatter(*places.T, c=HALVES[half], **style)
        return None
    if y.dtype.kind == "f":
        return axes.scatter(*places.T, c=y, cmap="viridis", **style)
    classes = np.unique(y[y >= 0])
    outline: list[AbstractPathEffect] = [withStroke(linewidth=2.5, foreground="white")]
    axes.scatter(*places[y < 0].T, c=FAINT, **style)
    if len(classes) > len(CLASSES):
        axes.scatter(*places[y >= 0].T, c=np.searchsorted(classes, y[y >= 0]), cmap="viridis", **style)
    for i, known in enumerate(classes):
        own, name = places[y == known], _short(known if names is None else names[int(known)], 14)
        if len(classes) <= len(CLASSES):
            axes.scatter(*own.T, c=CLASSES[i], label=name, **style)
        if len(classes) <= 40:
            a, b = own[np.square(own - np.median(own, 0)).sum(1).argmin()].tolist()
            text = axes.text(a, b, name, fontsize=9, weight="bold", color=INK, ha="center", va="center")
            text.set_path_effects(outline)
    return None


def _style(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(labelsize=8, colors=SOFT, length=0)
    axes.set_axisbelow(True)


def _write(
    axes: Axes, x: float, y: float, text: str, ha: str = "center", color: str = INK, rotation: float = 0
) -> None:
    axes.text(x, y, _short(text, 60), ha=ha, va="center", fontsize=9, color=color, rotation=rotation)  # pyright: ignore


def _width(text: str) -> int:
    """Of a label, in dots."""
    box = TextPath((0, 0), _short(text), size=9).get_extents()
    return int(np.ceil(box.width * DPI / 72)) if text.strip() else 0


def _short(text: object, limit: int = 28) -> str:
    text = str(text)
    return (text if len(text) <= limit else text[: limit - 1] + "…").replace("$", r"\$")


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


def _array(value) -> np.ndarray:
    return value.numpy(force=True) if isinstance(value, Tensor) else np.asarray(value)


def _spread(x: np.ndarray) -> bool:
    return x.ndim == 2 and x.shape[1] > 0 and bool((x != x[0]).any())


def _of(parts: Mapping[str, np.ndarray], half: str) -> list[np.ndarray]:
    return [parts[half]] if half in parts else []
