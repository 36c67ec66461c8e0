"""A trained method as one HTML file: what was measured, in words and numbers, and what it looks like."""

from __future__ import annotations

import base64
import csv
import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure
from torch import Tensor

from twofold import figures, operations, runs
from twofold.arrays import generator, unit
from twofold.data import Dataset
from twofold.errors import InputError, MissingFileError, TwofoldError, UnsupportedError
from twofold.evaluation import Evaluation, evaluate, interval, number
from twofold.method import Code, Method
from twofold.methods import load
from twofold.metrics.common import sample
from twofold.progress import Progress
from twofold.supervision import Labels, Reference

ACROSS, DOWN, STEPS = 9, 6, 8  # tiles
POINTS = 1_000  # in a map, and in the set that is searched
VERDICTS = {
    "clean": ("good", "A clean split, as far as measured"),
    "empty": ("fair", "z is empty"),
    "leaks": ("fair", "z leaks"),
    "failed": ("bad", "Not a split"),
    "weak": ("bad", "Nothing learned"),
    "no s": ("plain", "One code, no split"),
    "given": ("plain", "s is given"),
    "unknown": ("plain", "Not measured"),
}


def write(
    path: str | os.PathLike,
    *,
    method: Method,
    train: Dataset,
    test: Dataset,
    metrics: Sequence[Mapping[str, float]] = (),
    config: Mapping[str, Any] | None = None,
    evaluation: Evaluation | Mapping[str, Any] | None = None,
    seed: int = 0,
    factor: str | None = None,
    background: str | None = None,
    figures_dir: str | os.PathLike | None = None,
    progress: bool = False,
) -> Path:
    """Write the report on `method`, trained on `train`, shown on `test`, to the HTML file `path`; returns it.

    The file holds everything: it asks nothing of the network and runs nothing.

    metrics: what the training logged (`Run.metrics`). config: the run's configuration, any JSON-able mapping.
    evaluation: of `evaluate`, or its `as_dict()`; made here, with `factor` and `background`, unless given.
    seed: decides which observations are shown, and all that is drawn.
    figures_dir: a folder for the figures as PNG files, too.

    What a method or a data set can't have is named in its place, with the reason. Raises `InputError` for a path that
    is a folder, for arguments of another kind, and as `evaluate` does.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"path: {path} is a folder; expected a file, say {path / 'report.html'}")
    for name, value, wanted in (("method", method, Method), ("train", train, Dataset), ("test", test, Dataset)):
        if not isinstance(value, wanted):
            raise InputError(f"{name}: {type(value).__name__}; expected a {wanted.__name__}")
    if evaluation is None:
        evaluation = evaluate(method, train, test, seed=seed, factor=factor, background=background, progress=progress)
    elif not isinstance(evaluation, Evaluation):
        evaluation = Evaluation.from_dict(evaluation)
    subject = _Subject(method, test, evaluation, background, metrics, seed)
    sections: list[Section] = []
    with Progress("report", len(PICTURES), progress) as bar:
        for i, (key, (title, how, draw)) in enumerate(PICTURES.items()):
            try:
                figure = draw(subject)
            except TwofoldError as reason:
                sections.append(Section(key, title, how, None, 0, str(reason)))
            else:
                image = figures.png(figure)
                if figures_dir is not None:
                    figures.write(Path(figures_dir) / f"{key}.png", image)
                wide = round(100 * figure.get_size_inches()[0])
                sections.append(Section(key, title, how, base64.b64encode(image).decode(), wide, ""))
            bar.update(i + 1)
    page = _template().render(
        evaluation=evaluation,
        verdict=VERDICTS[evaluation.verdict],
        rows=_rows(evaluation),
        others=_others(evaluation),
        notes=_notes(evaluation),
        sections=[section for section in sections if section.image],
        absent=[section for section in sections if not section.image],
        settings=_settings(method, train, test, evaluation, config, seed),
    )
    return figures.write(path, page.encode())


def from_run(
    folder: str | os.PathLike,
    *,
    train: Dataset,
    test: Dataset,
    path: str | os.PathLike | None = None,
    evaluation: Evaluation | Mapping[str, Any] | None = None,
    **options: Any,
) -> Path:
    """The report on the run in `folder` (that `fit(out=...)` left), by default as report.html in it. Returns its path.

    `train` and `test`: the data that the method was trained on, and those held out. evaluation: by default what
    evaluation.json holds, if it is there and not older than the weights; else made. Other options as in `write`.

    Raises `MissingFileError` for a folder without a run, `InputError` for files that are broken.
    """
    folder = Path(folder)
    config = folder / "config.json"
    if not config.is_file():
        raise MissingFileError(f"folder: {folder} holds no run (no config.json); expected what fit(out=...) left")
    method = load(folder)
    kept = folder / "evaluation.json"
    weights = next(p for p in (folder / "method.safetensors", folder / "checkpoint.safetensors") if p.is_file())
    if evaluation is None and kept.is_file() and kept.stat().st_mtime_ns >= weights.stat().st_mtime_ns:
        evaluation = Evaluation.from_dict(_json(kept))
    return write(
        folder / "report.html" if path is None else path,
        method=method,
        train=train,
        test=test,
        metrics=_metrics(folder / "metrics.csv"),
        config=_json(config),
        evaluation=evaluation,
        **options,
    )


class Section(NamedTuple):
    """A figure with its title and how to read it, or the reason why there is none."""

    key: str
    title: str
    how: str
    image: str | None
    """PNG, base64."""
    width: int
    reason: str


class _Subject:
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


def _leakage(on: _Subject) -> Figure:
    if not on.evaluation.factors:
        why = on.evaluation.skipped.get("codes", f"{on.test.name} has no factor that could be probed")
        raise UnsupportedError(why)
    return figures.leakage_chart({name: found.leakage for name, found in on.evaluation.factors.items()})


def _map(on: _Subject) -> Figure:
    part, code = on.mapped
    values = None if on.factor is None else part.factors[on.factor]
    names = on.test.names.get(on.factor or "")
    back = None
    if on.background is not None:
        back = on.method.encode(on.background[sample(len(on.background), len(part) // 2 or 1, on.seed)].x)._asdict()
    return figures.code_map(code._asdict(), values, factor=on.factor or "", names=names, background=back, seed=on.seed)


def _reconstruction(on: _Subject) -> Figure:
    part = on.some(ACROSS)
    y = on.labels(part)
    halves = {h: operations.reconstruct(on.method, part.x, h, y) for h in ("s", "z")} if min(on.method.sizes) else {}
    return figures.reconstruction_rows(_pixels(part), operations.reconstruct(on.method, part.x, "both", y), **halves)


def _swap(on: _Subject) -> Figure:
    on.two_halves()
    give_s, give_z = on.some(ACROSS), on.some(DOWN, ACROSS)
    return figures.swap_grid(_pixels(give_s), _pixels(give_z), on.decode(on.encode(give_s).s, on.encode(give_z).z))


def _interpolation(on: _Subject) -> Figure:
    on.two_halves()
    part = on.test[on.order[:2]]
    if len(part) < 2:
        raise UnsupportedError(f"{on.test.name}: the test part holds one observation; a line needs two")
    (s, z), t = on.encode(part), torch.linspace(0, 1, STEPS)[:, None]
    return figures.interpolation_grid(on.decode(torch.lerp(s[:1], s[1:], t), torch.lerp(z[:1], z[1:], t)))


def _generation(on: _Subject) -> Figure:
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


def _prior(on: _Subject) -> Figure:
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


def _retrieval(on: _Subject) -> Figure:
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


def _walk(on: _Subject, half: str) -> Figure:
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


def _inpainting(on: _Subject) -> Figure:
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


def _losses(on: _Subject) -> Figure:
    if not on.metrics:
        raise UnsupportedError("no losses were handed over (Run.metrics, or the metrics.csv of a run)")
    return figures.loss_curves(on.metrics)


class _Picture(NamedTuple):
    title: str
    how: str
    draw: Callable[[_Subject], Figure]


PICTURES = {
    "leakage": _Picture(
        "What each half tells",
        "A bar is the strongest probe of that half on held-out observations, the line across its end the 95 % "
        "interval, the dashed line the best constant guess. Where s should hold a factor, look for blue far from the "
        "dashed line and orange at it.",
        _leakage,
    ),
    "map": _Picture(
        "s and z in two dimensions",
        "Each point is a held-out observation. Neighbours in the map are neighbours in the code; distances between "
        "clusters mean nothing. A good split keeps the classes apart in s and mixes them in z.",
        _map,
    ),
    "reconstruction": _Picture(
        "Reconstruction",
        "Top row: held-out originals. Below: through the whole code, through s alone (z at 0) and z alone (s at "
        "its reference value).",
        _reconstruction,
    ),
    "swap": _Picture(
        "Swap",
        "Each tile has the s of the blue original above it and the z of the orange original to its left. In a good "
        "split, columns keep what s is about and rows keep everything else.",
        _swap,
    ),
    "interpolation": _Picture(
        "Interpolation",
        "From one reconstruction (framed, top left) to another (bottom right): only s changes along a row, only z "
        "down a column.",
        _interpolation,
    ),
    "generation": _Picture(
        "Conditional generation",
        "New observations: a row shares its s (of the framed original, or of the class), z is drawn from the prior. "
        "Rows should keep what s is about and vary in the rest.",
        _generation,
    ),
    "prior": _Picture(
        "Generation from the prior",
        "New observations without any example: both halves are drawn from the prior. Where there are two, a column "
        "shares its s and a row its z.",
        _prior,
    ),
    "retrieval": _Picture(
        "Retrieval",
        "The held-out observations nearest to each query, by s and by z; green frames are of the query's class. A "
        "good split has many frames under s and few under z.",
        _retrieval,
    ),
    "walk-s": _Picture(
        "Single dimensions of s",
        "One original's code; a row moves one dimension of s through two standard deviations either way (of the codes "
        "of held-out observations) and keeps all else.",
        partial(_walk, half="s"),
    ),
    "walk-z": _Picture(
        "Single dimensions of z",
        "The same for z: what s is about should not change anywhere.",
        partial(_walk, half="z"),
    ),
    "inpainting": _Picture(
        "Inpainting",
        "The part that is covered is encoded as 0 and filled in from the reconstruction; what is not covered stays.",
        _inpainting,
    ),
    "losses": _Picture(
        "Training",
        "What each player descends, term by term, averaged over the steps between two points; its sum; the norm of "
        "its gradient. A curve that still falls asks for more steps.",
        _losses,
    ),
}


class _Row(NamedTuple):
    factor: str
    unit: str
    half: str
    score: str
    chance: str
    bits: str
    clusters: str
    nearest: str
    probe: str


def _rows(evaluation: Evaluation) -> list[_Row]:
    rows = []
    for name, found in evaluation.factors.items():
        for half, p in found.leakage.items():
            c, r = found.clustering.get(half), found.retrieval.get(half)
            rows.append(
                _Row(
                    factor=name,
                    unit="" if p.metric == "accuracy" else "(mean error)",
                    half=half,
                    score=interval(p),
                    chance=number(p.chance, p),
                    bits="" if p.information is None else f"{p.information:.2f} of {p.entropy:.2f}",
                    clusters="" if c is None else f"{c.accuracy:.2f} ± {c.accuracy_spread:.2f} ({c.chance:.2f})",
                    nearest="" if r is None else f"{r.precision[5]:.2f} ({r.chance:.2f})",
                    probe=p.kind + ("" if p.converged else ", not converged"),
                )
            )
    return rows


def _others(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """What else was measured: name, value, what to compare it with."""
    titles = {"both": "reconstruction", "s": "s alone", "z": "z alone", "mean": "the mean training observation"}
    hints = {"both": "", "s": "z at 0", "z": "s at its reference value", "mean": "the level to beat"}
    found = []
    for which, error in evaluation.reconstruction.items():
        squared = f"{error.mse:.3g} [{error.mse_low:.3g}, {error.mse_high:.3g}]"
        hint = hints[which] or f"on {error.n:,} held-out observations"
        found.append((f"Error per value, {titles[which]}", f"MSE {squared}, MAE {error.mae:.3g}", hint))
    if swap := evaluation.swap:
        for half, value in (("s", swap.s), ("z", swap.z)):
            if value is not None:
                hint = "R² of what was put in, in a swapped observation's code; 1 is perfect, 0 a constant"
                found.append((f"{half} found again after a swap", f"{value:.3f}", hint))
        if swap.label is not None:
            hint = f"by the nearest training observations in s; chance {number(swap.label.chance, swap.label)}"
            found.append((f"Swaps that keep the {evaluation.about} of s", interval(swap.label), hint))
    if back := evaluation.background:
        within = f"{back.w2_within:.3g} between two halves of the background ({back.points:,} each)"
        found.append(("z, target to background: squared W2", f"{back.w2:.3g}", within))
        size = f"mean squared distance from its reference value; on the target {back.s_target:.3g}"
        found.append(("Size of s on the background", f"{back.s_background:.3g}", size))
        spread = "summed over dimensions; 0.01 a dimension is almost a point, 1 is the prior's"
        found.append(("Its posterior variance there", f"{back.variance_background:.3g}", spread))
        for half, p in back.told_apart.items():
            found.append((f"Target or background, from {half}", interval(p), f"accuracy; chance {number(p.chance, p)}"))
    return found


def _notes(evaluation: Evaluation) -> list[str]:
    """What differs from the plan, and what could not be measured."""
    notes = [f"{name}: {found.note}." for name, found in evaluation.factors.items() if found.note]
    return notes + [f"Not measured: {what}: {why}." for what, why in evaluation.skipped.items()]


def _settings(
    method: Method,
    train: Dataset,
    test: Dataset,
    evaluation: Evaluation,
    config: Mapping[str, Any] | None,
    seed: int,
) -> list[tuple[str, list[tuple[str, str]]]]:
    """Titled lists of names and values: all that the numbers follow from."""
    config = dict(config) if config is not None else {"config": method.config, "record": runs.record()}
    titles = {"plan": "Training", "record": "Environment", "about": "As told", "config": "Method", "facts": "Data"}
    own = {
        "method": type(method).__name__,
        "learns from": method.supervision.__name__,
        "data": train.name,
        "observations": f"{len(train):,} to train on, {len(test):,} held out",
        "of shape": " × ".join(map(str, method.shape)),
        "dimensions of s, z": " and ".join(map(str, evaluation.sizes)),
        "seed of this report": seed,
    }
    plain = {k: v for k, v in config.items() if not isinstance(v, Mapping) and k not in ("method", "supervision")}
    groups = {"Run": own | ({"data, hash": plain.pop("data")} if "data" in plain else {}) | plain}
    groups |= {titles.get(name, name): value for name, value in config.items() if isinstance(value, Mapping)}
    return [(title, rows) for title, values in groups.items() if (rows := _flat(values))]


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}.")
        elif value is not None:
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            rows.append((f"{prefix}{name}", text))
    return rows


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: truncated, or no JSON ({error})") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: holds a {type(found).__name__}; expected an object")
    return found


def _metrics(path: Path) -> list[dict[str, float]]:
    """The rows logged; a line that a kill cut off ends them."""
    rows: list[dict[str, float]] = []
    if path.is_file():
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                try:
                    rows.append({name: float(value) for name, value in row.items()})
                except (TypeError, ValueError):
                    break
    return rows


def _template():
    environment = Environment(
        loader=PackageLoader("twofold"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")
