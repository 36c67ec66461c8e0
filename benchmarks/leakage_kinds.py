"""Which penalty keeps the group out of z best? Kernels, energy distance, an adversary, all three, W2; their weights.

    python benchmarks/leakage_kinds.py [--data digits] [--steps 1200] [--seeds 3] [--out results/leakage-kinds]

ML-VAE (s and z of 10, product, the paper's objective, an encoder for each code unless said) on scikit-learn's digits,
60 % to train on; probes learn from the training codes and are tested on 20 %, the validation part: the last 20 % stay
unseen. With --data mnist (7,800 steps: 20 epochs of 50,000) the validation part is the rest of the training images;
probes see 5,000, are tested on 5,000, and most weights are left out. The term added is weight x (z's KL, without
gradient) x what z tells of the group, where the latter is, on z standardised over the batch,

- all: what `MLVAE(leakage=weight)` has: the next two and the adversary; "z of 4": a smaller z; "mixture": that rule;
- both: `divergences.group_leak`, kernels and 15 times the energy distance;
- kernel: `divergences.group_dependence`, in nats; energy: `divergences.group_distance`;
- adversary: `methods.grouped.Guess`, a second player, with one step of Adam on each batch before the encoder's;
- W2: `divergences.wasserstein2` between a group's z and all others', over z's dimensions, mean over the groups.

Writes OUT/DATA.json after each cell, and goes on from there; prints a Markdown table: means ± standard deviations over
seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor

import twofold
from twofold import data, metrics
from twofold.arrays import unit
from twofold.divergences import group_dependence, group_distance, group_leak, mates, standardised, wasserstein2
from twofold.methods import MLVAE
from twofold.methods.grouped import Guess
from twofold.runs import record

SIZES = {"s": 10, "z": 10}
SHARED, SMALL, MIXED = "all, one encoder", "all, z of 4", "all, z of 4, mixture"
WEIGHTS = {
    "digits": {
        "all": (0, 0.5, 1, 2, 5),
        SMALL: (0, 2, 5),
        MIXED: (0, 0.5, 2, 5),
        SHARED: (0, 2),
        "both": (2, 5),
        "kernel": (2, 5, 20),
        "energy": (30, 100, 300),
        "adversary": (2, 5),
        "W2": (5, 20, 100),
    },
    "mnist": {"all": (0, 2), "both": (2,), "kernel": (2,), "energy": (100,), "adversary": (2,)},
}
SPLIT = {"digits": (0.6, 0.2, 0.2), "mnist": (5 / 6, 1 / 6)}
STEPS, POINTS = {"digits": 1_200, "mnist": 7_800}, 5_000


class Priced(MLVAE):
    """ML-VAE with one of the penalties."""

    def __init__(self, encoder, decoder, *, kind: str = "all", weight: float = 0.0, separate=None, evidence="product"):
        own = kind.startswith("all")
        super().__init__(encoder, decoder, leakage=weight if own else 0.0, separate=separate, evidence=evidence)
        self.kind, self.weight = kind, 0.0 if own else weight
        if kind == "adversary":
            self.players = {"model": "enc dec", "adversary": "adversary"}

    def bind(self, supervision):
        super().bind(supervision)
        if self.kind == "adversary":
            self.adversary = Guess(self.sizes[1], supervision.facts()["groups"])
            self.adversary.expect(supervision.group)

    def _posterior(self, x, y=None):
        self.codes = super()._posterior(x, y)
        return self.codes

    def losses(self, draw):
        if not self.weight:
            yield from super().losses(draw)
            return
        (update,) = super().losses(draw)
        real, row = draw.mask.flatten() > 0, draw.index.flatten()
        z, group = self.codes[1].mean, draw.group[:, None].expand_as(draw.mask).flatten()
        if self.kind == "adversary":
            shown, pairs = standardised(z, real), mates(group, real, row)
            yield {"adversary": {"guess": -self.adversary(shown.detach(), group, pairs)}}
            told = self.adversary(shown, group, pairs).clamp(min=0)
        else:
            told = MEASURES[self.kind](z, group, real, row)
        update["model"]["leakage"] = self.weight * update["model"]["kl_z"].detach() * told
        yield update


def group_wasserstein(z: Tensor, group: Tensor, real: Tensor, _: Tensor) -> Tensor:
    z, group = standardised(z, real)[real], group[real]
    parts = [(z[group == g], z[group != g]) for g in group.unique()]
    parts = [(own, others) for own, others in parts if len(own) > 1 and len(others) > 1]
    return torch.stack([wasserstein2(own, others) for own, others in parts]).mean() / z.shape[1]


MEASURES = {"both": group_leak, "kernel": group_dependence, "energy": group_distance, "W2": group_wasserstein}


def parts(name: str) -> tuple[data.Dataset, data.Dataset]:
    """To train on, and for validation."""
    whole = data.load(name)
    whole = whole.split("official")[0] if name == "mnist" else whole
    return whole.split(SPLIT[name], seed=0)[:2]


def measure(name: str, kind: str, weight: float, seed: int, steps: int) -> dict:
    train, validation = parts(name)
    arch = "bouchacourt18-mnist" if name == "mnist" else "auto"
    how = {"kind": kind, "weight": float(weight), "separate": kind != SHARED}
    how |= {"evidence": "mixture"} if kind == MIXED else {}
    sizes = SIZES | ({"z": 4} if kind in (SMALL, MIXED) else {})
    method = Priced.build(train.shape, **sizes, arch=arch, seed=seed, **how)
    run = twofold.fit(method, train.groups(), steps=steps, seed=seed, progress=False)
    train, validation = train[:POINTS], validation[:POINTS]
    code, held = method.encode(train.x), method.encode(validation.x)
    told = metrics.leakage(code, train.factors["digit"], held, validation.factors["digit"], seed=seed)
    error = float((method.decode(held) - unit(torch.as_tensor(validation.x))).square().mean())
    found = {"s": told["s"].as_dict(), "z": told["z"].as_dict(), "reconstruction MSE": error}
    about = {"kind": kind, "weight": weight, "seed": seed, "commit": record()["commit"]}
    return {**about, **found, "ms a step": 1e3 * run.seconds / run.steps}


def table(cells: list[dict]) -> str:
    by: dict[tuple, list[dict]] = {}
    for cell in cells:
        by.setdefault((cell["kind"], cell["weight"]), []).append(cell)
    lines = ["| penalty | weight | s probe | z probe | reconstruction MSE |", "|---|---|---|---|---|"]
    for (kind, weight), same in by.items():
        columns = [[cell[half]["score"] for cell in same] for half in "sz"]
        columns.append([cell["reconstruction MSE"] for cell in same])
        texts = [spread(values, digits) for values, digits in zip(columns, (3, 3, 4))]
        lines.append(f"| {kind} | {weight} | {' | '.join(texts)} |")
    chance = f"{cells[0]['z']['chance']:.3f}"
    return "\n".join([*lines, f"| constant | | {chance} | {chance} | |"])


def spread(values: list[float], digits: int) -> str:
    more = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{more}"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", choices=WEIGHTS, default="digits")
    options.add_argument("--steps", type=int)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--out", type=Path, default=Path("results/leakage-kinds"))
    args = options.parse_args()
    path, steps = args.out / f"{args.data}.json", args.steps or STEPS[args.data]
    protocol = {"data": args.data, "split": SPLIT[args.data], "on": "validation", "steps": steps, **SIZES, "version": 4}
    protocol = json.loads(json.dumps(protocol))
    found = json.loads(path.read_text()) if path.exists() else {}
    cells = found["cells"] if found.get("protocol") == protocol else []
    plan = [(kind, weight) for kind, each in WEIGHTS[args.data].items() for weight in each]
    for kind, weight, seed in ((*which, seed) for which in plan for seed in range(args.seeds)):
        if not any((cell["kind"], cell["weight"], cell["seed"]) == (kind, weight, seed) for cell in cells):
            cells.append(measure(args.data, kind, weight, seed, steps))
            s, z = (cells[-1][half]["score"] for half in "sz")
            print(f"{kind} {weight}, seed {seed}: s {s:.3f}, z {z:.3f}", flush=True)
            args.out.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".part")
            part.write_text(json.dumps({"protocol": protocol, **record(), "cells": cells}, indent=1, default=str))
            part.replace(path)
    print(table(sorted(cells, key=lambda cell: plan.index((cell["kind"], cell["weight"])))))


if __name__ == "__main__":
    main()
