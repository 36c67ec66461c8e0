"""Kumar, Sattigeri and Balakrishnan 2018: a VAE whose codes have the covariance of the prior."""

from __future__ import annotations

from typing import Literal

from twofold import networks
from twofold.distributions import Likelihood
from twofold.divergences import covariance_penalty, gathered
from twofold.errors import choose
from twofold.method import Method
from twofold.supervision import Images


class DIPVAE(Method):
    """DIP-VAE [Kumar18]: the covariance of the code is drawn to the identity. z is the whole code.

    `kind="i"` takes the covariance of the posteriors' means over the data, `"ii"` that of z itself, which adds the mean
    of the posteriors' variances. `lambda_od` weights the squares off the diagonal, `lambda_d` the squared distances of
    the diagonal from 1; None is 10 lambda_od for "i" and lambda_od for "ii", as in Kumar18. Ruiz19 takes the best
    weight of [1, 50]. The covariance is the batch's, gathered over ranks.
    """

    name = "dip-vae"
    only_z = True
    supervision = Images

    def __init__(
        self,
        encoder,
        decoder,
        *,
        kind: Literal["i", "ii"] = "i",
        lambda_od: float = 10.0,
        lambda_d: float | None = None,
        likelihood: Literal["gaussian", "laplace", "bernoulli"] = "gaussian",
        scale: float | None = None,
    ):
        super().__init__(encoder, decoder)
        choose("kind", kind, ("i", "ii"))
        self.kind, self.lambda_od = kind, lambda_od
        self.lambda_d = lambda_d if lambda_d is not None else {"i": 10 * lambda_od, "ii": lambda_od}[kind]
        self.nll = Likelihood(likelihood, scale)

    @classmethod
    def networks(cls, shape, s, z, classes, arch):
        return networks.build(arch, shape, 0, z)

    def losses(self, draw):
        q_s, q_z = self._posterior(draw.x)
        nll = self.nll(self.dec(q_s.sample(), q_z.sample()), draw.x)
        variance = gathered(q_z.variance) if self.kind == "ii" else None
        off, diagonal = covariance_penalty(gathered(q_z.mean), variance)
        yield {
            "model": {
                "rec": nll.mean(),
                "kl_z": q_z.kl().mean(),
                "dip_od": self.lambda_od * off,
                "dip_d": self.lambda_d * diagonal,
            }
        }
