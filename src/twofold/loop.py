"""The training loop itself, on Lightning Fabric: draws, players, what is logged and kept. `fit` runs it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from twofold.arrays import mix
from twofold.errors import DivergedError, InputError
from twofold.method import Method, fill
from twofold.optimisers import LazyAdam
from twofold.progress import Progress
from twofold.runs import RunFolder, record
from twofold.supervision import Supervision

if TYPE_CHECKING:
    from lightning_fabric import Fabric

OPTIMISERS = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "lazy-adam": LazyAdam,  # for tables of which a batch touches some rows
    "sgd": torch.optim.SGD,
    "rmsprop": torch.optim.RMSprop,
}
ALBUM = (0.02, 0.1, 0.3)  # of a training on points of the plane: its weights are kept then, for the report
FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)


@dataclass
class Plan:
    """A run's settings, all that decides its result besides the method and the data."""

    steps: int
    batch_size: int
    seed: int
    device: str
    devices: int
    precision: str
    optim: dict[str, dict[str, Any]]
    out: str | None = None
    resume: bool = False
    progress: bool = True
    checkpoint_every: float = 20.0
    about: dict[str, Any] = field(default_factory=dict)


class Loop:
    """One process's share of a training."""

    def __init__(self, fabric: Fabric, method: Method, supervision: Supervision, plan: Plan):
        self.fabric, self.plan = fabric, plan
        self.supervision = supervision.to(fabric.device)
        self.method = method.to(fabric.device)
        self.method.zero_grad()  # the caller's may be there
        self.parameters = _players(method)
        moved = {id(p) for ps in self.parameters.values() for p in ps}
        method.train()
        for module in method.children():
            if list(module.parameters()) and not any(id(p) in moved for p in module.parameters()):
                module.eval()  # what nobody moves keeps its batch statistics, too
        self.optimisers = {p: self._optimiser(p, ps) for p, ps in self.parameters.items()}
        self.folder = RunFolder(plan.out, fabric.is_global_zero)
        self.about = {
            "method": type(method).__name__,
            "config": method.config,
            "facts": method._facts,
            "data": supervision.fingerprint(),
            "plan": {k: v for k, v in asdict(plan).items() if k not in ("out", "resume", "progress", "about")},
        }
        self.every = max(1, min(100, plan.steps // 100))
        plane = method.shape == (2,) and plan.out and fabric.is_global_zero
        self.album = {max(1, round(share * plan.steps)) for share in ALBUM} if plane else set()
        self.history: dict[str, list[Tensor]] = {}
        self.logged = 0  # the step of the last row

    def _optimiser(self, player: str, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        settings = dict(self.plan.optim[player])
        cls = OPTIMISERS[settings.pop("name")]
        fused = {"fused": True} if cls in FUSED and self.fabric.device.type in ("cpu", "cuda") else {}
        try:
            return cls(parameters, **(fused | settings))  # pyright: ignore[reportArgumentType]
        except (TypeError, ValueError) as error:
            raise InputError(f"optim: {settings} for {player}: {error}") from None

    # -- the loop ------------------------------------------------------------------------------------------------------

    def run(self) -> tuple[list[dict[str, float]], float]:
        plan, first = self.plan, self._begin()
        cuda = self.fabric.device.type == "cuda"
        before = torch.get_rng_state(), torch.cuda.get_rng_state() if cuda else torch.empty(0)
        start = saved = time.perf_counter()
        self.logged = step = first
        try:
            with (
                _interrupts(bool(plan.out) and self.fabric.world_size == 1) as asked,
                Progress(type(self.method).__name__, plan.steps, plan.progress and self.fabric.is_global_zero) as bar,
            ):
                for step in range(first, plan.steps):
                    at = step + 1
                    log = at % self.every == 0 or at == plan.steps
                    norms = self.step(step, log)
                    if at in self.album:
                        self.folder.snapshot(at, self.method)
                    if asked and at < plan.steps:
                        self._save(at)
                        raise KeyboardInterrupt(f" at step {at}, which is kept")
                    if not log:
                        continue
                    row = self._log(at, time.perf_counter() - start, norms)
                    bar.update(at, row)
                    due = time.perf_counter() - saved > plan.checkpoint_every
                    if at == plan.steps or (plan.out and self._together(due)):
                        self._save(at)
                        saved = time.perf_counter()
        except InputError:
            if step == 0:  # refused before anything was learned: the folder is free for the corrected call
                self.folder.undo()
            raise
        finally:
            self.folder.close()
            torch.set_rng_state(before[0])
            if cuda:
                torch.cuda.set_rng_state(before[1])
        if self.folder.path and self.folder.writes:
            self.method.save(self.folder.path / "method.safetensors")
        return self.folder.rows, time.perf_counter() - start

    def step(self, step: int, norms: bool = False) -> dict[str, Tensor]:
        """One step of all players; gradient norms if asked."""
        fabric, method, plan = self.fabric, self.method, self.plan
        seed_all(mix(plan.seed, 11, step, fabric.global_rank), fabric.device)
        draws = [
            self.supervision.draw(
                step * method.draws + i, plan.seed, fabric.global_rank, fabric.world_size, batch_size=plan.batch_size
            )
            for i in range(method.draws)
        ]
        losses, found = method.losses(*draws), {}
        while True:
            with fabric.autocast():  # entered anew each time: a context held across a yield would leak into this body
                update = next(losses, None)
            if update is None:
                return found
            self._backward(update)
            for player, terms in update.items():
                if norms:
                    grads = [p.grad for p in self.parameters[player] if p.grad is not None]
                    found[f"{player}/grad_norm"] = torch.nn.utils.get_total_norm(grads)
                self.optimisers[player].step()
                for name, term in terms.items():
                    self.history.setdefault(f"{player}/{name}", []).append(term.detach())
            for player in update:
                self.optimisers[player].zero_grad(set_to_none=True)

    def _backward(self, update: dict[str, dict[str, Tensor]]) -> None:
        """Each player's gradients of its own terms; players that name the very same terms share a backward pass."""
        shared: dict[tuple[int, ...], list[str]] = {}
        for player, terms in update.items():
            shared.setdefault(tuple(map(id, terms.values())), []).append(player)
        for i, players in enumerate(shared.values()):
            total = torch.stack([term.float() for term in update[players[0]].values()]).sum()
            inputs = [p for player in players for p in self.parameters[player]]
            self.fabric.backward(total, inputs=inputs, retain_graph=i + 1 < len(shared))
        if self.fabric.world_size > 1:
            for player in update:
                self._average(self.parameters[player])

    def _average(self, parameters: list[nn.Parameter]) -> None:
        """Mean of the gradients over the ranks, in one flat message."""
        grads = [p.grad for p in parameters if p.grad is not None]
        flat = self.fabric.all_reduce(torch.cat([g.flatten() for g in grads]), reduce_op="mean")
        for grad, mean in zip(grads, flat.split([g.numel() for g in grads])):  # pyright: ignore
            grad.copy_(mean.view_as(grad))

    # -- what is kept --------------------------------------------------------------------------------------------------

    def _log(self, at: int, seconds: float, norms: dict[str, Tensor]) -> dict[str, float]:
        """Mean of each term over the interval: the one place where the loop waits for the device."""
        names, lengths = list(self.history), [len(v) for v in self.history.values()]
        values = torch.stack([v.float() for terms in self.history.values() for v in terms])
        if self.fabric.world_size > 1:
            values = self.fabric.all_reduce(values, reduce_op="mean")
        each = values.cpu().split(lengths)  # pyright: ignore
        bad = {n: int((~v.isfinite()).nonzero()[0]) for n, v in zip(names, each) if not v.isfinite().all()}
        if bad:
            n = at - self.logged
            step = at - n + 1 + min(i * n // len(self.history[name]) for name, i in bad.items())
            self._diverged(step, ", ".join(f"{name} = {float(each[names.index(name)][i])}" for name, i in bad.items()))
        row = {"step": at, "seconds": round(seconds, 3)}
        row |= {name: float(v.mean()) for name, v in zip(names, each)}
        row |= {name: float(v) for name, v in norms.items()}
        self.history.clear()
        self.logged = at
        self.folder.log(row)
        return row

    def _diverged(self, step: int, what: str) -> None:
        folder = self.folder
        good = f"last good checkpoint: {folder.checkpoint} (step {folder.good})" if folder.path else None
        raise DivergedError(
            f"loss: {what} at step {step}; {good or 'no checkpoint was kept (give out)'}; "
            "try a smaller lr, or data scaled to a smaller range"
        )

    def _together(self, due: bool) -> bool:
        """Rank 0's clock decides for all."""
        return bool(self.fabric.broadcast(due)) if self.fabric.world_size > 1 else due

    def _save(self, at: int) -> None:
        if not all(p.isfinite().all() for p in self.method.parameters()):
            self._diverged(at, "weights that are NaN or infinite")
        tensors = dict(self.method.state_dict())
        for player, optimiser in self.optimisers.items():
            for i, state in optimiser.state_dict()["state"].items():
                tensors |= {f"optim/{player}/{i}/{k}": v for k, v in state.items() if isinstance(v, Tensor)}
        self.folder.save(at, tensors, self.about)

    def _begin(self) -> int:
        """Make the run's folder, or go on from its checkpoint. Returns the first step."""
        if not self.plan.out:
            return 0
        found = self.folder.resume(self.about) if self.plan.resume else None
        if found:
            self._load(found[0])
        kind = {"supervision": type(self.supervision).__name__}
        self.folder.begin(self.about | kind | {"about": self.plan.about, "record": record()}, fresh=not found)
        if not found:
            self._save(0)
        self.folder.open_board()
        return self.folder.good

    def _load(self, tensors: dict[str, Tensor]) -> None:
        fill(self.method, tensors, self.folder.checkpoint)
        for player, optimiser in self.optimisers.items():
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in tensors.items():
                if key.startswith(f"optim/{player}/"):
                    _, _, i, name = key.split("/")
                    state.setdefault(int(i), {})[name] = value
            optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


@contextmanager
def _interrupts(wait: bool) -> Iterator[list[int]]:
    """What Ctrl-C fills, for the loop to stop between two steps: within one, some players have moved and others not.

    A second one stops at once, as does every one without `wait`.
    """
    asked: list[int] = []
    if not wait or threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(number: int, _: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before if before is not None else signal.default_int_handler)


def _players(method: Method) -> dict[str, list[nn.Parameter]]:
    """Each player's parameters. Refuses names that match nothing and parameters with two players."""
    owner: dict[str, str] = {}
    players: dict[str, list[nn.Parameter]] = {}
    named = dict(method.named_parameters())
    for player, attributes in method.players.items():
        players[player] = []
        for attribute in attributes.split():
            found = [n for n in named if n == attribute or n.startswith(f"{attribute}.")]
            if not found and not hasattr(method, attribute):
                raise InputError(f"players: {type(method).__name__} has no {attribute} for player {player}")
            for name in found:
                if name in owner:
                    raise InputError(f"players: {name} belongs to both {owner[name]} and {player}")
                owner[name] = player
                if named[name].requires_grad:
                    players[player].append(named[name])
    return players


def seed_all(seed: int, device: torch.device) -> None:
    """Sampling noise as a function of the step. Straight to the generators: torch.manual_seed visits every backend."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
