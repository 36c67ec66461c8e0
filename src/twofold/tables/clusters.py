"""What Contrast21's tables measure: clusters of the targets, the distance of the two sets in z, expressions from s."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from twofold import metrics, reconstruct
from twofold.arrays import gather
from twofold.data import Dataset
from twofold.method import Method
from twofold.metrics.common import sample
from twofold.tables.cell import Cell
from twofold.tables.measures import KINDS


def targets(cell: Cell, part: Dataset, points: int) -> tuple[Dataset, Dataset]:
    """At most `points` targets and as many of the background, drawn by the split's seed."""
    target, back = part.contrast(cell.protocol.background)
    seed = cell.protocol.split_seed
    return target[sample(len(target), points, seed)], back[sample(len(back), points, seed)]


def table_1(
    cell: Cell, *, points: int = 2_000, maps: int = 1, kinds: Sequence[str] = KINDS, probe_points: int = 5_000
) -> dict[str, Any]:
    """Clusters of the targets in z and s (t-SNE, k-means, matched), W2 of the two sets' z; and what the paper has not:
    k-means on the code itself, the strongest probe (fitted on training targets), the reconstruction's error."""
    target, back = targets(cell, cell.test, points)
    seen, _ = targets(cell, cell.train, probe_points)
    code, y = cell.encode(target), target.factors[str(cell.factor)]
    told = metrics.leakage(cell.encode(seen), seen.factors[str(cell.factor)], code, y, cell.seed, kinds)
    found = distances(cell, code.z, back)
    extra: dict[str, Any] = {}
    for half in ("z", "s"):
        made = metrics.clustering(getattr(code, half), y, seeds=maps, seed=cell.seed)
        found[f"{half} accuracy"], found[f"{half} silhouette"] = 100 * made.accuracy, made.silhouette_clusters
        found[f"{half} true silhouette"] = made.silhouette
        found[f"{half} direct"] = 100 * (made.direct or made).accuracy
        found[f"{half} probe"] = 100 * told[half].score
        extra |= {f"{half} clusters": made, f"{half} told": told[half]}
    x = gather(target.x, torch.arange(len(target)))
    found["MSE"] = float((reconstruct(cell.method, target.x) - x).square().mean())
    return found | {"extra": extra}


def distances(cell: Cell, z: torch.Tensor, back: Dataset) -> dict[str, Any]:
    """W2 between the targets' z and the background's; what sampling alone makes of it, between two halves of the
    background; and how far z spreads at all."""
    other = cell.encode(back).z
    n = len(other) // 2
    return {
        "W2": metrics.wasserstein2(z, other, cell.seed),
        "W2 of halves": metrics.wasserstein2(other[:n], other[n : 2 * n], cell.seed),
        "variance of z": float((z - z.mean(0)).square().sum(1).mean()),
    }


def figure_6b(cell: Cell, *, points: int = 2_000, maps: int = 1) -> dict[str, Any]:
    """Clusters in z and s, and W2, as in Table 1."""
    return _clusters(cell, cell.test, points, maps)


def on_training(cell: Cell, *, points: int = 5_000, maps: int = 1, **_: Any) -> dict[str, Any]:
    """The same of images that were trained on, as the paper has it for all that it says; and of more of them."""
    return _clusters(cell, cell.train, points, maps)


def _clusters(cell: Cell, part: Dataset, points: int, maps: int) -> dict[str, Any]:
    target, back = targets(cell, part, points)
    code, y = cell.encode(target), target.factors[str(cell.factor)]
    found = distances(cell, code.z, back)
    for half in ("z", "s"):
        made = metrics.clustering(getattr(code, half), y, seeds=maps, seed=cell.seed)
        found[f"{half} accuracy"] = 100 * made.accuracy
    return found


def without_grass(
    cell: Cell, *, points: int = 2_000, maps: int = 1, kinds: Sequence[str] = KINDS, probe_points: int = 5_000
) -> dict[str, Any]:
    """Clusters of a code in one piece, as Table 1 finds them in s."""
    seed, label = cell.protocol.split_seed, str(cell.factor)
    seen, test = (part[sample(len(part), n, seed)] for part, n in ((cell.train, probe_points), (cell.test, points)))
    y, half = test.factors[label], 0 if cell.method.sizes[0] else 1
    code = cell.encode(test)[half]
    made = metrics.clustering(code, y, seeds=maps, seed=cell.seed)
    told = metrics.probe(cell.encode(seen)[half], seen.factors[label], code, y, kinds[0], cell.seed)
    return {"accuracy": 100 * made.accuracy, "direct": 100 * (made.direct or made).accuracy, "probe": 100 * told.score}


SHARES = (0.05, 0.1, 0.25, 0.5, 1.0)


def in_parts(cell: Cell) -> Method:
    """One training, W2 noted on the way: a run that is resumed is the run undisturbed."""
    p, supervision = cell.protocol, cell.supervision(str(cell.row.method))
    total = p.steps or round((p.epochs or 1) * supervision.steps_per_epoch(p.batch_size or 128))
    target, back = targets(cell, cell.test, p.measure.get("points", 2_000))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        for share in SHARES:
            steps = max(1, round(share * total))
            cell.method = cell.fit(cell.build(), supervision, steps=steps, out=out, resume=out.exists())
            codes = cell.encode(target), cell.encode(back)
            cell.notes[f"{share:.0%}"] = metrics.wasserstein2(codes[0].z, codes[1].z, cell.seed)
    cell.steps = total
    return cell.method


def figure_6a(cell: Cell, *, points: int = 2_000) -> dict[str, Any]:
    """What `in_parts` noted; of what isn't trained, W2 as it is."""
    if not cell.notes:
        target, back = targets(cell, cell.test, points)
        last = f"W2 at {SHARES[-1]:.0%}"
        return {last: metrics.wasserstein2(cell.encode(target).z, cell.encode(back).z, cell.seed)}
    return {f"W2 at {share}": value for share, value in cell.notes.items()}


EMOTIONS = ("happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")


def table_2(cell: Cell, *, probe_points: int = 35_000) -> dict[str, Any]:
    """A linear classifier on s (where a method has no s, on its whole code), fitted on training targets: accuracy
    within each class of the test targets."""
    seen, _ = targets(cell, cell.train, probe_points)
    target, _ = targets(cell, cell.test, len(cell.test))
    half = 0 if cell.method.sizes[0] else 1
    label = str(cell.factor)
    names = target.names[label]
    codes = cell.encode(seen)[half], seen.factors[label], cell.encode(target)[half], target.factors[label]
    made = metrics.probe(*codes, "linear", cell.seed)
    return {names[k]: score for k, score in (made.per_class or {}).items()} | {"extra": {"probe": made}}
