"""The distributions of codes and of observations.

Everything is diagonal; the last axis is the code's. Log-probabilities and divergences are summed over it, likelihoods
over all of an observation's pixels; all are in nats. Nothing is averaged here: that is the loss's business. Computed in
float32 at least, also under autocast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from twofold.divergences import gathered
from twofold.errors import InputError, choose

LOG_2PI = math.log(2 * math.pi)


class Gaussian:
    """Diagonal normal distribution of vectors, from its mean and the logarithm of its variance, both `[*batch, d]`."""

    def __init__(self, mean: Float[Tensor, "*b d"], log_var: Float[Tensor, "*b d"]):
        self.mean, self.log_var = _full(mean), _full(log_var)

    @property
    def variance(self) -> Tensor:
        return self.log_var.exp()

    @property
    def stddev(self) -> Tensor:
        return (0.5 * self.log_var).exp()

    def sample(self, shape: Sequence[int] = ()) -> Tensor:
        """Reparametrised samples `[*shape, *batch, d]`; gradients reach the mean and the variance."""
        noise = torch.randn(*shape, *self.mean.shape, dtype=self.mean.dtype, device=self.mean.device)
        return torch.addcmul(self.mean, self.stddev, noise)

    def log_prob(self, value: Float[Tensor, "... d"]) -> Float[Tensor, "..."]:
        """Log-density of values that broadcast with the mean, summed over the last axis."""
        return -0.5 * ((value - self.mean).square() / self.variance + self.log_var + LOG_2PI).sum(-1)

    def kl(self, prior: Gaussian | None = None) -> Float[Tensor, "*b"]:
        """KL(self || prior), in nats; the prior is standard normal unless given [Zheng19, Eq. 3]."""
        if prior is None:
            return 0.5 * (self.mean.square() + self.variance - 1 - self.log_var).sum(-1)
        ratio = (self.log_var - prior.log_var).exp()
        distance = (self.mean - prior.mean).square() / prior.variance
        return 0.5 * (ratio + distance - 1 - self.log_var + prior.log_var).sum(-1)

    def product(self, dim: int, mask: Tensor | None = None) -> Gaussian:
        """The normalised product of the densities along `dim` [Bouchacourt18, Eqs. 6-7].

        `mask` has the batch's shape, 1 for members and 0 for absentees; each product needs one member at least.
        Precisions add up in log space, so that neither a thousand large ones overflow nor tiny ones vanish.
        """
        log_precision = -self.log_var
        if mask is not None:
            log_precision = log_precision.masked_fill(mask.unsqueeze(-1) == 0, -torch.inf)
        weight = log_precision.softmax(dim)
        return Gaussian((weight * self.mean).sum(dim), -log_precision.logsumexp(dim))

    def unflatten(self, shape: Sequence[int]) -> Gaussian:
        """Splits the first axis into `shape`."""
        return Gaussian(self.mean.unflatten(0, tuple(shape)), self.log_var.unflatten(0, tuple(shape)))

    def __getitem__(self, index) -> Gaussian:
        return Gaussian(self.mean[index], self.log_var[index])

    def __repr__(self) -> str:
        return f"Gaussian(mean {tuple(self.mean.shape)})"


class Point:
    """A code without spread, `[*batch, d]`: what a deterministic encoder gives. Its density is not defined."""

    def __init__(self, mean: Float[Tensor, "*b d"]):
        self.mean = _full(mean)

    @property
    def variance(self) -> Tensor:
        return torch.zeros_like(self.mean)

    stddev = variance

    def sample(self, shape: Sequence[int] = ()) -> Tensor:
        return self.mean.expand(*shape, *self.mean.shape)

    def unflatten(self, shape: Sequence[int]) -> Point:
        return Point(self.mean.unflatten(0, tuple(shape)))

    def __getitem__(self, index) -> Point:
        return Point(self.mean[index])

    def __repr__(self) -> str:
        return f"Point({tuple(self.mean.shape)})"


class Mixture:
    """Even mixture of a group's normals: components `[G, K, d]`, `mask [G, K]` [Bouchacourt18, supplement Eq. 1]."""

    def __init__(self, components: Gaussian, mask: Float[Tensor, "g k"]):
        self.components, self.mask = components, mask
        self.weight = mask / mask.sum(-1, keepdim=True)

    @property
    def mean(self) -> Tensor:
        return (self.weight.unsqueeze(-1) * self.components.mean).sum(-2)

    @property
    def variance(self) -> Tensor:
        """Of the mixture: the mean of the variances plus the variance of the means."""
        off = self.components.mean - self.mean.unsqueeze(-2)
        return (self.weight.unsqueeze(-1) * (self.components.variance + off.square())).sum(-2)

    @property
    def stddev(self) -> Tensor:
        return self.variance.sqrt()

    def sample(self, shape: Sequence[int] = ()) -> Tensor:
        """Samples `[*shape, G, d]`: a member drawn evenly, then its normal; gradients reach that member."""
        groups, d = self.mask.shape[0], self.components.mean.shape[-1]
        count = math.prod(shape)
        member = torch.multinomial(self.weight, count, replacement=True)  # [G, count]
        member = member.unsqueeze(-1).expand(groups, count, d)
        chosen = Gaussian(self.components.mean.gather(1, member), self.components.log_var.gather(1, member))
        return chosen.sample().transpose(0, 1).reshape(*shape, groups, d)

    def log_prob(self, value: Float[Tensor, "*s g d"]) -> Float[Tensor, "*s g"]:
        each = self.components.log_prob(value.unsqueeze(-2))
        return (each + self.weight.log()).logsumexp(-1)  # an absentee's log-weight is -inf

    def kl(self, samples: Float[Tensor, "l g d"], weight: Float[Tensor, "l g"]) -> Float[Tensor, "g"]:
        """Monte Carlo estimate of KL(self || N(0, I)) from `samples`, each counted by `weight` (0 where absent).

        [Bouchacourt18, supplement Eq. 3], with L the number of weighted samples of a group.
        """
        standard = -0.5 * (samples.square() + LOG_2PI).sum(-1)
        return ((self.log_prob(samples) - standard) * weight).sum(0) / weight.sum(0)

    def __repr__(self) -> str:
        return f"Mixture(of {tuple(self.components.mean.shape)})"


Posterior = Gaussian | Point | Mixture


def posterior(q) -> Posterior:
    """What an encoder gave, as one of ours: a tensor is a `Point`, a normal of torch.distributions a `Gaussian`."""
    if isinstance(q, Gaussian | Point | Mixture):
        return q
    if isinstance(q, Tensor):
        return Point(q)
    normal = q.base_dist if isinstance(q, torch.distributions.Independent) else q
    if isinstance(normal, torch.distributions.Normal):
        return Gaussian(normal.loc, 2 * normal.scale.log())
    raise InputError(f"encoder: gave a {type(q).__name__}; expected a tensor, a Gaussian or torch's Normal")


def picture(decoded: Tensor | Gaussian) -> Tensor:
    """What a decoder shows: its output, or the mean where that is a distribution over pixels."""
    return decoded.mean if isinstance(decoded, Gaussian) else decoded


class Likelihood:
    """Negative log-likelihood of observations, `nll(decoded, x) -> [N]`, summed over pixels, in nats.

    `kind` is "gaussian", "laplace" or "bernoulli" (pixels in [0, 1] as probabilities). `scale` is the Gaussian's
    standard deviation, or the Laplacian's mean absolute deviation. A Gaussian `scale` of None is the best one for the
    batch, sqrt(mean squared error), so that no weight depends on the data (the optimal sigma-VAE of Rybkin et al.,
    2021). A decoder that gives a `Gaussian` over pixels brings its own variance: leave `scale` out there.
    Raises `InputError` for values that don't fit, beside such a decoder at the first loss.

    A `kind` of None is Ruiz19's "laplace" for images (with None for a scale its 0.01 on [-1, 1], 0.005 on ours),
    "gaussian" for vectors (0.1: on tables of few columns the batch's own scale lets both codes collapse).
    """

    def __init__(self, kind: str | None, scale: float | None, default_scale: float | None = None):
        self.default_scale = default_scale  # a method's: who left it out is not told to do so
        self.of: dict[bool, Likelihood] = {}  # by whether observations are vectors
        if kind is None:
            self.of = {
                False: Likelihood("laplace", 0.005 if scale is None else scale),
                True: Likelihood("gaussian", 0.1 if scale is None else scale),
            }
            self.kind, self.scale = kind, scale
            return
        choose("likelihood", kind, ("gaussian", "laplace", "bernoulli"))
        if scale is not None and not scale > 0:
            raise InputError(f"scale: {scale}; expected a positive number")
        if scale is None and kind == "laplace":
            raise InputError("scale: None; only the Gaussian likelihood finds its scale, give a positive number")
        self.kind, self.scale = kind, scale

    def __call__(self, decoded: Tensor | Gaussian, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`[N]`. `mask [N]` (1 counts, 0 is padding) matters only where the batch decides the scale."""
        if isinstance(decoded, Gaussian):
            for name, value, silent in (
                ("likelihood", self.kind, "gaussian"),
                ("scale", self.scale, self.default_scale),
            ):
                if value not in (None, silent):
                    told = "the decoder gives each pixel's variance itself, leave likelihood and scale out"
                    raise InputError(f"{name}: {value!r}; {told}")
            pixels = 0.5 * ((x - decoded.mean).square() / decoded.variance + decoded.log_var + LOG_2PI)
            return pixels.flatten(1).sum(1)
        if self.of:
            return self.of[x.ndim == 2](decoded, x, mask)
        decoded, d = _full(decoded), math.prod(x.shape[1:])
        if self.kind == "bernoulli":
            try:
                nll = F.binary_cross_entropy(decoded.clamp(1e-6, 1 - 1e-6), x, reduction="none")
            except RuntimeError:
                raise InputError("likelihood: bernoulli is for observations in [0, 1]; use gaussian") from None
            return nll.flatten(1).sum(1)
        error = decoded - x
        if self.kind == "laplace":
            return error.abs().flatten(1).sum(1) / self.scale + d * math.log(2 * self.scale)  # pyright: ignore
        squares = error.square().flatten(1).sum(1)
        if self.scale is None:
            counts = gathered(torch.ones_like(squares) if mask is None else mask.to(squares.dtype))
            variance = (gathered(squares) * counts).sum().clamp(min=1e-6 * d) / (counts.sum() * d)
            return 0.5 * (squares / variance + d * (variance.log() + LOG_2PI))
        return 0.5 * squares / self.scale**2 + d * (math.log(self.scale) + 0.5 * LOG_2PI)


def _full(x: Tensor) -> Tensor:
    """At least float32: sums over thousands of pixels or tiny variances don't survive bf16."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
