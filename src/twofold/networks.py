"""Encoders and decoders of the papers, for any image size from 8 x 8 up, any number of channels, or flat vectors.

An encoder maps `x [N, *shape]` to `(s, z)`: s a `Gaussian` or a `Point`, z a `Gaussian`. A decoder maps `(s, z)` to
`x`: images in [0, 1] (sigmoid), vectors unbounded (linear). `build(arch, shape, ...)` makes both; `ARCHITECTURES` names
them. A trunk ends in features, a body starts from them; the same description serves both, mirrored.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from twofold.distributions import Gaussian, Point
from twofold.errors import InputError, choose, whole

Shape = tuple[int, ...]
LABEL = 0.5  # standard deviation of what a label adds to a first layer: as much as a code of unit variance


class Encoder(nn.Module):
    """`x -> (s, z)`. One trunk for both codes, or one each where `trunk_s` is given; a linear head on top."""

    def __init__(
        self,
        trunk: nn.Module,
        width: int,
        s: int,
        z: int,
        point: bool = False,
        trunk_s: nn.Module | None = None,
        bound: float | None = None,
    ):
        super().__init__()
        self.sizes, self.point, self.bound = (s, z), point, bound
        self.heads = [s if point else 2 * s, 2 * z]
        self.trunk, self.trunk_s = trunk, trunk_s
        if trunk_s is None:
            self.head = nn.Linear(width, sum(self.heads))  # the papers' separate linear layers, in one product
        else:
            self.head_s, self.head = nn.Linear(width, self.heads[0]), nn.Linear(width, self.heads[1])

    def forward(self, x: Tensor) -> tuple[Gaussian | Point, Gaussian]:
        if self.trunk_s is None:
            s, z = self.head(self.trunk(x)).split(self.heads, dim=-1)
        else:
            s, z = self.head_s(self.trunk_s(x)), self.head(self.trunk(x))
        return (Point(s) if self.point else self._gaussian(s)), self._gaussian(z)

    def _gaussian(self, head: Tensor) -> Gaussian:
        mean, log_var = head.chunk(2, dim=-1)
        if self.bound is not None:
            return Gaussian(mean, self.bound * log_var.tanh())
        return Gaussian(mean, log_var.clamp(-14, 14))  # a stray batch must not overflow exp


class Decoder(nn.Module):
    """`(s, z) -> x`: a body on the concatenated codes.

    With `variance` the body gives twice the channels, and x is a `Gaussian` over pixels: its mean a sigmoid, its
    log-variance 5 tanh, so that a pixel's standard deviation lies between exp(-2.5) = 0.08 and exp(2.5) = 12.

    A linear layer on the concatenation is the sum of one on each, which is how Mathieu16 joins the codes.
    """

    def __init__(self, body: nn.Module, variance: bool = False):
        super().__init__()
        self.body, self.variance = body, variance

    def forward(self, s: Tensor, z: Tensor) -> Tensor | Gaussian:
        return self._observation(self.body(torch.cat([s, z], dim=-1)))

    def _observation(self, x: Tensor) -> Tensor | Gaussian:
        if not self.variance:
            return x
        mean, log_var = x.chunk(2, dim=1)
        return Gaussian(mean.sigmoid(), 5 * log_var.tanh())


class Labelled(nn.Module):
    """Layers that are told a label: `(x, s [N, classes])`, with s one-hot.

    A table adds a vector for each class to the first layer's output, for a convolution the same one at every pixel: for
    a linear layer it is as if s were concatenated with x. `grow` makes the table, when the classes are known.
    """

    def __init__(self, layers: nn.Sequential):
        super().__init__()
        at = 1 + next(i for i, layer in enumerate(layers) if isinstance(layer, nn.Linear | nn.Conv2d))
        self.first, self.rest = layers[:at], layers[at:]
        self.table: nn.Linear | None = None

    def grow(self, classes: int) -> None:
        """Make the table for so many classes; one of that size is kept. For `Method.bind`."""
        if self.table is not None and self.table.in_features == classes:
            return
        like: Tensor = self.first[-1].weight  # pyright: ignore
        self.table = nn.Linear(classes, len(like), bias=False, device=like.device)
        nn.init.normal_(self.table.weight, std=LABEL)

    def forward(self, x: Tensor, s: Tensor) -> Tensor:
        if self.table is None:
            raise InputError("s: the network knows no classes yet; call grow(classes)")
        x, told = self.first(x), self.table(s)
        return self.rest(x + told.view(*told.shape, *[1] * (x.ndim - 2)))


class LabelledEncoder(Encoder):
    """`(x, s) -> z`, a `Gaussian`; s is the one-hot label."""

    trunk: Labelled

    def grow(self, classes: int) -> None:
        self.trunk.grow(classes)

    def forward(self, x: Tensor, s: Tensor) -> Gaussian:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._gaussian(self.head(self.trunk(x, s)))


class LabelledDecoder(Decoder):
    """`(s, z) -> x`; s is the one-hot label."""

    body: Labelled

    def grow(self, classes: int) -> None:
        self.body.grow(classes)

    def forward(self, s: Tensor, z: Tensor) -> Tensor | Gaussian:
        return self._observation(self.body(z, s))


class PixelNorm(nn.Module):
    """Each pixel's feature vector scaled to unit mean square [Ruiz19, A.4, after Karras et al. 2018]."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


class ChannelNorm(nn.Module):
    """Each pixel's feature vector standardised over its channels, then an affine map a channel [Contrast21, A.3]."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels, 1, 1)), nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = x.float() - x.float().mean(1, keepdim=True)
        return x * (x.square().mean(1, keepdim=True) + 1e-5).rsqrt() * self.weight + self.bias


class CReLU(nn.Module):
    """max(x, 0) and max(-x, 0), side by side: twice the features [Bouchacourt18, supplement 2.1]."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, -x], 1).relu()


def leaky() -> nn.Module:
    return nn.LeakyReLU(0.2)


@dataclass(frozen=True)
class Mlp:
    """Fully connected layers of these widths; the decoder has them in reverse.

    Without widths: two layers, four times the observation's size (64 to 512) and half of that.
    """

    widths: tuple[int, ...] = ()
    act: Callable[[], nn.Module] = nn.ReLU
    separate: bool = False  # an encoder for each code

    def _hidden(self, shape: Shape) -> tuple[int, ...]:
        first = min(512, max(64, 4 * math.prod(shape)))
        return self.widths or (first, first // 2)

    def trunk(self, shape: Shape) -> tuple[nn.Module, int]:
        sizes = [math.prod(shape), *self._hidden(shape)]
        layers = [m for i, o in pairwise(sizes) for m in (nn.Linear(i, o), self.act())]
        return nn.Sequential(nn.Flatten(), *layers), sizes[-1]

    def body(self, codes: int, shape: Shape, out: int = 1) -> nn.Module:
        sizes = [codes, *reversed(self._hidden(shape))]
        layers = [m for i, o in pairwise(sizes) for m in (nn.Linear(i, o), self.act())]
        full = (shape[0] * out, *shape[1:])
        return nn.Sequential(*layers, nn.Linear(sizes[-1], math.prod(full)), nn.Unflatten(1, full))


@dataclass(frozen=True)
class Conv:
    """Convolutions of these channels and strides, then fully connected layers; the decoder mirrors them.

    `pool` puts average pooling (decoder: nearest up-sampling) after a plain convolution in place of a stride, and the
    norm after the activation (the blocks of Karras et al. 2018).
    """

    channels: tuple[int, ...]
    kernel: int
    strides: tuple[int, ...]
    act: Callable[[], nn.Module] = nn.ReLU
    norm: Callable[[int], nn.Module] | None = None
    fc: tuple[int, ...] = ()
    fc_act: Callable[[], nn.Module] | None = None
    pool: bool = False
    separate: bool = False
    variance: bool = False  # the decoder gives each pixel's log-variance too
    bound: float | None = None  # log-variances of codes are that times a tanh
    last: int | None = (
        None  # the decoder ends in a convolution of this size and stride 1, in place of its first layer's
    )

    def _sides(self, shape: Shape) -> list[tuple[int, int]]:
        """Heights and widths before and after each layer, rounded up."""
        sides = [(shape[1], shape[2])]
        for stride in self.strides:
            sides.append(tuple(-(-side // stride) for side in sides[-1]))  # pyright: ignore
        return sides

    def _layer(self, conv: nn.Module, channels: int) -> list[nn.Module]:
        norm = [self.norm(channels)] if self.norm else []
        return [conv, self.act(), *norm] if self.pool else [conv, *norm, self.act()]

    def trunk(self, shape: Shape) -> tuple[nn.Module, int]:
        layers: list[nn.Module] = []
        sides = self._sides(shape)
        for i, (before, after) in enumerate(zip((shape[0], *self.channels), self.channels)):
            stride, pad = self.strides[i], (self.kernel - 1) // 2
            if self.pool:
                layers += self._layer(nn.Conv2d(before, after, self.kernel, padding=pad), after)
                layers += [nn.AdaptiveAvgPool2d(sides[i + 1])] if stride > 1 else []
            else:
                far = [(-side) % stride if self.kernel % 2 == 0 else 0 for side in sides[i]]
                if any(far):  # an even kernel reaches the rounded-up side with one more pixel on the far side
                    layers.append(nn.ZeroPad2d((0, far[1], 0, far[0])))
                layers += self._layer(nn.Conv2d(before, after, self.kernel, stride, pad), after)
        width = self.channels[-1] * math.prod(sides[-1])
        layers.append(nn.Flatten())
        for size in self.fc:
            layers += [nn.Linear(width, size), *([nn.BatchNorm1d(size)] if self.fc_act is CReLU else [])]
            layers.append((self.fc_act or self.act)())
            width = size * (2 if self.fc_act is CReLU else 1)
        return nn.Sequential(*layers), width

    def body(self, codes: int, shape: Shape, out: int = 1) -> nn.Module:
        if self.last is not None:
            return replace(self, strides=(1, *self.strides[1:]), fc=(), last=None)._body(codes, shape, out, self.last)
        return self._body(codes, shape, out)

    def _body(self, codes: int, shape: Shape, out: int, last_kernel: int | None = None) -> nn.Module:
        sides, layers, width = self._sides(shape), [], codes
        for size in reversed(self.fc):
            layers += [nn.Linear(width, size), (self.act if self.fc_act is CReLU else self.fc_act or self.act)()]
            width = size
        layers += [nn.Linear(width, self.channels[-1] * math.prod(sides[-1])), self.act()]
        layers.append(nn.Unflatten(1, (self.channels[-1], *sides[-1])))
        channels = [*reversed(self.channels), shape[0] * out]
        for i, (before, after) in enumerate(pairwise(channels)):
            stride, side = self.strides[-1 - i], sides[-2 - i]
            last = i == len(self.channels) - 1
            if self.pool:
                layers += [nn.Upsample(side)] if stride > 1 else []
                conv: nn.Module = nn.Conv2d(before, after, self.kernel, padding=self.kernel // 2)
            elif last and last_kernel is not None:
                conv = nn.Conv2d(before, after, last_kernel, padding=last_kernel // 2)
            else:
                conv = UpConv(before, after, self.kernel, stride, side)
            layers += [conv] if last else self._layer(conv, after)
        return nn.Sequential(*layers)


class UpConv(nn.Module):
    """Transposed convolution that lands on the given height and width."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, side: tuple[int, int]):
        super().__init__()
        self.conv, self.side = nn.ConvTranspose2d(before, after, kernel, stride), side

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        top, left = ((full - want) // 2 for full, want in zip(x.shape[-2:], self.side))
        return x[..., top : top + self.side[0], left : left + self.side[1]]


MLP = Mlp()
CONV = Conv((32, 64, 64), 4, (2, 2, 2), fc=(256,))
ARCHITECTURES: dict[str, Mlp | Conv] = {
    "mlp": MLP,
    "conv": CONV,
    "bouchacourt18-mnist": Mlp((500,), nn.Tanh),
    # Supplement 2.1, for photos of 64 x 64 with d = 50. It leaves two things open. How the codes come to the first of
    # three transposed convolutions: here by a linear layer to 512 x 8 x 8 (an eighth of the image's side) and ReLU,
    # without batch norm, though it says that "all four layers" have that. And the mean's range: here a sigmoid's.
    "bouchacourt18-faces": Conv(
        (64, 128, 256, 512),
        kernel=4,
        strides=(2,) * 4,
        norm=nn.BatchNorm2d,
        fc=(256, 256),
        fc_act=CReLU,
        variance=True,
        bound=5.0,
        last=3,
    ),
    "contrast21": Conv((32, 64, 128, 256, 256), 4, (2,) * 5, leaky, ChannelNorm),
    # eight layers with the linear one; how wide they are, the paper doesn't say
    "contrast21-faces": Conv((32, 32, 64, 64, 128, 128, 256), 3, (2, 1, 2, 1, 2, 1, 2), leaky, ChannelNorm),
    "contrast21-narrow": Conv((16, 32, 64, 64, 64), 4, (2,) * 5, leaky, ChannelNorm),
    "mathieu16-small": Conv((64, 128, 256), 5, (2,) * 3, norm=nn.BatchNorm2d),
    "mathieu16-large": Conv((64, 64, 128, 128, 256, 256), 3, (1, 2) * 3, norm=nn.BatchNorm2d),
    "ruiz19": Conv((32, 64, 128, 256), 3, (2,) * 4, leaky, lambda _: PixelNorm(), pool=True, separate=True),
    "zheng19-toy": Mlp((32, 64, 64), separate=True),
}


GENERAL = ("auto", "mlp", "conv")  # of no paper


def auto(shape: Shape) -> str:
    """Fully connected for vectors and for small grey images (up to 1,024 pixels), convolutional for all else."""
    return "mlp" if len(shape) == 1 or math.prod(shape) <= 1024 else "conv"


def build(
    arch: str, shape: Shape, s: int, z: int, *, point: bool = False, separate: bool | None = None
) -> tuple[Encoder, Decoder]:
    """An encoder and a decoder for observations of `shape`: (C, H, W) with H, W >= 8, or (D,).

    `arch` is a name in `ARCHITECTURES`, or "auto" (see `auto`). `s` and `z` are the codes'
    dimensions (0 or more); `point`: s has no spread;
    `separate`: an encoder network for each code (None: as the architecture has it).
    Raises `InputError` for an unknown name, sizes below zero, or a convolutional `arch` for vectors.
    """
    shape = tuple(shape)
    choose("arch", arch, ["auto", *ARCHITECTURES])
    s, z = whole("s", s, 0), whole("z", z, 0)
    if s + z == 0:
        raise InputError("s, z: both are 0; a code needs at least one dimension")
    if len(shape) not in (1, 3) or min(shape) < 1:
        raise InputError(f"shape: {shape}; expected (channels, height, width) or (dimensions,)")
    if len(shape) == 3 and min(shape[1:]) < 8:
        raise InputError(f"shape: {shape}; images need at least 8 x 8 pixels (flatten smaller ones)")
    if arch == "auto":
        arch = auto(shape)
    spec = ARCHITECTURES[arch]
    if isinstance(spec, Conv) and len(shape) != 3:
        raise InputError(f"arch: {arch} needs images, the observations are vectors of {shape[0]}; use 'mlp'")
    if separate is not None:
        spec = replace(spec, separate=separate)
    trunk, width = spec.trunk(shape)
    trunk_s = spec.trunk(shape)[0] if spec.separate and s and z else None
    conv = spec if isinstance(spec, Conv) else None
    encoder = Encoder(trunk, width, s, z, point, trunk_s, conv and conv.bound)
    variance = conv is not None and conv.variance
    body = spec.body(s + z, shape, 2 if variance else 1)
    if len(shape) == 3 and not variance:
        body = nn.Sequential(body, nn.Sigmoid())
    return encoder, Decoder(body, variance)


def labelled(arch: str, shape: Shape, z: int, classes: int | None = None) -> tuple[LabelledEncoder, LabelledDecoder]:
    """As `build`, for an encoder and a decoder that are told the label, one-hot, and share z only.

    Without `classes`, call `grow(classes)` of each before use.
    """
    encoder, decoder = build(arch, shape, 0, z)
    body = decoder.body
    if isinstance(body[0], nn.Sequential):  # pyright: ignore[reportIndexIssue]
        body = nn.Sequential(*body[0], *body[1:])  # pyright: ignore
    told = (
        LabelledEncoder(Labelled(encoder.trunk), encoder.head.in_features, 0, z, bound=encoder.bound),  # pyright: ignore
        LabelledDecoder(Labelled(body), decoder.variance),  # pyright: ignore
    )
    for net in told:
        if classes:
            net.grow(classes)
    return told
