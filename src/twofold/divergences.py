"""Distances between batches, and games about them: tensors in, a scalar out."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from twofold.errors import InputError

PAIRS = 32  # of one group, for a price on what they show
AUDIBLE = 0.01  # of the noise's variance; chosen by benchmarks/silent_z.py


def wasserstein2(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
    """Squared 2-Wasserstein distance between two empirical distributions [Contrast21, Eq. 9].

    min over plans T with uniform marginals of sum_ij T_ij |a_i - b_j|^2. The plan is exact (linear programme, POT); the
    gradient goes through the costs only, which is the whole gradient where the plan is unique (Danskin; Sec. 3.2).
    """
    import ot  # takes longer to load than most trainings' first step; needed here alone

    with torch.no_grad():
        cost = torch.cdist(a.float(), b.float()).square().double().cpu().numpy()
        plan = torch.from_numpy(ot.emd([], [], cost))
        i, j = plan.nonzero(as_tuple=True)  # at most n + m - 1 pairs
        weight, i, j = plan[i, j].to(a.device, torch.float32), i.to(a.device), j.to(a.device)
    return weight @ (a[i].float() - b[j].float()).square().sum(1)


def group_dependence(
    z: Float[Tensor, "n d"], group: Tensor, mask: Tensor | None = None, row: Tensor | None = None
) -> Float[Tensor, ""]:
    """How much z tells of the group: how much likelier two members of one group lie close together than any two others.

    log E[k(z_i, z_j) | same group] - log E[k(z_i, z_j) | different groups], averaged over Gaussian kernels k of four
    widths, on z standardised over the batch: near 0 if z is independent of the group (and only then, as the batch
    grows: the kernels are characteristic), in nats, whatever z's scale. `group [n]` ids, `mask [n]` 1 for real rows;
    `row [n]` which observation each is, where a batch may hold one twice: it is no pair with itself.
    Ours. The kernels are narrow: they see local structure, and hardly how groups lie as a whole.
    """
    return _dependence(_compared(z, group, mask, row))


def group_distance(
    z: Float[Tensor, "n d"], group: Tensor, mask: Tensor | None = None, row: Tensor | None = None
) -> Float[Tensor, ""]:
    """How much z tells of the group: the energy distance between a group's z and all others', over the mean distance of
    any two.

    2 E|a - b| - E|a - a'| - E|b - b'| (Szekely & Rizzo 2013) for a, a' of the group and b, b' of the others, averaged
    over the batch's groups, on z standardised over the batch: 0 on average if z is independent of the group, and only
    then; whatever z's scale. Arguments as in `group_dependence`.
    """
    return _distance(_compared(z, group, mask, row))


def group_leak(
    z: Float[Tensor, "n d"], group: Tensor, mask: Tensor | None = None, row: Tensor | None = None
) -> Float[Tensor, ""]:
    """`group_dependence` and 15 times `group_distance`: what a probe finds among near neighbours, and what it finds in
    how groups lie as a whole. Priced alone, either leaves the other (`benchmarks/leakage_kinds.py`). Where there are
    fewer than 32 pairs of one group, in proportion less: what so few show is mostly chance."""
    compared = _compared(z, group, mask, row)
    return trust(mates(group, mask, row)) * (_dependence(compared) + 15 * _distance(compared))


def audible(mean: Float[Tensor, "n d"], variance: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """From 0 to 1: how far z's means spread over the batch beside its noise; 1 from a tenth of the noise's standard
    deviation on. Has no gradient. Ours.

    A measure that is blind to scale has the largest gradients where z's means hardly differ, and z's KL is no small
    price there: it counts offsets and the noise's width, too. Without this a z that falls silent early is kept so.
    """
    with torch.no_grad():
        noise = variance.sum(1).mean().clamp(min=torch.finfo(variance.dtype).tiny)
        spread = (mean - mean.mean(0)).square().sum(1).mean()
        return (spread / noise / AUDIBLE).clamp(max=1)


def mates(group: Tensor, mask: Tensor | None = None, row: Tensor | None = None) -> Tensor:
    """Which rows are two observations of one group, `[n, n]`. Arguments as in `group_dependence`."""
    real = torch.ones_like(group, dtype=torch.bool) if mask is None else mask.bool()
    ids = torch.arange(len(group), device=group.device) if row is None else row
    return (real[:, None] & real[None, :]) & (group[:, None] == group[None, :]) & (ids[:, None] != ids[None, :])


def trust(pairs: Tensor) -> Tensor:
    """How much so many `mates` show, from 0 to 1 at 32 pairs."""
    return (pairs.sum() / (2 * PAIRS)).clamp(max=1)


def refuse_one_group(groups: int, per_group: int) -> None:
    """For methods whose `leakage` compares the groups of a batch. Raises `InputError` where it holds one."""
    if groups < 2:
        raise InputError(
            f"per_group: {per_group} leaves one group in a batch, and leakage compares groups; "
            "a smaller per_group, a larger batch_size, or leakage=0"
        )


class _Compared(NamedTuple):
    """Standardised rows `[n, d]`; which pairs of them count, which are of one group; `real [n]`."""

    z: Tensor
    pairs: Tensor
    same: Tensor
    real: Tensor


def _compared(z: Tensor, group: Tensor, mask: Tensor | None, row: Tensor | None) -> _Compared:
    real = torch.ones_like(group, dtype=torch.bool) if mask is None else mask.bool()
    z = standardised(z, real)
    both = real[:, None] & real[None, :]
    same = (both & (group[:, None] == group[None, :])).to(z.dtype)
    pairs = both.fill_diagonal_(False) if row is None else both & (row[:, None] != row[None, :])
    return _Compared(z, pairs.to(z.dtype), same, real)


def _dependence(of: _Compared) -> Tensor:
    alike = of.pairs * of.same
    which = torch.stack([alike, of.pairs - alike])
    counts = which.sum((1, 2))
    with torch.autocast(of.z.device.type, enabled=False):  # it would round the product
        norms = of.z.square().sum(1)
        squares = (norms[:, None] + norms[None, :] - 2 * of.z @ of.z.T).clamp(min=0) / max(1, of.z.shape[1])
    widths = 0.05 * 2.0 ** torch.arange(4, dtype=of.z.dtype, device=of.z.device)[:, None, None]
    kernels = (squares / (-2 * widths)).exp()
    near, apart = ((kernels * which[:, None]).sum((2, 3)) / counts.clamp(min=1)[:, None] + 1e-6).log()
    return (near - apart).mean() * counts.all()  # nothing to compare: 0


def _distance(of: _Compared) -> Tensor:
    count, same = of.pairs, of.same
    distance = torch.cdist(of.z, of.z, compute_mode="donot_use_mm_for_euclid_dist") * count

    def of_group(values: Tensor) -> Tensor:
        """The group's own pairs, its pairs with others, and the pairs of others: a sum each, for each row's group."""
        own, across = ((same * (values * which).sum(1)).sum(1) for which in (same, 1 - same))
        return torch.stack([own, across, values.sum() - own - 2 * across])

    counts = of_group(count)
    within, between, others = of_group(distance) / counts.clamp(min=1)
    weight = (counts.amin(0) > 0) * of.real / same.sum(1).clamp(min=1)  # groups count alike, whatever their sizes
    told = (weight * (2 * between - within - others)).sum() / weight.sum().clamp(min=1e-6)
    return told * count.sum().clamp(min=1) / distance.detach().sum().clamp(min=1e-6)


def standardised(z: Tensor, real: Tensor) -> Tensor:
    """Each dimension by its mean and deviation over the rows that are `real`."""
    weight = real.to(z.dtype).unsqueeze(1) / real.sum()
    mean = (weight * z).sum(0)
    variance = (weight * (z - mean).square()).sum(0).clamp(min=1e-12)  # at 0 the root has no gradient
    return (z - mean) / (variance.sqrt() + 1e-4)


def gan_real(logit: Float[Tensor, "n"], kind: str = "log") -> Float[Tensor, ""]:
    """What a discriminator descends on real observations: -log D ("log"), or max(0, 1 - logit) ("hinge")."""
    return (F.softplus(-logit) if kind == "log" else F.relu(1 - logit)).mean()


def gan_fake(logit: Float[Tensor, "n"], kind: str = "log") -> Float[Tensor, ""]:
    """What a discriminator descends on generated ones: -log(1 - D), or max(0, 1 + logit)."""
    return (F.softplus(logit) if kind == "log" else F.relu(1 + logit)).mean()


def gan_generator(logit: Float[Tensor, "n"], kind: str = "log") -> Float[Tensor, ""]:
    """What the generator descends on its own: -log D, which doesn't saturate, or -logit."""
    return (F.softplus(-logit) if kind == "log" else -logit).mean()


def gathered(x: Tensor) -> Tensor:
    """The whole batch `[world * n, ...]` where several ranks train together; `x` itself in one process.

    For terms that are statistics of a batch. Differentiable: with gradients averaged over ranks, as training does, the
    result is the gradient on the global batch.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return x
    if not x.requires_grad:
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(x))


def kl_decomposition(
    z: Float[Tensor, "b d"],
    mean: Float[Tensor, "b d"],
    log_var: Float[Tensor, "b d"],
    n: int,
    estimator: str = "weighted",
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
    """The average KL(q(z|x) || N(0, I)) in three (Chen et al. 2018): mutual information, total correlation, and the sum
    of the dimensions' own KLs, in nats.

    `z` is a sample of each of the batch's Gaussian posteriors, which have `mean` and `log_var`; `n` is how many
    observations there are in all. E log q(z|x) - log q(z); E log q(z) - sum_k log q(z_k); E sum_k log q(z_k) - log
    p(z_k), with the densities of the aggregate posterior estimated from the batch of b by weights that its members get.
    "weighted" gives 1 / (n b) to all, which underestimates q(z); "stratified" gives 1 / n to the posterior that z was
    drawn from, (n - b + 1) / (n (b - 1)) to one other and 1 / (b - 1) to the rest, which is unbiased. The sum of the
    three is the same by either.
    """
    b = len(z)
    each = -0.5 * ((z[:, None] - mean).square() / log_var.exp() + log_var + math.log(2 * math.pi))  # [b, b, d]
    log_weight = z.new_full((b, b), -math.log(n * b))
    if estimator == "stratified":
        if b < 2 or n < b:
            raise InputError(f"batch_size: {b} of {n} observations; the stratified estimator needs 2 to {n}")
        log_weight.fill_(-math.log(b - 1)).fill_diagonal_(-math.log(n))
        log_weight.diagonal(1).fill_(math.log((n - b + 1) / (n * (b - 1))))  # the one after it; the last one's: first
        log_weight[-1, 0] = log_weight[0, 1]
    log_q = (each.sum(2) + log_weight).logsumexp(1)
    log_q_each = (each + log_weight[:, :, None]).logsumexp(1).sum(1)
    log_q_x = each.diagonal().sum(0)
    log_p = -0.5 * (z.square() + math.log(2 * math.pi)).sum(1)
    return (log_q_x - log_q).mean(), (log_q - log_q_each).mean(), (log_q_each - log_p).mean()


def covariance_penalty(
    mean: Float[Tensor, "b d"], variance: Float[Tensor, "b d"] | None = None
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """How far codes' covariance is from the identity (Kumar et al. 2018): the sums of squares off and on the diagonal.

    The covariance of the posteriors' means over the batch (divided by b), DIP-VAE-I; plus the average of the
    posteriors' diagonal variances where `variance` is given, which is the covariance of z itself, DIP-VAE-II.
    """
    off = mean - mean.mean(0)
    covariance = off.T @ off / len(mean)
    if variance is not None:
        covariance = covariance + variance.mean(0).diag()
    squares = (covariance - torch.eye(mean.shape[1], dtype=mean.dtype, device=mean.device)).square()
    return squares.sum() - squares.trace(), squares.trace()
