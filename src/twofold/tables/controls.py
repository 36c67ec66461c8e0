"""Rows to compare with: codes that nothing was learned for, and one that was told everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twofold import networks
from twofold.arrays import gather
from twofold.data import Dataset
from twofold.distributions import Gaussian, picture
from twofold.errors import InputError, choose
from twofold.method import Code, Method
from twofold.metrics.common import sample
from twofold.supervision import Images
from twofold.tables.table import Protocol

ROWS = 10_000  # that the components are found from, at most


class Linear(Method):
    """Linear codes of centred observations, (s, z) = components (x - mean), and the linear way back, clipped to [0, 1]
    for images. Its posteriors have almost no spread; its prior has each component's own."""

    name = "linear"
    supervision = Images
    players = {}

    def __init__(self, mean: Tensor, components: Tensor, s: int):
        """mean `[*shape]`, components `[s + z, D]`, orthonormal or zero."""
        super().__init__()
        self.mean, self.components = (nn.Parameter(t.float(), requires_grad=False) for t in (mean, components))
        self.spread = nn.Parameter(torch.zeros(len(components)), requires_grad=False)
        self.s, self._facts = s, {"shape": list(mean.shape)}

    def losses(self, *draws: Any, **_: Any):
        raise self._lacks("training")

    def _posterior(self, x: Tensor, y: Tensor | None = None):
        code = (x - self.mean).flatten(1) @ self.components.T
        s, z = (Gaussian(half, torch.full_like(half, -14.0)) for half in (code[:, : self.s], code[:, self.s :]))
        return s, z

    def _decode(self, s: Tensor, z: Tensor) -> Tensor:
        x = (torch.cat([s, z], 1) @ self.components).unflatten(1, self.mean.shape) + self.mean
        return x.clamp(0, 1) if len(self.shape) == 3 else x

    def prior(self, n: int, y=None) -> Code:
        code = super().prior(n, y)
        spread = self.spread.cpu()
        return Code(code.s * spread[: self.s], code.z * spread[self.s :])


def pca(train: Dataset, s: int, z: int, seed: int) -> Linear:
    """Principal components of the observations (of at most 10,000, drawn by `seed`), not whitened: the first `s` are s,
    the next `z` are z. Where there are fewer, the rest of the code is 0."""
    from sklearn.decomposition import PCA

    x = _observations(train, seed)
    count = min(s + z, len(x) - 1, x[0].numel())
    found = PCA(count, random_state=seed, svd_solver="full" if x[0].numel() <= 1_000 else "randomized")
    codes = found.fit_transform(x.flatten(1).numpy())
    components = np.zeros((s + z, x[0].numel()))
    components[:count] = found.components_
    made = Linear(torch.from_numpy(found.mean_).reshape(x.shape[1:]), torch.from_numpy(components), s)
    made.spread.data[:count] = torch.from_numpy(codes.std(0)).float()
    return made.eval()


def constant(train: Dataset, s: int, z: int) -> Linear:
    """Code 0 for everything, decoded as the mean observation: every probe on it is the best constant."""
    x = _observations(train, 0)
    return Linear(x.mean(0), torch.zeros(s + z, x[0].numel()), s).eval()


class Supervised(Method):
    """s learns the labels themselves, by cross-entropy (of real factors: the absolute error of standardised values)
    through a linear head; a decoder learns to undo s and does not move it. z has no width. What labels give at this
    size and length: not always the most that s could tell of unseen classes."""

    name = "supervised"
    supervision = Images
    players = {"model": "enc head", "decoder": "dec"}
    point_s = True

    def __init__(self, encoder: nn.Module, decoder: nn.Module, s: int, targets: Mapping[str, Tensor]):
        super().__init__(encoder, decoder)
        self.targets = dict(targets)
        self.widths = [1 if y.is_floating_point() else int(y.max()) + 1 for y in targets.values()]
        self.head = nn.Linear(s, sum(self.widths))

    def losses(self, draw):
        q_s, q_z = self._posterior(draw.x)
        told, index = {}, draw.index.cpu()
        for (name, y), out in zip(self.targets.items(), self.head(q_s.mean).split(self.widths, 1)):
            wanted = y[index].to(out.device)
            if y.is_floating_point():
                told[name] = F.l1_loss(out[:, 0], (wanted - y.mean()) / y.std())
            else:
                told[name] = F.cross_entropy(out, wanted)
        undone = picture(self.dec(q_s.mean.detach(), q_z.mean))
        yield {"model": told, "decoder": {"rec": (undone - draw.x).square().flatten(1).sum(1).mean()}}


def supervised(train: Dataset, factor: str | None, protocol: Protocol, seed: int) -> tuple[Supervised, Images]:
    """An untrained `Supervised` and what it learns from: the option `factors` of the protocol (default: `factor`)."""
    names: Sequence[str] = protocol.options.get("factors") or ([factor] if factor else list(train.factors))
    for name in names:
        choose("factors", name, train.factors)
    targets = {name: train.factors[name] for name in names}
    known = torch.stack([y >= 0 if not y.is_floating_point() else torch.isfinite(y) for y in targets.values()]).all(0)
    if not known.any():
        raise InputError(f"factors: {', '.join(names)} of {train.name} are known for no observation")
    part = train[known]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = networks.build(protocol.arch, train.shape, protocol.s, 0, point=True)
        made = Supervised(*built, protocol.s, {name: y[known] for name, y in targets.items()})
    made._facts = {"shape": list(train.shape)}
    return made, part.images()


def _observations(train: Dataset, seed: int) -> Tensor:
    rows = sample(len(train), ROWS, seed)
    part = train[rows]
    return gather(part.x, torch.arange(len(part)))
