"""Miyato and Koyama 2018: a conditional GAN whose discriminator sees the class as a projection."""

from __future__ import annotations

from typing import Any, Literal

import torch

from twofold import discriminators, networks
from twofold.distributions import picture
from twofold.divergences import gan_fake, gan_generator, gan_real
from twofold.errors import choose, whole
from twofold.methods.conditional_vae import Conditional


class CGAN(Conditional):
    """Conditional GAN with a projection discriminator [Miyato & Koyama 2018; the cGAN of Zheng19, Sec. 4.2].

    The logit of (x, y) is v_y . f(x) + w . f(x) + b. `n_critic` steps of the discriminator, each on a batch of its own,
    come before one of the generator, whose classes are the last batch's. `loss` is the paper's hinge, or "log" with a
    generator that descends -log D. `spectral` normalises the discriminator's weights, as in the paper.

    There is no encoder: it generates, and that is all. Networks of your own: `decoder(s, z) -> x`, s one-hot
    `[N, classes]`, z of that many dimensions; `discriminator(x, y) -> logit [N]`, or ours.
    """

    name = "cgan"
    players = {"G": "dec", "D": "disc"}
    optim = {"name": "adam", "lr": 1e-3, "betas": [0.0, 0.9]}

    disc: Any

    def __init__(
        self,
        decoder,
        discriminator=None,
        z: int = 10,
        *,
        n_critic: int = 1,
        loss: Literal["hinge", "log"] = "hinge",
        spectral: bool = True,
    ):
        super().__init__(decoder=decoder)
        choose("loss", loss, ("hinge", "log"))
        self.disc, self._z, self.draws = discriminator, z, whole("n_critic", n_critic, 1)
        self.loss, self.spectral = loss, spectral

    @classmethod
    def networks(cls, shape, s, z, classes, arch, spectral=True):
        decoder = networks.labelled(arch, shape, z, classes)[1]
        return decoder, _discriminator(arch, shape, spectral), z

    def _grow(self, classes):
        if self.disc is None:
            self.disc = _discriminator("auto", self.shape, self.spectral)
        super()._grow(classes)

    def losses(self, *draws):
        for draw in draws:
            with torch.no_grad():
                x = self._sample(draw.y)
            real, fake = self.disc(draw.x, draw.y), self.disc(x, draw.y)
            yield {"D": {"real": gan_real(real, self.loss), "fake": gan_fake(fake, self.loss)}}
        y = draws[-1].y
        yield {"G": {"gan": gan_generator(self.disc(self._sample(y), y), self.loss)}}

    def _sample(self, y):
        return picture(self.dec(self._one_hot(y), torch.randn(len(y), self._z, device=y.device)))

    def _posterior(self, x, y=None):
        raise self._lacks("encoder; it generates only")


def _discriminator(arch: str, shape, spectral: bool) -> discriminators.Discriminator:
    return discriminators.build(discriminators.fitting(arch), shape, "projection", spectral)
