"""Abid and Zou 2019: the contrastive VAE, as Contrast21 compares with it."""

from __future__ import annotations

from typing import Literal

import torch

from twofold import discriminators
from twofold.distributions import Likelihood
from twofold.divergences import gan_fake, gan_real, gathered
from twofold.errors import InputError
from twofold.method import Method
from twofold.supervision import Reference


class AbidZou(Method):
    """Contrastive VAE of Abid & Zou (2019) [Contrast21, Eqs. 3 and 4]: what is in the target and not in the background?

    The background is decoded with s = 0; nothing asks that its own s be 0 (that is Contrast21's point). `tc` weights
    the total correlation KL(q(s, z) || q(s) q(z)) on the target, lambda in Eq. 4. Contrast21 prints it with the
    posteriors of one x, whose product it would be; meant is the aggregate posterior. A discriminator tells a batch's
    pairs (s_i, z_i) from pairs of different observations (where a small set repeats one in a batch, it is not paired
    with itself); where it is perfect its logit is the log-ratio of the two densities. It learns from detached codes, as
    a player of its own, at the same time as the model.

    `beta` weights the KLs (1 in Eq. 3). The pairs are made within the whole batch, gathered over ranks.
    `discriminator` maps `[N, d_s + d_z]` to logits `[N]`; a perceptron unless given.
    """

    name = "abid-zou"
    supervision = Reference
    players = {"model": "enc dec", "discriminator": "disc"}

    def __init__(
        self,
        encoder,
        decoder,
        discriminator=None,
        *,
        tc: float = 1.0,
        beta: float = 1.0,
        likelihood: Literal["gaussian", "laplace", "bernoulli"] = "gaussian",
        scale: float | None = 0.1,
    ):
        super().__init__(encoder, decoder)
        self.tc, self.beta, self.nll = tc, beta, Likelihood(likelihood, scale, default_scale=0.1)
        if discriminator is not None:
            self.disc = discriminator

    def bind(self, supervision):
        super().bind(supervision)
        if supervision.facts()["n"] < 2:
            raise InputError("target: 1 observation; the discriminator's pairs of different ones take at least 2")
        if not hasattr(self, "disc"):
            self.disc = discriminators.build("mlp", (sum(self.sizes),)).to(self.device)

    def losses(self, draw):  # Contrast21's x is draw.target, its y draw.background
        (q_sx, q_zx), (_, q_zy) = self._posterior(draw.target), self._posterior(draw.background)
        s_x, z_x, z_y = q_sx.sample(), q_zx.sample(), q_zy.sample()
        s, z = gathered(s_x), gathered(z_x)
        row = gathered(draw.target).flatten(1).unique(dim=0, return_inverse=True)[1]  # a small set's batch repeats some
        if len(row) < 2:
            raise InputError("batch_size: 1; pairs of different observations take at least 2")
        joint = torch.cat([s, z], 1)
        apart = torch.cat([s.roll(1, 0), z], 1)[row.roll(1, 0) != row]  # in random order: a neighbour is anyone else
        yield {
            "model": {
                "rec_target": self.nll(self.dec(s_x, z_x), draw.target).mean(),  # Eq. 3
                "rec_background": self.nll(self.dec(torch.zeros_like(s_x), z_y), draw.background).mean(),
                "kl_s": self.beta * q_sx.kl().mean(),
                "kl_z": self.beta * (q_zx.kl() + q_zy.kl()).mean(),
                "tc": self.tc * self.disc(joint).mean(),  # Eq. 4
            },
            "discriminator": {
                "joint": gan_real(self.disc(joint.detach())),
                "apart": gan_fake(self.disc(apart.detach())) if len(apart) else z.new_zeros(()),
            },
        }
