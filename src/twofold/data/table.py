"""A table of numbers, with columns that tell classes or other factors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from twofold.data.dataset import Dataset
from twofold.errors import InputError, choose, shown


class Scaling(NamedTuple):
    """What was done to a table: x = (value - mean) / std, a column each. Constant columns have std 1, so they are 0.

    `rows` says which rows mean and std are of; `dropped`, how many rows were left out for what they lacked; `filled`,
    how many values a column lacked that were put in, and `fill [D]` what was.
    """

    columns: tuple[str, ...]
    mean: Tensor  # [D], float64
    std: Tensor  # [D], float64
    rows: str = "all"
    dropped: int = 0
    filled: tuple[tuple[str, int], ...] = ()
    fill: Tensor | None = None  # [D], float64

    def apply(self, values: Tensor) -> Tensor:
        """Raw values `[N, D]` -> x."""
        return ((values.double() - self.mean) / self.std).float()

    def undo(self, x: Tensor) -> Tensor:
        """x `[N, D]` (decoded, say) -> values in the table's own units."""
        return (x.double() * self.std + self.mean).float()

    def facts(self) -> dict:
        """All of it as JSON would have it, for records."""
        told = {name: part.tolist() if isinstance(part, Tensor) else part for name, part in self._asdict().items()}
        return told | {"columns": list(self.columns), "filled": dict(self.filled)}


def table(
    path: Path,
    *,
    factors: Sequence[str] = (),
    factor: str | None = None,
    missing: str | None = None,
    scale: bool | str | Scaling = True,
    sep: str | None = None,
    decimal: str = ".",
) -> Dataset:
    """A `.csv` or `.tsv` file whose first line names the columns.

    Numeric columns are `x`; columns of text or of true and false, and those named, are factors, in which -1 says "not
    known". A column without a name that numbers the rows is an index and is left out.

    Options:
        factors, factor: columns that are factors though they hold numbers (whole ones are classes); `factor` is the
            default one of labels(), groups() and triplets().
        missing: "drop" leaves out rows that lack a value; "mean" or "median" puts that of the column, and -1, "not
            known", for a class. Otherwise missing and infinite values are refused. What was done is in `.scaling`.
        scale: True standardises each column by its mean and standard deviation over the whole table, recorded in
            `.scaling`; a split does not fit them anew. "FACTOR=VALUE" takes those of these rows alone, the controls,
            say: x then counts in their standard deviations. The `.scaling` of another table applies that one's, its
            `fill` too: use it for data that come later. False takes the values as they are.
        sep: the separator; a comma, or a tab for `.tsv`. decimal: the decimal mark, "." or ",".
    """
    import pandas as pd

    if missing is not None:
        choose("missing", missing, ("drop", "mean", "median"))
    choose("decimal", decimal, (".", ","))
    sep = sep or ("\t" if path.suffix.lower() == ".tsv" else ",")
    try:
        frame = pd.read_csv(path, sep=sep, decimal=decimal, low_memory=False)
    except (OSError, ValueError, pd.errors.ParserError) as error:  # ValueError: encodings, empty files
        raise InputError(f"{path}: can't be read as a table ({' '.join(str(error).split())[:120]})") from None
    if len(frame) == 0 or frame.shape[1] < 2:
        raise InputError(
            f"{path}: {len(frame)} rows of {frame.shape[1]} columns; expected a line of names, then rows, with {sep!r} "
            "between columns (sep= tells another)"
        )
    if all(_number(str(name)) for name in frame.columns):
        raise InputError(f"{path}: the first line holds numbers; expected the columns' names")
    first = frame.columns[0]
    if first.startswith("Unnamed") and np.array_equal(frame[first], np.arange(len(frame))):
        frame = frame.drop(columns=first)
    named = [*([factors] if isinstance(factors, str) else factors), *([factor] if factor else [])]
    for name in named:
        choose("factor", name, frame.columns)
    floats = frame.select_dtypes("floating")
    frame[floats.columns] = floats.where(np.isfinite(floats))
    numeric = [c for c in frame.columns if pd.api.types.is_numeric_dtype(frame[c]) and frame[c].dtype != bool]
    columns = [c for c in numeric if c not in named]
    others = [c for c in frame.columns if c not in columns]
    for name in others:
        if name not in numeric and name not in named:
            _refuse_dirty(path, name, frame[name])
    if not columns:
        raise InputError(f"{path}: no numeric column is left for x; the factors are {', '.join(others)}")
    frame, done = _complete(path, frame, columns, missing, scale)
    values = torch.from_numpy(frame[columns].to_numpy(np.float64, copy=True))
    known = {name: _factor(frame[name]) for name in others}
    scaling = _scaling(columns, values, scale, known)._replace(**done)
    return Dataset(
        scaling.apply(values),
        {name: codes for name, (codes, _) in known.items()},
        name=path.name,
        default=factor,
        names={name: names for name, (_, names) in known.items() if names},
        scaling=scaling,
    )


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


def _factor(column) -> tuple[np.ndarray, tuple[str, ...]]:
    """Codes and class names; -1 where not known. Whole numbers stay as they are and have no names."""
    import pandas as pd

    known = column.notna().to_numpy()
    if pd.api.types.is_numeric_dtype(column) and column.dtype != bool:
        values = column.to_numpy(np.float64)
        if (values[known] % 1 == 0).all():
            return np.where(known, values, -1).astype(np.int64), ()
        if not known.all():
            raise InputError(f"factor: {column.name!r} lacks {int((~known).sum())} real values; use missing='drop'")
        return values, ()
    known = known & (column.astype(str) != "-1").to_numpy()
    names, codes = np.unique(column[known].astype(str).to_numpy(str), return_inverse=True)
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
    return standardised(columns, values[_rows(scale, known)], scale)


def standardised(columns: Sequence[str], values: Tensor, rows: str = "all") -> Scaling:
    """By the mean and the standard deviation of `values [N, D]`, float64."""
    constant = values.amax(0) == values.amin(0)
    mean, std = values.mean(0), values.std(0, correction=0)
    mean, std = torch.where(constant, values[0], mean), torch.where(constant, 1.0, std)
    return Scaling(tuple(columns), mean, std, rows)


def _rows(scale: str, known: dict[str, tuple[np.ndarray, tuple[str, ...]]]) -> Tensor:
    """Which rows "FACTOR=VALUE" names."""
    factor, equals, value = (part.strip() for part in scale.partition("="))
    if not equals:
        raise InputError(f"scale: {scale!r}; expected True, False or FACTOR=VALUE, say 'group=control'")
    choose("scale", factor, known)
    codes, names = known[factor]
    names = names or [f"{code:g}" for code in np.unique(codes[codes >= 0])]
    choose(f"scale ({factor})", value, names)
    return torch.from_numpy(codes == (names.index(value) if known[factor][1] else float(value)))


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
