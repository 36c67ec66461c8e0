"""The unsupervised baseline."""

from __future__ import annotations

from typing import Literal

from twofold import networks
from twofold.distributions import Likelihood
from twofold.method import Method
from twofold.supervision import Images


class VAE(Method):
    """Variational autoencoder [Kingma & Welling 2014; Bouchacourt18, Sec. 3.1; Mathieu16, Eq. 1]. z is the whole code.

    `beta` weights the KL (beta-VAE, Higgins et al. 2017).
    """

    name = "vae"
    only_z = True
    supervision = Images

    def __init__(
        self,
        encoder,
        decoder,
        *,
        beta: float = 1.0,
        likelihood: Literal["gaussian", "laplace", "bernoulli"] = "gaussian",
        scale: float | None = None,
    ):
        super().__init__(encoder, decoder)
        self.beta, self.nll = beta, Likelihood(likelihood, scale)

    @classmethod
    def networks(cls, shape, s, z, classes, arch):
        return networks.build(arch, shape, 0, z)

    def losses(self, draw):
        q_s, q_z = self._posterior(draw.x)
        nll = self.nll(self.dec(q_s.sample(), q_z.sample()), draw.x)
        yield {"model": {"rec": nll.mean(), "kl_z": self.beta * q_z.kl().mean()}}
