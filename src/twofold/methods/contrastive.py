"""Contrastive disentanglement with principled objectives (2021): what is in the target and not in the background?"""

from __future__ import annotations

from typing import Literal

import torch

from twofold.distributions import Likelihood
from twofold.divergences import audible, gathered, group_dependence, wasserstein2
from twofold.method import Method
from twofold.supervision import Reference


class Contrastive(Method):
    """Contrastive VAE whose salient code is driven to 0 on the background [Contrast21, Eqs. 7 and 8].

    The background is decoded with s = 0, and its s is pulled there by `lambda_s` (|mu_s|^2 + |sigma_s|^2), which stands
    for Eq. 7's indicator. `lambda_z` weights the squared Wasserstein distance between the two sets' z (Eq. 8); 0 leaves
    it out, which is Eq. 7 (with `leakage=0`). `beta` weights the KLs; the paper has 2 and a "large" `lambda_s`. In our
    exploration (no command kept) 2 and 100 let s collapse on small images: the defaults are lower.

    A large `lambda_z` is met by a z of tiny scale that still tells the two sets apart. `leakage` is the price of that:
    so many times z's KL for each nat by which z shows the set (`divergences.group_dependence`, blind to scale; ours; 0
    is the paper's objective). While z is silent, as at the start of a training, it is less
    (`divergences.audible`).
    """

    name = "contrastive"
    supervision = Reference

    def __init__(
        self,
        encoder,
        decoder,
        *,
        lambda_s: float = 10.0,
        lambda_z: float = 1.0,
        beta: float = 1.0,
        leakage: float = 10.0,
        likelihood: Literal["gaussian", "laplace", "bernoulli"] = "gaussian",
        scale: float | None = 0.1,
    ):
        super().__init__(encoder, decoder)
        self.lambda_s, self.lambda_z, self.beta, self.leakage = lambda_s, lambda_z, beta, leakage
        self.nll = Likelihood(likelihood, scale, default_scale=0.1)

    def losses(self, draw):  # the paper's x is draw.target, its y draw.background
        q_sx, q_zx = self._posterior(draw.target)
        q_sy, q_zy = self._posterior(draw.background)
        s_x, z_x, z_y = q_sx.sample(), q_zx.sample(), q_zy.sample()
        kl_z = (q_zx.kl() + q_zy.kl()).mean()
        terms = {
            "rec_target": self.nll(self.dec(s_x, z_x), draw.target).mean(),  # Eq. 3
            "rec_background": self.nll(self.dec(torch.zeros_like(s_x), z_y), draw.background).mean(),
            "kl_s": self.beta * q_sx.kl().mean(),
            "kl_z": self.beta * kl_z,
            "salient": self.lambda_s * (q_sy.mean.square() + q_sy.variance).sum(-1).mean(),  # Eq. 7
        }
        if self.lambda_z:
            terms["w2"] = self.lambda_z * wasserstein2(gathered(z_x), gathered(z_y))  # Eqs. 8-9
        if self.leakage:  # ours
            z, noise, x = (
                torch.cat([gathered(a), gathered(b)])
                for a, b in ((q_zx.mean, q_zy.mean), (q_zx.variance, q_zy.variance), (draw.target, draw.background))
            )
            row = x.flatten(1).unique(dim=0, return_inverse=True)[1]  # of a small set a batch holds rows twice
            told = group_dependence(z, torch.arange(len(z), device=z.device) < len(z) // 2, row=row)
            price = self.leakage * audible(z, noise) * gathered(kl_z.detach()[None]).mean() / 2
            terms["leakage"] = price * told.clamp(min=0)  # below 0 it would pay to push a set's rows apart
        yield {"model": terms}
