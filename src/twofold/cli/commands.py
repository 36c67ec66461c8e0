"""What the commands do. Their signatures are the command line's; PyTorch is loaded inside them."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from twofold.cli import folder, source
from twofold.cli.settings import DATA, RUN, TRAINING, Settings, count, flag
from twofold.errors import InputError, TwofoldError

if TYPE_CHECKING:
    from twofold.data import Dataset
    from twofold.method import Method
    from twofold.verdict import Evaluation

RunFolder = Annotated[Path, Parameter(help="The folder of a training.")]
DataDir = Annotated[Path | None, flag(DATA, "Where the data lie now, if they were moved since the training.")]
Background = Annotated[
    str | None, flag(DATA, "FACTOR=VALUE: the reference set to compare with; the training's own unless given.")
]
Seed = Annotated[int, count(RUN, "Of the probes and the samples.")]
MOST = 20  # classes of which each one's accuracy is printed
DEMO_STEPS = 2000  # about a minute on two busy cores


def demo(
    *,
    steps: Annotated[int, count(RUN, "Updates of the weights.")] = DEMO_STEPS,
    seed: Annotated[int, count(RUN, "Decides all that is random.")] = 0,
    out: Annotated[Path | None, flag(RUN, "The run's folder; runs/demo-001, say, unless given.")] = None,
) -> None:
    """Split handwritten digits, measure the split and show it: about two minutes.

    Trains ML-VAE on scikit-learn's digits, told only which images show the same digit; says what s and z tell about the
    digit in held-out images; writes the pictures and the numbers into one HTML file. Downloads nothing.
    """
    told = Settings(method="ml-vae", data="digits", steps=steps, seed=seed)
    run = _train(told, out, "demo")
    kept = folder.load(run)
    _print(_evaluate(run, kept, seed, None)[0], kept)
    print(f"report: {_report(run, kept, seed, None)}")


def train(
    method: Annotated[str, Parameter(help="One of those that `twofold list` shows.")],
    data: Annotated[str, Parameter(help="A built-in set, a folder of images, or a .csv, .tsv, .npz or .npy file.")],
    /,
    *,
    told: Settings | None = None,
    device: Annotated[str, flag(TRAINING, "auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    devices: Annotated[int, count(TRAINING, "Processes that share each batch.")] = 1,
    out: Annotated[Path | None, flag(RUN, "The run's folder; runs/METHOD-DATA-001, say, unless given.")] = None,
    resume: Annotated[
        bool, flag(RUN, "Go on with the run in --out: its METHOD, DATA and options hold, more --steps extend it.")
    ] = False,
    config: Annotated[Path | None, flag(RUN, "A .toml or .json file of options by these names; flags win.")] = None,
    **own: Any,
) -> None:
    """Train a method on data. `twofold train METHOD --help` shows the method's own options, too.

    Makes the supervision that the method needs from the data, keeps a part of the data apart (the authors' test part,
    or 20 %), trains, and leaves weights, losses and the whole configuration in a run folder. Killed at any moment, a
    training goes on by `twofold train --resume --out RUN` and comes to the same weights.
    """
    if resume and out is None:
        raise InputError("resume: needs --out, the folder of the run to go on with")
    told = replace(told or Settings(), method=method, data=data, own=own)
    run = _train(told, out, f"{method}-{Path(data).stem}", resume, device, devices)
    print(f"next: twofold evaluate {shlex.quote(str(run))}   (what s and z tell of held-out data)")
    print(f"      twofold report {shlex.quote(str(run))}   (with pictures, as one HTML file)")


def evaluate(
    run: RunFolder,
    /,
    *,
    background: Background = None,
    as_json: Annotated[
        bool, Parameter(name="--json", group=RUN, help="Print JSON: all that was measured.", negative="")
    ] = False,
    seed: Seed = 0,
    data_dir: DataDir = None,
) -> None:
    """Measure what s and z tell of each factor, on held-out data, beside chance.

    Prints a table, with the accuracy of each class (of what s is about, up to 20 classes, by the linear probe), and
    writes RUN/evaluation.json, which is what --json prints: it also holds each class's accuracy of every factor, by the
    strongest probe too, and what was skipped, with the reason. With --background, methods that know nothing of a
    reference set can be compared with those that do.
    """
    kept = folder.load(run, data_dir)
    found, told = _evaluate(run, kept, seed, background)
    if as_json:
        print(told)
    else:
        _print(found, kept)


def report(run: RunFolder, /, *, background: Background = None, seed: Seed = 0, data_dir: DataDir = None) -> None:
    """Write RUN/report.html: what was measured, the losses and the pictures, in one file.

    Measures first, where RUN/evaluation.json is missing, older than the weights, or of another --background.
    """
    kept = folder.load(run, data_dir)
    found = folder.measured(run)
    against = (found or {}).get("against", kept.told.background)
    if found is None or background not in (None, against):
        against = background or kept.told.background
        _evaluate(run, kept, seed, against)
    print(_report(run, kept, seed, against))


def table(
    name: Annotated[str | None, Parameter(help="One of those that `twofold table` shows, or all.")] = None,
    /,
    *,
    scale: Annotated[
        Literal["smoke", "cpu", "paper"],
        flag(RUN, "smoke: seconds, to try it; cpu: minutes a cell; paper: the papers' own."),
    ] = "cpu",
    seeds: Annotated[int, count(RUN, "Trainings of each row: seeds 0, 1, ...")] = 3,
    jobs: Annotated[int, count(RUN, "Cells at a time, a process each.")] = 1,
    threads: Annotated[int, count(RUN, "Of each cell.")] = 1,
    device: Annotated[str, flag(RUN, "auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    only: Annotated[list[str] | None, flag(RUN, "Rows whose name or table holds this text. May be repeated.")] = None,
    backend: Annotated[
        Literal["loky", "dask", "ray"], flag(RUN, "What runs the cells: processes here, or a cluster.")
    ] = "loky",
    address: Annotated[str | None, flag(RUN, "Of the cluster's scheduler; one is started here unless given.")] = None,
    out: Annotated[Path, flag(RUN, "Where the results are kept.")] = Path("results"),
    page: Annotated[
        Path | None, flag(RUN, "The Markdown page; RESULTS.md beside a folder named results, else in it.")
    ] = None,
    render: Annotated[bool, flag(RUN, "Run nothing: write the pages from what is there.")] = False,
    data_dir: Annotated[
        Path | None, flag(DATA, "Where the data lie; TWOFOLD_DATA in the environment unless given.")
    ] = None,
) -> None:
    """Measure the rows of a paper's tables and show them beside what the paper printed.

    A cell is a row with a seed. Those that are in OUT already are kept, unless their protocol has changed since; so a
    run that was killed goes on where it was. A cell that fails stops no other. Afterwards RESULTS.md and OUT/index.html
    are written from all results in OUT. Without NAME, the tables are listed.
    """
    from twofold.cli import tables

    if page is None:
        page = (out.parent if out.name == "results" else out) / "RESULTS.md"
    if name is None and not render:
        tables.show(data_dir)
    elif render:
        tables.render(out, page, data_dir, name)
    else:
        how = {"jobs": jobs, "threads": threads, "device": device, "backend": backend, "address": address}
        tables.run(str(name), scale, seeds, only or [], out, page, data_dir, **how)


def catalogue() -> None:
    """Show the methods with the supervision that each needs, the data sets, the networks."""
    from twofold.cli.listing import show

    show()


def _train(
    told: Settings, out: Path | None, label: str, resume: bool = False, device: str = "auto", devices: int = 1
) -> Path:
    from twofold import methods

    cls = methods.get(told.method)
    fitted, held = source.parts(told)
    supervision = source.supervision(cls, fitted, told, held)
    method = cls.build(fitted.shape, told.s, told.z, None, told.arch, seed=told.seed, **told.own)
    root = told.data_dir and told.data_dir.expanduser().resolve()
    about = {"settings": replace(told, method=cls.name, data=source.place(told.data), data_dir=root).record()}
    if fitted.scaling is not None:
        about["scaling"] = fitted.scaling.facts()
    _tell(cls, fitted, held, told)
    from twofold.training import fit

    with folder.fresh(out, label) as run:
        try:
            done = fit(
                method,
                supervision,
                steps=told.steps,
                epochs=told.epochs,
                batch_size=told.batch_size,
                seed=told.seed,
                device=device,
                devices=devices,
                precision=told.precision,
                out=run,
                resume=resume,
                optim=None if told.lr is None else {"lr": told.lr},
                about=about,
            )
        except KeyboardInterrupt as interrupt:
            begun = (run / "checkpoint.safetensors").is_file()
            hint = f"{interrupt}; go on by: twofold train --resume --out {shlex.quote(str(run))}"
            raise KeyboardInterrupt(hint if begun else "") from None
        except TwofoldError:
            raise
        except OSError as error:
            raise InputError(f"out: can't write to {run} ({error.strerror or error})") from None
    print(f"run: {run}   ({cls.name} on {fitted.name}, {done.steps:,} steps, {done.seconds:.0f} s)")
    return run


def _tell(cls: type[Method], train: Dataset, test: Dataset, told: Settings) -> None:
    """What was read, and what of it may surprise."""
    contrasted = source.kind(cls) == "reference"
    print("data:", source.summary(train, test, told, contrasted), flush=True)
    if train.scaling is not None and train.scaling.constant:
        names = ", ".join(train.scaling.constant[:6]) + ", ..." * (len(train.scaling.constant) > 6)
        folder.note(f"{names}: constant in {train.scaling.rows}, so scaled by the deviation of all rows")
    if train.empty:
        names = ", ".join(train.empty[:6]) + ", ..." * (len(train.empty) > 6)
        folder.note(f"{names}: no images there, so passed over")
    if told.hold_out is not None and source.is_about(train, told, told.hold_out):
        _tell_unseen(train, test, told.hold_out)
    if contrasted:
        from twofold.contrasting import too_few

        if few := too_few(*(part.apart(told.background) for part in (train, test))):
            folder.note(f"{few}; evaluate will leave it out")


def _tell_unseen(train: Dataset, test: Dataset, name: str) -> None:
    """That more than a fifth of the classes is held out, or too few observations to measure all."""
    from twofold.probing import too_few

    kept, held = (len(y[y >= 0].unique()) for y in (train.factors[name], test.factors[name]))
    if held != kept + held - round(0.8 * (kept + held)):
        folder.note(f"{held} of {kept + held} classes of {name} are held out, as one could be told from no other")
    if few := too_few(test.factors[name]):
        folder.note(f"held out of {name}: {few}")


def _evaluate(run: Path, kept: folder.Kept, seed: int, background: str | None) -> tuple[Evaluation, str]:
    """What was found; and as JSON, which evaluation.json then holds, with the background that it is against."""
    from twofold.evaluation import evaluate

    factor, background = kept.told.factor and source.listed(kept.told.factor)[0], background or kept.told.background
    found = evaluate(kept.method, kept.train, kept.test, seed=seed, factor=factor, background=background, progress=True)
    text = json.dumps(found.as_dict() | {"against": background}, indent=1)
    part = run / ".evaluation.json.part"
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(run / "evaluation.json")
    finally:
        part.unlink(missing_ok=True)
    return found, text


def _print(found: Evaluation, kept: folder.Kept) -> None:
    from rich.console import Console

    from twofold import summary

    Console(width=None if sys.stdout.isatty() else 140).print(found.table())
    head, *rows = summary.per_class(found, kept.test.names.get(found.about or "")) or [()]
    for column, title in enumerate(head):
        if title.startswith("linear, ") and len(rows) <= MOST:
            print(f"{found.about} ({title}):", ", ".join(f"{row[0]} {row[column]}" for row in rows))
    for what, why in found.skipped.items():
        print(f"not measured: {what}: {why}")


def _report(run: Path, kept: folder.Kept, seed: int, background: str | None) -> Path:
    from twofold.report import from_run

    return from_run(run, train=kept.train, test=kept.test, background=background, seed=seed, progress=True)
