"""Finds the built-in data sets in this folder, and loads by name or by path."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from twofold.data.dataset import Dataset
from twofold.errors import InputError, MissingFileError, choose, shown


@dataclass(frozen=True)
class Entry:
    """What is known of a built-in data set without loading it (with its default options)."""

    name: str
    shape: tuple[int, ...]  # of one observation
    n: int
    factors: tuple[str, ...]
    default: str  # the factor of labels(), groups() and triplets()
    source: str
    licence: str
    background: bool  # whether it has a background set of its own, for reference()
    files: tuple[str, ...]  # needed under the data folder; none: it comes with a dependency, or is made
    sought: str  # the classes that the background lacks: what a method that learns from reference() should put into s
    build: Callable[..., Dataset]

    @property
    def supervision(self) -> tuple[str, ...]:
        """The kinds that it gives as it is; reference() of the others needs `background="FACTOR=VALUE"`."""
        return ("images", "labels", "groups", "triplets", *(["reference"] if self.background else []))

    @property
    def summary(self) -> str:
        return (inspect.getdoc(self.build) or "").partition("\n")[0]

    @property
    def options(self) -> dict[str, Any]:
        """Names and defaults of what `load(name, ...)` takes."""
        return _options(self.build)

    def load(self, root: str | os.PathLike | None, download: bool, options: dict[str, Any]) -> Dataset:
        _refuse_unknown(self.name, options, self.build)
        files = [Files.under(root, download)] if self.files else []
        data = self.build(*files, **options)
        data.name = self.name
        if data.background is not None:
            data.background.name = f"{self.name}, background"
        return data


def builtin(
    name: str,
    *,
    shape: tuple[int, ...],
    n: int,
    factors: tuple[str, ...],
    default: str,
    source: str,
    licence: str,
    background: bool = False,
    files: tuple[str, ...] = (),
    sought: str | None = None,
):
    """Declares the function below to be the built-in data set `name`. Its keywords are the data set's options.

    One that needs `files` takes a `Files` as its first argument. `sought` is the default factor unless given.
    """

    def declare(build):
        about = (name, shape, n, factors, default, source, licence, background, files, sought or default)
        build.entry = Entry(*about, build)
        return build

    return declare


class Files(NamedTuple):
    """The folder that holds the data, and whether what it lacks may be downloaded."""

    root: Path
    download: bool

    @classmethod
    def under(cls, root: str | os.PathLike | None, download: bool) -> Files:
        if root is None and os.environ.get("TWOFOLD_DATA"):
            root = os.environ["TWOFOLD_DATA"]
        if root is None:
            import pooch

            return cls(Path(pooch.os_cache("twofold")), download)
        folder = Path(root).expanduser()
        if not folder.is_dir() and not download:
            raise MissingFileError(
                f"root (or TWOFOLD_DATA): {str(root)!r} is not a folder; expected the one that holds the data sets"
            )
        return cls(folder, download)

    def find(self, *candidates: str) -> Path | None:
        """The first of the candidates (relative paths) that exists."""
        return next((path for path in (self.root / name for name in candidates) if path.is_file()), None)

    def need(self, data: str, *candidates: str) -> Path:
        """`find`, or a `MissingFileError` that says how to get it."""
        path = self.find(*candidates)
        if path is None:
            raise self.missing(data, candidates[0], "twofold can't download it; ")
        return path

    def folder(self, data: str, *candidates: str) -> Path:
        """The first of the candidates that is a folder, or a `MissingFileError` as from `need`."""
        path = next((path for path in (self.root / name for name in candidates) if path.is_dir()), None)
        if path is None:
            raise self.missing(data, f"the folder {candidates[0]}", "twofold can't download it; ")
        return path

    def missing(self, data: str, file: str, how: str) -> MissingFileError:
        return MissingFileError(
            f"{data}: {file} is not in {self.root}; {how}name the folder that holds it by root= (--data-dir) "
            "or the environment variable TWOFOLD_DATA"
        )


@cache
def available() -> tuple[Entry, ...]:
    """The built-in data sets, found by walking this folder. Loads none of them."""
    package = __package__ or "twofold.data"
    folder = [str(Path(__file__).parent)]
    modules = [importlib.import_module(f"{package}.{module.name}") for module in pkgutil.iter_modules(folder)]
    found = [value for module in modules for value in vars(module).values() if hasattr(value, "entry")]
    return tuple(dict.fromkeys(value.entry for value in found))


def load(
    name_or_path: str | os.PathLike | torch.utils.data.Dataset,
    *,
    root: str | os.PathLike | None = None,
    download: bool = False,
    **options: Any,
) -> Dataset:
    """A data set by name (`available()` lists them), or from one's own files.

    A folder of images, a `.csv` or `.tsv` table, an `.npz` or `.npy` file, or a map-style torch `Dataset` do as well;
    for the options see `folder.folder`, `table.table`, `npz.npz`, `npz.npy`. A built-in name wins over a
    path; write `./mnist` for a folder of that name.

    Arguments:
        root: the folder that holds the built-in sets' files; the environment variable TWOFOLD_DATA unless given, else
            the user's cache folder, where downloads go.
        download: whether missing files may be downloaded (mnist only); their hashes are verified.
        options: the data set's own; `available()` shows those of the built-in ones.

    Raises `InputError` for unknown names and options and for files that can't be read, `MissingFileError` for files
    that aren't there. Nothing that is loaded is executed.
    """
    from twofold.data.folder import folder
    from twofold.data.npz import npy, npz
    from twofold.data.table import table

    if isinstance(name_or_path, torch.utils.data.Dataset):
        _refuse_unknown("a torch Dataset", options, Dataset.from_torch)
        return Dataset.from_torch(name_or_path, **options)
    if not isinstance(name_or_path, str | os.PathLike):
        raise InputError(f"data: {shown(name_or_path)}; expected a name, a path or a torch Dataset")
    entries = {entry.name: entry for entry in available()}
    if name_or_path in entries:
        return entries[str(name_or_path)].load(root, download, options)
    path = Path(name_or_path).expanduser()
    readers = {".csv": table, ".tsv": table, ".npz": npz, ".npy": npy}
    reader = folder if path.is_dir() else readers.get(path.suffix.lower())
    if not path.exists():
        if reader or len(path.parts) > 1:
            raise MissingFileError(f"data: {str(path)!r} does not exist")
        choose("data", str(name_or_path), [*entries, "a folder of images", *(f"a {kind} file" for kind in readers)])
    if reader is None:
        raise InputError(f"data: {str(path)!r}; expected a folder of images, or a file {', '.join(readers)}")
    _refuse_unknown(path.name, options, reader)
    try:
        return reader(path, **options)
    except InputError as error:
        raise error if str(path) in str(error) else InputError(f"{path}: {error}") from None


def _options(build: Callable) -> dict[str, Any]:
    parameters = inspect.signature(build).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def _refuse_unknown(data: str, options: dict[str, Any], build: Callable) -> None:
    known = _options(build)
    for option in options:
        if not known:
            raise InputError(f"option: {option!r}; {data} takes none")
        choose(f"option of {data}", option, known)
