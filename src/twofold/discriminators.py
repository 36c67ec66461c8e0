"""Discriminators: an observation, and perhaps its class, to one logit. Positive says "real"."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from twofold import networks
from twofold.errors import InputError, choose
from twofold.networks import Conv, Mlp

ARCHITECTURES: dict[str, Mlp | Conv] = {
    "mlp": Mlp(act=networks.leaky),
    "conv": Conv((32, 64, 64), 4, (2, 2, 2), networks.leaky, fc=(256,)),
    "mathieu16": Conv((64, 128, 256), 5, (2, 2, 2), networks.leaky, nn.BatchNorm2d),
    "zheng19-toy": Mlp((32, 64, 64), networks.leaky),
}


class Discriminator(nn.Module):
    """Features of an observation, then a linear layer: `x [N, *shape] -> logit [N]`, and with classes `(x, y)`.

    `condition` says how a class comes in: "projection" adds the inner product of its embedding with the features
    (Miyato & Koyama 2018; Zheng19, Sec. 3.5), "embedding" adds an embedding to the pre-activations of each of the first
    three layers, the same at every pixel [Mathieu16, Sec. 4.1]. An observation of no known class (y = -1) gets neither.
    `spectral` normalises every weight by its largest singular value (Miyato et al. 2018).
    """

    def __init__(self, trunk: nn.Sequential, width: int, condition: str | None = None, spectral: bool = False):
        super().__init__()
        if condition is not None:
            choose("condition", condition, ("projection", "embedding"))
        self.condition, self.spectral, self.classes = condition, spectral, 0
        self.trunk, self.linear, self.embed = trunk, nn.Linear(width, 1), nn.ModuleList()
        if spectral:
            for module in self.modules():
                if isinstance(module, nn.Linear | nn.Conv2d):
                    spectral_norm(module)

    def grow(self, classes: int) -> None:
        """Make the parameters for so many classes; those of the right number are kept. For `Method.bind`."""
        if self.condition is None or classes == self.classes:
            return
        sizes = [self.linear.in_features]
        if self.condition == "embedding":
            sizes = [_out(layer) for layer in self.trunk if isinstance(layer, nn.Linear | nn.Conv2d)][:3]
        like = self.linear.bias
        tables = [nn.Embedding(classes, size).to(like.device) for size in sizes]
        for table in tables:
            nn.init.normal_(table.weight, std=0.1)  # as small as the layers that it joins
        self.embed = nn.ModuleList([spectral_norm(table) if self.spectral else table for table in tables])
        self.classes = classes

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Logits `[N]`. `y [N]`: classes, -1 where not known; None: of none."""
        if y is not None and self.condition and not self.classes:
            raise InputError("y: the discriminator knows no classes yet; call grow(classes)")
        tables = iter(self.embed if y is not None and self.condition == "embedding" else ())
        for layer in self.trunk:
            x = layer(x)
            if isinstance(layer, nn.Linear | nn.Conv2d) and (table := next(tables, None)) is not None:
                label = _looked_up(table, y)
                x = x + label.view(*label.shape, *[1] * (x.ndim - 2))
        logit = self.linear(x).squeeze(1)
        if y is not None and self.condition == "projection":
            logit = logit + (_looked_up(self.embed[0], y) * x).sum(1)
        return logit.float()


def build(arch: str, shape: tuple[int, ...], condition: str | None = None, spectral: bool = False) -> Discriminator:
    """A discriminator for observations of `shape`; `arch` is a name in `ARCHITECTURES`, or "auto": as for encoders.

    Raises `InputError` for an unknown name, or a convolutional one for vectors.
    """
    choose("arch", arch, ["auto", *ARCHITECTURES])
    if arch == "auto":
        arch = networks.auto(shape)
    spec = ARCHITECTURES[arch]
    if isinstance(spec, Conv) and len(shape) != 3:
        raise InputError(f"arch: {arch} needs images, the observations are vectors of {shape[0]}; use 'mlp'")
    return Discriminator(*spec.trunk(tuple(shape)), condition, spectral)  # pyright: ignore[reportArgumentType]


def _out(layer: nn.Module) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels  # pyright: ignore


def _looked_up(table: nn.Module, y: Tensor | None) -> Tensor:
    known = (y >= 0).to(torch.float32).unsqueeze(1)  # pyright: ignore[reportOptionalOperand]
    return table(y.clamp(min=0)) * known  # pyright: ignore[reportOptionalMemberAccess]
