"""Digits on grass: the linear and the non-linear data of Contrast21, with any amount of grass to learn from."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from twofold.arrays import generator
from twofold.data.dataset import Dataset
from twofold.data.digits import digits as load_digits
from twofold.data.mnist import SHA256
from twofold.data.mnist import mnist as load_mnist
from twofold.data.options import fraction
from twofold.data.pixels import resized
from twofold.data.registry import Files, builtin
from twofold.errors import InputError, shown, whole

EDGE = 384  # the photograph's rows above it are for training, those below for testing
FACTORS = {"factors": ("digit", "brightness"), "default": "digit", "background": True}
MNIST_FILES = tuple(f"mnist/{name}" for name in SHA256)
GRASS = "on scikit-image's grass() (CC0), [Contrast21, App. A.1]"


@builtin("grassy-digits", shape=(1, 8, 8), n=1740, source=f"digits {GRASS}", licence="CC BY 4.0", **FACTORS)
def grassy_digits(
    *, rho: float = 0.5, per_digit: int | None = None, patches: int = 4986, size: int = 8, seed: int = 0
) -> Dataset:
    """8 x 8 digits mixed with grass [Contrast21, Eq. 10], and a background of grass; official split: train, test.

    As `grassy-mnist`, on a random 80 % (train) and 20 % (test) of scikit-learn's digits. The grass is cropped, not
    shrunk, to 8 x 8: so it keeps its blades (neighbouring pixels correlate at 0.65; shrunk from 16 x 16, at 0.54).
    """
    return _grassy(*_digits(seed), rho, None, per_digit, patches, size, seed)


@builtin("grassy-digits-nl", shape=(1, 8, 8), n=1740, source=f"digits {GRASS}", licence="CC BY 4.0", **FACTORS)
def grassy_digits_nl(
    *,
    rho: float = 0.5,
    threshold: float = 0.3,
    per_digit: int | None = None,
    patches: int = 4986,
    size: int = 8,
    seed: int = 0,
) -> Dataset:
    """8 x 8 digits mixed with grass where the grass is bright enough [Contrast21, Eq. 11]; else as grassy-digits."""
    return _grassy(*_digits(seed), rho, fraction("threshold", threshold), per_digit, patches, size, seed)


@builtin(
    "grassy-mnist",
    shape=(1, 28, 28),
    n=58_780,
    source=f"MNIST {GRASS}",
    licence="CC BY-SA 3.0",
    files=MNIST_FILES,
    **FACTORS,
)
def grassy_mnist(
    files: Files,
    *,
    rho: float = 0.5,
    per_digit: int = 4986,
    patches: int = 4986,
    size: int = 28,
    colour: bool = False,
    seed: int = 0,
) -> Dataset:
    """MNIST mixed with grass, x = rho y + (1 - rho) t [Contrast21, Eq. 10], and a background of grass.

    Grey; official split: train and test, whose digits come from MNIST's own parts and whose grass from disjoint
    regions of the photograph (rows 0..383, 384..511), cropped at any offset. `brightness` is the mean of the grass
    patch beneath the digit, in [0, 1]: what the two sets have in common.

    Options:
        rho: the weight of the grass.
        per_digit: training images of each digit. The paper's 4,986 is said to be the rarest digit's count; that is
            5,421 (digit 5). The test part has as many, or as many as its rarest digit allows (892).
        patches: how many patches of grass the training background holds; each image's grass is one of them, as in the
            paper. The test background is smaller in proportion.
        size: images of size x size; digits are resized, grass is cropped.
        colour: tint the grass, each patch with a green of its own (`tinted`), under digits that stay grey: three
            channels. The paper's grass is ImageNet's, in colour.
    """
    return _grassy(*_mnist(files), rho, None, per_digit, patches, size, seed, colour)


@builtin(
    "grassy-mnist-nl",
    shape=(1, 28, 28),
    n=58_780,
    source=f"MNIST {GRASS}",
    licence="CC BY-SA 3.0",
    files=MNIST_FILES,
    **FACTORS,
)
def grassy_mnist_nl(
    files: Files,
    *,
    rho: float = 0.5,
    threshold: float = 0.3,
    per_digit: int = 4986,
    patches: int = 4986,
    size: int = 28,
    seed: int = 0,
) -> Dataset:
    """MNIST mixed with grass where the grass y > threshold, black elsewhere [Contrast21, Eq. 11]; as grassy-mnist."""
    return _grassy(*_mnist(files), rho, fraction("threshold", threshold), per_digit, patches, size, seed)


def superimpose(y: Tensor, t: Tensor, rho: float = 0.5, threshold: float | None = None) -> Tensor:
    """Grass `y` and digits `t`, uint8 of one shape, mixed [Contrast21, Eq. 10; with a threshold, Eq. 11].

    The equations' [0, 1] is 0..255 here, and the result is rounded (halves to even).
    """
    x = rho * y.float() + (1 - rho) * t.float()
    if threshold is not None:
        x *= y.float() / 255 > threshold
    return x.round_().to(torch.uint8)


def grass(n: int, size: int, top: int, bottom: int, random: np.random.Generator) -> Tensor:
    """`n` patches uint8 `[n, 1, size, size]` of the photograph's rows top..bottom - 1, at random offsets."""
    import skimage.data

    windows = np.lib.stride_tricks.sliding_window_view(skimage.data.grass()[top:bottom], (size, size))
    i, j = (random.integers(0, count, n) for count in windows.shape[:2])
    return torch.from_numpy(windows[i, j][:, None])


def tinted(y: Tensor, random: np.random.Generator) -> Tensor:
    """Grey patches `[n, 1, h, w]` times a colour each, `[n, 3, h, w]`: red 0.4 to 0.9 of the brightness, green 0.9 to
    1, blue 0.1 to 0.5."""
    colours = random.uniform((0.4, 0.9, 0.1), (0.9, 1.0, 0.5), (len(y), 3))
    return (y * torch.from_numpy(colours).float()[:, :, None, None]).round_().to(torch.uint8)


def _digits(seed: int) -> tuple[Dataset, Dataset]:
    train, test = load_digits().split((0.8, 0.2), whole("seed", seed, 0))
    return train, test


def _mnist(files: Files) -> tuple[Dataset, Dataset]:
    train, test = load_mnist(files).split("official")
    return train, test


def _grassy(train: Dataset, test: Dataset, rho, threshold, per_digit, patches, size, seed, colour=False) -> Dataset:
    if not isinstance(colour, bool):
        raise InputError(f"colour: {shown(colour)}; expected True (tinted grass) or False (grey)")
    rho, seed = fraction("rho", rho), whole("seed", seed, 0)
    size, patches = whole("size", size, 8, 512 - EDGE), whole("patches", patches, 2)
    rarest = [int(part.factors["digit"].bincount(minlength=10).min()) for part in (train, test)]
    if min(rarest) < 1:
        raise InputError("per_digit: some digit is missing from the images; expected all ten")
    each = whole("per_digit", rarest[0] if per_digit is None else per_digit, 1, rarest[0])
    counts = (each, min(each, rarest[1]))
    grounds = (patches, max(1, round(patches * counts[1] / counts[0])))
    x, digit, brightness, y, shade = [], [], [], [], []
    for k, (part, region) in enumerate(((train, (0, EDGE)), (test, (EDGE, 512)))):
        random = generator(seed, 12, k)
        back = grass(grounds[k], size, *region, random)
        labels = part.factors["digit"].numpy()
        shuffled = random.permutation(len(part))
        order = shuffled[np.argsort(labels[shuffled], kind="stable")]
        starts = np.searchsorted(labels[order], np.arange(10))
        rows = random.permutation(order[(starts[:, None] + np.arange(counts[k])).ravel()])
        beneath = torch.from_numpy(random.integers(0, len(back), len(rows)))
        light = back.float().mean((1, 2, 3)) / 255
        if colour:
            back = tinted(back, random)
        images = torch.as_tensor(part[rows].x)
        x.append(superimpose(back[beneath], resized(images, size), rho, threshold))
        digit.append(part.factors["digit"][torch.from_numpy(rows)])
        brightness.append(light[beneath])
        y.append(back)
        shade.append(light)
    ground = Dataset(torch.cat(y), {"brightness": torch.cat(shade)}, splits=_official(y))
    return Dataset(
        torch.cat(x),
        {"digit": torch.cat(digit), "brightness": torch.cat(brightness)},
        default="digit",
        splits=_official(x),
        background=ground,
    )


def _official(parts: list[Tensor]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    first, n = len(parts[0]), len(parts[0]) + len(parts[1])
    return {"official": (np.arange(first), np.arange(first, n))}
