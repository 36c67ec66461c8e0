"""Curves with bands: what changes with the number of observations that are put together. Results in, a Figure out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from twofold.errors import InputError
from twofold.figures import CLASSES, FAINT, INK, SOFT, S, Z


def evidence_curves(results: Mapping[str, Any]) -> Figure:
    """Accuracy and conditional entropy against k, a line for each of `{name: Evidence}` [Bouchacourt18, Fig. 6c].

    Bands are one standard deviation over trials. Names that end in s or z have that half's colour.
    """
    panels = [("accuracy", "accuracy", "chance"), ("bits", "H(class | code), bits", "entropy")]
    return trial_curves(results, panels, "images put together, k")


def few_shot_curves(results: Mapping[str, Any]) -> Figure:
    """Accuracy of the nearest centroid and of the probe against k, a line for each of `{name: FewShot}`."""
    panels = [("centroid", "nearest centroid: accuracy", "chance"), ("probe", "probe: accuracy", "chance")]
    return trial_curves(results, panels, "examples of each identity, k")


def trial_curves(results: Mapping[str, Any], panels: Sequence[tuple[str, str, str]], across: str) -> Figure:
    """A panel for each of `(measure, label, attribute that holds the level of chance)`; `results` have `k` and `curve`.

    Raises `InputError` if there are none.
    """
    if not results:
        raise InputError("results: none; expected {name: result}")
    figure = Figure(figsize=(4.4 * len(panels), 3.4), layout="constrained")
    ks = sorted({k for result in results.values() for k in result.k})
    for axes, (measure, label, chance) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
        for (name, result), colour in zip(results.items(), _colours(list(results))):
            mean, spread = result.curve(measure)
            marker = "o" if len(result.k) < 12 else None
            axes.plot(result.k, mean, color=colour, marker=marker, ms=3.5, lw=1.6, label=name)
            axes.fill_between(result.k, mean - spread, mean + spread, color=colour, alpha=0.18, lw=0)
        levels = {round(float(getattr(result, chance)), 6) for result in results.values()}
        for level in levels:
            axes.axhline(level, color=SOFT, lw=1, ls=(0, (2, 3)))
        axes.set_ylabel(label, color=INK)
        axes.set_xlabel(across, color=INK)
        if ks[-1] > 12:
            axes.set_xscale("log")
            ticks = [t for t in (1, 2, 5, 10, 20, 50, 100, 200, 500) if ks[0] <= t <= ks[-1]]
            axes.set_xticks(ticks, [str(t) for t in ticks])
            axes.minorticks_off()
        else:
            axes.set_xticks(ks)
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(FAINT)
        axes.tick_params(colors=SOFT)
    figure.axes[0].legend(frameon=False, fontsize=8, labelcolor=INK)
    return figure


def _colours(names: Sequence[str]) -> list[str]:
    """Blue and orange for the first s and z; muted colours for the rest."""
    halves, rest = {"s": S, "z": Z}, iter(np.resize(CLASSES, len(names)).tolist())
    return [halves.pop(name.split()[-1], None) or next(rest) for name in names]
