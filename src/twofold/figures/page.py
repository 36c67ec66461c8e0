"""What all figures share: colours, text, and how a figure becomes a file."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath
from torch import Tensor

from twofold.errors import choose

S, Z, MARK = "#0072B2", "#D55E00", "#009E73"
INK, SOFT, FAINT = "#1f2328", "#6e7781", "#d8dee4"
HALVES = {"s": S, "z": Z}
CLASSES = (
    "#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499", "#777777"
)  # fmt: skip
"""Paul Tol's "muted" and grey: ten colours that colour-blind eyes tell apart."""
DPI = 200  # two dots a pixel of a usual screen; sizes below are in dots


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


def style(axes: Axes) -> None:
    """A quiet frame."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(labelsize=8, colors=SOFT, length=0)
    axes.set_axisbelow(True)


def put(axes: Axes, x: float, y: float, text: str, ha: str = "center", color: str = INK, rotation: float = 0) -> None:
    """Write some text into axes that count dots."""
    axes.text(x, y, short(text, 60), ha=ha, va="center", fontsize=9, color=color, rotation=rotation)  # pyright: ignore


def width(text: str) -> int:
    """Of a label, in dots."""
    box = TextPath((0, 0), short(text), size=9).get_extents()
    return int(np.ceil(box.width * DPI / 72)) if text.strip() else 0


def short(text: object, limit: int = 28) -> str:
    """Text for matplotlib, at most so long."""
    text = str(text)
    return (text if len(text) <= limit else text[: limit - 1] + "…").replace("$", r"\$")


def array(value) -> np.ndarray:
    return value.numpy(force=True) if isinstance(value, Tensor) else np.asarray(value)
