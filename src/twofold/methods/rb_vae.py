"""Ruiz, Martinez, Binefa and Verbeek 2019: what is constant in a reference set, and varies elsewhere."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from twofold import networks
from twofold.distributions import Likelihood
from twofold.method import Method
from twofold.supervision import Reference


class RbVAE(Method):
    """Reference-based VAE [Ruiz19, Eqs. 1-3]. The paper's target factors e are our s; its unlabelled set is the target.

    All images of the reference set are decoded from one learned vector e^r (`reference_s`), in place of an e of their
    own. Eq. 3, missing from the text, is Eq. 10 without its factor 1/2 and its constants. `encode` gives q(e|x) for any
    image, those of the reference set too.

    A `likelihood` of None is the paper's "laplace" for images, "gaussian" of scale 0.1 for vectors. `scale` is the
    Laplacian's mean absolute deviation, or the Gaussian's standard deviation. A `scale` of None is the paper's for
    "laplace": 0.01 on images in [-1, 1], which is 0.005 on ours in [0, 1]; for "gaussian", where it was named, the best
    one for each batch.
    """

    name = "rb-vae"
    supervision = Reference
    players = {"model": "enc dec e_r"}
    optim = {"name": "adam", "lr": 1e-4, "betas": (0.5, 0.99), "eps": 1e-8}

    def __init__(
        self,
        encoder,
        decoder,
        *,
        likelihood: Literal["gaussian", "laplace", "bernoulli"] | None = None,
        scale: float | None = None,
    ):
        super().__init__(encoder, decoder)
        self.nll = Likelihood(likelihood, 0.005 if scale is None and likelihood == "laplace" else scale)

    @classmethod
    def networks(cls, shape, s, z, classes, arch) -> tuple[nn.Module, ...]:
        return networks.build(arch, shape, s, z, separate=True)  # an encoder for each code, Sec. 4.2

    def bind(self, supervision):
        super().bind(supervision)
        if not hasattr(self, "e_r"):
            self.e_r = nn.Parameter(torch.zeros(self.sizes[0], device=self.device))

    def losses(self, draw):  # the paper's x ~ p^u is draw.target, its x ~ p^r draw.background
        q_e, q_z = self._posterior(draw.target)
        _, q_zr = self._posterior(draw.background)
        z_r = q_zr.sample()
        rec, rec_r = self._rec(draw, q_e.sample(), q_z.sample(), z_r)
        yield {
            "model": {  # Eq. 3
                "rec_target": rec,
                "rec_background": rec_r,
                "kl_s": q_e.kl().mean(),
                "kl_z": (q_z.kl() + q_zr.kl()).mean(),
            }
        }

    def _rec(self, draw, e, z, z_r):
        """-log p(x|z, e) and -log p(x^r|z^r, e^r), means over each set; one scale for both, where batches decide it."""
        x = self.dec(torch.cat([e, self.e_r.expand(len(z_r), -1)]), torch.cat([z, z_r]))
        nll = self.nll(x, torch.cat([draw.target, draw.background]))
        return nll[: len(z)].mean(), nll[len(z) :].mean()

    def reference_s(self, n: int) -> Tensor:
        """`[n, d_s]`: the learned e^r; zero before training."""
        if not hasattr(self, "e_r"):
            return super().reference_s(n)
        return self.e_r.detach().float().cpu().expand(n, -1)
