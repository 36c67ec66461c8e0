"""What methods that learn from groups share: an encoder for each code, and the price of what z shows of the group."""

from __future__ import annotations

from collections.abc import Generator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twofold import networks
from twofold.divergences import gathered, group_leak, mates, refuse_one_group, standardised, trust
from twofold.errors import InputError
from twofold.method import Method, Terms
from twofold.supervision import Groups, GroupsDraw

WIDTH, MOST = 256, 1024  # of an adversary: its layers, its outputs


class GroupedMethod(Method):
    """Base of methods whose z may not tell the group (ours; no paper has it).

    `leakage` is the price, in units of z's KL, of each nat by which the means of z show it: to kernels and distances
    within the batch (`divergences.group_leak`), and to an adversary that guesses the group from z and has seen all
    batches before. 0: no price and no adversary. `separate`: an encoder for each code, so that a price on z
    moves s less; None: where `arch` is no paper's. By narrow, deep convolutions (`arch="contrast21-narrow"`) the price
    kept both codes silent (docs/leakage.md): take 0 there.
    """

    supervision = Groups

    adversary: nn.ModuleList  # made by `bind`: one for each grouping

    def __init__(self, encoder, decoder, leakage: float, separate: bool | None):
        super().__init__(encoder, decoder)
        self.leakage, self.separate = leakage, separate
        if leakage:
            self.players = self.players | {"adversary": "adversary"}

    @classmethod
    def networks(cls, shape, s, z, classes, arch, separate=None):
        return networks.build(arch, shape, s, z, separate=arch in networks.GENERAL if separate is None else separate)

    def bind(self, supervision):
        facts = supervision.facts()
        if facts["per_group"] < 2:  # every chunk would be one observation, and a VAE be learned without a word
            raise InputError(f"per_group: 1; {self.name} learns from what members of a group share, draw at least 2")
        super().bind(supervision)
        if not self.leakage:
            return
        z = self.sizes[1]
        counts = list(facts.get("groupings", {"": facts["groups"]}).values())
        if [each.groups for each in getattr(self, "adversary", ())] != counts:
            self.adversary = nn.ModuleList(Guess(z, count) for count in counts).to(self.device)
        if isinstance(supervision, Groups):
            for guess, ids in zip(self.adversary, supervision.group.reshape(supervision.n, -1).T):
                guess.expect(ids)  # pyright: ignore

    def _price(self, draw: GroupsDraw, z: Tensor, members: Tensor, kl: Tensor) -> Generator[Terms, None, Tensor]:
        """What `z [G * K, d]` pays, given its KL, after a step of the adversary. An image may stand there twice."""
        refuse_one_group(len(gathered(draw.group)), draw.mask.shape[1])
        if not hasattr(self, "adversary"):
            raise InputError("bind: was not called; leakage needs to know how many groups there are, and fit tells it")
        z, real, row = map(gathered, (z, members, draw.index.flatten()))
        groups = [gathered(each) for each in draw.groups.flatten(0, 1).T]
        if len(groups) > 1:  # chunks of two groupings may hold the same image
            real = real * first(row, real)
        pairs = [mates(group, real, row) for group in groups]
        each = list(zip(self.adversary, groups, pairs))
        shown = standardised(z, real.bool())
        heard = [guess(shown.detach(), group, of) for guess, group, of in each]
        yield {"adversary": {"guess": -torch.stack(heard).sum()}}
        told = torch.stack([group_leak(z, group, real, row) for group in groups]).sum()
        for guess, group, of in each:  # worse than no guess is no merit of z
            told = told + trust(of) * guess(shown, group, of).clamp(min=0)
        return self.leakage * gathered(kl.detach()[None]).mean() * told


def first(row: Tensor, members: Tensor) -> Tensor:
    """1 where an observation of `row [B]` stands for the first time among those that count: it is heard once."""
    observations, dense = row.unique(return_inverse=True)
    place = torch.where(members > 0, torch.arange(len(row), device=row.device), len(row))
    earliest = place.new_full((len(observations),), len(row)).scatter_reduce(0, dense, place, "amin")
    return (earliest[dense] == place).to(members.dtype)


class Guess(nn.Module):
    """An adversary: which group is it, from z? Beyond 1,024 groups, which remainder its number leaves."""

    share: Tensor

    def __init__(self, z: int, groups: int):
        super().__init__()
        self.groups, outputs = groups, min(groups, MOST)
        layers = nn.Linear(max(1, z), WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, outputs)
        self.layers = nn.Sequential(*layers)
        self.register_buffer("share", torch.full((outputs,), 1 / outputs))

    def expect(self, ids: Tensor) -> None:
        """Take from all `ids [N]` how often each group is drawn. Groups of one member have nothing to hide."""
        sizes = ids.cpu().bincount(minlength=self.groups)
        counted = sizes * (sizes > 1)
        of = torch.arange(len(sizes)) % len(self.share)
        share = torch.zeros(len(self.share)).index_add_(0, of, counted.float())
        self.share.copy_(share / share.sum())

    def forward(self, z: Tensor, group: Tensor, pairs: Tensor) -> Tensor:
        """log q(group | z) - log p(group), in nats, mean over rows with another of their group in the batch (`pairs` of
        `divergences.mates`): at most what z tells of the group, where batches show groups as often as the data do."""
        z = z if z.shape[1] else z.new_zeros(len(z), 1)
        compared = pairs.any(1).to(z.dtype)
        wanted = group % len(self.share)
        nats = -F.cross_entropy(self.layers(z), wanted, reduction="none") - self.share[wanted].clamp(min=1e-6).log()
        return (nats.to(z.dtype) * compared).sum() / compared.sum().clamp(min=1)
