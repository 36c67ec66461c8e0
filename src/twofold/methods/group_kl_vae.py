"""Bouchacourt, Tomioka and Nowozin 2018, supplement 8: a group pulls its members' contents together."""

from __future__ import annotations

from typing import Literal

from twofold import networks
from twofold.distributions import Likelihood
from twofold.divergences import gathered, group_leak, refuse_one_group
from twofold.errors import InputError
from twofold.method import Method
from twofold.supervision import Groups


class GroupKLVAE(Method):
    """VAE whose s is alike within a group, "regularising the objective" [Bouchacourt18, supplement Eq. 18].

    Each observation has a content C_i (our s) and a style S_i (our z) of its own; `lambda_s` weights the symmetrised
    KL between the contents of members paired at random, averaged over a group's pairs, then over groups. The paper
    cross-validates it and prints no value; in our exploration on 8 x 8 digits (no command kept) 0.03 to 1 did well. A
    member left over from an odd number has no pair, a group of one adds 0. `beta` weights the KLs to the prior.

    The ELBO is averaged over observations here, as in the paper. Too large a `lambda_s`, or s, and s is left at the
    prior: all that can be told is then in z (the paper's finding with 100 dimensions; ours in that exploration at any
    `lambda_s` without `leakage`). `leakage` and `separate` as in `MLVAE`.
    """

    name = "group-klvae"
    supervision = Groups

    def __init__(
        self,
        encoder,
        decoder,
        *,
        lambda_s: float = 0.3,
        beta: float = 1.0,
        leakage: float = 2.0,
        separate: bool | None = None,
        likelihood: Literal["gaussian", "laplace", "bernoulli"] = "gaussian",
        scale: float | None = None,
    ):
        super().__init__(encoder, decoder)
        self.lambda_s, self.beta, self.leakage, self.separate = lambda_s, beta, leakage, separate
        self.nll = Likelihood(likelihood, scale)

    @classmethod
    def networks(cls, shape, s, z, classes, arch, separate=None):
        return networks.build(arch, shape, s, z, separate=arch in networks.GENERAL if separate is None else separate)

    def bind(self, supervision):
        facts = supervision.facts()
        if facts["per_group"] < 2:
            raise InputError("per_group: 1; group-klvae compares members of a group, draw at least 2")
        if "groupings" in facts:
            raise InputError(f"group: {len(facts['groupings'])} groupings; group-klvae takes one, ml-vae several")
        super().bind(supervision)

    def losses(self, draw):  # draw.x [G, K, *shape], draw.mask [G, K]
        G, K = draw.mask.shape
        x, members = draw.x.flatten(0, 1), draw.mask.flatten()
        q_C, q_S = self._posterior(x)
        nll = self.nll(self.dec(q_C.sample(), q_S.sample()), x, members)
        n = len(members) * gathered(members).mean()  # a rank's share of all real observations
        q, mask = q_C.unflatten((G, K)), draw.mask
        one, other = slice(0, K - 1, 2), slice(1, K, 2)  # members come shuffled, so any pairing is random
        paired = mask[:, one] * mask[:, other]
        apart = 0.5 * (q[:, one].kl(q[:, other]) + q[:, other].kl(q[:, one]))
        kl_S = (q_S.kl() * members).sum() / n
        terms = {  # supplement Eq. 18
            "rec": (nll * members).sum() / n,
            "kl_z": self.beta * kl_S,
            "kl_s": self.beta * (q_C.kl() * members).sum() / n,
            "group": self.lambda_s * ((apart * paired).sum(1) / paired.sum(1).clamp(min=1)).mean(),
        }
        if self.leakage:  # ours
            refuse_one_group(len(gathered(draw.group)), K)
            group = draw.group[:, None].expand(G, K).flatten()
            told = group_leak(*map(gathered, (q_S.mean, group, members, draw.index.flatten())))
            terms["leakage"] = self.leakage * gathered(kl_S.detach()[None]).mean() * told
        yield {"model": terms}
