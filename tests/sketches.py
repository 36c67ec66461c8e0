"""The contract's hardest cases, small but real: three papers' algorithms, as tests/test_contract.py holds them.

Also what spawned processes run: methods without sampling noise, which must come out the same on one process and on two,
and a training to be killed. They import this module, so it holds no tests.
"""

from __future__ import annotations

import os
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from twofold import networks
from twofold.distributions import Gaussian, Likelihood
from twofold.method import Code, Method
from twofold.methods import CLASSES
from twofold.supervision import Groups, Images, Labels, Reference, Triplets
from twofold.training import fit


class Critic(nn.Module):
    """Features of an observation `[N, width]`, and a linear layer for who makes a logit of them."""

    def __init__(self, shape):
        super().__init__()
        self.trunk, self.width = networks.ARCHITECTURES["zheng19-toy"].trunk(shape)
        self.linear = nn.Linear(self.width, 1)

    def forward(self, x):
        return self.trunk(x)


class LabelRelevant(Method):
    """Zheng19, Algorithm 1 (lines in brackets): n_gm inner steps of psi and the mixture, then five players at once."""

    name = "sketch-zheng"
    supervision = Labels
    players = {
        "psi": "enc_s",
        "mixture": "mu log_var",
        "phi": "enc_u",
        "omega": "classifier",
        "theta": "dec",
        "theta_d": "disc embed",
    }

    def __init__(
        self, enc_s, enc_u, decoder, disc, *, n_gm: int = 2, lkd: float = 0.1, kl: float = 0.5, rec: float = 2.0
    ):
        super(Method, self).__init__()
        self.enc_s, self.enc_u, self.dec, self.disc = enc_s, enc_u, decoder, disc
        self.n_gm, self.weights = n_gm, (lkd, kl, rec)
        self.draws = n_gm + 1

    @classmethod
    def networks(cls, shape, s, z, classes, arch):
        enc_s = networks.build("zheng19-toy", shape, s, 0, point=True, separate=False)[0]
        enc_u = networks.build("zheng19-toy", shape, 0, z, separate=False)[0]
        return enc_s, enc_u, networks.build("zheng19-toy", shape, s, z)[1], Critic(shape)

    def bind(self, supervision):
        super().bind(supervision)
        C, (s, z) = supervision.facts()["classes"], self.sizes
        if getattr(self, "mu", None) is None or len(self.mu) != C:
            self.mu, self.log_var = nn.Parameter(torch.randn(C, s)), nn.Parameter(torch.zeros(C, s))
            self.classifier, self.embed = nn.Linear(z, C), nn.Embedding(C, self.disc.width)

    def _posterior(self, x, y=None):
        return self.enc_s(x)[0], self.enc_u(x)[1]

    def D(self, x, y):
        """The logit of the projection discriminator."""
        features = self.disc(x)
        return self.disc.linear(features).squeeze(1) + (self.embed(y) * features).sum(1)

    def losses(self, *draws):
        lkd, kl, rec = self.weights
        for draw in draws[:-1]:  # [2-3]
            z_s = self.enc_s(draw.x)[0].mean  # [4]
            each = Gaussian(self.mu, self.log_var).log_prob(z_s[:, None])  # [B, C]
            gm = {  # [5], Eqs. 7-9
                "cls": F.cross_entropy(each, draw.y),
                "lkd": -lkd * each.gather(1, draw.y[:, None]).mean(),
            }
            yield {"psi": gm, "mixture": gm}  # [6-8]
        x, y = draws[-1].x, draws[-1].y  # [10]
        q_u = self.enc_u(x)[1]  # [11]
        z_u = q_u.sample()  # [13-14]
        log_q = self.classifier(z_u).log_softmax(1)
        z_s = self.enc_s(x)[0].mean  # [17]
        of_y = Gaussian(self.mu[y], self.log_var[y])
        x_f = self.dec(z_s, z_u)  # [19]
        L_rec = 0.5 * (x - x_f).square().flatten(1).sum(1).mean()  # [20]
        x_p = self.dec(of_y.sample(), torch.randn_like(z_u))  # [21-22]
        real, f, p = self.D(x, y), self.D(x_f, y), self.D(x_p, y)
        yield {
            "psi": {"rec": L_rec, "lkd": -lkd * of_y.log_prob(z_s).mean()},  # [25]
            "phi": {"adv": -log_q.mean(), "kl": kl * q_u.kl().mean(), "rec": rec * L_rec},  # [15, 26]
            "omega": {"adv": F.nll_loss(log_q, y)},  # [16, 27]
            "theta": {"rec": L_rec, "adv": F.softplus(-f).mean() + F.softplus(-p).mean()},  # [24, 28]
            "theta_d": {"adv": F.softplus(-real).mean() + F.softplus(f).mean() + F.softplus(p).mean()},  # [23, 29]
        }

    def prior(self, n, y=None):
        y = torch.randint(len(self.mu), (n,)) if y is None else y
        s = Gaussian(self.mu.detach().cpu()[y], self.log_var.detach().cpu()[y]).sample()
        return Code(s, torch.randn(n, self.sizes[1]))


class Swapping(Method):
    """Mathieu16, Algorithm 1 with Eq. 5's KL: the model on a triplet, then the adversary on a fresh pair."""

    name = "sketch-mathieu"
    supervision = Triplets
    draws = 2
    players = {"model": "enc dec", "adversary": "disc embed"}
    needs = "examples"

    def __init__(self, encoder, decoder, disc, *, gan=0.5, kl=0.1):
        super().__init__(encoder, decoder)
        self.disc, self.weights = disc, (gan, kl)

    @classmethod
    def networks(cls, shape, s, z, classes, arch):
        return *networks.build("zheng19-toy", shape, s, z, point=True, separate=False), Critic(shape)

    def bind(self, supervision):
        super().bind(supervision)
        if not hasattr(self, "embed") or self.embed.num_embeddings != supervision.facts()["classes"]:
            self.embed = nn.Embedding(supervision.facts()["classes"], self.disc.width)

    def adv(self, x, identity):
        """The logit of Adv(x, id): the embedding is added to the features."""
        return self.disc.linear((self.disc(x) + self.embed(identity)).relu()).squeeze(1)

    def losses(self, draw, fresh):
        gan, kl = self.weights
        (s_1, q_1), (s_same, _), (s_2, _) = self.enc(draw.x), self.enc(draw.x_same), self.enc(draw.x_other)
        z_1 = q_1.sample()
        distance = lambda x: (x - draw.x).square().flatten(1).sum(1).mean()  # noqa: E731
        X_12, X_2 = self.dec(s_2.mean, z_1), self.dec(s_2.mean, torch.randn_like(z_1))
        yield {
            "model": {
                "rec": distance(self.dec(s_1.mean, z_1)),
                "rec_same": distance(self.dec(s_same.mean, z_1)),
                "kl_z": kl * q_1.kl().mean(),
                "gan": gan * F.softplus(-self.adv(X_12, draw.y_other)).mean(),
                "gan_prior": gan * F.softplus(-self.adv(X_2, draw.y_other)).mean(),
            }
        }
        (_, q_1), (s_2, _) = self.enc(fresh.x), self.enc(fresh.x_other)
        X_12 = self.dec(s_2.mean, q_1.sample())
        yield {
            "adversary": {
                "fake": F.softplus(self.adv(X_12, fresh.y_other)).mean(),
                "real": F.softplus(-self.adv(fresh.x_other, fresh.y_other)).mean(),
            }
        }

    def prior(self, n, y=None):
        raise self._lacks("prior of s; give examples")


class Unamortised(Method):
    """Bouchacourt18's SVI baseline (supplement 2.1): no encoder; parameters for each sample's S and each group's C."""

    name = "sketch-svi"
    supervision = Groups
    players = {"model": "dec", "posterior": "C_mean C_log_var S_mean S_log_var"}

    def __init__(self, decoder, *, scale: float = 0.5):
        super(Method, self).__init__()
        self.dec, self.nll = decoder, Likelihood("gaussian", scale)

    @property
    def sizes(self):
        return self.config["s"], self.config["z"]

    @classmethod
    def networks(cls, shape, s, z, classes, arch):
        return (networks.build("bouchacourt18-mnist", shape, s, z)[1],)

    def bind(self, supervision):
        super().bind(supervision)
        facts, (s, z) = supervision.facts(), self.sizes
        for name, rows, width in (("C", facts["groups"], s), ("S", facts["n"], z)):
            if not hasattr(self, f"{name}_mean") or len(getattr(self, f"{name}_mean")) != rows:
                setattr(self, f"{name}_mean", nn.Parameter(0.1 * torch.randn(rows, width)))
                setattr(self, f"{name}_log_var", nn.Parameter(torch.zeros(rows, width)))

    def losses(self, draw):
        G, K = draw.mask.shape
        q_C = Gaussian(self.C_mean[draw.group], self.C_log_var[draw.group])
        q_S = Gaussian(self.S_mean[draw.index], self.S_log_var[draw.index])
        C, S = q_C.sample((K,)).transpose(0, 1), q_S.sample()
        nll = self.nll(self.dec(C.flatten(0, 1), S.flatten(0, 1)), draw.x.flatten(0, 1)).view(G, K)
        terms = {
            "rec": (nll * draw.mask).sum() / G,
            "kl_z": (q_S.kl() * draw.mask).sum() / G,
            "kl_s": q_C.kl().mean(),
        }
        yield {"model": terms, "posterior": terms}

    def _posterior(self, x, y=None):
        raise self._lacks("encoder; use infer(x, group)")

    def infer(self, x, group, steps: int = 50, lr: float = 0.05) -> Code:
        """Codes of new observations by gradient descent on the ELBO with the decoder fixed."""
        group = torch.as_tensor(group)
        q = [torch.zeros(rows, d) for d, rows in zip(self.sizes, (int(group.max()) + 1, len(x))) for _ in range(2)]
        optimiser = torch.optim.Adam([p.requires_grad_() for p in q], lr)
        for _ in range(steps):
            q_C, q_S = Gaussian(*q[:2]), Gaussian(*q[2:])
            loss = self.nll(self.dec(q_C.sample()[group], q_S.sample()), x).sum() + q_S.kl().sum() + q_C.kl().sum()
            optimiser.zero_grad()
            loss.backward(inputs=q)
            optimiser.step()
        return Code(q[0].detach(), q[2].detach())


SKETCHES = (LabelRelevant, Swapping, Unamortised)


def quiet(name: str) -> type[Method]:
    """A method of twofold whose Gaussians give their means when sampled, in training."""
    cls = CLASSES[name]

    def losses(self, *draws):
        body = cls.losses(self, *draws)
        while True:
            with mock.patch("torch.randn", torch.zeros):
                update = next(body, None)
            if update is None:
                return
            yield update

    return type(f"Quiet{name}", (cls,), {"losses": losses, "__module__": __name__, "__qualname__": f"Quiet{name}"})


QuietVAE, QuietMLVAE, QuietContrastive = (quiet(name) for name in ("VAE", "MLVAE", "Contrastive"))


def example(out=None, *, steps: int = 120, seed: int = 0, **options):
    """A small training of MLVAE on unequal groups, the same in every process that calls it."""
    random = np.random.default_rng(0)
    supervision = Groups(random.random((60, 1, 8, 8), np.float32), random.integers(0, 9, 60), per_group=4)
    method = CLASSES["MLVAE"].build((1, 8, 8), s=2, z=3, arch="zheng19-toy")
    return fit(method, supervision, steps=steps, batch_size=16, seed=seed, out=out, progress=False, **options)


RANKED = {  # name: class, options; `scale` None is a statistic of the batch, and so are W2 and the leakage penalty
    "vae": (QuietVAE, {"scale": 0.3}),
    "vae-scale": (QuietVAE, {"scale": None}),
    "mlvae": (QuietMLVAE, {"scale": 0.3, "leakage": 0.0}),
    "mlvae-leakage": (QuietMLVAE, {"scale": 0.3, "leakage": 5.0}),
    "contrastive": (QuietContrastive, {"scale": 0.3, "lambda_z": 2.0, "leakage": 0.0}),
    "contrastive-leakage": (QuietContrastive, {"scale": 0.3, "lambda_z": 0.0, "leakage": 5.0}),
}


def ranked(name: str, **options):
    """A training of one of `RANKED`, on as many processes as there are."""
    random = np.random.default_rng(0)
    x, group = random.random((96, 6), np.float32), random.permutation(np.repeat(range(6), [40, 25, 17, 9, 4, 1]))
    cls, how = RANKED[name]
    supervision = {"Images": lambda: Images(x), "Groups": lambda: Groups(x, group, 4)}.get(
        cls.supervision.__name__, lambda: Reference(x[:50], x[50:])
    )()
    method = cls.build((6,), s=2, z=3, arch="zheng19-toy", **how)
    return fit(method, supervision, steps=6, batch_size=16, device="cpu", progress=False, **options)


def ranked_all(folder: str):
    """What a launcher runs in each of two processes: all of `RANKED`, the weights saved for each rank."""
    for name in RANKED:
        ranked(name, devices=2).method.save(f"{folder}/{name}-{os.environ['RANK']}")
