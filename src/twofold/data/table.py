"""A table of numbers, with columns that tell classes or other factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from twofold.data.dataset import Dataset
from twofold.data.options import class_number
from twofold.errors import InputError, choose, shown


class Scaling(NamedTuple):
    """What was done to a table: x = (value - mean) / std, a column each.

    `rows` says which rows mean and std are of; columns that are constant in those, but not in all, have the std of all
    rows and are named in `constant`; those constant in all rows have std 1, so they are 0. `dropped` says how many rows
    were left out for what they lacked; `filled`, how many values a column lacked that were put in, and `fill [D]` what
    was.
    """

    columns: tuple[str, ...]
    mean: Tensor  # [D], float64
    std: Tensor  # [D], float64
    rows: str = "all"
    dropped: int = 0
    filled: tuple[tuple[str, int], ...] = ()
    fill: Tensor | None = None  # [D], float64
    constant: tuple[str, ...] = ()

    def apply(self, values: Tensor) -> Tensor:
        """Raw values `[N, D]` -> x."""
        return ((values.double() - self.mean) / self.std).float()

    def undo(self, x: Tensor) -> Tensor:
        """x `[N, D]` (decoded, say) -> values in the table's own units."""
        return (x.double() * self.std + self.mean).float()

    def facts(self) -> dict:
        """All of it as JSON would have it, for records."""
        told = {name: part.tolist() if isinstance(part, Tensor) else part for name, part in self._asdict().items()}
        return told | {"columns": list(self.columns), "filled": dict(self.filled), "constant": list(self.constant)}


def table(
    path: Path,
    *,
    factors: Sequence[str] = (),
    factor: str | None = None,
    missing: str | None = None,
    scale: bool | str | Scaling = True,
    sep: str | None = None,
    decimal: str = ".",
    units: Mapping[str, str] | Sequence[str] = (),
) -> Dataset:
    """A `.csv` or `.tsv` file whose first line names the columns.

    Numeric columns are `x`; columns of text or of true and false, and those named, are factors, in which -1 says "not
    known". White space around text is taken off; classes of a column that differ in case only are refused, one of them
    being misspelt. A first column without a name that numbers the rows is an index and is left out; one with a name is
    refused, for x would hold each row's number.

    Options:
        factors, factor: columns that are factors though they hold numbers (whole ones are classes); `factor` is the
            default one of labels(), groups() and triplets().
        missing: "drop" leaves out rows that lack a value; "mean" or "median" puts that of the column, and -1, "not
            known", for a class. Otherwise missing and infinite values are refused. What was done is in `.scaling`.
        scale: True standardises each column by its mean and standard deviation over the whole table, recorded in
            `.scaling`; a split does not fit them anew. "FACTOR=VALUE" takes those of these rows alone, the controls,
            say: x then counts in their standard deviations (where they are constant, in those of all rows). The
            `.scaling` of another table applies that one's, its `fill` too: use it for data that come later. False
            takes the values as they are.
        sep: the separator; a comma, or a tab for `.tsv`. decimal: the decimal mark, "." or ",".
        units: of factors that are measurements, `{"age": "years"}` or "age:years", for people. A factor with a unit
            holds real numbers, whole ones too.
    """
    import pandas as pd

    if missing is not None:
        choose("missing", missing, ("drop", "mean", "median"))
    choose("decimal", decimal, (".", ","))
    sep = sep or ("\t" if path.suffix.lower() == ".tsv" else ",")
    try:
        frame = pd.read_csv(path, sep=sep, decimal=decimal, skipinitialspace=True, low_memory=False)
    except (OSError, ValueError, pd.errors.ParserError) as error:  # ValueError: encodings, empty files
        raise InputError(f"{path}: can't be read as a table ({' '.join(str(error).split())[:120]})") from None
    if len(frame) == 0 or frame.shape[1] < 2:
        raise InputError(
            f"{path}: {len(frame)} rows of {frame.shape[1]} columns; expected a line of names, then rows, with {sep!r} "
            "between columns (sep= tells another)"
        )
    if all(_number(str(name)) for name in frame.columns):
        raise InputError(f"{path}: the first line holds numbers; expected the columns' names")
    frame = _tidy(path, frame)
    first = frame.columns[0]
    if first.startswith("Unnamed") and frame[first].dtype.kind in "iu" and frame[first].is_unique:
        frame = frame.drop(columns=first)
    named = [*([factors] if isinstance(factors, str) else factors), *([factor] if factor else [])]
    floats = frame.select_dtypes("floating")
    frame[floats.columns] = floats.where(np.isfinite(floats))
    real = [name for name in floats if np.any(frame[name].dropna().to_numpy() % 1)]
    for name in named:
        if name not in frame.columns:
            classes = [column for column in frame.columns if column not in real]
            choose("factor", name, (name == factor and classes) or list(frame.columns))
    numeric = [c for c in frame.columns if pd.api.types.is_numeric_dtype(frame[c]) and frame[c].dtype != bool]
    columns = [c for c in numeric if c not in named]
    others = [c for c in frame.columns if c not in columns]
    for name in others:
        if name not in numeric and name not in named:
            _refuse_dirty(path, name, frame[name])
    if not columns:
        raise InputError(f"{path}: no numeric column is left for x; the factors are {', '.join(others)}")
    if not isinstance(scale, Scaling):
        _refuse_ids(path, frame[columns])
    measured = _units(units, [name for name in others if name in numeric])
    frame, done = _complete(path, frame, columns, missing, scale)
    values = torch.from_numpy(frame[columns].to_numpy(np.float64, copy=True))
    known = {name: _factor(path, frame[name], name in measured) for name in others}
    if factor and known[factor][0].dtype.kind == "f":
        raise InputError(
            f"factor: {factor!r} holds real numbers; the default of labels(), groups() and triplets() is of classes. "
            f"To measure what codes tell of it, pass factors={factor!r}"
        )
    scaling = _scaling(columns, values, scale, known)._replace(**done)
    return Dataset(
        scaling.apply(values),
        {name: codes for name, (codes, _) in known.items()},
        name=path.name,
        default=factor,
        names={name: names for name, (_, names) in known.items() if names},
        scaling=scaling,
        units=measured,
    )


def _tidy(path: Path, frame):
    """The table without white space around its names and classes: nobody sees it."""
    import pandas as pd

    def clean(entry: Any) -> Any:
        return " ".join(entry.split()) if isinstance(entry, str) else entry

    frame = frame.rename(columns=clean)
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise InputError(f"{path}: two columns are called {twice[0]!r}")
    for name in frame.columns:
        if not pd.api.types.is_numeric_dtype(frame[name]):
            frame[name] = frame[name].map(clean)
    return frame


def _numbers_rows(column) -> bool:
    """Whether it holds whole numbers, all different and in one run, in any order; a few may have been taken out."""
    return bool(column.dtype.kind in "iu" and column.is_unique and np.ptp(column.to_numpy()) <= 1.2 * len(column))


def _refuse_ids(path: Path, x) -> None:
    """Numbers of rows are no measurements, and in a sorted table they tell the classes. Ranks are left alone: most of
    a table's columns are such, then."""
    found = [name for name in x.columns if len(x) >= 10 and _numbers_rows(x[name])]
    if found and (len(found) == 1 or len(found) <= len(x.columns) / 2):
        name = found[0]
        raise InputError(
            f"{path}: column {name!r} numbers the rows, {x[name].min()} to {x[name].max()}, and would be a part of x; "
            f"take it out, or keep it as a factor by factors={name!r} (or write 7.0 for 7, if it is a measurement)"
        )


def _units(units: Mapping[str, str] | Sequence[str], factors: list[str]) -> dict[str, str]:
    """By the column's name."""
    if not isinstance(units, Mapping):
        pairs = [str(text).partition(":") for text in ([units] if isinstance(units, str) else units)]
        for name, colon, unit in pairs:
            if not (name and colon and unit):
                raise InputError(f"units: {name + colon + unit!r}; expected COLUMN:UNIT, say 'age:years'")
        units = {name.strip(): unit.strip() for name, _, unit in pairs}
    for name in units:
        if name not in factors:
            raise InputError(
                f"units: {name!r} is no factor of numbers (they are: {', '.join(factors) or 'none'}); "
                f"to make a column of x one, pass factors={name!r} too"
            )
    return {name: str(unit) for name, unit in units.items()}


def _complete(path: Path, frame, columns: list[str], missing: str | None, scale) -> tuple[Any, dict[str, Any]]:
    """The table without gaps, and what was done about them."""
    lacks = frame.isna().sum()
    lacks = lacks[lacks > 0]
    done = {"dropped": 0, "filled": ()}
    if len(lacks) and missing is None:
        what = ", ".join(f"{name} {count}" for name, count in lacks.head(8).items()) + ", ..." * (len(lacks) > 8)
        raise InputError(
            f"{path}: {int(lacks.sum())} missing or infinite values in {len(lacks)} of {frame.shape[1]} columns "
            f"({what}); pass missing='drop', missing='mean' or missing='median' (a class that is not known may be -1)"
        )
    if missing == "drop":
        whole = frame.dropna()
        if not len(whole):
            raise InputError(f"{path}: missing='drop' leaves no row; each lacks some value")
        return whole, done | {"dropped": len(frame) - len(whole)}
    if missing is None:
        return frame, done
    if isinstance(scale, Scaling) and scale.columns == tuple(columns):
        fill = scale.mean if scale.fill is None else scale.fill
    else:
        empty = [name for name in columns if frame[name].isna().all()]
        if empty:
            raise InputError(f"{path}: column {', '.join(empty)} holds no value, so it has no {missing}; take it out")
        fill = torch.from_numpy(getattr(frame[columns], missing)().to_numpy(np.float64, copy=True))
    filled = tuple((name, int(lacks[name])) for name in columns if name in lacks)
    return frame.fillna(dict(zip(columns, fill.tolist()))), done | {"filled": filled, "fill": fill}


def _factor(path: Path, column, measured: bool) -> tuple[np.ndarray, tuple[str, ...]]:
    """Codes and class names; -1 where not known. Whole numbers stay as they are and have no names; if `measured`, they
    are no classes."""
    import pandas as pd

    known = column.notna().to_numpy()
    if pd.api.types.is_numeric_dtype(column) and column.dtype != bool:
        values = column.to_numpy(np.float64)
        if not measured and (values[known] % 1 == 0).all():
            return np.where(known, values, -1).astype(np.int64), ()
        if not known.all():
            raise InputError(f"factor: {column.name!r} lacks {int((~known).sum())} real values; use missing='drop'")
        return values, ()
    known = known & (column.astype(str) != "-1").to_numpy()
    names, codes = np.unique(column[known].astype(str).to_numpy(str), return_inverse=True)
    alike: dict[str, str] = {}
    for name in names.tolist():
        if alike.setdefault(name.casefold(), name) != name:
            raise InputError(
                f"{path}: column {column.name!r} has the classes {alike[name.casefold()]!r} and {name!r}; write one as "
                "the other, or, if they are two, give them names that differ in more than case"
            )
    out = np.full(len(column), -1)
    out[known] = codes
    return out, tuple(names.tolist())


def _scaling(columns: list[str], values: Tensor, scale: bool | str | Scaling, known) -> Scaling:
    if isinstance(scale, Scaling):
        if scale.columns != tuple(columns):
            raise InputError(f"scale: made for columns {shown(scale.columns)}; this table has {shown(tuple(columns))}")
        return scale
    if not isinstance(scale, bool | str):
        raise InputError(f"scale: {shown(scale)}; expected True, False, FACTOR=VALUE or the .scaling of another table")
    if scale is False:
        return Scaling(tuple(columns), torch.zeros_like(values[0]), torch.ones_like(values[0]), "none")
    if scale is True:
        return standardised(columns, values)
    return standardised(columns, values[_rows(scale, known, columns)], scale, values)


def standardised(columns: Sequence[str], values: Tensor, rows: str = "all", every: Tensor | None = None) -> Scaling:
    """By the mean and the standard deviation of `values [N, D]`, float64; these are `rows` of `every [M, D]`."""
    every = values if every is None else every
    flat, constant = (part.amax(0) == part.amin(0) for part in (values, every))
    mean = torch.where(flat, values[0], values.mean(0))
    std = torch.where(flat, every.std(0, correction=0), values.std(0, correction=0))
    named = tuple(name for name, here in zip(columns, (flat & ~constant).tolist()) if here)
    return Scaling(tuple(columns), mean, torch.where(constant, 1.0, std), rows, constant=named)


def _rows(scale: str, known: dict[str, tuple[np.ndarray, tuple[str, ...]]], columns: list[str]) -> Tensor:
    """Which rows "FACTOR=VALUE" names."""
    factor, equals, value = (part.strip() for part in scale.partition("="))
    if not equals:
        raise InputError(f"scale: {scale!r}; expected True, False or FACTOR=VALUE, say 'group=control'")
    if factor in columns:
        raise InputError(f"scale: {factor!r} is a column of x; to have it as a factor, pass factors={factor!r}")
    choose("scale", factor, known)
    codes, names = known[factor]
    if names:
        return torch.from_numpy(codes == class_number(f"scale ({factor})", value, names))
    choose(f"scale ({factor})", value, [f"{code:g}" for code in np.unique(codes[codes >= 0])])
    return torch.from_numpy(codes == float(value))


def _refuse_dirty(path: Path, name: str, column) -> None:
    """A column of numbers but for some entries is a mistake in the table, and no factor."""
    text = column.dropna().astype(str)
    wrong = [entry for entry in text if not _number(entry)]
    if len(wrong) and all(_number(entry.replace(",", ".", 1)) for entry in wrong):
        raise InputError(f"{path}: column {name!r} holds {wrong[0]!r}; if that is a decimal comma, pass decimal=','")
    if wrong and len(wrong) < len(text) / 2:
        raise InputError(
            f"{path}: column {name!r} holds {len(wrong)} entries that are no numbers, such as {wrong[0]!r}; "
            f"clean it, or declare it a factor by factors=({name!r},)"
        )


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
