"""A folder of images, one sub-folder a class or group."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from twofold.data.dataset import Dataset
from twofold.data.pixels import as_mode, is_grey
from twofold.errors import InputError, choose, shown, whole

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm")


def folder(
    path: Path,
    *,
    size: int | tuple[int, int] | None = None,
    grey: bool | None = None,
    unlabelled: str | None = None,
) -> Dataset:
    """The images under `path`; the first level of sub-folders is the factor `label`, in sorted order.

    Without sub-folders there is no factor, and `images()` is what it gives. Hidden files and files of other kinds are
    passed over; and so, where two sub-folders hold images, are those that hold none (`.empty` names them). Photographs
    are turned upright as their EXIF data say; transparency is dropped.

    Options:
        size: resize to size x size, or (height, width); else all images must agree.
        grey: True: one channel, False: three; None: one if no image has colour.
        unlabelled: the sub-folder of images whose label is not known: theirs is -1.

    Raises one `InputError` that names the files that can't be read, or the sizes that differ.
    """
    from PIL import Image, ImageOps

    shape = _shape(size)
    files = _images(path)
    inside, empty = _inside(path, files)

    def header(i: int) -> tuple[str, tuple[int, int]]:
        with Image.open(files[i]) as image:
            known = "exif" in image.info or image.format != "PNG"  # else PIL would decode the file to look for it
            turned = known and image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            return image.mode, image.size if turned else (image.height, image.width)

    def decode(i: int) -> None:
        with Image.open(files[i]) as image:
            image.load()

    heads, faults = _attempt(header, range(len(files)))
    if faults:  # one error for all: what begins well may end early
        faults |= _attempt(decode, set(range(len(files))) - set(faults))[1]
    _refuse(path, files, faults)
    if grey is None:
        grey = all(is_grey(mode) for mode, _ in heads)
    height, width = shape or heads[0][1]
    other = next((i for i, (_, found) in enumerate(heads) if found != (height, width)), None)
    if shape is None and other is not None:
        raise InputError(
            f"{path}: {files[other].relative_to(path)} is {_times(heads[other][1])} pixels, "
            f"{files[0].relative_to(path)} {_times((height, width))}; pass size= to resize all"
        )
    x = np.empty((len(files), 1 if grey else 3, height, width), np.uint8)

    def read(i: int) -> None:
        with Image.open(files[i]) as image:
            image = as_mode(ImageOps.exif_transpose(image), "L" if grey else "RGB")
            if image.size != (width, height):
                image = image.resize((width, height), Image.Resampling.BILINEAR)
            pixels = np.asarray(image)
            x[i] = pixels if grey else pixels.transpose(2, 0, 1)

    _refuse(path, files, _attempt(read, range(len(files)))[1])
    if unlabelled is None:
        data = Dataset(x, {"label": inside} if inside else None, name=path.name)
    else:
        choose("unlabelled", unlabelled, sorted(set(inside)))
        names = tuple(sorted({*inside} - {unlabelled}))
        label = np.array([-1 if name == unlabelled else names.index(name) for name in inside])
        data = Dataset(x, {"label": label}, name=path.name, names={"label": names})
    data.empty = tuple(empty)
    return data


def _images(path: Path) -> list[Path]:
    found = (p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(path).parts))


def _inside(path: Path, files: list[Path]) -> tuple[list[str], list[str]]:
    """Each file's sub-folder (none if there are no such), and the sub-folders without files. Refuses folders that are
    neither flat nor sorted."""
    inside = [file.relative_to(path).parts[0] for file in files if file.parent != path]
    if inside and len(inside) < len(files):
        loose = [file.name for file in files if file.parent == path]
        raise InputError(f"{path}: {len(loose)} images lie beside the sub-folders ({_some(loose)}); move them into one")
    below = {sub.name for sub in path.iterdir() if sub.is_dir() and not sub.name.startswith(".")}
    empty = sorted(below - set(inside))
    if not files or (empty and len(set(inside)) < 2):
        where = f" in {_some(empty)}" if empty else ""
        raise InputError(f"{path}: no images{where}; expected {', '.join(SUFFIXES)}")
    return inside, empty


def _attempt(read: Callable[[int], Any], numbers: Iterable[int]) -> tuple[list[Any], dict[int, str]]:
    """`read` of each file's number, in threads (PIL decodes without the interpreter's lock); and which failed, why."""

    def one(i: int) -> Any:
        try:
            return read(i)
        except Exception as error:  # PIL's plug-ins raise anything on a broken file
            faults[i] = " ".join(str(error).split()) or type(error).__name__

    faults: dict[int, str] = {}
    with ThreadPoolExecutor() as pool:
        return list(pool.map(one, numbers)), faults


def _refuse(path: Path, files: list[Path], faults: dict[int, str]) -> None:
    if faults:
        bad = sorted(faults)
        names = _some([str(files[i].relative_to(path)) for i in bad])
        raise InputError(f"{path}: {len(bad)} of {len(files)} files can't be read: {names} ({faults[bad[0]][:100]})")


def _shape(size: object) -> tuple[int, int] | None:
    if size is None:
        return None
    sides = tuple(size) if isinstance(size, tuple | list) else (size, size)
    if len(sides) != 2:
        raise InputError(f"size: {shown(size)}; expected a whole number, or (height, width)")
    return whole("size", sides[0], 8), whole("size", sides[1], 8)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _times(sides: Iterable[int]) -> str:
    return " x ".join(map(str, sides))
