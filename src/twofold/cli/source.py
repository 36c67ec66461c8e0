"""Which data a training was told to take, and the supervision that its method makes of them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twofold.cli.settings import Settings
from twofold.errors import InputError, MissingFileError, choose

if TYPE_CHECKING:
    from twofold.data import Dataset
    from twofold.method import Method
    from twofold.supervision import Supervision

TAKES = {  # the flags that each kind of supervision understands
    "images": (),
    "labels": ("factor",),
    "groups": ("factor", "per_group"),
    "triplets": ("factor",),
    "reference": ("background",),
}
FEW = 20  # classes of a table's column, of which each part gets its share
COLUMNS = (".csv", ".tsv", ".npz")  # files whose factors are told by name


def kind(cls: type[Method]) -> str:
    return cls.supervision.__name__.lower()


def parts(told: Settings) -> tuple[Dataset, Dataset]:
    """The data to train on and those held out: the first and last of the authors' parts, else 80 and 20 % at random,
    with their share of the background each (of a table, of the classes of all its columns, so that every method has the
    same split); or 80 and 20 % of the classes of the factor to hold out, as `_share` says."""
    whole = _data(told)
    if told.hold_out is not None:
        if not whole.classes():
            raise InputError(f"hold_out: {told.hold_out!r}; {whole.name} has no classes to hold out")
        choose("hold_out", told.hold_out, whole.classes())
        train, test = whole.split(_share(whole, told, told.hold_out), seed=told.seed, by=told.hold_out)
        return train, test
    try:
        split = whole.split("official")
    except InputError:
        column = (told.background or "").partition("=")[0].strip()
        few = [name for name in whole.classes() if name == column or len(whole.factors[name].unique()) <= FEW]
        even = sorted(few) if whole.scaling is not None else [column] * (column in few)
        split = whole.split((0.8, 0.2), seed=told.seed, stratify=even or None)
    return split[0], split[-1]


def _share(whole: Dataset, told: Settings, name: str) -> tuple[float, float]:
    """A fifth of the classes of `name`, but at least two where s is about it: one could be told from no other."""
    y = whole.factors[name]
    count, fewest = len(y[y >= 0].unique()), 2 if is_about(whole, told, name) else 1
    if count < 2 * fewest:
        each = ("one", "two")[fewest - 1]
        raise InputError(
            f"hold_out: {name!r} has {count} class{'es' * (count != 1)}; expected at least {2 * fewest}: {each} to "
            f"train on and {each} to hold out"
        )
    held = max(fewest, count - round(0.8 * count))
    return 1 - held / count, held / count


def is_about(data: Dataset, told: Settings, name: str) -> bool:
    """Whether s is to be about this factor, or one of several; nothing may say what it is about."""
    return name in (listed(told.factor) if told.factor else [data.default or name])


def _data(told: Settings) -> Dataset:
    from twofold.data import load

    if told.data_dir and not told.data_dir.expanduser().is_dir() and not told.download:
        raise MissingFileError(
            f"data-dir: {str(told.data_dir)!r} is not a folder; expected the one that holds the data"
        )
    options: dict[str, Any] = {}
    for name, value in map(_option, told.data_option or ()):
        options[name] = [*_several(options[name]), *_several(value)] if name in options else value
    suffix, background = Path(told.data).suffix.lower(), told.background or ""
    named = listed(told.factor) if told.factor and suffix in COLUMNS else []
    columns = [*named, *([background.partition("=")[0].strip()] if "=" in background else [])]
    columns += [told.hold_out] if told.hold_out else []
    if columns and (suffix in COLUMNS[:2] or (suffix in COLUMNS and "factors" in options)):
        options["factors"] = [*_several(options.get("factors", [])), *columns]  # of an archive all are, unless told
    try:
        data = load(told.data, root=told.data_dir, download=told.download, **options)
    except MissingFileError:
        raise
    except InputError as error:
        keyword = re.search(r"\b([a-z]+)=", str(error))
        hint = f" (here: --data-option {keyword[1]}=...)" if keyword else ""
        raise InputError(f"{error}{hint}") from None
    if named and "factor" not in options and named[0] in data.classes():
        data.default = named[0]  # not before it is read: whether it is a number is for `supervision` to say
    return data


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = (part.strip() for part in text.partition("="))
    if not (name and equals):
        raise InputError(f"data-option: {text!r}; expected NAME=VALUE, say size=32")
    return name.replace("-", "_"), _value(value)


def _value(text: str) -> Any:
    """As JSON has it (a number, true, false, null, a list); or a list with commas between; or the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return [_value(part.strip()) for part in text.split(",")] if "," in text.strip(",") else text


def _several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def listed(factor: str) -> list[str]:
    """The factors named, with commas between: several groupings, for a method that takes them."""
    names = [name.strip() for name in factor.split(",")]
    if len(set(names)) < len(names):
        raise InputError(f"factor: {factor!r} names one twice")
    return names


def place(data: str) -> str:
    """A name of the data that holds from another folder too."""
    from twofold.data import available

    path = Path(data).expanduser()
    return data if data in {entry.name for entry in available()} or not path.exists() else str(path.resolve())


def supervision(cls: type[Method], data: Dataset, told: Settings, held: Dataset | None = None) -> Supervision:
    """What `cls` learns from, made of `data`. Raises an `InputError` that tells which data or flags would do, and how
    much of the background is in `held`, the part held out."""
    from twofold import methods

    takes = TAKES[kind(cls)]
    for name in ("per_group", "background"):
        if getattr(told, name) is not None and name not in takes:
            able = ", ".join(n for n, c in methods.names().items() if name in TAKES[kind(c)])
            raise InputError(f"{name}: {getattr(told, name)!r}; {cls.name} learns from {kind(cls)}; it is for {able}")
    names = [] if told.factor is None else listed(told.factor) if kind(cls) == "groups" else [told.factor]
    for name in names:
        if name not in data.factors:
            choose("factor", name, ("factor" in takes and data.classes()) or data.factors)
        if "factor" in takes and name not in data.classes():
            known, number = ", ".join(data.classes()) or "there is none", float(data.factors[name][0])
            raise InputError(
                f"factor: {name!r} holds real numbers, such as {number:g}; {cls.name} learns from {kind(cls)}, which a "
                f"column of classes tells (text or whole numbers): {known}"
            )
    flags = {name: getattr(told, name) for name in takes if getattr(told, name) is not None}
    if len(names) > 1:
        flags["factor"] = names
    try:
        return getattr(data, kind(cls))(**flags)
    except InputError as error:
        if held is not None and "background" in flags:
            error = f"{error}{_held(held, told.background)}"
        if not data.classes():
            able = ", ".join(n for n, c in methods.names().items() if kind(c) == "images")
            raise InputError(f"{error}; {cls.name} learns from {kind(cls)}; from images alone: {able}") from None
        raise InputError(f"{error}; {cls.name} learns from {kind(cls)}") from None


def _held(held: Dataset, background: str | None) -> str:
    """What the part held out has of a background of which the training part has none, or nothing else."""
    try:
        _, back = held.apart(background)
    except InputError:
        return ""
    inside = 0 if back is None else len(back)
    return f" (that is the part to train on; of the {len(held)} rows held out, {inside} are of it)"


def summary(train: Dataset, test: Dataset, told: Settings, contrasted: bool) -> str:
    """What was read, in a line: a class that is misspelt or a column that does not belong shows here."""
    rows, held, sides = len(train) + len(test), len(test), ""
    if contrasted:
        try:
            parts = [part.apart(told.background) for part in (train, test)]
        except InputError as error:
            raise InputError(f"{error} (in the part that is held out: too few rows)") from None
        target, back = (sum(len(side) for side in pair if side is not None) for pair in zip(*parts))
        unknown = 0 if told.background is None else rows - target - back
        if told.background is None:
            rows, held = target + back, sum(len(side) for side in parts[1] if side is not None)
        sides = f": target {target:,}, background {back:,}" + f", not known {unknown:,}" * bool(unknown)
    x = " x ".join(map(str, train.shape))
    if len(train.shape) == 1:
        names = () if train.scaling is None else train.scaling.columns
        count = f"{x} column" + "s" * (x != "1")
        x = f"{_few(names, ' ... ', 4)} ({count})" if names else count
    factors = [_factor(train, name) for name in train.factors]
    apart = f", all of {told.hold_out} that is not trained on" if told.hold_out else ""
    return f"{rows:,} rows, {held:,} held out{apart}{sides}; x: {x}; factors: {_few(factors, ', ..., ', 6) or 'none'}"


def _factor(data: Dataset, name: str) -> str:
    if name not in data.classes():
        return f"{name} in {data.units[name]}" if name in data.units else name
    names = data.names.get(name, ())
    y = data.factors[name]
    return f"{name} ({', '.join(names) if 0 < len(names) < 5 else f'{len(y[y >= 0].unique())} classes'})"


def _few(names: Sequence[str], gap: str, most: int) -> str:
    """All of them, or the first and the last."""
    return ", ".join(names) if len(names) <= most else f"{names[0]}{gap}{names[-1]}"
