"""Bouchacourt, Tomioka and Nowozin 2018: evidence that a group accumulates."""

from __future__ import annotations

from typing import Literal

from twofold.distributions import Likelihood, Mixture, Point
from twofold.divergences import gathered, group_dependence
from twofold.errors import choose
from twofold.method import Method
from twofold.supervision import Groups


class MLVAE(Method):
    """Multi-Level VAE [Bouchacourt18]. The paper's content C is our s, its style S our z.

    The posterior of a group's content is the normalised product of its members' (`evidence="product"`, Eqs. 6-7) or
    their even mixture (`"mixture"`, supplement Eqs. 1-3). `beta` weights both KLs.

    Nothing in the paper's objective keeps the group out of z, and on most data it does leak there. `leakage` is what it
    costs: that many times z's KL for each nat of `divergences.group_dependence` (ours; 0 is the paper's objective).
    """

    name = "ml-vae"
    supervision = Groups

    def __init__(
        self,
        encoder,
        decoder,
        *,
        evidence: Literal["product", "mixture"] = "product",
        beta: float = 1.0,
        leakage: float = 5.0,
        likelihood: Literal["gaussian", "laplace", "bernoulli"] = "gaussian",
        scale: float | None = None,
    ):
        super().__init__(encoder, decoder)
        choose("evidence", evidence, ("product", "mixture"))
        self.evidence, self.beta, self.leakage = evidence, beta, leakage
        self.nll = Likelihood(likelihood, scale)

    def losses(self, draw):  # draw.x [G, K, *shape], draw.mask [G, K]
        G, K = draw.mask.shape
        x = draw.x.flatten(0, 1)
        q_C, q_S = self._posterior(x)
        S = q_S.sample()
        if self.evidence == "product":
            q_CG = q_C.unflatten((G, K)).product(dim=1, mask=draw.mask)  # Eqs. 6-7
            C = q_CG.sample((K,))  # Algorithm 1: a c_{G,i} for each X_i
            kl_C = q_CG.kl()
        else:
            q_CG = Mixture(q_C.unflatten((G, K)), draw.mask)
            C = q_CG.sample((K,))
            kl_C = q_CG.kl(C, draw.mask.T)  # the reconstruction's own samples, L = |G|
        members = draw.mask.flatten()
        nll = self.nll(self.dec(C.transpose(0, 1).flatten(0, 1), S), x, members)
        kl_S = (q_S.kl() * members).sum() / G
        terms = {  # -ELBO(G), Eq. 3; mean over the batch's groups, Eq. 5
            "rec": (nll * members).sum() / G,
            "kl_z": self.beta * kl_S,
            "kl_s": self.beta * kl_C.mean(),
        }
        if self.leakage:  # ours; priced by what z holds, so that no weight depends on the data
            group = draw.group[:, None].expand(G, K).flatten()
            told = group_dependence(*map(gathered, (q_S.mean, group, members)))
            terms["leakage"] = self.leakage * gathered(kl_S.detach()[None]).mean() * told
        yield {"model": terms}

    def _accumulate(self, q_s, group, count):
        if self.evidence == "product":
            return super()._accumulate(q_s, group, count)
        return super()._accumulate(Point(q_s.mean), group, count)  # a mixture's mean, supplement Eq. 1
