"""CelebA by attribute: faces with a hat or glasses against faces with neither [Contrast21, App. A.1]."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from twofold.arrays import generator
from twofold.data.dataset import Dataset
from twofold.data.photos import Photos, up_to
from twofold.data.registry import Files, builtin
from twofold.errors import InputError, choose, whole

FOLDER = "img_align_celeba"
LISTS = ("list_attr_celeba.txt", "list_eval_partition.txt")


@builtin(
    "celeba",
    shape=(3, 64, 64),
    n=12_000,
    factors=("attribute", "Male", "Smiling"),
    default="attribute",
    source="Liu, Luo, Wang & Tang 2015",
    licence="non-commercial research only",
    background=True,
    files=tuple(f"celeba/{name}" for name in LISTS),
)
def celeba(
    files: Files,
    *,
    attributes: Sequence[str] = ("Wearing_Hat", "Eyeglasses"),
    also: Sequence[str] = ("Male", "Smiling"),
    per_class: int = 5000,
    size: int = 64,
    seed: int = 0,
) -> Dataset:
    """Faces with a hat or with glasses, and a background of faces with neither; official split: train, val, test.

    Read from a copy of one's own, in `celeba/` or in the data folder itself: the aligned photographs (178 x 218) in
    `img_align_celeba/`, `list_attr_celeba.txt` and `list_eval_partition.txt`. They are decoded when `.x` is asked for,
    cropped to the square in the middle (which keeps hats) and resized. The factor `attribute` says which of the
    attributes a face has; those with several are left out. The parts are those of the partition file (the paper states
    none), the rows are drawn at random.

    Options:
        attributes: what the target has, one of them each; as in the first file.
        also: attributes of both sets, to measure what z tells: factors of 0 and 1.
        per_class: at most so many of each attribute in the training part, a tenth of that in the two others; the
            background has as many as the target may have in all (the paper: 5,000 of each, and 10,000).
        size: images of size x size.
    """
    attributes = [attributes] if isinstance(attributes, str) else list(attributes)
    also = [also] if isinstance(also, str) else list(also)
    listed, parted = (files.need("celeba", f"celeba/{name}", name) for name in LISTS)
    folder = files.folder("celeba", f"celeba/{FOLDER}", FOLDER)
    known, names, table = _attributes(listed)
    for name in (*attributes, *also):
        choose("attributes", name, known)
    if not attributes or len(set(attributes)) < len(attributes):
        raise InputError(f"attributes: {attributes}; expected one or more, each once")
    part = _partition(parted, names)
    has = table[:, [known.index(name) for name in attributes]] > 0
    per_class, random = whole("per_class", per_class, 10), generator(whole("seed", seed, 0), 15)
    target, back = [], []
    for number in range(3):
        most = per_class if number == 0 else per_class // 10
        alone = (part == number) & (has.sum(1) == 1)
        each = [up_to(most, np.flatnonzero(alone & has[:, k]), random) for k in range(len(attributes))]
        target.append(np.sort(np.concatenate(each)))
        back.append(up_to(most * len(attributes), np.flatnonzero((part == number) & ~has.any(1)), random))
        if min(map(len, (*each, back[-1]))) == 0:
            kind = ("training", "validation", "test")[number]
            counts = ", ".join(f"{len(rows)} with {name}" for rows, name in zip(each, attributes))
            raise InputError(
                f"{listed}: the {kind} part holds {counts}, {len(back[-1])} with none; expected some of each"
            )

    def chosen(parts: list[np.ndarray], **more) -> Dataset:
        rows = np.concatenate(parts)
        edges = np.cumsum([0, *map(len, parts)])
        official = tuple(np.arange(a, b) for a, b in pairwise(edges))
        factors = {name: (table[rows, known.index(name)] > 0).astype(np.int64) for name in also}
        if more:
            factors = {"attribute": has[rows].argmax(1)} | factors
        photos = Photos(folder, names[rows], whole("size", size, 8))
        return Dataset(photos, factors, splits={"official": official}, **more)

    return chosen(target, default="attribute", names={"attribute": attributes}, background=chosen(back))


def _attributes(path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names of the attributes, of the photographs `[N]`, and a table `[N, 40]` of 1 and -1.

    The file's first line is N, its second the attributes' names; then a line a photograph, its name first.
    """
    frame = _table(path, skiprows=1, index_col=0)
    with path.open(errors="replace") as file:
        count = file.readline().strip()
    values = frame.to_numpy()
    if count != str(len(frame)) or frame.shape[1] < 1 or not np.isin(values, (1, -1)).all():
        raise InputError(
            f"{path}: {len(frame)} rows of {frame.shape[1]} attributes; expected a line with their number ({count}?), "
            "one with the attributes' names, then as many rows of a file name and 1 or -1 for each"
        )
    return list(frame.columns), frame.index.to_numpy(str), values.astype(np.int8)


def _partition(path: Path, names: np.ndarray) -> np.ndarray:
    """Each photograph's part: 0 to train, 1 to validate, 2 to test. A line a photograph: its name, its part."""
    frame = _table(path, header=None)
    part = frame.drop_duplicates(0).set_index(0)[1].reindex(names) if frame.shape[1] == 2 else frame[0]
    absent = names[~part.isin((0, 1, 2)).to_numpy()] if frame.shape[1] == 2 else names
    if len(absent):
        raise InputError(f"{path}: no part 0, 1 or 2 for {len(absent)} of {len(names)} photographs, {absent[0]} first")
    return part.to_numpy(int)


def _table(path: Path, **how):
    import pandas as pd

    try:
        return pd.read_csv(path, sep=r"\s+", **how)
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise InputError(f"{path}: can't be read as a table ({' '.join(str(error).split())[:120]})") from None
