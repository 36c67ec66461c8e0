"""Figures from the cells of `twofold table`: what accumulates (bouchacourt18), and how a game goes (ruiz19).

    python benchmarks/curves.py [--results results] [--scale cpu] [--out docs/figures]

fig-6c-mnist.png and fig-6c-digits.png: what s and z tell of the digit when k images are put together, accuracy and bits
[Bouchacourt18, Fig. 6c and supplement, Fig. 2]. few-shot-sprites.png and few-shot-cars3d.png: identification of
identities that training never saw, from k examples. Lines are means and bands one standard deviation over the seeds
(each seed's curve is the mean of its trials). game-srb-vae.png and game-srb-vae-wide.png: losses and gradient norms of
sRb-VAE's three players on digit style, seed 0, with the paper's likelihood and ten times its scale. Trains nothing;
says which cells are missing, and draws the others.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from twofold import curves, figures, tables
from twofold.metrics import Evidence, FewShot
from twofold.tables.runner import read as read_cell
from twofold.tables.runner import stale

S, Z, WHOLE, NONE, UPPER = figures.S, figures.Z, figures.MARK, figures.SOFT, figures.INK
MOST = 4.0  # bits; of ten digits log2(10) = 3.3 are chance
SOLID, DASHED, DOTTED, MIXED, LONG = "-", "--", ":", "-.", (0, (7, 2))
LINES = {  # table -> row, which of its curves, name, colour, style
    "fig-6c": [
        ("ML-VAE, product", "s", "product: s", S, SOLID),
        ("ML-VAE, mixture", "s", "mixture: s", S, DASHED),
        ("ML-VAE, mixture", "s means", "mixture: s, means", S, MIXED),
        ("ML-VAE, ours", "s", "product, ours: s", S, DOTTED),
        ("mixture, ours", "s", "mixture, ours: s", S, LONG),
        ("ML-VAE, product", "z", "product: z", Z, SOLID),
        ("ML-VAE, mixture", "z", "mixture: z", Z, DASHED),
        ("ML-VAE, product", "z together", "product: z, put together", Z, MIXED),
        ("ML-VAE, ours", "z together", "product, ours: z, put together", Z, DOTTED),
        ("mixture, ours", "z together", "mixture, ours: z, put together", Z, LONG),
        ("VAE", "s", "VAE: its code, put together", WHOLE, SOLID),
    ],
    "unseen": [
        ("supervised", "s few-shot", "told the training identities", UPPER, SOLID),
        ("ML-VAE, product", "s few-shot", "product: s", S, SOLID),
        ("ML-VAE, mixture", "s few-shot", "mixture: s", S, DASHED),
        ("ML-VAE, ours", "s few-shot", "product, ours: s", S, DOTTED),
        ("mixture, ours", "s few-shot", "mixture, ours: s", S, LONG),
        ("regularised (Eq. 18)", "s few-shot", "regularised: s", S, MIXED),
        ("ML-VAE, product", "z few-shot", "product: z", Z, SOLID),
        ("ML-VAE, mixture", "z few-shot", "mixture: z", Z, DASHED),
        ("ML-VAE, ours", "z few-shot", "product, ours: z", Z, DOTTED),
        ("mixture, ours", "z few-shot", "mixture, ours: z", Z, LONG),
        ("VAE", "s few-shot", "VAE: its code", WHOLE, SOLID),
        ("PCA", "s few-shot", "PCA: 32 components", NONE, SOLID),
        ("untrained", "s few-shot", "untrained: s", NONE, DOTTED),
    ],
}
FIGURES = [("fig-6c", "mnist"), ("fig-6c", "digits"), ("unseen", "Sprites"), ("unseen", "Cars3D")]


def over_seeds(found: list[dict], kind: type[Evidence] | type[FewShot]) -> Evidence | FewShot:
    """One result whose trials are seeds: each the mean of a seed's own."""
    measures = ("accuracy", "bits") if kind is Evidence else ("centroid", "probe")
    means = {name: tuple(tuple(np.mean(each[name], axis=0).tolist()) for each in found) for name in measures}
    return kind(**found[0] | {"k": tuple(found[0]["k"])} | means)


def draw(name: str, block: str, scale: str, results: Path) -> Figure | None:
    book = tables.get("bouchacourt18")
    table, kind = book.table(name), Evidence if name == "fig-6c" else FewShot
    found, looks, seeds, missing = {}, [], set(), []
    folder = results / book.name / scale / name
    for row_name, curve, label, colour, style in LINES[name]:
        row = next(row for row in table.rows if (row.block, row.name) == (block, row_name))
        wanted = table.identity(row, scale)
        paths = sorted(path for path in folder.glob(f"{row.slug}.*.json") if stale(path, wanted) is None)
        cells = [cell["extra"][curve] for path in paths if (cell := read_cell(path)) and curve in cell["extra"]]
        if cells:
            found[label] = over_seeds(cells, kind)
            looks.append((colour, style))
            seeds.add(len(cells))
        else:
            missing.append(f"{row_name} ({curve})")
    if missing:
        print(f"{name}, {block}: no cells of this protocol in {folder} for {', '.join(missing)}", file=sys.stderr)
    if not found:
        return None
    figure = (curves.evidence_curves if kind is Evidence else curves.few_shot_curves)(found)
    for axes in figure.axes:
        for line, band, (colour, style) in zip(axes.get_lines(), axes.collections, looks):
            line.set(color=colour, linestyle=style, markersize=2.5, linewidth=1.4)
            band.set_facecolor(colour)
        axes.legend().remove()
    if kind is Evidence:  # a classifier taught on 100 images may be sure and wrong about one: far above chance
        figure.axes[1].set_ylim(0, MOST)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    look = {"frameon": False, "fontsize": 8, "handlelength": 3.5, "labelcolor": figures.INK}
    figure.legend(handles, labels, loc="outside right center", **look)
    count = " or ".join(map(str, sorted(seeds)))
    figure.set_size_inches(10.5, 3.4)
    figure.suptitle(f"{block}, {scale} scale, seeds: {count}", fontsize=9, color=figures.SOFT, x=0.01, ha="left")
    return figure


GAMES = {"game-srb-vae": "sRb-VAE", "game-srb-vae-wide": "sRb-VAE, scale 0.05"}


def game(name: str, scale: str, results: Path) -> Figure | None:
    book = tables.get("ruiz19")
    table = book.table("table-1")
    row = next(row for row in table.rows if row.name == name)
    path = results / book.name / scale / table.name / f"{row.slug}.0.json"
    if stale(path, table.identity(row, scale)) is not None or not (cell := read_cell(path)):
        return None
    return figures.loss_curves(cell["history"])


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--results", type=Path, default=Path("results"))
    options.add_argument("--scale", default="cpu")
    options.add_argument("--out", type=Path, default=Path("docs/figures"))
    args = options.parse_args()
    missing = False
    drawn = {
        f"{name.replace('unseen', 'few-shot')}-{block.lower()}": (
            draw(name, block, args.scale, args.results),
            f"bouchacourt18 --only {name}",
        )
        for name, block in FIGURES
    }
    drawn |= {file: (game(row, args.scale, args.results), "ruiz19 --only sRb-VAE") for file, row in GAMES.items()}
    for name, (figure, needs) in drawn.items():
        path = args.out / f"{name}.png"
        if figure is None:
            missing = True
            print(f"{path}: not drawn; run `twofold table {needs} --scale {args.scale}` first")
        else:
            print(figures.save(figure, path))
    return int(missing)


if __name__ == "__main__":
    sys.exit(main())
