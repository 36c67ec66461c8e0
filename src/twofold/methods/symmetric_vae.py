"""Pu et al. 2018: the unsupervised counterpart of the symmetric reference-based VAE."""

from __future__ import annotations

from typing import Literal

import torch

from twofold import discriminators, networks
from twofold.distributions import Likelihood, picture
from twofold.divergences import gan_fake, gan_real
from twofold.errors import InputError
from twofold.method import Method
from twofold.supervision import Images


class SymmetricVAE(Method):
    """Symmetric VAE (Pu et al. 2018), as the baseline of [Ruiz19, Sec. 5.2], there "sVAE". z is the whole code.

    KL(q || p) + KL(p || q) over images and codes, its log-density ratio learned by a discriminator `d`, plus explicit
    reconstruction: `SRbVAE` without a reference set. `rec` weights the reconstruction of images. `latent` weights the
    recovery of z from generated images. `dropout` is the probability that the discriminator, in training, does not get
    to see an image's features, and that it does not see its code (`discriminators.JointDiscriminator`).

    A `likelihood` of None is the paper's "laplace" for images, "gaussian" of scale 0.1 for vectors. `scale` is the
    Laplacian's mean absolute deviation, or the Gaussian's standard deviation. A `scale` of None is the paper's for
    "laplace": 0.01 on images in [-1, 1], which is 0.005 on ours in [0, 1]; for "gaussian", where it was named, the best
    one for each batch.
    """

    name = "symmetric-vae"
    only_z = True
    supervision = Images
    players = {"model": "enc dec", "d": "d"}
    optim = {"name": "adam", "lr": 1e-4, "betas": (0.5, 0.99), "eps": 1e-8}

    def __init__(
        self,
        encoder,
        decoder,
        d,
        *,
        rec: float = 1.0,
        latent: float = 1.0,
        dropout: float = 0.25,
        likelihood: Literal["gaussian", "laplace", "bernoulli"] | None = None,
        scale: float | None = None,
    ):
        super().__init__(encoder, decoder)
        if not 0 <= dropout < 1:
            raise InputError(f"dropout: {dropout}; expected a probability, 0 or more and less than 1")
        self.d, self.rec, self.latent = d, rec, latent
        if isinstance(d, discriminators.JointDiscriminator):  # another brings its own
            d.dropout = dropout
        self.nll = Likelihood(likelihood, 0.005 if scale is None and likelihood == "laplace" else scale)

    @classmethod
    def networks(cls, shape, s, z, classes, arch):
        return *networks.build(arch, shape, 0, z), discriminators.joint(discriminators.fitting(arch), shape, z)

    def losses(self, draw):
        q_s, q_z = self._posterior(draw.x)
        s, z = q_s.sample(), q_z.sample()
        z_hat = torch.randn_like(z)
        x_hat = picture(self.dec(s, z_hat))
        real, fake = self.d(draw.x, z), self.d(x_hat, z_hat)
        yield {
            "model": {
                "adv": real.mean() - fake.mean(),
                "rec": self.rec * self.nll(self.dec(s, z), draw.x).mean(),
                "latent": -self.latent * self._posterior(x_hat)[1].log_prob(z_hat).mean(),
            },
            "d": {"real": gan_real(real), "fake": gan_fake(fake)},
        }
