"""`fit`: settings checked, processes started, a method trained. Methods never import it."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.multiprocessing.spawn import ProcessException

from twofold import errors
from twofold.arrays import mix
from twofold.errors import InputError, TwofoldError, choose, whole
from twofold.loop import OPTIMISERS, Loop, Plan, seed_all
from twofold.method import Method, read_tensors, write_tensors
from twofold.runs import RunFolder
from twofold.supervision import Supervision

if TYPE_CHECKING:
    from lightning_fabric import Fabric

PRECISIONS = {
    **dict.fromkeys(("auto", "fp32", "32", "32-true"), "32-true"),
    **dict.fromkeys(("bf16", "bf16-mixed"), "bf16-mixed"),
}


@dataclass
class Run:
    """What `fit` did: the trained `method`, the logged `metrics` (a row an interval: step, seconds, each player's terms
    averaged over the interval, gradient norms), the run folder (`path`, None without `out`), `steps`, `seconds`."""

    method: Method
    metrics: list[dict[str, float]]
    path: Path | None
    steps: int
    seconds: float


def fit(
    method: Method,
    supervision: Supervision,
    *,
    steps: int | None = None,
    epochs: float | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    device: str = "auto",
    devices: int = 1,
    precision: str = "auto",
    out: str | os.PathLike | None = None,
    resume: bool = False,
    progress: bool = True,
    optim: Mapping[str, Any] | None = None,
    checkpoint_every: float = 20.0,
    about: Mapping[str, Any] | None = None,
) -> Run:
    """Train `method` on `supervision`.

    steps, epochs: how long; one of the two (3,000 steps if neither). An epoch is one pass over the data, all of a
    step's draws counted.
    batch_size: images in a batch (128), of each set for `Reference`, over all devices together.
    seed: decides draws, sampling noise and what `bind` makes; the initial weights are `Method.build`'s.
    device: "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", "mps". devices: processes that share each batch.
    precision: "auto" (float32), "bf16" (mixed).
    out: a folder for checkpoints, metrics and the trained method; one that exists is refused, unless `resume`, which
    goes on from its last checkpoint and gives the weights of an undisturbed run (bit for bit on a CPU). An interruption
    (Ctrl-C) keeps the step that it falls in; a second one stops at once.
    optim: settings over the paper's: `{"lr": 1e-4}` for all players, or `{player: {"name": "sgd", "lr": 0.1}}`.
    checkpoint_every: seconds between checkpoints. about: JSON-able facts for the run's config.json (which data, say).

    Returns a `Run`. Raises `InputError` for arguments that don't fit, `DivergedError` when a loss turns NaN or infinite
    (the message names the last good checkpoint), `TwofoldError` when the disk is full.
    """
    choose("precision", precision, PRECISIONS)
    if not isinstance(method, Method):
        raise InputError(f"method: {method!r}; expected a Method, such as methods.MLVAE.build(shape)")
    if not isinstance(supervision, method.supervision):
        want, got = method.supervision.__name__, type(supervision).__name__
        raise InputError(f"supervision: {got}; {type(method).__name__} learns from {want}")
    batch_size = 128 if batch_size is None else batch_size
    steps = None if steps is None else whole("steps", steps, 1)
    batch_size, devices, seed = whole("batch_size", batch_size, 1), whole("devices", devices, 1), whole("seed", seed, 0)
    real = isinstance(epochs, Real) and not isinstance(epochs, bool)
    if epochs is not None and not (real and 0 < epochs < math.inf):
        raise InputError(f"epochs: {epochs!r}; expected a positive number")
    if optim is not None and not isinstance(optim, Mapping):
        raise InputError(f"optim: {optim!r}; expected settings such as {{'lr': 1e-4}}")
    supervision.draw(0, seed, world=devices, batch_size=batch_size)  # refused here rather than in every process
    if steps is not None and epochs is not None:
        raise InputError(f"steps, epochs: {steps} and {epochs}; give one of the two")
    if epochs is not None:
        steps = math.ceil(epochs * supervision.steps_per_epoch(batch_size, method.draws))
    plan = Plan(
        steps=3000 if steps is None else steps,
        batch_size=batch_size,
        seed=seed,
        device=there(device),
        devices=devices,
        precision=PRECISIONS[precision],
        optim=_optimisers(method, optim),
        out=None if out is None else str(out),
        resume=resume,
        progress=progress,
        checkpoint_every=checkpoint_every,
        about=dict(about or {}),
    )
    RunFolder(plan.out).claim(resume)
    with torch.random.fork_rng(devices=[]):
        seed_all(mix(plan.seed, 12), torch.device("cpu"))
        method.bind(supervision)
    elsewhere = "LOCAL_RANK" in os.environ  # a launcher such as torchrun has made the processes already
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    from lightning_fabric import Fabric  # takes longer to load than PyTorch; who doesn't train needn't wait

    fabric = Fabric(
        accelerator=plan.device.split(":")[0],
        devices=[int(plan.device.split(":")[1])] if ":" in plan.device else plan.devices,
        strategy="auto" if plan.devices == 1 else "ddp" if elsewhere else "ddp_spawn",
        precision=plan.precision,  # pyright: ignore[reportArgumentType]
    )
    try:
        if plan.devices == 1 or elsewhere:
            fabric.launch()
            rows, seconds = Loop(fabric, method, supervision, plan).run()
        else:
            with tempfile.TemporaryDirectory() as folder:  # a file: what the launcher's own pipe holds is too little
                try:
                    fabric.launch(_spawned, method, supervision, plan, folder)  # pyright: ignore[reportArgumentType]
                except ProcessException:
                    _retell(folder)
                    raise
                state, about = read_tensors(f"{folder}/result")
            method.load_state_dict(state)
            rows, seconds = about["rows"], about["seconds"]
    except OSError as error:
        if error.errno in (errno.EACCES, errno.ENOENT, errno.EROFS, errno.ENOTDIR, errno.EPERM) and out is not None:
            raise InputError(f"out: can't write to {plan.out} ({error.strerror})") from None
        if error.errno != errno.ENOSPC:
            raise
        raise TwofoldError(f"out: no space left for {plan.out}; free some and run again with resume") from None
    method.eval()
    return Run(method, rows, None if plan.out is None else Path(plan.out), plan.steps, seconds)


def _spawned(fabric: Fabric, method: Method, supervision: Supervision, plan: Plan, folder: str) -> None:
    try:
        rows, seconds = Loop(fabric, method, supervision, plan).run()
    except TwofoldError as error:  # told in a file, for the launcher turns it into a traceback
        Path(folder, "error").write_text(json.dumps([type(error).__name__, str(error)]))
        raise
    if fabric.is_global_zero:
        write_tensors(f"{folder}/result", dict(method.state_dict()), {"rows": rows, "seconds": seconds})


def _retell(folder: str) -> None:
    """Raise here what a process of ours raised on purpose."""
    told = Path(folder, "error")
    if told.is_file():
        name, message = json.loads(told.read_text())
        raise getattr(errors, name)(message) from None


def there(device: str) -> str:
    """A device that is there, or an `InputError`."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = str(device).partition(":")
    choose("device", kind, ["auto", "cpu", "cuda", "mps"])
    if index and not (kind == "cuda" and index.isdecimal()):
        raise InputError(f"device: {device}; only GPUs are numbered, as in cuda:1")
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}[kind]
    if not there:
        raise InputError(f"device: {device} is not available here; use 'cpu' or 'auto'")
    return str(device)


def _optimisers(method: Method, given: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Each player's optimiser settings: the method's own, under what was `given`; another optimiser starts afresh."""

    def of(settings: Mapping[str, Any], player: str) -> dict[str, Any]:
        nested = any(isinstance(v, Mapping) for v in settings.values())
        return dict(settings.get(player, {}) if nested else settings)

    given = given or {}
    for key in given:
        if isinstance(given[key], Mapping):
            choose("optim: player", key, method.players)
    out = {}
    for player in method.players:
        own, asked = of(method.optim, player), of(given, player)
        another = asked.get("name", own.get("name", "adam")) != own.get("name", "adam")
        out[player] = settings = ({"lr": own["lr"]} if "lr" in own else {}) | asked if another else own | asked
        choose("optim: name", settings.setdefault("name", "adam"), OPTIMISERS)
    return out
