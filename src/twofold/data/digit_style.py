"""Outlines of digits in many styles, and plain ones as a reference [Ruiz19, A.3.1]."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from twofold.arrays import generator
from twofold.data.dataset import Dataset
from twofold.data.digits import digits as load_digits
from twofold.data.mnist import SHA256
from twofold.data.mnist import mnist as load_mnist
from twofold.data.pixels import resized
from twofold.data.registry import Files, builtin
from twofold.errors import InputError, whole

DRAWN = 64  # the paper's size; everything is drawn at it, whatever is asked for
WIDEST = 10
STYLE = {
    "factors": ("digit", "colour", "red", "green", "blue", "scale", "width"),
    "default": "digit",
    "background": True,
    "sought": "colour",
}


class Styled:
    """Outlines in colour, drawn when asked for: each is a digit (a row of `digits`), a width, a scale and a colour."""

    def __init__(self, digits: Tensor, row: np.ndarray, width: np.ndarray, scale: np.ndarray, colour: np.ndarray, size):
        self.digits, self.size = digits, size
        self.row, self.width, self.scale, self.colour = map(torch.from_numpy, (row, width, scale, colour))
        self.shape = (len(row), 3, size, size)

    def decode(self, rows: np.ndarray) -> Tensor:
        """uint8 `[n, 3, size, size]`."""
        return torch.cat([self._draw(chosen) for chosen in torch.from_numpy(rows).split(256)])

    def _draw(self, chosen: Tensor) -> Tensor:
        lines = dilated(outlines(resized(self.digits[self.row[chosen]], DRAWN)[:, 0]), self.width[chosen])
        fit = shrinking(self.scale[chosen], self.size)
        grey = fit @ lines.float() @ fit.mT
        return (grey[:, None] * (255 * self.colour[chosen, :, None, None])).round_().to(torch.uint8)


@builtin(
    "digit-style",
    shape=(3, 16, 16),
    n=1797,
    source="digits in styles, [Ruiz19, App. A.3.1]",
    licence="CC BY 4.0",
    **STYLE,
)
def digit_style(*, size: int = 16, times: int = 2, seed: int = 0) -> Dataset:
    """scikit-learn's digits as coloured outlines of many widths and scales; as digit-style-mnist, at 16 x 16.

    Of the 8 x 8 digits, a margin of one pixel around them, a random 80 % are for training: a half the reference, a half
    transformed `times` times (2 as in the paper: 1,438 images; 14: 10,066). The rest make the two probe sets, each
    digit transformed half as often (rounded up).
    """
    data = load_digits()
    data = Dataset(pad(torch.as_tensor(data.x), (1, 1, 1, 1)), data.factors)
    train, test = data.split((0.8, 0.2), whole("seed", seed, 0))
    return _styled(train, test, size, times, seed)


@builtin(
    "digit-style-mnist",
    shape=(3, 64, 64),
    n=70_000,
    source="MNIST in styles, [Ruiz19, App. A.3.1]",
    licence="CC BY-SA 3.0",
    files=tuple(f"mnist/{name}" for name in SHA256),
    **STYLE,
)
def digit_style_mnist(
    files: Files, *, size: int = 64, times: int = 2, digits: int | None = None, seed: int = 0
) -> Dataset:
    """MNIST as coloured outlines of many widths and scales [Ruiz19, A.3.1]; official split: train, probe, test.

    A random half of the training digits, as plain white outlines, is the background (the paper's reference, 30,000);
    each of the other half is transformed twice: 60,000 images. The probe and test parts are halves of MNIST's test
    part, each digit transformed once; their backgrounds, which the paper has no use for, are its plain outlines.

    Digits are enlarged to 64 x 64 (bilinear), and an outline is what remains of those at least half as bright as white
    when each that has no darker one among its four neighbours is taken away (the paper doesn't name its detector).
    Then, in the paper's order: a dilation by a square of 1..10 pixels; a colour, uniform in the cube and divided by its
    sum; a scale, uniform in [0.5, 1], by area averages, zeros around (the image stays in the middle). Smaller sizes are
    area averages of the same pictures, so that lines thinner than a pixel are dimmer.

    Factors: `digit`; `red`, `green`, `blue`, of sum 1, and `colour`, the strongest of the three; `scale` in [0.5, 1];
    `width`, the square's side over the largest (0.1, 0.2, ... 1). The best constant has a mean absolute error of about
    .144 (a colour), .125 and .250.

    Options:
        size: images of size x size, 8 to 64.
        times: how often a training digit is transformed; one of the probe and test parts, half as often (rounded up).
        digits: so many training digits, drawn at random (all 60,000 unless given); of the test part, in proportion.
    """
    whole("seed", seed, 0)
    parts = load_mnist(files).split("official")
    if digits is not None:
        share = whole("digits", digits, 2, len(parts[0])) / len(parts[0])
        if round(share * len(parts[1])) < 2:
            raise InputError(f"digits: {digits} of {len(parts[0])} leave fewer than two of the test part's; take more")
        parts = [part.split((share,), seed)[0] for part in parts]
    return _styled(*parts, size, times, seed)


def outlines(images: Tensor) -> Tensor:
    """uint8 `[n, h, w]`: 1 where a pixel of at least half of white has a darker one, or the border, beside it."""
    inside = pad((images > 127).to(torch.uint8), (1, 1, 1, 1))
    centre = inside[:, 1:-1, 1:-1]
    return centre & ~(inside[:, :-2, 1:-1] & inside[:, 2:, 1:-1] & inside[:, 1:-1, :-2] & inside[:, 1:-1, 2:])


def dilated(images: Tensor, width: Tensor) -> Tensor:
    """Each of `[n, h, w]` dilated by a square of its own `width` (1 or more) pixels.

    A square of k is k - 1 of two pixels; to the right and down first, then to the left and up, to stay in the middle.
    """
    order = width.argsort()
    images, width = images[order], width[order]
    for k in range(2, int(width[-1]) + 1):
        part = images[int((width < k).sum()) :]
        after, before = slice(1, None), slice(None, -1)
        at, of = (after, before) if k % 2 == 0 else (before, after)
        part[:, at] = torch.maximum(part[:, at], part[:, of])
        part[:, :, at] = torch.maximum(part[:, :, at], part[:, :, of])
    return images[order.argsort()]


def shrinking(scale: Tensor, size: int) -> Tensor:
    """`[n, size, 64]`: rows and columns of 64 to `size`, the picture `scale` times as large about its middle.

    Pixels are averaged over the area that a new one covers, outside of the picture lie zeros.
    """
    reach = DRAWN / size / scale[:, None]  # of a new pixel, in old ones
    edge = (torch.arange(size + 1) - size / 2) * reach + DRAWN / 2
    old = torch.arange(DRAWN)
    low = torch.maximum(edge[:, :-1, None], old)
    high = torch.minimum(edge[:, 1:, None], old + 1)
    return ((high - low).clamp(min=0) / reach[:, :, None]).float()


def _styled(train: Dataset, test: Dataset, size: int, times: int, seed: int) -> Dataset:
    size, times = whole("size", size, 8, DRAWN), whole("times", times, 1)
    parts = [*train.split((0.5, 0.5), seed), *test.split((0.5, 0.5), seed)]  # reference, unlabelled, probe, test
    first = np.cumsum([0, *map(len, parts)])
    digits, label = torch.cat([torch.as_tensor(p.x) for p in parts]), torch.cat([p.factors["digit"] for p in parts])
    often = (0, times, (times + 1) // 2, (times + 1) // 2)
    rows = [np.tile(np.arange(first[k], first[k + 1]), often[k]) for k in (1, 2, 3)]
    style = [np.concatenate(drawn) for drawn in zip(*(_drawn(len(r), seed, k) for k, r in enumerate(rows)))]
    row, (width, scale, colour) = np.concatenate(rows), style
    named = {"red": colour[:, 0], "green": colour[:, 1], "blue": colour[:, 2], "scale": scale, "width": width / WIDEST}
    plain_rows = [np.arange(first[k], first[k + 1]) for k in (0, 2, 3)]
    plain = np.concatenate(plain_rows)
    ones = np.ones(len(plain), np.int64)
    white = Styled(digits, plain, ones, ones.astype(float), np.ones((len(plain), 3)), size)
    background = Dataset(white, {"digit": label[torch.from_numpy(plain)]}, splits=_official(plain_rows))
    return Dataset(
        Styled(digits, row, width, scale, colour, size),
        {"digit": label[torch.from_numpy(row)], "colour": colour.argmax(1), **named},
        default="digit",
        names={"colour": ("red", "green", "blue")},
        units=dict.fromkeys(("red", "green", "blue"), "of their sum") | {"scale": "of full size", "width": "of 10 px"},
        splits=_official(rows),
        background=background,
    )


def _drawn(n: int, seed: int, part: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Widths, scales and colours of `n` images."""
    random = generator(seed, 14, part)
    width, colour = random.integers(1, WIDEST + 1, n), random.random((n, 3))
    return width, random.uniform(0.5, 1, n), colour / colour.sum(1, keepdims=True)


def _official(rows: list[np.ndarray]) -> dict[str, list[np.ndarray]]:
    edges = np.cumsum([0, *map(len, rows)])
    return {"official": [np.arange(a, b) for a, b in pairwise(edges)]}
