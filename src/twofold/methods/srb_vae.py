"""Ruiz, Martinez, Binefa and Verbeek 2019: the reference-based VAE with the symmetric objective."""

from __future__ import annotations

from typing import Literal

import torch

from twofold import discriminators
from twofold.distributions import picture
from twofold.divergences import gan_fake, gan_real
from twofold.errors import InputError
from twofold.methods.rb_vae import RbVAE


class SRbVAE(RbVAE):
    """Symmetric reference-based VAE [Ruiz19, Eqs. 4-7, Algorithm 1]: the model of `RbVAE`, another objective.

    The reverse KL added, the objective is one of two log-density ratios (Eq. 6), each learned by a discriminator:
    `d_xi` of images with both codes, `d_gamma` of reference images with z. As in Algorithm 1 and Eq. 6, a discriminator
    rises on real images with inferred codes and falls on generated images with prior codes; Eq. 7 as printed would
    learn the ratio's inverse.

    The explicit reconstruction terms of Fig. 3 c-f have a weight each, and the likelihood matters to the first two
    only. `rec_target` weights the reconstruction of target images from both codes. `rec_background` weights the
    reconstruction of reference images from z and e^r. `latent_target` weights the recovery of both codes from generated
    target images (Eq. 5). `latent_background` weights the recovery of z from generated reference images (Eq. 5).

    Generated images are the decoder's means, not samples of the likelihood: its noise would give them away. `dropout`
    is the probability that a discriminator, in training, does not get to see an image's features, and that it does not
    see its codes (`discriminators.JointDiscriminator`).
    """

    name = "srb-vae"
    players = {"model": "enc dec e_r", "d_xi": "d_xi", "d_gamma": "d_gamma"}

    def __init__(
        self,
        encoder,
        decoder,
        d_xi,
        d_gamma,
        *,
        rec_target: float = 1.0,
        rec_background: float = 1.0,
        latent_target: float = 1.0,
        latent_background: float = 1.0,
        dropout: float = 0.25,
        likelihood: Literal["gaussian", "laplace", "bernoulli"] | None = None,
        scale: float | None = None,
    ):
        super().__init__(encoder, decoder, likelihood=likelihood, scale=scale)
        if not 0 <= dropout < 1:
            raise InputError(f"dropout: {dropout}; expected a probability, 0 or more and less than 1")
        self.d_xi, self.d_gamma = d_xi, d_gamma
        for d in (d_xi, d_gamma):
            if isinstance(d, discriminators.JointDiscriminator):  # others bring their own
                d.dropout = dropout
        self.rec_target, self.rec_background = rec_target, rec_background
        self.latent_target, self.latent_background = latent_target, latent_background

    @classmethod
    def networks(cls, shape, s, z, classes, arch):
        both, common = (discriminators.joint(discriminators.fitting(arch), shape, codes) for codes in (z + s, z))
        return *super().networks(shape, s, z, classes, arch), both, common

    def losses(self, draw):  # the paper's x ~ p^u is draw.target, its x^r ~ p^r draw.background
        x, x_r = draw.target, draw.background
        q_e, q_z = self._posterior(x)
        _, q_zr = self._posterior(x_r)
        e, z, z_r = q_e.sample(), q_z.sample(), q_zr.sample()  # Algorithm 1, lines 4-6
        e_r = self.e_r.expand(len(x_r), -1)
        e_hat, z_hat, z_rhat = torch.randn_like(e), torch.randn_like(z), torch.randn_like(z_r)  # lines 9-11
        x_hat, x_rhat = picture(self.dec(e_hat, z_hat)), picture(self.dec(e_r, z_rhat))  # lines 12-13
        xi, xi_hat = self.d_xi(x, z, e), self.d_xi(x_hat, z_hat, e_hat)
        gamma, gamma_hat = self.d_gamma(x_r, z_r), self.d_gamma(x_rhat, z_rhat)
        rec, rec_r = self._rec(draw, e, z, z_r)
        p_e, p_z = self._posterior(x_hat)
        _, p_zr = self._posterior(x_rhat)
        yield {
            "model": {  # Eq. 6, lines 7 and 14; Fig. 3 c-f
                "adv_target": xi.mean() - xi_hat.mean(),
                "adv_background": gamma.mean() - gamma_hat.mean(),
                "rec_target": self.rec_target * rec,
                "rec_background": self.rec_background * rec_r,
                "latent_target": -self.latent_target * (p_z.log_prob(z_hat) + p_e.log_prob(e_hat)).mean(),
                "latent_background": -self.latent_background * p_zr.log_prob(z_rhat).mean(),
            },
            "d_xi": {"real": gan_real(xi), "fake": gan_fake(xi_hat)},  # lines 16 and 18
            "d_gamma": {"real": gan_real(gamma), "fake": gan_fake(gamma_hat)},
        }
