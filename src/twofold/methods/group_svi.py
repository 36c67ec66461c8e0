"""Bouchacourt, Tomioka and Nowozin 2018: what ML-VAE is compared with, inference without an encoder."""

from __future__ import annotations

import copy
import math
from collections.abc import Sized
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from twofold import networks
from twofold.arrays import gather, generator
from twofold.distributions import Gaussian, Likelihood, picture
from twofold.divergences import gathered
from twofold.errors import InputError, whole
from twofold.method import Code, Facts, Method, _using, number
from twofold.progress import Progress
from twofold.supervision import Groups, groupings, in_groups


class GroupSVI(Method):
    """Stochastic variational inference [Bouchacourt18, supplement 2.1]: no encoder, but parameters for each group's C
    (our s) and for each observation's S (our z), learned with the decoder by the ELBO of `MLVAE` (Eqs. 3 and 5).

    New observations are inferred by descending the ELBO in their own parameters, the decoder fixed: `infer(x, group)`,
    which is also what `encode` (each observation a group of its own) and `twofold.accumulate` do. The paper trains for
    2,000 epochs and infers for 40,000 by Adam at 1e-3; a row is moved once an epoch only, so ours moves at 0.05, and
    inference takes `inference_steps` from 0.1 down to 0. An observation that is not in the batch keeps its parameters.

    The parameters belong to the observations that they were trained on: `bind` to other data makes them anew (the
    decoder stays). A group drawn in chunks shares its KL among them by their sizes: here a part of a group is no bias
    (supplement, Sec. 6), for q(C_G) doesn't depend on which members are drawn. `beta` weights the KLs.
    With `scale=None` inference takes the pixel variance that training ended with. There is no `leakage` here: inference
    would not feel it, and in our exploration (no command kept) it made things worse.
    """

    name = "group-svi"
    supervision = Groups
    players = {"model": "dec", "posterior": "C_mean C_log_var S_mean S_log_var"}
    optim = {"model": {"name": "adam", "lr": 1e-3}, "posterior": {"name": "lazy-adam", "lr": 0.05}}

    members: Tensor  # of each group
    C_mean: nn.Parameter
    C_log_var: nn.Parameter
    S_mean: nn.Parameter
    S_log_var: nn.Parameter
    variance: Tensor  # of a pixel, where the batch decides it
    updates: Tensor

    def __init__(
        self,
        decoder,
        s: int = 10,
        z: int = 10,
        *,
        beta: float = 1.0,
        inference_steps: int = 500,
        likelihood: Literal["gaussian", "laplace", "bernoulli"] = "gaussian",
        scale: float | None = None,
    ):
        super().__init__(None, decoder)
        self.inference_steps = whole("inference_steps", inference_steps, 1)
        self._sizes = (s, z)
        self.beta = beta
        self.nll = Likelihood(likelihood, scale)
        self.register_buffer("variance", torch.ones(()))
        self.register_buffer("updates", torch.zeros(()))

    @classmethod
    def networks(cls, shape, s, z, classes, arch):  # pyright: ignore[reportIncompatibleMethodOverride]
        return networks.build(arch, shape, s, z)[1], s, z

    def bind(self, supervision):
        facts = dict(supervision.facts())
        _refuse_several(facts.get("groupings", ()))
        facts.setdefault("data", supervision.fingerprint() if isinstance(supervision, Groups) else None)
        known = self._facts
        super().bind(Facts(facts))
        if isinstance(supervision, Groups):
            self.register_buffer("members", supervision.group.bincount().to(self.device), persistent=False)
        if known is None or any(known[fact] != facts[fact] for fact in ("n", "groups", "data")):
            for name, rows, width in zip("CS", (facts["groups"], facts["n"]), self._sizes):
                mean = 0.1 * torch.randn(rows, width)
                setattr(self, f"{name}_mean", nn.Parameter(mean.to(self.device)))
                setattr(self, f"{name}_log_var", nn.Parameter(torch.zeros_like(mean, device=self.device)))

    def _try(self):
        try:
            x = self.decode([torch.zeros(2, size) for size in self._sizes])
        except RuntimeError as error:
            raise InputError(f"decoder: {str(error).splitlines()[0]}, on codes of {self._sizes}") from None
        if x.shape[1:] != self.shape:
            raise InputError(f"decoder: gave {tuple(x.shape)} for observations of shape {self.shape}")

    def losses(self, draw):  # draw.x [G, K, *shape], draw.mask [G, K]
        G, K = draw.mask.shape
        x, members, rows = draw.x.flatten(0, 1), draw.mask.flatten(), draw.index.flatten()
        q_C = Gaussian(self.C_mean[draw.group], self.C_log_var[draw.group])
        q_S = Gaussian(self.S_mean[rows], self.S_log_var[rows])
        C = q_C.sample((K,)).transpose(0, 1).flatten(0, 1)  # Algorithm 1: a c_{G,i} for each X_i
        decoded = self.dec(C, q_S.sample())
        share = draw.mask.sum(1) / self.members[draw.group]
        terms = {  # -ELBO(G), Eq. 3, of a chunk its part; mean over the batch's chunks, Eq. 5
            "rec": (self.nll(decoded, x, members) * members).sum() / G,
            "kl_z": self.beta * (q_S.kl() * members).sum() / G,
            "kl_s": self.beta * (q_C.kl() * share).mean(),
        }
        if self.training:
            self._remember(decoded, x, members)
        yield {"model": terms, "posterior": terms}

    @torch.no_grad()
    def _remember(self, decoded, x: Tensor, members: Tensor) -> None:
        """A running mean of the pixel variance that `scale=None` finds in each batch."""
        if self.nll.scale is None and isinstance(decoded, Tensor):
            each, members = gathered((decoded - x).square().flatten(1).mean(1)), gathered(members)
            self.updates += 1
            self.variance += ((each * members).sum() / members.sum() - self.variance) / self.updates.clamp(max=100)

    def known_nll(self, decoded, x: Tensor) -> Tensor:
        """-log p(x | C, S) `[N]` with the pixel variance that training has found, whatever else is in the batch."""
        if self.nll.kind == "gaussian" and self.nll.scale is None and isinstance(decoded, Tensor):
            return Likelihood("gaussian", math.sqrt(max(float(self.variance), 1e-6)))(decoded, x)
        return self.nll(decoded, x)

    def learned(self) -> Code:
        """What training has left: s `[groups, d_s]` of its groups (sorted ids), z `[n, d_z]` of its observations."""
        if not hasattr(self, "C_mean"):
            raise InputError("learned: nothing yet; train the method with fit first")
        return Code(self.C_mean.detach().cpu(), self.S_mean.detach().cpu())

    def infer(
        self,
        x,
        group=None,
        steps: int | None = None,
        lr: float = 0.1,
        *,
        progress: bool = True,
        batch_size: int = 1024,
        seed: int = 0,
    ) -> Code:
        """Codes of observations `x [N, *shape]`, by `steps` of Adam on the ELBO (`inference_steps` unless given), the
        decoder fixed.

        `group [N]`: any ids, whose members share one s; without, each observation is a group of its own. The rate goes
        from `lr` down to 0 (half a cosine). `batch_size` observations at a time, or a whole group where that is larger.
        `seed`: of the sampling noise, which all observations share. Returns `Code(s [groups, d_s], z [N, d_z])`, sorted
        by id, on the CPU: means. Raises `InputError` for another shape or range, several groupings, and where `steps`,
        `lr` or `batch_size` are not positive.
        """
        q_C, q_S = self._descend(x, group, steps, lr, progress, batch_size, seed)
        return Code(q_C.mean, q_S.mean)

    def encode(self, x, y=None, batch_size: int = 1024, progress: bool = False) -> Code:
        """`infer`, each observation a group of its own."""
        return self.infer(x, progress=progress, batch_size=batch_size)

    def posterior(self, x, y=None, batch_size: int = 1024, progress: bool = False):
        """The Gaussians of s and z that `infer` descends to, each observation a group of its own."""
        return self._descend(x, None, None, 0.1, progress, batch_size, 0)

    def accumulate(self, x, group, y=None) -> Code:
        return self.infer(x, group, progress=False)

    def _descend(self, x, group, steps, lr, progress, batch_size, seed) -> tuple[Gaussian, Gaussian]:
        """Posteriors of all groups and observations, block by block; a block holds whole groups."""
        x, steps = self._check(x), whole("steps", self.inference_steps if steps is None else steps, 1)
        batch_size, seed = whole("batch_size", batch_size, 1), whole("seed", seed, 0)
        number("lr", lr)
        if lr == 0:
            raise InputError("lr: 0; expected a positive number")
        dense = torch.arange(len(x))
        if group is not None:
            named = groupings(group, len(x))
            _refuse_several(named)
            dense = torch.from_numpy(in_groups(next(iter(named.values())), len(x))[1])
        sizes = dense.bincount()
        start = sizes.cumsum(0) - sizes
        order, block = dense.argsort(stable=True), start // batch_size
        half = torch.from_numpy(generator(seed, 31).standard_normal((-(-steps // 2), sum(self._sizes)), "float32"))
        noise = torch.stack([half, -half], dim=1).flatten(0, 1)[:steps]  # in pairs whose means' errors cancel
        found = [torch.empty(n, 2 * d) for n, d in zip((len(sizes), len(x)), self._sizes)]
        blocks, device = block.unique().tolist(), self.device
        with Progress("inference", steps * len(blocks), progress) as bar, _using(self), torch.enable_grad():
            for i, this in enumerate(blocks):
                groups = (block == this).nonzero().squeeze(1)
                rows = order[start[groups[0]] : start[groups[-1]] + sizes[groups[-1]]]
                part = gather(x, rows).to(device), (dense[rows] - groups[0]).to(device)
                tell = partial(_told, bar, i * steps, len(groups))
                q = self._adam(*part, len(groups), noise.to(device), lr, tell)
                found[0][groups], found[1][rows] = (half.cpu() for half in q)
        return tuple(Gaussian(*half.chunk(2, dim=1)) for half in found)  # pyright: ignore[reportReturnType]

    def _adam(self, x: Tensor, group: Tensor, count: int, noise: Tensor, lr: float, tell) -> list[Tensor]:
        """Means and log-variances, side by side, from the prior's on."""
        q = [torch.zeros(n, 2 * d, device=x.device, requires_grad=True) for n, d in zip((count, len(x)), self._sizes)]
        optimiser = torch.optim.Adam(q, lr, fused=x.device.type in ("cpu", "cuda"))
        for at, eps in enumerate(noise, 1):
            optimiser.param_groups[0]["lr"] = lr * 0.5 * (1 + math.cos(math.pi * (at - 1) / len(noise)))
            q_C, q_S = (Gaussian(*half.chunk(2, dim=1)) for half in q)
            eps_C, eps_S = eps.split(self._sizes)
            C, S = q_C.mean + q_C.stddev * eps_C, q_S.mean + q_S.stddev * eps_S
            loss = self.known_nll(self.dec(C[group], S), x).sum() + self.beta * (q_S.kl().sum() + q_C.kl().sum())
            optimiser.zero_grad()
            loss.backward(inputs=q)
            optimiser.step()
            if at % 50 == 0 or at == len(noise):
                tell(at, float(loss.detach()))
        return [half.detach() for half in q]


def _refuse_several(groupings: Sized) -> None:
    if len(groupings) > 1:
        raise InputError(f"group: {len(groupings)} groupings; group-svi takes one, ml-vae several")


def _told(bar: Progress, done: int, groups: int, at: int, loss: float) -> None:
    bar.update(done + at, {"-ELBO": loss / groups})


class SVIEncode(Method):
    """An encoder for a trained `GroupSVI`, learned from what that generates [Bouchacourt18, supplement Eq. 17].

    `SVIEncode(svi)` copies a trained `GroupSVI` and leaves it as it is. Each step decodes codes from the prior, as many
    as the draw has places (its images are not looked at), and the encoder learns to find them: E_q log p(X | C, S) is
    maximised, without a KL and without groups. The images generated are the decoder's means, without pixel noise.

    `SVIEncode.build(shape)` holds a `GroupSVI` that is not trained yet: then each step first moves that one on the
    draw, and then the encoder on what it generates by now (the alternation that the paper leaves for future work).
    `likelihood` and `scale` are that `GroupSVI`'s.
    """

    name = "svi-encode"
    supervision = Groups
    players = {f"svi_{k}": " ".join(f"svi.{v}" for v in of.split()) for k, of in GroupSVI.players.items()}
    players["encoder"] = "enc"
    optim = {**{f"svi_{k}": v for k, v in GroupSVI.optim.items()}, "encoder": {"name": "adam", "lr": 1e-3}}

    def __init__(
        self,
        svi: GroupSVI,
        encoder: nn.Module | None = None,
        *,
        likelihood: Literal["gaussian", "laplace", "bernoulli"] = "gaussian",
        scale: float | None = None,
    ):
        if not isinstance(svi, GroupSVI):
            raise InputError(f"svi: {type(svi).__name__}; expected a GroupSVI")
        known: Any = svi.config
        given = encoder is not None
        if encoder is None and known is None:
            raise InputError("encoder: none given; a GroupSVI with a decoder of your own needs an encoder of your own")
        if encoder is None:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(known["seed"])
                encoder = networks.build(known["arch"], tuple(known["shape"]), known["s"], known["z"])[0]
        super().__init__(encoder)
        self.svi = svi
        if svi._facts is not None:
            self._freeze()
            own = {name: known[name] for name in self.options() if name in known} if known else {}
            self.config = (
                None if given else known and {k: known[k] for k in ("shape", "s", "z", "classes", "arch", "seed")} | own
            )

    @classmethod
    def networks(cls, shape, s, z, classes, arch, likelihood: Any = "gaussian", scale=None):
        encoder, decoder = networks.build(arch, shape, s, z)
        return GroupSVI(decoder, s, z, likelihood=likelihood, scale=scale), encoder

    def _freeze(self) -> None:
        self.svi = copy.deepcopy(self.svi).requires_grad_(False)
        self.players = {"encoder": "enc"}

    def bind(self, supervision):
        super().bind(supervision)
        facts = self._facts or {}
        if "svi" in facts:  # loaded
            self.svi.bind(Facts(facts["svi"]))
            self.svi.beta, self.svi.inference_steps = facts["beta"], facts["inference_steps"]
            if facts["frozen"]:
                self._freeze()
        elif "svi_model" in self.players:
            self.svi.bind(supervision)
        told = {"beta": self.svi.beta, "inference_steps": self.svi.inference_steps}
        self._facts = facts | told | {"svi": self.svi._facts, "frozen": "svi_model" not in self.players}

    def losses(self, draw):
        if "svi_model" in self.players:
            for update in self.svi.losses(draw):
                yield {f"svi_{player}": terms for player, terms in update.items()}
        with torch.no_grad():
            codes = (torch.randn(draw.mask.numel(), d, device=draw.x.device) for d in self.svi.sizes)
            x = picture(self.svi.dec(*codes))
        q_C, q_S = self._posterior(x)
        nll = self.svi.known_nll(self.svi.dec(q_C.sample(), q_S.sample()), x)
        yield {"encoder": {"rec": nll.mean()}}  # supplement Eq. 17

    def _decode(self, s, z):
        return self.svi.dec(s, z)
