"""Extended Yale B: faces in many lights [Georghiades, Belhumeur & Kriegman 2001; Lee, Ho & Kriegman 2005]."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from twofold.data.dataset import Dataset
from twofold.data.registry import Files, builtin
from twofold.errors import InputError, whole

FACTORS = {"subject": "yaleB{:02d}", "pose": "P{:02d}", "azimuth": "{}", "elevation": "{}"}  # and their classes' names
NAME = re.compile(r"yaleB(\d\d)_P(\d\d)A([+-]\d{3})E([+-]\d\d)\.pgm")
FIRST = "yaleb/yaleB01/yaleB01_P00A+000E+00.pgm"


@builtin(
    "yaleb",
    shape=(1, 96, 84),
    n=2_414,
    factors=("subject", "azimuth", "elevation"),
    default="subject",
    source="Georghiades et al. 2001, cropped by Lee et al. 2005",
    licence="research use only",
    files=(FIRST,),
)
def yaleb(files: Files, *, size: int = 96) -> Dataset:
    """38 faces (cropped) in 64 lights, whose azimuth and elevation are degrees to the side and up.

    The authors' folders `yaleB01`, `yaleB02`, ... of files `yaleB01_P00A+005E-10.pgm` are looked for in `yaleb/`,
    `yaleb/CroppedYale/` and `CroppedYale/`. What has other names is passed over: `_Ambient.pgm` (no lamp), `.bad`. The
    uncropped faces will do as well; where there are several poses (`P00`, `P01`, ...), so is there a factor `pose`.

    Options:
        size: height in pixels, 8 to that of the files; the width follows in proportion. By area averages.
    """
    from PIL import Image

    paths = _faces(files)
    full = _face(paths[0]).size
    height = whole("size", size, 8, full[1])
    small = (round(full[0] * height / full[1]), height)
    x = np.empty((len(paths), 1, *small[::-1]), np.uint8)
    for i, path in enumerate(paths):
        face = _face(path)
        if face.size != full:
            raise InputError(f"{path}: {face.width} x {face.height} pixels; expected {full[0]} x {full[1]}")
        x[i, 0] = np.asarray(face.resize(small, Image.Resampling.BOX))
    numbers = np.array([[int(v) for v in NAME.fullmatch(path.name).groups()] for path in paths])  # pyright: ignore
    factors, names = {}, {}
    for (factor, form), values in zip(FACTORS.items(), numbers.T):
        known, classes = np.unique(values, return_inverse=True)
        if factor != "pose" or len(known) > 1:
            factors[factor], names[factor] = classes, [form.format(v) for v in known]
    return Dataset(x, factors, default="subject", names=names)


def _face(path: Path):
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.convert("L")
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path}: can't be read ({error}); truncated, or no PGM image") from None


def _faces(files: Files) -> list[Path]:
    """The files of all subjects, sorted."""
    for folder in ("yaleb", "yaleb/CroppedYale", "CroppedYale"):
        paths = sorted(p for p in (files.root / folder).glob("yaleB[0-9][0-9]/*.pgm") if NAME.fullmatch(p.name))
        if paths:
            return paths
    how = "get the cropped Extended Yale B faces from its authors (CroppedYale.zip) and put its folders there; or "
    raise files.missing("yaleb", FIRST, how)
