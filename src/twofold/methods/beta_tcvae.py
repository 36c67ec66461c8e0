"""Chen, Li, Grosse and Duvenaud 2018: a VAE that pays for dependence between the dimensions of its code."""

from __future__ import annotations

from typing import Literal

from twofold import networks
from twofold.distributions import Likelihood
from twofold.divergences import gathered, kl_decomposition
from twofold.errors import choose
from twofold.method import Method
from twofold.supervision import Images


class BetaTCVAE(Method):
    """beta-TCVAE [Chen18]: the KL taken apart, and only the total correlation weighted. z is the whole code.

    E KL(q(z|x) || p(z)) is the mutual information of code and observation, plus the total correlation of q(z), plus
    each dimension's own KL; `beta` weights the middle one (Ruiz19 takes the best of [1, 50]; 1 is a VAE with a sampled
    KL). The densities of the aggregate posterior q(z) are estimated from the batch and the number n of training
    observations, which `bind` takes from the data: `estimator="weighted"`, as in Chen18's experiments, or
    `"stratified"`, unbiased for q(z). See `divergences.kl_decomposition`; the whole batch is gathered over ranks.
    """

    name = "beta-tcvae"
    only_z = True
    supervision = Images

    def __init__(
        self,
        encoder,
        decoder,
        *,
        beta: float = 5.0,
        estimator: Literal["weighted", "stratified"] = "weighted",
        likelihood: Literal["gaussian", "laplace", "bernoulli"] = "gaussian",
        scale: float | None = None,
    ):
        super().__init__(encoder, decoder)
        choose("estimator", estimator, ("weighted", "stratified"))
        self.beta, self.estimator = beta, estimator
        self.nll = Likelihood(likelihood, scale)

    @classmethod
    def networks(cls, shape, s, z, classes, arch):
        return networks.build(arch, shape, 0, z)

    def bind(self, supervision):
        super().bind(supervision)
        self.n = supervision.facts()["n"]

    def losses(self, draw):
        q_s, q_z = self._posterior(draw.x)
        z = q_z.sample()
        nll = self.nll(self.dec(q_s.sample(), z), draw.x)
        codes = (gathered(z), gathered(q_z.mean), gathered(q_z.log_var))
        mi, tc, kl = kl_decomposition(*codes, n=self.n, estimator=self.estimator)
        yield {"model": {"rec": nll.mean(), "mi": mi, "tc": self.beta * tc, "kl_z": kl}}
