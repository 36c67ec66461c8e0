"""Bouchacourt, Tomioka and Nowozin 2018: evidence that a group accumulates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate, pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from twofold.distributions import Gaussian, Likelihood, Mixture, Point
from twofold.errors import InputError, choose, whole
from twofold.method import Code
from twofold.methods.grouped import GroupedMethod, first
from twofold.supervision import groupings, in_groups


class MLVAE(GroupedMethod):
    """Multi-Level VAE [Bouchacourt18]. The paper's content C is our s, its style S our z.

    The posterior of a group's content is the normalised product of its members' (`evidence="product"`, Eqs. 6-7) or
    their even mixture (`"mixture"`, supplement Eqs. 1-3). The product trains what the members say together, the mixture
    what each says alone: of single images its s tells more. `beta` weights both KLs.

    Nothing in the paper's objective keeps the group out of z, and on most data it does leak there. `leakage` is what it
    costs: that many times z's KL for each nat by which z shows the group, to kernels, distances and an adversary (ours,
    `GroupedMethod`; 0 is the paper's objective). `separate` gives each code an encoder of its own, so that this price
    moves s less; None: where `arch` is no paper's.

    With several groupings (the paper says that there may be, and no more) s is divided, a part for each in their order,
    evenly or as `parts` says. Each part accumulates over all members of its group that stand in the batch (each image
    once, ranks for themselves), and its KL counts once a group that is there.
    """

    name = "ml-vae"

    def __init__(
        self,
        encoder,
        decoder,
        *,
        evidence: Literal["product", "mixture"] = "product",
        parts: tuple[int, ...] | None = None,
        beta: float = 1.0,
        leakage: float = 2.0,
        separate: bool | None = None,
        likelihood: Literal["gaussian", "laplace", "bernoulli"] = "gaussian",
        scale: float | None = None,
    ):
        super().__init__(encoder, decoder, leakage, separate)
        choose("evidence", evidence, ("product", "mixture"))
        if parts is not None:
            if isinstance(parts, str) or not isinstance(parts, Iterable):
                raise InputError(f"parts: {parts!r}; expected how many dimensions of s each grouping has, as (6, 4)")
            parts = tuple(whole("parts", d, 1) for d in parts)
        self.evidence, self.parts, self.beta = evidence, parts, beta
        self.nll = Likelihood(likelihood, scale)

    def bind(self, supervision):
        names = list(supervision.facts().get("groupings", ["group"]))
        before = names if self._facts is None else list(self._facts.get("groupings", ["group"]))
        unnamed = [str(i + 1) for i in range(len(names))]
        if before != names and not (len(before) == len(names) and unnamed in (before, names)):
            raise InputError(f"group: {', '.join(names)}; s was divided for {', '.join(before)}, in that order")
        super().bind(supervision)
        if self.parts is None and len(names) == 1:
            self._cuts = (slice(None),)
            return
        s, count = self.sizes[0], len(names)
        parts = [s // count + (i < s % count) for i in range(count)] if self.parts is None else list(self.parts)
        if len(parts) != count or sum(parts) != s or min(parts) < 1:
            told = f"{count} (of {', '.join(names)}), each at least 1, of sum s = {s}"
            raise InputError(f"parts: {parts}; expected {told}")
        self._cuts = [slice(*ends) for ends in pairwise(accumulate(parts, initial=0))]

    _cuts = (slice(None),)  # of s, one for each grouping

    @property
    def parts_of_s(self) -> dict[str, slice]:
        """Of several groupings: which columns of s are about each. Empty where there is one."""
        names = (self._facts or {}).get("groupings", ())
        return dict(zip(names, self._cuts)) if len(self._cuts) > 1 else {}

    def losses(self, draw):  # draw.x [G, K, *shape], draw.mask [G, K]
        G, K = draw.mask.shape
        x, members = draw.x.flatten(0, 1), draw.mask.flatten()
        q_C, q_S = self._posterior(x)
        S = q_S.sample()
        if len(self._cuts) == 1:
            C, kl_C = self._content(q_C.unflatten((G, K)), draw.mask)
            C, kl_C = C.transpose(0, 1).flatten(0, 1), kl_C.sum()
        else:
            groups = list(draw.groups.flatten(0, 1).T)
            members = members * first(draw.index.flatten(), members)
            C, kl_C = [], x.new_zeros(())
            for part, group in zip(self._cuts, groups):
                of = _arranged(group, members)
                samples, kl = self._content(q_C[of.rows, part], of.mask)
                C.append(samples[of.slot, of.group])
                kl_C = kl_C + kl.sum()
            C = torch.cat(C, dim=1)
        nll = self.nll(self.dec(C, S), x, members)
        kl_S = (q_S.kl() * members).sum() / G
        terms = {  # -ELBO(G), Eq. 3; mean over the batch's groups, Eq. 5
            "rec": (nll * members).sum() / G,
            "kl_z": self.beta * kl_S,
            "kl_s": self.beta * kl_C / G,
        }
        if self.leakage:  # ours; priced by what z holds, so that no weight depends on the data
            terms["leakage"] = yield from self._price(draw, q_S.mean, members, kl_S)
        yield {"model": terms}

    def _content(self, q: Gaussian, mask: Tensor) -> tuple[Tensor, Tensor]:
        """A c_{G,i} for each X_i (Algorithm 1) and each group's KL, from the members' posteriors `q [G, K, d]`."""
        if self.evidence == "product":
            q_CG = q.product(dim=1, mask=mask)  # Eqs. 6-7
            return q_CG.sample((mask.shape[1],)), q_CG.kl()
        q_CG = Mixture(q, mask)
        C = q_CG.sample((mask.shape[1],))
        return C, q_CG.kl(C, mask.T)  # the reconstruction's own samples, L = |G|

    def accumulate(self, x, group, y=None):
        named, parts = groupings(group, len(x)), self.parts_of_s
        if not parts and len(named) == 1:
            return super().accumulate(x, next(iter(named.values())), y)
        if len(named) != len(self._cuts):
            raise InputError(f"group: {len(named)} groupings; trained on {len(self._cuts)}, expected as many")
        each = named.values()  # in their order, where either have no names
        if isinstance(group, Mapping) and list(parts) != [str(i + 1) for i in range(len(parts))]:
            if named.keys() != parts.keys():
                raise InputError(f"group: {', '.join(named)}; expected the groupings trained on: {', '.join(parts)}")
            each = [named[name] for name in parts]
        q_s, q_z = self.posterior(x, y)
        s = []
        for (name, part), ids in zip(parts.items(), each):
            of = torch.from_numpy(in_groups(ids, len(x), f"group {name}")[1])
            s.append(self._accumulate(q_s[:, part], of, int(of.max()) + 1)[of])  # pyright: ignore
        return Code(torch.cat(s, dim=1), q_z.mean)

    def _accumulate(self, q_s, group, count):
        if self.evidence == "product":
            return super()._accumulate(q_s, group, count)
        return super()._accumulate(Point(q_s.mean), group, count)  # a mixture's mean, supplement Eq. 1


class _Arranged(NamedTuple):
    """Rows of a batch by their group: `rows [U, M]` and `mask [U, M]`; each row's place there, `group [B]`, `slot [B]`
    (0 for rows that don't count)."""

    rows: Tensor
    mask: Tensor
    group: Tensor
    slot: Tensor


def _arranged(group: Tensor, members: Tensor) -> _Arranged:
    """Lay out `group [B]` of which `members [B]` count. Each group has a row that does. No loop over groups."""
    dense = group.unique(return_inverse=True)[1]
    counted = members > 0
    sizes = dense[counted].bincount()
    order = (dense + len(sizes) * ~counted).argsort(stable=True)[: int(sizes.sum())]
    slot = torch.zeros_like(dense)
    slot[order] = torch.arange(len(order), device=group.device) - (sizes.cumsum(0) - sizes)[dense[order]]
    rows = dense.new_zeros(len(sizes), int(sizes.max()))
    mask = torch.zeros_like(rows, dtype=members.dtype)
    rows[dense[order], slot[order]], mask[dense[order], slot[order]] = order, 1
    return _Arranged(rows, mask, dense, slot)
