"""Mathieu, Zhao, Sprechmann, Ramesh and LeCun 2016: pairs of one class, and an adversary that looks at swaps."""

from __future__ import annotations

import copy
import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from twofold import discriminators, networks
from twofold.distributions import Likelihood, Point, picture, posterior
from twofold.divergences import gan_fake, gan_generator, gan_real, gathered, group_dependence
from twofold.errors import InputError
from twofold.method import Method
from twofold.supervision import Triplets


class Mathieu(Method):
    """Swapped codes must give an image of the class that s came from, says an adversary [Mathieu16]. s is a point.

    The model descends Eq. 5 as Algorithm 1 has it, with the KL that this forgets: `reconstruction` weights x_1 from its
    own codes, `same_class` x_1 from its z and the s of another of its class, `kl` the KL of z (at 1, z of images holds
    much more than swaps can use), `gan` the adversary's view of the z of x_1 with the s of an x_2 of another class,
    `gan_prior` that of a z from the prior (the paper found it unstable). The adversary is told the class, and learns on
    a fresh pair, encoded by the moved model; with `gan` and `gan_prior` 0 there is none. `spectral` normalises its
    weights.

    The paper gives no weights. A `gan` of None is the square root of the number of values in an observation, for
    likelihoods are sums over them, a `kl` of None a third of that, a `leakage` of None twice `kl`: 8, 2.7 and 5.3 on
    8 x 8 digits, 28, 9.3 and 19 on MNIST. In our exploration (no command kept) a `kl` of 10 silenced z on the former, 3
    left all of the class in it on the latter, and a `gan` of 1,000 let the adversary win.

    Nothing in Eq. 5 looks at z itself, only at what the decoder makes of it. `leakage` is what it costs when z tells
    the class: that many times z's KL for each nat of `divergences.group_dependence` (ours; 0 is the paper's objective).

    `s_encoder` makes the two-step variant [supplement, Sec. 4]: a trained `SpecifiedEncoder`, or a network x -> s of
    your own, is copied and frozen; `encoder` is a second one, of which z is taken.

    Networks of your own: `discriminator(x, y) -> logit [N]`, with a `grow(classes)` (ours unless given).
    """

    name = "mathieu"
    supervision = Triplets
    needs = "examples"
    point_s = True

    def __init__(
        self,
        encoder,
        decoder,
        discriminator=None,
        *,
        reconstruction: float = 1.0,
        same_class: float = 1.0,
        kl: float | None = None,
        gan: float | None = None,
        gan_prior: float = 0.0,
        leakage: float | None = None,
        spectral: bool = False,
        likelihood: Literal["gaussian", "laplace", "bernoulli"] = "gaussian",
        scale: float | None = None,
        s_encoder: nn.Module | None = None,
    ):
        super().__init__(encoder, decoder)
        self.reconstruction, self.same_class, self.kl = reconstruction, same_class, kl
        self.gan, self.gan_prior, self.leakage, self.spectral = gan, gan_prior, leakage, spectral
        self.nll = Likelihood(likelihood, scale)
        frozen = s_encoder.enc if isinstance(s_encoder, SpecifiedEncoder) else s_encoder
        self.enc_s = None if frozen is None else copy.deepcopy(frozen).requires_grad_(False)
        self.adversarial = gan is None or gan > 0 or gan_prior > 0
        self.disc: Any = discriminator if self.adversarial else None
        self.draws = 2 if self.adversarial else 1
        self.players = {"model": "enc dec"} | ({"adversary": "disc"} if self.adversarial else {})

    @classmethod
    def build(cls, shape, s=10, z=10, classes=None, arch="auto", *, s_encoder=None, **options):
        """As `Method.build`. `s_encoder`: a trained `SpecifiedEncoder` for the same shape and size of s."""
        if s_encoder is None:
            return super().build(shape, s, z, classes, arch, **options)
        if isinstance(s_encoder, dict):  # the configuration of a saved method
            s_encoder = SpecifiedEncoder.build(**s_encoder)
        if not isinstance(s_encoder, SpecifiedEncoder):
            expected = "a SpecifiedEncoder; networks of your own go to Mathieu(encoder, decoder, s_encoder=...)"
            raise InputError(f"s_encoder: {type(s_encoder).__name__}; expected {expected}")
        if s_encoder.config is None:
            raise InputError("s_encoder: has a network of its own; give it to Mathieu(encoder, decoder, s_encoder=...)")
        config = s_encoder.config
        if s_encoder.shape != tuple(shape) or s_encoder.sizes[0] != s:
            found = f"{s_encoder.sizes[0]} dimensions for observations of shape {s_encoder.shape}"
            raise InputError(f"s_encoder: gives {found}; expected {s} for {tuple(shape)}")
        method = super().build(shape, s, z, classes, arch, s_encoder=s_encoder, **options)
        method.config = {**(method.config or {}), "s_encoder": config}
        return method

    @classmethod
    def networks(cls, shape, s, z, classes, arch, spectral=False, s_encoder=None):
        encoder, decoder = networks.build(arch, shape, s, z, point=True)
        if s_encoder is not None:
            encoder = networks.build(arch, shape, 0, z)[0]
        like = "mathieu16" if arch.startswith("mathieu16") else discriminators.fitting(arch)
        return encoder, decoder, discriminators.build(like, shape, "embedding", spectral)

    def bind(self, supervision):
        """Make what the adversary knows of each class of the training set; an adversary, where none was given."""
        super().bind(supervision)
        if self.adversarial:
            if self.disc is None:
                self.disc = discriminators.build("auto", self.shape, "embedding", self.spectral).to(self.device)
            self.disc.grow(supervision.facts()["classes"])

    def _posterior(self, x, y=None) -> tuple[Any, Any]:
        if self.enc_s is None:
            return super()._posterior(x, y)
        with torch.no_grad():
            s = self.enc_s(x)
        z = self.enc(x)
        return posterior(s[0] if isinstance(s, tuple) else s), posterior(z[1] if isinstance(z, tuple) else z)

    def losses(self, draw, fresh: Any = None):
        n = len(draw.x)
        q_s, q_z = self._posterior(torch.cat([draw.x, draw.x_same, draw.x_other]))  # one pass: batch norm sees all
        s_1, s_same, s_2 = q_s.mean.chunk(3)
        q_1 = q_z[:n]
        z_1 = q_1.sample()
        codes = {"rec": (s_1, z_1), "rec_same": (s_same, z_1)}
        root = math.sqrt(draw.x[0].numel())
        weights = {"gan": root if self.gan is None else self.gan, "gan_prior": self.gan_prior}
        kl = root / 3 if self.kl is None else self.kl
        leakage = 2 * kl if self.leakage is None else self.leakage
        if weights["gan"]:
            codes["gan"] = s_2, z_1
        if weights["gan_prior"]:
            codes["gan_prior"] = s_2, torch.randn_like(z_1)
        X = self.dec(*map(torch.cat, zip(*codes.values())))
        nll, nll_same = self.nll(X[: 2 * n], torch.cat([draw.x, draw.x])).chunk(2)  # one scale for both
        terms = {
            "rec": self.reconstruction * nll.mean(),
            "rec_same": self.same_class * nll_same.mean(),
            "kl_z": kl * q_1.kl().mean(),
        }
        for i, name in list(enumerate(codes))[2:]:
            swapped = picture(X[i * n : (i + 1) * n])
            terms[name] = weights[name] * gan_generator(self.disc(swapped, draw.y_other))
        if leakage:  # ours; priced by what z holds, so that no weight depends on the data
            x, y = torch.cat([draw.x, draw.x_same, draw.x_other]), torch.cat([draw.y, draw.y, draw.y_other])
            row = gathered(x.flatten(1)).unique(dim=0, return_inverse=True)[1]  # one image may stand there thrice
            told = group_dependence(gathered(q_z.mean), gathered(y), row=row)
            price = leakage * gathered(q_1.kl().mean().detach()[None]).mean()
            terms["leakage"] = price * told.clamp(min=0)  # among few pairs it may fall below 0, which is no merit
        yield {"model": terms}  # Eq. 5; Algorithm 1, "train the generative model"
        if not self.adversarial:
            return
        with torch.no_grad():
            q_s, q_z = self._posterior(torch.cat([fresh.x, fresh.x_other]))
            X_12 = picture(self.dec(q_s.mean[n:], q_z[:n].sample()))
        yield {  # Algorithm 1, "train the adversary"
            "adversary": {
                "fake": gan_fake(self.disc(X_12, fresh.y_other)),
                "real": gan_real(self.disc(fresh.x_other, fresh.y_other)),
            }
        }

    def prior(self, n, y=None):
        raise self._lacks("prior of s; give examples")


class SpecifiedEncoder(Method):
    """The first step of two: an encoder of s with a two-layer classifier on it [Mathieu16, supplement, Sec. 4].

    Trained on the same triplets, of which it takes all three observations and their classes; `hidden` is the width of
    the classifier's first layer. Then `Mathieu.build(..., s_encoder=it)`. It has no decoder, hence no place among the
    methods: its only use is `encode`, whose z has no dimensions.
    """

    supervision = Triplets
    players = {"model": "enc classifier"}
    point_s = True

    def __init__(self, encoder, *, hidden: int = 256):
        super().__init__(encoder)
        self.name = "specified-encoder"  # pyright: ignore[reportAttributeAccessIssue]: a name of the class would list it
        self.hidden, self.classifier = hidden, nn.Identity()

    @classmethod
    def networks(cls, shape, s, z, classes, arch):
        return networks.build(arch, shape, s, 0, point=True)[:1]

    def _try(self):
        if not isinstance(self._infer(torch.zeros(2, *self.shape))[0], Point):
            raise InputError("encoder: its s is a distribution; the first step of two takes a point")

    def bind(self, supervision):
        super().bind(supervision)
        classes = supervision.facts()["classes"]
        if not isinstance(self.classifier, nn.Sequential) or self.classifier[-1].out_features != classes:
            layers = nn.Linear(self.sizes[0], self.hidden), nn.ReLU(), nn.Linear(self.hidden, classes)
            self.classifier = nn.Sequential(*layers).to(self.device)

    def losses(self, draw):
        s = self._posterior(torch.cat([draw.x, draw.x_same, draw.x_other]))[0].mean
        y = torch.cat([draw.y, draw.y, draw.y_other])
        yield {"model": {"class": F.cross_entropy(self.classifier(s).float(), y)}}

    def _decode(self, s, z):
        raise self._lacks("decoder; give it to Mathieu.build(..., s_encoder=...)")

    def prior(self, n, y=None):
        raise self._lacks("prior")
