"""Photographs on disk, decoded when asked for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from twofold.data.pixels import as_mode
from twofold.errors import InputError, MissingFileError


class Photos:
    """Colour photographs, cropped and resized to a square, read from their files each time.

    `files [N]` below `folder`; `boxes [N, 4]`: left, top, right and bottom of the part to keep, in pixels (what lies
    outside of the photograph is cut off); without, the largest square in the middle.

    Raises `MissingFileError` where files are not there, `InputError` on decoding those that can't be read.
    """

    def __init__(self, folder: Path, files: np.ndarray, size: int, boxes: np.ndarray | None = None):
        self.folder, self.files, self.size, self.boxes = folder, files, size, boxes
        self.shape = (len(files), 3, size, size)
        absent = [name for name in files if not (folder / name).is_file()]
        if absent:
            raise MissingFileError(
                f"{folder}: {len(absent)} of {len(files)} photographs are missing, {absent[0]} first"
            )

    def decode(self, rows: np.ndarray) -> Tensor:
        """uint8 `[n, 3, size, size]`."""
        with ThreadPoolExecutor() as pool:  # PIL decodes without the interpreter's lock
            pixels = np.stack([*pool.map(self._read, rows.tolist())])
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()

    def _read(self, row: int) -> np.ndarray:
        from PIL import Image

        path = self.folder / self.files[row]
        try:
            with Image.open(path) as file:
                file.load()
                image = as_mode(file, "RGB")
        except Exception as error:  # PIL's plug-ins raise anything on a broken file
            raise InputError(f"{path}: can't be read ({' '.join(str(error).split())[:100]})") from None
        across, down = image.size
        if self.boxes is None:
            side = min(across, down)
            box = ((across - side) // 2, (down - side) // 2, (across + side) // 2, (down + side) // 2)
        else:
            left, top, right, bottom = self.boxes[row].tolist()
            box = (max(left, 0), max(top, 0), min(right, across), min(bottom, down))
            if box[0] >= box[2] or box[1] >= box[3]:
                raise InputError(f"{path}: the box {(left, top, right, bottom)} is not in its {across} x {down} pixels")
        return np.asarray(image.crop(box).resize((self.size, self.size), Image.Resampling.BILINEAR))


def up_to(most: int | None, rows: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """At most so many of the rows, drawn at random, in order."""
    return rows if most is None or len(rows) <= most else np.sort(random.permutation(rows)[:most])
