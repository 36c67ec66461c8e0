"""Every method on every small data set whose supervision it can use."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from twofold import data, methods
from twofold.data.registry import Entry
from twofold.tables.measures import COSTS, SPLIT, split_and_costs
from twofold.tables.table import Row, Table

SIZE = 32  # of images, at most
NO_PRICE = {"leakage": 0.0, "separate": False}  # what is ours in a method, taken out
ALSO = {"ml-vae": ("ml-vae, mixture", {"evidence": "mixture"})}  # the paper has two rules, which differ much
VALUES = 256  # of an observation; what has more is trained for fewer steps


def small(entry: Entry) -> bool:
    """Comes with the package: whoever reads this can repeat it at once."""
    return not entry.files


def subjects(entry: Entry) -> Iterator[tuple[str, str | None, Sequence[str]]]:
    """What s may be about: the block's name, the factor (None: the default), and the supervisions that are about it."""
    if entry.sought == entry.default:
        yield entry.name, None, entry.supervision
    else:  # the reference set lacks something else
        yield entry.name, None, [kind for kind in entry.supervision if kind != "reference"]
        yield f"{entry.name}, {entry.sought}", entry.sought, entry.supervision


def rows(entries: Sequence[Entry]) -> Iterator[Row]:
    """Every method on every data set that gives what it learns from, and the controls."""
    for entry in entries:
        shape, chosen = list(entry.shape), dict[str, Any]()
        if len(shape) == 3 and max(shape[1:]) > SIZE and "size" in entry.options:
            chosen, shape = {"size": SIZE}, [shape[0], SIZE, SIZE]
        if "times" in entry.options:
            chosen["times"] = 1  # or a test image's digit would be in the training part, too, in another style
        width = min(8, math.prod(shape))
        large = math.prod(shape) > VALUES
        at: dict[str, Any] = {"cpu": {"steps": 400}} if large else {}
        for block, factor, kinds in subjects(entry):
            protocol: dict[str, Any] = {"data": entry.name, "data_options": chosen, "s": width, "z": width}
            protocol |= {} if factor is None else {"factor": factor}
            yield from _block({"block": block, "protocol": protocol, "at": at}, kinds)


def _block(own: dict[str, Any], kinds: Sequence[str]) -> Iterator[Row]:
    for name, cls in methods.names().items():
        kind = cls.supervision.__name__.lower()
        if kind not in kinds:
            continue
        inner = {k: 2 for k, v in cls.options().items() if k.endswith("steps") and isinstance(v, int)}
        smoke = {"smoke": {"options": inner}} if inner else {}  # steps within an inference, say
        yield Row(name=name, method=name, note=kind, **own | {"at": own["at"] | smoke})
        if name in ALSO:
            also, options = ALSO[name]
            yield Row(name=also, method=name, note=kind, options=options, **own)
        if "leakage" in cls.options():
            bare = {option: value for option, value in NO_PRICE.items() if option in cls.options()}
            yield Row(name=f"{name}, no price", method=name, note=kind, options=bare, **own)
    first = "contrastive" if "reference" in kinds else "ml-vae"
    yield Row(name="untrained", method=first, control="untrained", note=first, **own)
    yield Row(name="shuffled", method=first, control="shuffled", note=first, **own)
    for control in ("PCA", "constant", "supervised"):
        yield Row(name=control, control=control.lower(), **own)


def table(name: str, title: str, entries: Sequence[Entry]) -> Table:
    return Table(
        name=name,
        title=title,
        source="ours",
        columns=[*SPLIT, *COSTS],
        rows=list(rows(entries)),
        measure=split_and_costs,
        protocol=dict(split=(0.8, 0.2), batch_size=128, n_train=10_000, n_test=5_000),
        scales={
            "smoke": dict(
                steps=2, n_train=150, n_test=80, measure={"kinds": ("linear",), "images": 40, "judge_steps": 10}
            ),
            "cpu": dict(steps=1_000),
            "paper": dict(steps=20_000),
        },
        about=f"""One protocol for all: each method with its defaults, s and z of 8 dimensions (of vectors, as many as
            they have), 1,000 steps of 128 observations (400 where an observation has more than {VALUES} values;
            images of at most {SIZE} x {SIZE} pixels), 80 % to train on and 20 % to test. A block is a data set
            and what s should be about: its default factor; of digit-style, whose reference set lacks the style
            and not the digit, also the class of its strongest colour. The note says what a method learns from:
            images alone, labels, groups of the same class, triplets, or a reference set (those that learn from
            one are where the data have one: elsewhere a class would have to be taken from the targets, and their
            s be compared with others' for other classes; `flat` has such tables, by themselves). s and z:
            accuracy of the strongest of three probes, chosen without the test part. "s - leak" is s less z (or
            less the best constant, where z is below that): 0 for a constant. "class of s" is the share of
            observations made of one's s and another's z that a classifier trained on the data alone puts into
            the class of s; of a method without an encoder, the share of generated ones of the class asked for.
            A method with one code has its whole code in z; one whose encoder is given the label has no s to
            measure, and its z is a function of the label too. "no price": without our price on the leak from z,
            and with one encoder where the paper has one.""",
    )


_small = [entry for entry in data.available() if small(entry)]
TABLES = [table("small", "The methods side by side, on the data sets that come with the package", _small)]
