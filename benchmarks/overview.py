"""The methods side by side in one figure, from the summary that `twofold table all-methods` writes.

    python benchmarks/overview.py [--results results] [--scale cpu] [--out docs/figures]

all-methods.png: s less the leak, and how many swaps show the class of s, of each method (rows, by what it learns from)
on each data set (columns): means over the seeds. Prints the same as a Markdown table, means over the data sets that a
method was run on, with the error and the time of training beside a plain VAE's (medians of the ratios). Trains
nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from twofold import figures, methods, tables

COLUMNS = {"s - leak": "s less the leak", "class of s": "swaps that show the class of s"}
KINDS = {"groups": "groups", "triplets": "same or not", "labels": "labels", "reference": "a set without it"}
CONTROLS = "controls"
SHADES = LinearSegmentedColormap.from_list("shades", ["#f6f8fa", "#9bd3bd", "#2f9e77"])


def order(rows: Sequence[Mapping], names: Sequence[str]) -> dict[str, list[str]]:
    """Names of rows with a value, by what they learn from, the controls last."""
    kinds: dict[str, list[str]] = {title: [] for title in [*KINDS.values(), CONTROLS]}
    for name in names:
        found = [row for row in rows if row["row"] == name and any(c in row["values"] for c in COLUMNS)]
        if found:
            protocol = found[0]["protocol"]
            kind = "" if protocol["control"] else methods.get(protocol["method"]).supervision.__name__.lower()
            kinds[KINDS.get(kind, CONTROLS)].append(name)
    return {title: its for title, its in kinds.items() if its}


def draw(rows: Sequence[Mapping]) -> Figure:
    blocks = list(dict.fromkeys(row["block"] for row in rows))
    groups = order(rows, list(dict.fromkeys(row["row"] for row in rows)))
    names = [name for its in groups.values() for name in its]
    means = {(row["row"], row["block"]): {c: v.get("mean") for c, v in row["values"].items()} for row in rows}
    figure = Figure(figsize=(12.5, 0.235 * len(names) + 1.5), layout="constrained")
    panels = figure.subplots(1, len(COLUMNS), sharey=True)
    for axes, (column, title) in zip(panels, COLUMNS.items()):
        shown = np.array([[means.get((name, block), {}).get(column) for block in blocks] for name in names], float)
        axes.imshow(shown, cmap=SHADES, vmin=0, vmax=1, aspect="auto")
        for (i, j), value in np.ndenumerate(shown):
            if np.isfinite(value):
                colour = "white" if value > 0.75 else figures.INK
                axes.text(j, i, f"{value:.2f}".replace("0.", "."), ha="center", va="center", fontsize=7, color=colour)
        edges = np.cumsum([len(its) for its in groups.values()])[:-1]
        axes.hlines(edges - 0.5, -0.5, len(blocks) - 0.5, color=figures.SOFT, lw=0.8)
        axes.set_xticks(range(len(blocks)), [block.replace(", ", ",\n") for block in blocks], rotation=45, ha="left")
        axes.set_yticks(range(len(names)), names)
        axes.xaxis.tick_top()
        axes.tick_params(labelsize=8, length=0, colors=figures.INK)
        axes.set_title(title, fontsize=9, color=figures.INK, loc="left")
        axes.spines[:].set_visible(False)
    start = 0
    for title, its in groups.items():
        place = start + (len(its) - 1) / 2
        panels[-1].text(len(blocks) - 0.4, place, title, fontsize=8, color=figures.SOFT, va="center")
        start += len(its)
    return figure


def markdown(rows: Sequence[Mapping]) -> str:
    """The means over the blocks that each method was run on."""
    named = list(dict.fromkeys(row["row"] for row in rows))
    values = {(row["row"], row["block"]): {c: v.get("mean") for c, v in row["values"].items()} for row in rows}
    blocks = list(dict.fromkeys(row["block"] for row in rows))
    head = ["learns from", "method", "data sets", *COLUMNS.values(), "error / VAE's", "training / VAE's"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for title, names in order(rows, named).items():
        for name in names:
            own = {block: values[name, block] for block in blocks if (name, block) in values}
            cells = [title, name, str(len(own))]
            for column in COLUMNS:
                its = [found for each in own.values() if (found := each.get(column)) is not None]
                cells.append(f"{np.mean(its):.2f}" if its else "-")
            for column in ("MSE", "CPU seconds"):
                pairs = [(each.get(column), values["vae", block][column]) for block, each in own.items()]
                ratios = [a / b for a, b in pairs if a and b]
                cells.append(f"{np.median(ratios):.1f}" if ratios else "-")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--results", type=Path, default=Path("results"))
    options.add_argument("--scale", default="cpu")
    options.add_argument("--out", type=Path, default=Path("docs/figures"))
    args = options.parse_args()
    book = tables.get("all-methods")
    path = args.results / book.name / f"{book.tables[0].name}.{args.scale}.json"
    if not path.is_file():
        print(f"{path} is not there: run `twofold table {book.name} --scale {args.scale}` first", file=sys.stderr)
        return 1
    rows = [row for row in json.loads(path.read_text())["rows"] if row["seeds"]]
    print(figures.save(draw(rows), args.out / f"{book.name}.png"))
    print(markdown(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
