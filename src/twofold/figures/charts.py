"""Numbers drawn: losses, scores beside chance, codes and points in the plane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import AbstractPathEffect, withStroke

from twofold.errors import InputError, shown
from twofold.figures.page import CLASSES, DPI, FAINT, HALVES, INK, SOFT, S, array, short, style


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
        style(axes)
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
        style(axes)
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
        axes.set_yticks(range(len(pairs)), list(map(short, pairs)), fontsize=9, color=INK)
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
    halves = {half: array(codes[half]) for half in HALVES if half in codes}
    others = {half: array(background[half]) for half in halves} if background else {}
    halves = {half: code for half, code in halves.items() if _spread(np.concatenate([code, *_of(others, half)]))}
    if not halves:
        raise InputError("codes: neither half varies; there is nothing to map")
    figure = Figure(figsize=(9, 4.5 if len(halves) > 1 else 5.4), dpi=DPI, facecolor="white", layout="constrained")
    y = None if values is None else array(values)
    for axes, (half, code) in zip(figure.subplots(1, len(halves), squeeze=False).flat, halves.items()):
        if y is not None and len(y) != len(code):
            raise InputError(f"values: {len(y)} for {len(code)} codes; expected as many")
        places = embed(np.concatenate([code, *_of(others, half)]), seed)
        own, rest = places[: len(code)], places[len(code) :]
        size = float(np.clip(9_000 / len(places), 4, 22))
        style(axes)
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
            bar.set_label(short(factor), fontsize=8, color=SOFT)
            bar.outline.set_visible(False)  # pyright: ignore
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if len(labels) > bool(others):
        figure.legend(
            handles, labels, loc="outside lower center", ncols=11, frameon=False, fontsize=8, handletextpad=0.2,
            columnspacing=1.2, markerscale=1.5,
        )  # fmt: skip
    return figure


def point_panels(panels: Sequence[tuple[str, Any, Any]], *, names: Sequence[str] | None = None, behind=None) -> Figure:
    """Points in the plane, a panel for each `(title, points [N, 2], classes [N] or None)`, all to one scale: what a
    method generates at several epochs, say [Zheng19, Fig. 2].

    names: of the classes. behind `[M, 2]`: points drawn in grey under every panel, the real ones.
    """
    found = [(title, array(points), None if y is None else array(y)) for title, points, y in panels]
    back = np.zeros((0, 2)) if behind is None else array(behind)
    for name, points, y in [*found, ("behind", back, None)]:
        if points.ndim != 2 or points.shape[1] != 2 or (y is not None and len(y) != len(points)):
            raise InputError(f"{name}: {shown(points)}; expected points [N, 2] and as many classes")
    if not found:
        raise InputError("panels: none; expected (title, points, classes) each")
    every = np.concatenate([*(points for _, points, _ in found), back])
    low, high = np.nanmin(every, 0), np.nanmax(every, 0)
    margin = 0.05 * np.maximum(high - low, 1e-6)
    known = np.unique(np.concatenate([[], *(y[y >= 0] for _, _, y in found if y is not None)])).astype(int)
    colours = {c: CLASSES[i % len(CLASSES)] for i, c in enumerate(known.tolist())}
    columns = min(4, len(found))
    rows = -(-len(found) // columns)
    figure = Figure(figsize=(9, 0.4 + 9 / max(columns, 3) * rows), dpi=DPI, facecolor="white", layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flat
    for axes, (title, points, y) in zip(grid, found):
        style(axes)
        size = float(np.clip(2_500 / max(1, len(points)), 1.5, 12))
        axes.scatter(*back.T, s=size, c=FAINT, lw=0)
        groups = {SOFT: points} if y is None else {colours[c]: points[y == c] for c in colours} | {INK: points[y < 0]}
        for colour, own in groups.items():
            axes.scatter(*own.T, s=size, c=colour, lw=0, alpha=0.85)
        axes.set(xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + margin[1]))
        axes.set_title(short(title, 40), fontsize=9, color=INK, loc="left")
    for i, axes in enumerate(figure.axes):
        axes.set_visible(i < len(found))
    if 1 < len(colours) <= len(CLASSES):
        marks = [Line2D([], [], color=colour, marker="o", ms=4, lw=0) for colour in colours.values()]
        labels = [short(c if names is None else names[c], 14) for c in colours]
        figure.legend(marks, labels, loc="outside lower center", ncols=10, frameon=False, fontsize=8, handletextpad=0.1)
    return figure


def embed(codes, seed: int = 0) -> np.ndarray:
    """Codes `[N, D]` as points `[N, 2]`: t-SNE (perplexity 30 or a third of the points) from three dimensions up, from
    two the codes themselves, from one a strip; PCA where there are 12 points at most. The same for the same seed."""
    x = array(codes).astype(np.float64)
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
        own, name = places[y == known], short(known if names is None else names[int(known)], 14)
        if len(classes) <= len(CLASSES):
            axes.scatter(*own.T, c=CLASSES[i], label=name, **style)
        if len(classes) <= 40:
            a, b = own[np.square(own - np.median(own, 0)).sum(1).argmin()].tolist()
            text = axes.text(a, b, name, fontsize=9, weight="bold", color=INK, ha="center", va="center")
            text.set_path_effects(outline)
    return None


def _spread(x: np.ndarray) -> bool:
    return x.ndim == 2 and x.shape[1] > 0 and bool((x != x[0]).any())


def _of(parts: Mapping[str, np.ndarray], half: str) -> list[np.ndarray]:
    return [parts[half]] if half in parts else []
