"""MNIST from its four original IDX files, gzipped or not."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

from twofold.data.dataset import Dataset
from twofold.data.registry import Files, builtin
from twofold.errors import InputError

MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
SHA256 = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}


@builtin(
    "mnist",
    shape=(1, 28, 28),
    n=70_000,
    factors=("digit",),
    default="digit",
    source="LeCun, Cortes & Burges",
    licence="CC BY-SA 3.0",
    files=tuple(f"mnist/{name}" for name in SHA256),
)
def mnist(files: Files) -> Dataset:
    """Handwritten digits of 28 x 28 pixels; official split: 60,000 to train, 10,000 to test.

    The four files are looked for in `mnist/` and in the data folder itself, gzipped or not; `download=True` fetches
    what is missing and verifies its SHA-256.
    """
    paths = [_path(files, name) for name in SHA256]
    train, y_train, test, y_test = (idx(path) for path in paths)
    for images, labels, path in ((train, y_train, paths[1]), (test, y_test, paths[3])):
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise InputError(f"{path}: labels {list(labels.shape)} for images {list(images.shape)}; expected as many")
    if train.shape[1:] != test.shape[1:]:
        raise InputError(f"{paths[2]}: images of {test.shape[1:]}; expected {train.shape[1:]} as in {paths[0].name}")
    official = (np.arange(len(train)), np.arange(len(train), len(train) + len(test)))
    x = np.concatenate([train, test])[:, None]
    return Dataset(x, {"digit": np.concatenate([y_train, y_test])}, splits={"official": official})


def _path(files: Files, name: str) -> Path:
    plain = name.removesuffix(".gz")
    path = files.find(f"mnist/{name}", f"mnist/{plain}", name, plain)
    if path is None and not files.download:
        raise files.missing("mnist", f"mnist/{name}", "pass download=True (--download), or ")
    return path or _download(name, files.root / "mnist")


def _download(name: str, folder: Path) -> Path:
    import pooch

    reasons = []
    for mirror in MIRRORS:
        try:
            return Path(pooch.retrieve(mirror + name, f"sha256:{SHA256[name]}", fname=name, path=folder))
        except (OSError, ValueError) as error:  # no network or no space; a wrong hash
            reasons.append(f"{mirror}: {' '.join(str(error).split())}"[:160])
    raise InputError(f"mnist: {name} could not be downloaded ({'; '.join(reasons)})")


def idx(path: Path) -> np.ndarray:
    """The array of unsigned bytes in an IDX file: two zero bytes, type 8, number of axes, their big-endian lengths."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: can't be read ({error}); truncated, or not gzipped") from None
    axes = content[3] if content[:3] == b"\x00\x00\x08" and len(content) > 3 else 0
    shape = tuple(int(length) for length in np.frombuffer(content[4 : 4 + 4 * axes], ">u4")) if axes else ()
    if not axes or len(shape) != axes or len(content) != 4 + 4 * axes + int(np.prod(shape)):
        raise InputError(f"{path}: {len(content):,} bytes; truncated, or not an IDX file of unsigned bytes")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)
