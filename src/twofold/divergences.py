"""Distances between batches of codes: tensors in, a scalar out."""

from __future__ import annotations

import ot
import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor


def wasserstein2(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
    """Squared 2-Wasserstein distance between two empirical distributions [Contrast21, Eq. 9].

    min over plans T with uniform marginals of sum_ij T_ij |a_i - b_j|^2. The plan is exact (linear programme, POT); the
    gradient goes through the costs only, which is the whole gradient where the plan is unique (Danskin; Sec. 3.2).
    """
    with torch.no_grad():
        cost = torch.cdist(a.float(), b.float()).square().double().cpu().numpy()
        plan = torch.from_numpy(ot.emd([], [], cost))
        i, j = plan.nonzero(as_tuple=True)  # at most n + m - 1 pairs
        weight, i, j = plan[i, j].to(a.device, torch.float32), i.to(a.device), j.to(a.device)
    return weight @ (a[i].float() - b[j].float()).square().sum(1)


def gathered(x: Tensor) -> Tensor:
    """The whole batch `[world * n, ...]` where several ranks train together; `x` itself in one process.

    For terms that are statistics of a batch. Differentiable: with gradients averaged over ranks, as training does, the
    result is the gradient on the global batch.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return x
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(x))


def group_dependence(z: Float[Tensor, "n d"], group: Tensor, mask: Tensor | None = None) -> Float[Tensor, ""]:
    """How much the group shows in z: the energy distance between one group's z and everyone's, averaged over groups.

    E|z_i - z_j| over pairs of different groups minus over pairs of the same group (i != j): zero, in expectation, if and
    only if z is independent of the group; in z's own units; no bandwidth to choose. `group [n]` ids, `mask [n]` 1 for
    real rows. Ours, after Szekely and Rizzo 2013; the estimate is unbiased, so it may fall below zero.
    """
    real = torch.ones_like(group, dtype=torch.bool) if mask is None else mask.bool()
    both = real[:, None] & real[None, :]
    same = group[:, None] == group[None, :]
    distance = (z[:, None] - z[None, :]).square().sum(-1).clamp(min=1e-12).sqrt()
    alike = both & same & ~torch.eye(len(z), dtype=torch.bool, device=z.device)
    apart = both & ~same
    mean = lambda pairs: (distance * pairs).sum() / pairs.sum().clamp(min=1)  # noqa: E731
    return mean(apart) - mean(alike)
