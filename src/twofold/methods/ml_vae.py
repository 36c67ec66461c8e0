"""Bouchacourt, Tomioka and Nowozin 2018: evidence that a group accumulates."""

from __future__ import annotations

from typing import Literal

from twofold.distributions import Likelihood, Mixture
from twofold.divergences import group_dependence
from twofold.errors import choose
from twofold.method import Method
from twofold.supervision import Groups


class MLVAE(Method):
    """Multi-Level VAE [Bouchacourt18]. The paper's content C is our s, its style S our z.

    The posterior of a group's content is the normalised product of its members' (`evidence="product"`, Eqs. 6-7) or
    their even mixture (`"mixture"`, supplement Eqs. 1-3). `beta` weights both KLs.
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
        leakage: float = 0.0,
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
        q_C, q_S = self.enc(x)
        S = q_S.sample()
        if self.evidence == "product":
            q_CG = q_C.unflatten((G, K)).product(dim=1, mask=draw.mask)  # Eqs. 6-7
            C = q_CG.sample((K,))  # Algorithm 1: a c_{G,i} for each X_i
            kl_C = q_CG.kl()
        else:
            q_CG = Mixture(q_C.unflatten((G, K)), draw.mask)
            C = q_CG.sample((K,))
            kl_C = q_CG.kl(C, draw.mask.T)  # the reconstruction's own samples, L = |G|
        nll = self.nll(self.dec(C.transpose(0, 1).flatten(0, 1), S), x)
        members = draw.mask.flatten()
        terms = {  # -ELBO(G), Eq. 3; mean over the batch's groups, Eq. 5
            "rec": (nll * members).sum() / G,
            "kl_z": self.beta * (q_S.kl() * members).sum() / G,
            "kl_s": self.beta * kl_C.mean(),
        }
        if self.leakage:  # ours
            group = draw.group[:, None].expand(G, K).flatten()
            terms["leakage"] = self.leakage * group_dependence(q_S.mean, group, members)
        yield {"model": terms}
