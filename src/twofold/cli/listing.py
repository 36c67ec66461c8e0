"""What there is to choose from."""

from __future__ import annotations

import inspect
import sys

from rich.console import Console
from rich.table import Table

from twofold.cli.parse import own
from twofold.cli.source import TAKES, kind
from twofold.data import available
from twofold.methods import names
from twofold.networks import ARCHITECTURES, Conv, Mlp


def show() -> None:
    """Print the methods, the data sets and the networks."""
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)

    methods = _table(
        "Methods, by the supervision that each needs", "METHOD", "learns from", "by", "options", "what it is"
    )
    for name, cls in names().items():
        what = (inspect.getdoc(cls) or "").partition("\n")[0]
        methods.add_row(name, kind(cls), _flags(TAKES[kind(cls)]), _flags(own(cls)), what)
    console.print(methods, "")

    note = "all give images, labels, groups, triplets; all but images by --factor; * the default"
    data = _table(f"Data ({note})", "DATA", "shape", "number", "factors", "reference", "files")
    for entry in sorted(available(), key=lambda entry: entry.name):
        factors = ", ".join(f"{factor}*" if factor == entry.default else factor for factor in entry.factors)
        files = ", ".join({f"{file.partition('/')[0]}/ in --data-dir" for file in entry.files}) or "none needed"
        back = "its own, or --background" if entry.background else "by --background"
        data.add_row(entry.name, " x ".join(map(str, entry.shape)), f"{entry.n:,}", factors, back, files)
    for name, factors in (
        ("FOLDER", "label*: the sub-folder of an image"),
        (".csv .tsv", "columns of text; those of numbers by --factor"),
        (".npz .npy", "all arrays but x; none"),
    ):
        data.add_row(name, "yours", "", factors, "by --background", "")
    console.print(data, "")

    networks = _table("Networks: --arch NAME", "NAME", "encoder (the decoder mirrors it)")
    networks.add_row("auto", "mlp for vectors and small grey images, conv for all else")
    for name, spec in ARCHITECTURES.items():
        networks.add_row(name, _layers(spec))
    console.print(networks)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column)
    return table


def _flags(names) -> str:
    return " ".join(f"--{name.replace('_', '-')}" for name in names)


def _layers(spec: Mlp | Conv) -> str:
    def listed(numbers: tuple[int, ...]) -> str:
        return ", ".join(map(str, numbers))

    if isinstance(spec, Mlp):
        text = f"fully connected {listed(spec.widths)}"
    else:
        text = f"convolutions {listed(spec.channels)} of {spec.kernel} x {spec.kernel}, strides {listed(spec.strides)}"
        text += f", fully connected {listed(spec.fc)}" if spec.fc else ""
    return text + ("; one for each code" if spec.separate else "")
