"""Bao, Chen, Wen, Li and Hua 2017: a conditional VAE whose images must match real ones in learned features, too."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twofold import discriminators, networks
from twofold.distributions import picture
from twofold.divergences import gan_fake, gan_real, gathered
from twofold.errors import InputError
from twofold.method import _using
from twofold.methods.conditional_vae import Conditional

PIXELS = 3 * 128 * 128  # the numbers in one of the paper's observations


class Centres(nn.Module):
    """Mean features `[rows, d]` of as many classes: this batch's and, at a share of `history`, those of batches before.

    A class that is not in the batch keeps its centre; one that was never seen is at 0.
    """

    def __init__(self, rows: int, d: int, history: float):
        super().__init__()
        self.history = history
        self.register_buffer("mean", torch.zeros(rows, d))
        self.register_buffer("seen", torch.zeros(rows))

    def forward(self, f: Tensor, row: Tensor) -> Tensor:
        count = F.one_hot(row, len(self.mean)).sum(0)
        mean = torch.zeros_like(self.mean).index_add(0, row, f) / count.clamp(min=1).unsqueeze(1)
        old = torch.where(count > 0, self.history * self.seen, 1.0).unsqueeze(1)
        mean = old * self.mean + (1 - old) * mean
        if self.training:
            self.mean, self.seen = mean.detach(), torch.maximum(self.seen, (count > 0).to(self.seen.dtype))
        return mean


class CVAEGAN(Conditional):
    """CVAE-GAN [Bao17, Algorithm 1]: encoder E, generator G, discriminator D and classifier C, each with its own loss.

    D and C descend cross entropies. G never sees those: it matches features, f_D and f_C, the inputs of their last
    layers. E and G share the terms of reconstructions x': half of |x - x'|^2, |f_D(x) - f_D(x')|^2 and
    |f_C(x) - f_C(x')|^2. For samples from the prior, of the batch's own classes, G has half the squared distance of
    their mean features from the real ones: f_D over all, f_C class by class and summed over classes.

    `kl` weights KL(q(z|x, y) || N(0, I)). None: the paper's 3 times the square root of how many numbers an observation
    has, of its 128 x 128 x 3 (ours: a smaller image has less to say against the KL). `pixel` weights the error of
    pixels, 1 in the paper. `pair_d` weights the error of f_D, 1 in the paper. `pair_c` weights the error of f_C, 1 in
    the paper. `mean_d` weights the distance of mean f_D, 0.001 in the paper. `mean_c` weights the distances of mean
    f_C, 0.001 in the paper; higher is truer to the class and less varied. `history` is the share of the batches before
    in the means, which are moving ones, and so of the gradient that they lose (ours: the paper doesn't say). The means
    are those of all ranks.

    Networks of your own: `encoder(x, s) -> z` (Gaussian), `decoder(s, z) -> x`, s one-hot `[N, classes]`; for f_D and
    f_C `x -> features [N, d]`, or ours.
    """

    name = "cvae-gan"
    players = {"E": "enc", "G": "dec", "D": "f_D head_D", "C": "f_C head_C"}
    optim = {"name": "adam", "lr": 5e-4}

    f_D: Any
    f_C: Any
    head_D: Any
    head_C: Any
    centres_D: Any
    centres_C: Any

    def __init__(
        self,
        encoder,
        decoder,
        f_D=None,
        f_C=None,
        *,
        kl: float | None = None,
        pixel: float = 1.0,
        pair_d: float = 1.0,
        pair_c: float = 1.0,
        mean_d: float = 0.1,
        mean_c: float = 0.1,
        history: float = 0.9,
    ):
        super().__init__(encoder, decoder)
        if not 0 <= history < 1:
            raise InputError(f"history: {history}; expected a share from 0 to below 1")
        self.f_D, self.f_C, self.head_D, self.head_C = f_D, f_C, None, None
        self.kl, self.pixel, self.pair_d, self.pair_c = kl, pixel, pair_d, pair_c
        self.mean_d, self.mean_c, self.history = mean_d, mean_c, history

    @classmethod
    def networks(cls, shape, s, z, classes, arch):
        return *networks.labelled(arch, shape, z, classes), _features(arch, shape), _features(arch, shape)

    def _grow(self, classes):
        super()._grow(classes)
        for name, rows in (("D", 1), ("C", classes)):
            f = getattr(self, f"f_{name}")
            if f is None:
                f = _features("auto", self.shape).to(self.device)
                setattr(self, f"f_{name}", f)
            head = getattr(self, f"head_{name}")
            if head is None or head.out_features != rows:
                with _using(f):
                    width = f(torch.zeros(2, *self.shape, device=self.device)).shape[1]
                setattr(self, f"head_{name}", nn.Linear(width, rows, device=self.device))
                setattr(self, f"centres_{name}", Centres(2 * rows, width, self.history).to(self.device))

    def losses(self, draw):
        x_r, c_r = draw.x, draw.y
        s = self._one_hot(c_r)
        f_C_r = self.f_C(x_r)
        L_C = F.cross_entropy(self.head_C(f_C_r).float(), c_r)
        q = self._q(x_r, s)
        x_f = picture(self.dec(s, q.sample()))
        x_p = picture(self.dec(s, torch.randn(q.mean.shape, device=x_r.device)))
        f_D_r, f_D_f, f_D_p = self.f_D(x_r), self.f_D(x_f), self.f_D(x_p)
        real, fake, fake_prior = (self.head_D(f).squeeze(1).float() for f in (f_D_r, f_D_f, f_D_p))
        L_G = {
            "rec": self.pixel * _distance(x_r, x_f),
            "pair_D": self.pair_d * _distance(f_D_r, f_D_f),
            "pair_C": self.pair_c * _distance(f_C_r, self.f_C(x_f)),
        }
        one = torch.zeros_like(c_r)
        L_GD = self._apart(self.centres_D, f_D_r, f_D_p, one)
        L_GC = self._apart(self.centres_C, f_C_r, self.f_C(x_p), c_r)
        kl = 3 * math.sqrt(math.prod(self.shape) / PIXELS) if self.kl is None else self.kl
        yield {
            "C": {"cls": L_C},
            "D": {"real": gan_real(real), "fake": gan_fake(fake), "fake_prior": gan_fake(fake_prior)},
            "G": L_G | {"mean_D": self.mean_d * L_GD, "mean_C": self.mean_c * L_GC},
            "E": {"kl_z": kl * q.kl().mean()} | L_G,
        }

    def _apart(self, centres: Centres, real: Tensor, fake: Tensor, row: Tensor) -> Tensor:
        """Half the squared distance of the mean features of real and generated observations, summed over the rows."""
        f, rows = gathered(torch.cat([real, fake]).float()), len(centres.mean) // 2
        real, fake = centres(f, gathered(torch.cat([row, row + rows]))).chunk(2)
        return 0.5 * (real - fake).square().sum()


def _features(arch: str, shape) -> nn.Module:
    """Layers up to the last, of a discriminator's architecture by that name, or "auto"."""
    return discriminators.build(arch if arch in discriminators.ARCHITECTURES else "auto", shape).trunk


def _distance(a: Tensor, b: Tensor) -> Tensor:
    return 0.5 * (a.float() - b.float()).square().flatten(1).sum(1).mean()
