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
    "contrast21": Conv((32, 64, 128, 256, 256), 4, (2,) * 5, networks.leaky),
    "contrast21-faces": Conv((32, 32, 64, 64, 128, 128, 256), 3, (2, 1, 2, 1, 2, 1, 2), networks.leaky),
    "contrast21-narrow": Conv((16, 32, 64, 64, 64), 4, (2,) * 5, networks.leaky),
    "zheng19-toy": Mlp((32, 64, 64), networks.leaky),
    "ruiz19": Conv((32, 64, 128, 256), 3, (2,) * 4, networks.leaky, pool=True),
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
        """Make the parameters for so many classes; those that are there are kept. For `Method.bind`."""
        if self.condition is None or classes <= self.classes:
            return
        sizes = [self.linear.in_features]
        if self.condition == "embedding":
            sizes = [_out(layer) for layer in self.trunk if isinstance(layer, nn.Linear | nn.Conv2d)][:3]
        like = self.linear.bias
        tables = [nn.Embedding(classes, size).to(like.device) for size in sizes]
        for table in tables:
            nn.init.normal_(table.weight, std=0.1)  # as small as the layers that it joins
        for table, old in zip(tables, self.embed):
            weight = old.parametrizations.weight.original if self.spectral else old.weight  # pyright: ignore
            table.weight.data[: self.classes] = weight.data  # pyright: ignore
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


class JointDiscriminator(nn.Module):
    """A logit of an observation together with its codes: `x [N, *shape]`, each code `[N, d]` -> `[N]` [Ruiz19, A.4].

    The observation's features and the codes' meet in the last fully connected layer. While training, either may be set
    to zero there for a whole sample, with probability `dropout`, so that the game can't become one about images alone.
    That layer is a hidden one: with a logit linear in both, observation and codes would each be judged alone.
    """

    def __init__(self, trunk: nn.Module, width: int, codes: int, hidden: int = 256, dropout: float = 0.25):
        super().__init__()
        self.trunk, self.dropout = trunk, dropout
        self.code = nn.Sequential(nn.Linear(codes, hidden), networks.leaky())
        self.last = nn.Sequential(nn.Linear(width + hidden, hidden), networks.leaky(), nn.Linear(hidden, 1))

    def forward(self, x: Tensor, *codes: Tensor) -> Tensor:
        features = self.trunk(x), self.code(torch.cat(codes, 1))
        if self.training:
            features = tuple(f * (torch.rand(len(f), 1, device=f.device) >= self.dropout) for f in features)
        logit = self.last(torch.cat(features, 1)).squeeze(1)
        return logit.to(torch.promote_types(logit.dtype, torch.float32))


def build(arch: str, shape: tuple[int, ...], condition: str | None = None, spectral: bool = False) -> Discriminator:
    """A discriminator for observations of `shape`; `arch` is a name in `ARCHITECTURES`, or "auto": as for encoders.

    Raises `InputError` for an unknown name, or a convolutional one for vectors.
    """
    return Discriminator(*_trunk(arch, shape), condition, spectral)


def joint(arch: str, shape: tuple[int, ...], codes: int) -> JointDiscriminator:
    """A discriminator for observations of `shape` with `codes` dimensions of codes in all; `arch` as for `build`."""
    return JointDiscriminator(*_trunk(arch, shape), codes)


def fitting(arch: str) -> str:
    """The discriminator that goes with an encoder's architecture: of the same name where there is one, else "auto"."""
    return arch if arch in ARCHITECTURES or arch not in networks.ARCHITECTURES else "auto"


def _trunk(arch: str, shape: tuple[int, ...]) -> tuple[nn.Sequential, int]:
    choose("arch", arch, ["auto", *ARCHITECTURES])
    if arch == "auto":
        arch = networks.auto(shape)
    spec = ARCHITECTURES[arch]
    if isinstance(spec, Conv) and len(shape) != 3:
        raise InputError(f"arch: {arch} needs images, the observations are vectors of {shape[0]}; use 'mlp'")
    return spec.trunk(tuple(shape))  # pyright: ignore[reportReturnType]


def _out(layer: nn.Module) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels  # pyright: ignore


def _looked_up(table: nn.Module, y: Tensor | None) -> Tensor:
    known = (y >= 0).to(torch.float32).unsqueeze(1)  # pyright: ignore[reportOptionalOperand]
    return table(y.clamp(min=0)) * known  # pyright: ignore[reportOptionalMemberAccess]
