"""A trained method as one HTML file: what was measured, in words and numbers, and what it looks like."""

from __future__ import annotations

import base64
import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from twofold import figures, runs, summary
from twofold.data import Dataset
from twofold.errors import InputError, MissingFileError, TwofoldError
from twofold.evaluation import evaluate
from twofold.method import Method
from twofold.methods import load
from twofold.pictures import PICTURES
from twofold.progress import Progress
from twofold.subject import Subject
from twofold.verdict import Evaluation

VERDICTS = {
    "clean": ("good", "A clean split, as far as measured"),
    "empty": ("fair", "z is empty"),
    "leaks": ("fair", "z leaks"),
    "failed": ("bad", "Not a split"),
    "weak": ("bad", "Nothing learned"),
    "no s": ("plain", "One code, no split"),
    "no z": ("plain", "One code, no split"),
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
    snapshots: Mapping[int, Method] | None = None,
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

    metrics: what the training logged (`Run.metrics`). snapshots: the method as it was at earlier steps; of points in
    the plane. config: the run's configuration, any JSON-able mapping.
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
    subject = Subject(method, test, evaluation, background, metrics, seed, snapshots)
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
        rows=summary.probes(evaluation),
        others=summary.others(evaluation),
        linear=summary.linear(evaluation),
        judged=summary.judged(evaluation),
        generated=summary.generated(evaluation),
        per_class=summary.per_class(evaluation, test.names.get(evaluation.about or "")),
        notes=summary.notes(evaluation),
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
        snapshots=runs.RunFolder.snapshots(folder),
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
    automatic = {titles["config"]: "automatic"}  # a method's options that it chooses by itself
    return [(title, rows) for title, values in groups.items() if (rows := _flat(values, "", automatic.get(title, "")))]


def _flat(values: Mapping[str, Any], prefix: str = "", none: str = "") -> list[tuple[str, str]]:
    """Names and values as text, and `none` for what is None; without it such are left out."""
    rows = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}.", none)
        elif value is not None or none:
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            rows.append((f"{prefix}{name}", none if value is None else text))
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
