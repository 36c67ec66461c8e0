"""Mathieu et al. 2016 with a reference set in place of classes, as Ruiz et al. 2019 compare with it."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from twofold import discriminators, networks
from twofold.distributions import Likelihood, picture
from twofold.divergences import gan_fake, gan_generator, gan_real, gathered
from twofold.method import Method
from twofold.supervision import Reference


class ReferenceMathieu(Method):
    """The method of Mathieu16, told only which images are reference images [Ruiz19, Sec. 5.2]. s is a point.

    Two reference images are a pair that shares s: each must come out of the other's s and its own z (`same`). Nothing
    is known of two unlabelled images, so that they have no such term. `rec` weights the reconstruction of all images
    from their own codes. `kl` weights the KL of z. The adversary's classes are two, reference and unlabelled: an image
    of one set with the s of the other must pass for one of that other (`gan`). Its images are drawn anew after the
    model moved. There is no such term on z from the prior, which Mathieu16's Algorithm 1 has. The paper gives no
    weights; a `gan` of None is the square root of the number of values in an observation, the default of `Mathieu`,
    too. Each code has an encoder of its own, as with all methods there.

    Reference images share an s that nothing asks to be 0. Its running mean over the batches of the training is
    `reference_s` (ours).

    A `likelihood` of None is the paper's "laplace" for images, "gaussian" of scale 0.1 for vectors. `scale` is the
    Laplacian's mean absolute deviation, or the Gaussian's standard deviation. A `scale` of None is the paper's for
    "laplace": 0.01 on images in [-1, 1], which is 0.005 on ours in [0, 1]; for "gaussian", where it was named, the best
    one for each batch.
    """

    name = "mathieu-reference"
    supervision = Reference
    draws = 2
    players = {"model": "enc dec", "adversary": "disc"}
    optim = {"name": "adam", "lr": 1e-4, "betas": (0.5, 0.99), "eps": 1e-8}
    needs = "examples"
    point_s = True

    mean_s: Tensor
    batches: Tensor

    def __init__(
        self,
        encoder,
        decoder,
        discriminator,
        *,
        rec: float = 1.0,
        same: float = 1.0,
        kl: float = 1.0,
        gan: float | None = None,
        likelihood: Literal["gaussian", "laplace", "bernoulli"] | None = None,
        scale: float | None = None,
    ):
        super().__init__(encoder, decoder)
        self.disc = discriminator
        self.disc.grow(2)
        self.weights = rec, same, kl, gan
        self.nll = Likelihood(likelihood, 0.005 if scale is None and likelihood == "laplace" else scale)

    @classmethod
    def networks(cls, shape, s, z, classes, arch):
        disc = discriminators.build(discriminators.fitting(arch), shape, "embedding")
        return *networks.build(arch, shape, s, z, point=True, separate=True), disc

    def bind(self, supervision):
        super().bind(supervision)
        if not hasattr(self, "mean_s"):
            self.register_buffer("mean_s", torch.zeros(self.sizes[0], device=self.device))
            self.register_buffer("batches", torch.zeros((), device=self.device))  # that are in it

    def _swapped(self, draw):
        """Codes of both sets, each set's images with the other's s, and the class that those are to pass for."""
        n = len(draw.target)
        q_s, q_z = self._posterior(torch.cat([draw.target, draw.background]))
        s, z = q_s.mean, q_z.sample()
        is_reference = torch.arange(2 * n, device=s.device) // n
        return s, z, q_z, picture(self.dec(s.roll(n, 0), z)), 1 - is_reference

    def losses(self, draw, fresh):
        rec, same, kl, gan = self.weights
        n, x = len(draw.target), torch.cat([draw.target, draw.background])
        gan = math.sqrt(x[0].numel()) if gan is None else gan
        s, z, q_z, swapped, other = self._swapped(draw)
        if self.training:
            self.batches += 1
            self.mean_s.lerp_(gathered(s[n:].detach()).mean(0), (1 / self.batches).clamp(min=0.1))
        pair = self.dec(s[n:].roll(1, 0), z[n:])  # another reference image's s
        sets = 2.0  # terms are averaged over each set, and both added up
        yield {
            "model": {
                "rec": rec * sets * self.nll(self.dec(s, z), x).mean(),
                "same": same * self.nll(pair, draw.background).mean(),
                "kl_z": kl * sets * q_z.kl().mean(),
                "gan": gan * sets * gan_generator(self.disc(swapped, other)),
            }
        }
        with torch.no_grad():
            *_, swapped, other = self._swapped(fresh)
        real = torch.cat([fresh.target, fresh.background])
        yield {
            "adversary": {
                "fake": gan_fake(self.disc(swapped, other)),
                "real": gan_real(self.disc(real, 1 - other)),
            }
        }

    def reference_s(self, n: int) -> Tensor:
        """`[n, d_s]`: the mean s of the reference images; zero before training."""
        if not hasattr(self, "mean_s"):
            return super().reference_s(n)
        return self.mean_s.float().cpu().expand(n, -1)

    def prior(self, n, y=None):
        raise self._lacks("prior of s; give examples")
