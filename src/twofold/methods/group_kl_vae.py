"""Bouchacourt, Tomioka and Nowozin 2018, supplement 8: a group pulls its members' contents together."""

from __future__ import annotations

from typing import Literal

from twofold.distributions import Likelihood
from twofold.divergences import gathered
from twofold.errors import InputError
from twofold.methods.grouped import GroupedMethod


class GroupKLVAE(GroupedMethod):
    """VAE whose s is alike within a group, "regularising the objective" [Bouchacourt18, supplement Eq. 18].

    Each observation has a content C_i (our s) and a style S_i (our z) of its own; `lambda_s` weights the symmetrised
    KL between the contents of members paired at random, averaged over a group's pairs, then over groups. The paper
    cross-validates it and prints no value. A member left over from an odd number has no pair, a group of one adds 0;
    a large group counts once for each of its chunks. `beta` weights the KLs to the prior.

    The ELBO is averaged over observations here, as in the paper. Too large a `lambda_s`, or s, and s is left at the
    prior: all that can be told is then in z (the paper's finding with 100 dimensions; on digits swaps ignored s at
    every `lambda_s` that we tried without `leakage`: `twofold table bouchacourt18 --only "leakage, regularised"`).
    `leakage` and `separate` are `GroupedMethod`'s.
    """

    name = "group-klvae"

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
        super().__init__(encoder, decoder, leakage, separate)
        self.lambda_s, self.beta = lambda_s, beta
        self.nll = Likelihood(likelihood, scale)

    def bind(self, supervision):
        facts = supervision.facts()
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
            terms["leakage"] = yield from self._price(draw, q_S.mean, members, kl_S)
        yield {"model": terms}
