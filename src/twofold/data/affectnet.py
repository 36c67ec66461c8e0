"""AffectNet-style folders: faces with an expression against neutral ones [Ruiz19, Sec. 5.1; Contrast21, App. A.1]."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from twofold.arrays import generator
from twofold.data.dataset import Dataset
from twofold.data.photos import Photos, up_to
from twofold.data.registry import Files, builtin
from twofold.errors import InputError, whole

FOLDER = "Manually_Annotated_Images"
LISTS = ("training.csv", "validation.csv")
EXPRESSIONS = ("happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")  # 1 to 7; 0 is neutral
BOX = ["face_x", "face_y", "face_width", "face_height"]
COLUMNS = ["subDirectory_filePath", *BOX, "expression", "valence", "arousal"]


@builtin(
    "affectnet",
    shape=(3, 96, 96),
    n=36_053,
    factors=("expression", "valence", "arousal"),
    default="expression",
    source="Mollahosseini, Hasani & Mahoor 2017",
    licence="by agreement with the authors, research only",
    background=True,
    files=tuple(f"affectnet/{name}" for name in LISTS),
)
def affectnet(
    files: Files, *, per_class: int | None = 5000, reference: int | None = 10_000, size: int = 96, seed: int = 0
) -> Dataset:
    """Faces with one of seven expressions, and a background of neutral ones; official split: train, test.

    Read from a copy of one's own, in `affectnet/` or in the data folder itself: `training.csv` and `validation.csv`
    with the columns of the manually annotated part (subDirectory_filePath, face_x, face_y, face_width, face_height,
    facial_landmarks, expression, valence, arousal), and the photographs in `Manually_Annotated_Images/`. They are
    decoded when `.x` is asked for, cropped to the face's rectangle and resized; not aligned (Ruiz19 maps landmarks to a
    mean face). Rows of no, of an uncertain or of no face's expression are left out. `valence` and `arousal` are in
    [-1, 1].

    Options:
        per_class: at most so many training faces of each expression, at random; None: all. (Contrast21: 5,000; of two
            expressions there are fewer.)
        reference: at most so many neutral training faces; None: all. Ruiz19 collected 10,000 others, because
            AffectNet's neutral labels are unreliable.
        size: images of size x size.
    """
    listed = [files.need("affectnet", f"affectnet/{name}", name) for name in LISTS]
    folder = files.folder("affectnet", f"affectnet/{FOLDER}", FOLDER)
    random, tables = generator(whole("seed", seed, 0), 16), [_read(path) for path in listed]
    each = None if per_class is None else whole("per_class", per_class, 1)
    most = None if reference is None else whole("reference", reference, 1)
    target, back = [], []
    for number, (path, table) in enumerate(zip(listed, tables)):
        expression = table["expression"].to_numpy()
        limits = (each, most) if number == 0 else (None, None)
        kinds = [up_to(limits[0], np.flatnonzero(expression == k), random) for k in range(1, 8)]
        target.append(table.iloc[np.sort(np.concatenate(kinds))])
        back.append(table.iloc[up_to(limits[1], np.flatnonzero(expression == 0), random)])
        if not len(target[-1]) or not len(back[-1]):
            found = f"{len(back[-1])} neutral faces (0), {len(target[-1])} with another expression (1 to 7)"
            raise InputError(f"{path}: {found}; expected some of each")

    def chosen(parts, **more) -> Dataset:
        import pandas as pd

        first, rows = len(parts[0]), pd.concat(parts)
        corner, extent = rows[BOX[:2]].to_numpy(int), rows[BOX[2:]].to_numpy(int)
        photos = Photos(
            folder,
            rows["subDirectory_filePath"].to_numpy(str),
            whole("size", size, 8),
            np.concatenate([corner, corner + extent], 1),
        )
        factors = {name: rows[name].to_numpy(np.float32) for name in ("valence", "arousal")}
        if more:
            factors = {"expression": rows["expression"].to_numpy(int) - 1} | factors
        official = (np.arange(first), np.arange(first, len(rows)))
        return Dataset(photos, factors, splits={"official": official}, **more)

    return chosen(target, default="expression", names={"expression": EXPRESSIONS}, background=chosen(back))


def _read(path: Path) -> Any:
    """The rows whose expression is 0 (neutral) to 7."""
    import pandas as pd

    try:
        table: Any = pd.read_csv(path, usecols=lambda name: name in COLUMNS)
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise InputError(f"{path}: can't be read as a table ({' '.join(str(error).split())[:120]})") from None
    absent = [name for name in COLUMNS if name not in table]
    if absent:
        raise InputError(f"{path}: no column {', '.join(absent)}; expected AffectNet's {', '.join(COLUMNS)}")
    for name in COLUMNS[1:]:
        table[name] = pd.to_numeric(table[name], errors="coerce")
    table = table[table["expression"].between(0, 7)]
    bad = table[COLUMNS].isna().any(axis=1)
    if bad.any():
        raise InputError(
            f"{path}: {int(bad.sum())} rows hold no numbers, {table['subDirectory_filePath'][bad].iloc[0]}"
        )
    return table
