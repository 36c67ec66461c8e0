"""Pictures of a split code: arrays in, a matplotlib `Figure` out. No pyplot, no state; `save` writes PNG, SVG or PDF.

Blue is s, orange is z, throughout (Okabe and Ito's, told apart by colour-blind eyes too). Observations are images
`[C, H, W]`, uint8 or floats in [0, 1] (clipped to it), or vectors `[D]`, drawn as small profiles to a common scale.
"""

from twofold.figures.charts import code_map, embed, leakage_chart, loss_curves, point_panels
from twofold.figures.grids import (
    EDGE,
    GAP,
    Span,
    class_walks,
    generation_rows,
    image_grid,
    inpainting_rows,
    interpolation_grid,
    reconstruction_rows,
    retrieval_rows,
    swap_grid,
    walks,
)
from twofold.figures.page import CLASSES, DPI, FAINT, HALVES, INK, MARK, SOFT, S, Z, png, save, write

__all__ = [
    "CLASSES",
    "DPI",
    "EDGE",
    "FAINT",
    "GAP",
    "HALVES",
    "INK",
    "MARK",
    "SOFT",
    "S",
    "Span",
    "Z",
    "class_walks",
    "code_map",
    "embed",
    "generation_rows",
    "image_grid",
    "inpainting_rows",
    "interpolation_grid",
    "leakage_chart",
    "loss_curves",
    "png",
    "point_panels",
    "reconstruction_rows",
    "retrieval_rows",
    "save",
    "swap_grid",
    "walks",
    "write",
]
