"""A table of numbers, with columns that tell classes or other factors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from twofold.data.dataset import Dataset
from twofold.errors import InputError, choose, shown


class Scaling(NamedTuple):
    """What was done to a table: x = (value - mean) / std, a column each. Constant columns have std 1, so they are 0."""

    columns: tuple[str, ...]
    mean: Tensor  # [D], float64
    std: Tensor  # [D], float64

    def apply(self, values: Tensor) -> Tensor:
        """Raw values `[N, D]` -> x."""
        return ((values.double() - self.mean) / self.std).float()

    def undo(self, x: Tensor) -> Tensor:
        """x `[N, D]` (decoded, say) -> values in the table's own units."""
        return (x.double() * self.std + self.mean).float()


def table(
    path: Path,
    *,
    factors: Sequence[str] = (),
    factor: str | None = None,
    missing: str | None = None,
    scale: bool | Scaling = True,
    sep: str | None = None,
) -> Dataset:
    """A `.csv` or `.tsv` file whose first line names the columns.

    Numeric columns are `x`; columns of text or of true and false, and those named, are factors. A column without a name
    that numbers the rows is an index and is left out.

    Options:
        factors, factor: columns that are factors though they hold numbers (whole ones are classes); `factor` is the
            default one of labels(), groups() and triplets().
        missing: "drop" leaves out rows that lack a value; "mean" puts the column's mean, and -1, "not known", for a
            class. Otherwise missing and infinite values are refused.
        scale: True standardises each column by its mean and standard deviation over the whole table, recorded in
            `.scaling`; a split does not fit them anew. The `.scaling` of another table applies that one's: use it for
            data that come later. False takes the values as they are.
        sep: the separator; a comma, or a tab for `.tsv`.
    """
    import pandas as pd

    if missing is not None:
        choose("missing", missing, ("drop", "mean"))
    sep = sep or ("\t" if path.suffix.lower() == ".tsv" else ",")
    try:
        frame = pd.read_csv(path, sep=sep, low_memory=False)
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
    frame = _complete(path, frame, columns, missing)
    values = torch.from_numpy(frame[columns].to_numpy(np.float64, copy=True))
    scaling = _scaling(columns, values, scale)
    known = {name: _factor(frame[name]) for name in others}
    return Dataset(
        scaling.apply(values),
        {name: codes for name, (codes, _) in known.items()},
        name=path.name,
        default=factor,
        names={name: names for name, (_, names) in known.items() if names},
        scaling=scaling,
    )


def _complete(path: Path, frame, columns: list[str], missing: str | None):
    lacks = frame.isna().sum()
    lacks = lacks[lacks > 0]
    if len(lacks) and missing is None:
        what = ", ".join(f"{name} {count}" for name, count in lacks.head(8).items()) + ", ..." * (len(lacks) > 8)
        raise InputError(
            f"{path}: {int(lacks.sum())} missing or infinite values in {len(lacks)} of {frame.shape[1]} columns "
            f"({what}); pass missing='drop' or missing='mean'"
        )
    if missing == "drop":
        frame = frame.dropna()
        if not len(frame):
            raise InputError(f"{path}: missing='drop' leaves no row; each lacks some value")
    elif missing == "mean":
        empty = [name for name in columns if frame[name].isna().all()]
        if empty:
            raise InputError(f"{path}: column {', '.join(empty)} holds no value, so it has no mean; take it out")
        frame = frame.fillna(frame[columns].mean())
    return frame


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
    names, codes = np.unique(column[known].astype(str).to_numpy(str), return_inverse=True)
    out = np.full(len(column), -1)
    out[known] = codes
    return out, tuple(names.tolist())


def _scaling(columns: list[str], values: Tensor, scale: bool | Scaling) -> Scaling:
    if isinstance(scale, Scaling):
        if scale.columns != tuple(columns):
            raise InputError(f"scale: made for columns {shown(scale.columns)}; this table has {shown(tuple(columns))}")
        return scale
    if not isinstance(scale, bool):
        raise InputError(f"scale: {shown(scale)}; expected True, False or the .scaling of another table")
    constant = values.amax(0) == values.amin(0)
    mean = values.mean(0) if scale else torch.zeros(len(columns), dtype=torch.float64)
    std = values.std(0, correction=0) if scale else torch.ones(len(columns), dtype=torch.float64)
    mean, std = (torch.where(constant, values[0], mean), torch.where(constant, 1.0, std)) if scale else (mean, std)
    return Scaling(tuple(columns), mean, std)


def _refuse_dirty(path: Path, name: str, column) -> None:
    """A column of numbers but for some entries is a mistake in the table, and no factor."""
    text = column.dropna().astype(str)
    wrong = [entry for entry in text if not _number(entry)]
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
