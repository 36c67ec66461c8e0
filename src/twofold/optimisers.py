"""An optimiser for tables of parameters, of which a batch touches a few rows."""

from __future__ import annotations

import torch
from torch import Tensor


class LazyAdam(torch.optim.Optimizer):
    """Adam (Kingma & Ba 2015) row by row: rows `p[i]` without a gradient keep their values and their moments.

    Under plain Adam the row of an observation that is not in the batch drifts on by momentum. Each row counts its own
    steps, so that its first is as large as any. `torch.optim.SparseAdam` counts them for the whole table, and needs
    sparse gradients, which ranks can't average in one message.
    """

    def __init__(self, params, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8):
        if lr < 0 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"lr {lr}, betas {betas}")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure=None):  # pyright: ignore[reportIncompatibleMethodOverride]
        assert closure is None
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._move(p, p.grad, group)

    def _move(self, p: Tensor, grad: Tensor, group: dict) -> None:
        state = self.state[p]
        if not state:
            state |= {"first": torch.zeros_like(p), "second": torch.zeros_like(p), "steps": p.new_zeros(len(p))}
        rows = grad.flatten(1).any(1).nonzero().squeeze(1)
        g, (b1, b2), aligned = grad[rows], group["betas"], (-1, *[1] * (p.ndim - 1))
        steps = state["steps"][rows] + 1
        first = state["first"][rows].lerp(g, 1 - b1)
        second = state["second"][rows].lerp(g.square(), 1 - b2)
        for name, value in (("first", first), ("second", second), ("steps", steps)):
            state[name][rows] = value
        root = (second / (1 - b2**steps).view(aligned)).sqrt() + group["eps"]
        p[rows] -= group["lr"] * first / (1 - b1**steps).view(aligned) / root
