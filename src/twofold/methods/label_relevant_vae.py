"""Zheng and Sun 2019: a code in label relevant and label irrelevant dimensions."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twofold import discriminators, networks
from twofold.distributions import Gaussian, Likelihood, Point, picture, posterior
from twofold.divergences import gan_fake, gan_generator, gan_real, gathered, group_dependence
from twofold.errors import InputError, choose
from twofold.method import Code, Method
from twofold.supervision import Labels

FLOOR = 1e-4  # of the mixture's variances: with sigma_s = 0 nothing else keeps the likelihood of a point bounded


class LabelRelevantVAE(Method):
    """VAE whose s follows a learned mixture, a normal a class, and whose z may not tell the class [Zheng19].

    The paper's z_s is our s (a point), its z_u our z. Each player descends what Algorithm 1 says: psi and phi, the two
    encoders, "mixture", the class means and variances (in the inner steps alone), omega, the classifier of z, theta,
    the decoder, theta_d, the pixel discriminator. Terms are in nats, summed over pixels and dimensions; with `scale`
    None the reconstruction's variance is the best for the batch, so that weights don't depend on the data. The paper's
    1/2 |x - x'|^2 is `scale` 1, up to a constant. `n_gm` inner steps of the GM loss come before each joint one.

    Of s: `lambda_lkd` weights the likelihood of s (Eq. 7). `lambda_rec_s` weights the reconstruction term of the
    encoder of s: 1 in the paper, of half the squared error, which on images is worth a few hundredths of ours. The
    lower `lambda_rec_s` is, the less of the style is in s and the more in z: near 1 z may fall silent.
    `sigma_s` is the deviation of q(z_s|x) in training: the paper lets it go to 0, and its likelihood then grows without
    bound as mixture and codes shrink together; with noise of a fixed size the variances settle above its square. They
    never go below 1e-4 either way.

    Of z: `lambda_kl` weights its KL (Eq. 3). `lambda_rec` weights its encoder's reconstruction term. `lambda_adv`
    weights the term that makes the classifier's output uniform (Eq. 5); 0: no classifier; at 10 its noise silenced z
    on the toy. `leakage` is a price, in units of z's KL (below one nat: of its square, lest the price's noise keep a
    silent z silent), of each nat by which the means of z show the label (`divergences.group_dependence`); ours, 0 is
    the paper's objective. The classifier sees samples of z: with it alone, at weights up to 100, a probe of the
    noiseless means still found the digit more often than not, and large weights drive z away from its prior, so that
    new images suffer.

    Of pictures: `lambda_gan` weights the generator's loss, times the number of pixels (ours: the reconstruction in nats
    grows with them); 0: no pixel discriminator. `gan` is its loss, Eq. 10's "log" or "hinge". `projection` tells it the
    class. `spectral` normalises its weights (ours; without, and with "log", it won the game on MNIST and ruined
    reconstructions).

    `unlabelled` says what observations with y = -1 are: of "known" classes (their s follows Eq. 6) or of "unseen" ones
    (Eq. 11). All but the reconstruction, z's KL, that likelihood and a pixel GAN without projection is for labelled
    ones (Sec. 3.6). They may be there from the start or in a second `fit`.

    Networks of your own: `encoder` is the pair `(x -> s, x -> z)`, or one network `x -> (s, z)`, which then descends
    the terms of both; `discriminator` is `(x, y) -> logit [N]`, y = -1 where the label is missing (ours unless given).
    """

    name = "label-relevant-vae"
    supervision = Labels
    optim = {"name": "adam", "lr": 5e-4}
    point_s = True

    mu: nn.Parameter  # [C, d_s], made by `bind`, as are the next three
    log_var: nn.Parameter
    p_c: Tensor  # [C]
    classifier: nn.Module
    disc: Any

    def __init__(
        self,
        encoder,
        decoder,
        discriminator=None,
        *,
        n_gm: int = 1,
        lambda_lkd: float = 0.1,
        lambda_kl: float = 1.0,
        lambda_rec: float = 1.0,
        lambda_rec_s: float = 0.01,
        lambda_adv: float = 1.0,
        leakage: float = 10.0,
        lambda_gan: float = 0.1,
        gan: Literal["log", "hinge"] = "hinge",
        projection: bool = True,
        spectral: bool = True,
        unlabelled: Literal["known", "unseen"] = "known",
        sigma_s: float = 0.3,
        likelihood: Literal["gaussian", "laplace", "bernoulli"] = "gaussian",
        scale: float | None = None,
    ):
        super().__init__(decoder=decoder)
        choose("gan", gan, ("log", "hinge"))
        choose("unlabelled", unlabelled, ("known", "unseen"))
        if n_gm < 1:
            raise InputError(f"n_gm: {n_gm}; expected at least 1, for nothing else moves the class means")
        joint = isinstance(encoder, nn.Module)
        self.enc_s, self.enc_u = (_Half(encoder, 0), _Half(encoder, 1)) if joint else encoder
        self.n_gm, self.draws = n_gm, n_gm + 1
        self.lambda_lkd, self.lambda_kl = lambda_lkd, lambda_kl
        self.lambda_rec, self.lambda_rec_s = lambda_rec, lambda_rec_s
        self.lambda_adv, self.leakage, self.lambda_gan, self.gan = lambda_adv, leakage, lambda_gan, gan
        self.unlabelled, self.sigma_s = unlabelled, sigma_s
        self.nll = Likelihood(likelihood, scale)
        self.players = {"psi": "enc_s", "mixture": "mu log_var", "phi": "enc_u", "theta": "dec"}
        if joint:
            del self.players["phi"]
        if lambda_adv:
            self.players["omega"] = "classifier"
        self.projection, self.spectral = projection, spectral
        self.disc = discriminator if lambda_gan else None
        if lambda_gan:
            self.players["theta_d"] = "disc"

    @classmethod
    def networks(cls, shape, s, z, classes, arch, lambda_gan=None, projection=True, spectral=True) -> tuple[Any, ...]:
        if not (s and z):
            raise InputError(f"s, z: {s} and {z}; {cls.name} needs at least one dimension of both")
        enc_s = networks.build(arch, shape, s, 0, point=True, separate=False)[0]
        enc_u = networks.build(arch, shape, 0, z, separate=False)[0]
        disc = None
        if lambda_gan != 0:
            disc = _discriminator(discriminators.fitting(arch), shape, projection, spectral)
        return (_Half(enc_s, 0), _Half(enc_u, 1)), networks.build(arch, shape, s, z)[1], disc

    def bind(self, supervision):
        """Make the class means and variances, the classifier of z and the discriminator's embeddings.

        There are `classes` of `build`, or as many as the labels say. A class without a single label (there may be such
        among `classes`) has p(c) = 0: nothing would ever move its mean. Raises `InputError` for more than `build`'s.
        """
        super().bind(supervision)
        facts, (s, z) = supervision.facts(), self.sizes
        known = 0 if getattr(self, "mu", None) is None else len(self.mu)
        C = (self.config or {}).get("classes") or max(facts["classes"], known)  # what was learned of others stays
        if facts["classes"] > C:
            raise InputError(f"classes: {facts['classes']} in the data; {self.name} was built for {C}")
        if getattr(self, "mu", None) is None or len(self.mu) != C:
            if isinstance(supervision, Labels) and not facts["labelled"]:
                raise InputError("y: no labels; train on labelled observations of as many classes first")
            device = self.device
            self.mu = nn.Parameter(torch.randn(C, s).to(device))
            self.log_var = nn.Parameter(torch.full((C, s), 2 * math.log(0.5), device=device))
            self.register_buffer("p_c", torch.full((C,), 1 / C, device=device))
            if self.lambda_adv:
                widths = (nn.Linear(z, 256), networks.leaky(), nn.Linear(256, 256), networks.leaky(), nn.Linear(256, C))
                self.classifier = nn.Sequential(*widths).to(device)
            if self.lambda_gan and self.disc is None:
                self.disc = _discriminator("auto", self.shape, self.projection, self.spectral).to(device)
            if hasattr(self.disc, "grow"):
                self.disc.grow(C)
        if facts["labelled"]:
            seen = torch.ones(C, dtype=torch.bool)
            seen[[*facts.get("never", []), *range(facts["classes"], C)]] = False
            if known == C:
                seen |= self.p_c.cpu() > 0
            self.p_c.copy_(seen / seen.sum())

    # -- the class mixture -----------------------------------------------------------------------------------------

    @property
    def mixture(self) -> Gaussian:
        """N(mu_c, Sigma_c) of every class, `[C, d_s]` [Zheng19, Eq. 6]."""
        return Gaussian(self.mu, torch.logaddexp(self.log_var, self.log_var.new_tensor(FLOOR).log()))

    def total(self) -> Gaussian:
        """The normal with the mixture's mean and variances, `[1, d_s]` [Zheng19, Eq. 11]."""
        p, q = self.p_c[:, None], self.mixture
        mu_t = (p * q.mean).sum(0, keepdim=True)
        return Gaussian(mu_t, (p * (q.variance + (q.mean - mu_t).square())).sum(0, keepdim=True).log())

    def class_s(self, noise: Tensor, y: Tensor) -> Tensor:
        """`noise [n, d_s]`, standard normal, mapped to the classes `y [n]`: noise * sigma_y + mu_y [Zheng19, Sec. 4.3].

        Lines in `noise` are walks within a class, and the same noise in two classes the columns of Fig. 4a.
        Raises `InputError` for a class that training had no label of.
        """
        if getattr(self, "mu", None) is None:
            raise InputError(f"y: {self.name} knows no classes before it is trained (fit)")
        p_c = self.p_c.cpu()
        strange = [c for c in y.tolist() if not (0 <= c < len(p_c) and p_c[c] > 0)]
        if strange:
            raise InputError(f"y: class {strange[0]}; the labelled classes are {p_c.nonzero()[:, 0].tolist()}")
        q = self.mixture
        q = Gaussian(q.mean.detach().cpu(), q.log_var.detach().cpu())[y]
        return q.mean + q.stddev * noise

    # -- training --------------------------------------------------------------------------------------------------

    def losses(self, *draws):  # [Zheng19, Algorithm 1]: the paper's z_s is our s, its z_u our z
        inner = draws[:-1] if (self._facts or {}).get("labelled", 1) else ()  # no labels, no L_GM [Sec. 3.6]
        for draw in inner:  # lines 2-9
            log_p, known = self._log_p(self._z_s(draw.x)), draw.y >= 0  # log p(z_s|c) [B, C]
            labelled = known.sum().clamp(min=1)
            cls = F.cross_entropy(log_p + self.p_c.log(), draw.y, ignore_index=-1, reduction="sum")  # Eq. 8
            lkd = -(_of(log_p, draw.y) * known).sum()  # Eq. 7
            gm = {"cls": cls / labelled, "lkd": self.lambda_lkd * lkd / labelled}  # Eq. 9
            yield {"psi": gm, "mixture": gm}
        x, y = draws[-1].x, draws[-1].y  # line 10
        known = y >= 0
        labelled = known.sum().clamp(min=1)
        q_u: Any = posterior(self.enc_u(x))
        z_u, z_s = q_u.sample(), self._z_s(x)
        log_p = self._log_p(z_s)
        lkd = -torch.where(known, _of(log_p, y), self._log_p_unlabelled(z_s, log_p)).mean()
        x_f = self.dec(z_s, z_u)
        L_rec = self.nll(x_f, x).mean()
        psi = {"rec": self.lambda_rec_s * L_rec, "lkd": self.lambda_lkd * lkd}  # line 25
        phi = {"kl": self.lambda_kl * q_u.kl().mean(), "rec": self.lambda_rec * L_rec}  # line 26, Eq. 3
        update = {"psi": psi, "phi": phi, "theta": {"rec": L_rec}}
        if self.lambda_adv:
            log_q = F.log_softmax(self.classifier(z_u), 1)
            uniform = -((log_q * self.p_c).sum(1) * known).sum() / labelled  # Eq. 5
            phi["adv"] = self.lambda_adv * uniform
            update["omega"] = {"adv": F.nll_loss(log_q, y, ignore_index=-1, reduction="sum") / labelled}  # Eq. 4
        if self.leakage and self._facts and self._facts["labelled"]:  # ours
            kl = gathered(q_u.kl().mean().detach()[None]).mean()
            told = group_dependence(*map(gathered, (q_u.mean, y, known.float())))
            phi["leakage"] = self.leakage * kl * kl.clamp(max=1) * told
        if self.disc is not None:
            x_p = self.dec(self._sample_s(y), torch.randn(z_u.shape, dtype=z_u.dtype, device=z_u.device))
            real, f, p = (self.disc(image, y) for image in (x, picture(x_f), picture(x_p)))
            L_GD = gan_generator(f, self.gan) + gan_generator(p, self.gan)  # line 24
            update["theta"]["adv"] = self.lambda_gan * x[0].numel() * L_GD
            update["theta_d"] = {
                "real": gan_real(real, self.gan),
                "rec": gan_fake(f, self.gan),
                "prior": gan_fake(p, self.gan),
            }  # line 23, Eq. 10
        if "phi" not in self.players:
            psi |= update.pop("phi")
        yield update

    def _z_s(self, x: Tensor) -> Tensor:
        """A sample of q(z_s|x) = N(Encoder^s(x), sigma_s^2 I)."""
        z_s = posterior(self.enc_s(x)).mean
        if self.sigma_s:
            z_s = z_s + self.sigma_s * torch.randn(z_s.shape, dtype=z_s.dtype, device=z_s.device)
        return z_s

    def _log_p(self, z_s: Tensor) -> Tensor:
        """log p(z_s|c), `[B, C]`."""
        return self.mixture.log_prob(z_s[:, None])

    def _log_p_unlabelled(self, z_s: Tensor, log_p: Tensor) -> Tensor:
        """log p(z_s) `[B]` of observations without a label [Zheng19, Sec. 3.6]."""
        if self.unlabelled == "known":
            return (log_p + self.p_c.log()).logsumexp(1)  # Eq. 6
        return self.total().log_prob(z_s)  # Eq. 11

    def _sample_s(self, y: Tensor) -> Tensor:
        """z_s' ~ p(z_s|y) (line 21), or p(z_s) where y is not known; `[B, d_s]`."""
        q = self.mixture
        if self._facts and self._facts["labelled"] == self._facts["n"]:
            return q[y].sample()
        any_class = torch.multinomial(self.p_c, len(y), replacement=True)
        z_s = q[torch.where(y >= 0, y, any_class)].sample()
        if self.unlabelled == "known":
            return z_s
        return torch.where((y >= 0)[:, None], z_s, self.total().sample((len(y),))[:, 0])

    # -- using it --------------------------------------------------------------------------------------------------

    def _posterior(self, x, y=None):
        return Point(posterior(self.enc_s(x)).mean), posterior(self.enc_u(x))

    def prior(self, n, y=None):
        """`n` codes: s from the mixture, or from the classes `y [n]`; z standard normal. Several s within a class are
        `prior(n, y)` with that class n times.

        Raises `InputError` for a class that training had no label of.
        """
        if getattr(self, "mu", None) is None:
            raise InputError(f"y: {self.name} knows no classes before it is trained (fit)")
        p_c = self.p_c.cpu()
        y = torch.multinomial(p_c, n, replacement=True) if y is None else torch.as_tensor(y).long()
        y = y.expand(n) if y.ndim == 0 else y
        if len(y) != n:
            raise InputError(f"y: {len(y)} classes for n = {n}; expected one, or one each")
        s, z = self.sizes
        return Code(self.class_s(torch.randn(n, s), y), torch.randn(n, z))

    def reference_s(self, n):
        """The mixture's mean [Zheng19, Eq. 11]: of no class."""
        return self.total().mean.detach().cpu().expand(n, -1)


def _discriminator(arch: str, shape, projection: bool, spectral: bool) -> discriminators.Discriminator:
    return discriminators.build(arch, shape, "projection" if projection else None, spectral)


class _Half(nn.Module):
    """One of the two codes that an encoder gives."""

    def __init__(self, encoder: nn.Module, which: int):
        super().__init__()
        self.encoder, self.which = encoder, which

    def forward(self, x: Tensor):
        return self.encoder(x)[self.which]


def _of(log_p: Tensor, y: Tensor) -> Tensor:
    """Each row's entry of its class, `[B]`; of any class where y is -1."""
    return log_p.gather(1, y.clamp(min=0)[:, None])[:, 0]
