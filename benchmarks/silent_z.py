"""From which spread of z's means on should `Contrastive` pay for what they show? `divergences.AUDIBLE`.

    python benchmarks/silent_z.py [--seeds 3] [--jobs 2] [--out results/silent-z.json]

Without a threshold (0) the price, blind to scale, keeps a z silent that fell silent at the start, as with
convolutions; a large one lets z take early what it should leave to s. Rows: the share of the noise's variance from
which on the price is whole. Each trained with the method's defaults, s of 8 and z of 16, three quarters of the
training targets, Adam at 1e-3, by the networks of Contrast21's tables at CPU scale: grassy-digits and its nonlinear
twin (1,500 steps), grassy-mnist (1,000), and grassy-mnist with narrow convolutions (400). Measured on the other
quarter, at most 2,000 targets; no test part is seen: clusters of the digit in s and z (t-SNE, k-means, matched, %),
and z's spread over its noise's variance. Means ± standard deviations over seeds.

    python benchmarks/silent_z.py --groups [--seeds 2] [--out results/silent-z-groups.json]

The price of `MLVAE` and `GroupKLVAE` has no threshold. Is z silent under it, by narrow convolutions and by "conv"? On
grassy-mnist's targets, a group for each digit, 400 steps: z's spread over its noise's variance, and the squared error
of the reconstruction over the pixels' variance (1: a constant).
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from joblib import Parallel, delayed

import twofold
from leakage_kinds import spread
from twofold import data, divergences, metrics
from twofold.arrays import unit
from twofold.methods import MLVAE, Contrastive, GroupKLVAE
from twofold.runs import record

SHARES = (0.0, 0.001, 0.01, 0.1)
SETS = {  # name -> data, architecture, steps
    "digits": ("grassy-digits", "auto", 1_500),
    "digits, nonlinear": ("grassy-digits-nl", "auto", 1_500),
    "MNIST": ("grassy-mnist", "auto", 1_000),
    "MNIST, convolutions": ("grassy-mnist", "contrast21-narrow", 400),
}
POINTS = 2_000
ARCHITECTURES, PRICES = ("contrast21-narrow", "conv"), (2, 0)
GROUPS = [(cls, arch, price) for arch in ARCHITECTURES for cls in (MLVAE, GroupKLVAE) for price in PRICES]


def measure(name: str, share: float, seed: int) -> dict:
    torch.set_num_threads(1)
    divergences.AUDIBLE = share or 1e-30
    source, arch, steps = SETS[name]
    train, validation = data.load(source).split("official", 0)[0].split((0.75, 0.25), 0)
    method = Contrastive.build(train.shape, s=8, z=16, arch=arch, seed=seed)
    how = {"steps": steps, "seed": seed, "batch_size": 128, "optim": {"lr": 1e-3}}
    twofold.fit(method, train.reference(), progress=False, **how)
    held = validation.contrast(None)[0][:POINTS]
    s, z = method.posterior(held.x)
    y, found = held.factors["digit"], {}
    for half, code in (("s", s.mean), ("z", z.mean)):
        found[half] = 100 * metrics.clustering(code, y, seeds=1, seed=seed).accuracy
    found["z over noise"] = float(z.mean.var(0).sum() / z.variance.sum(1).mean())
    print(f"{name}, {share:g}, seed {seed}: {found}", flush=True)
    return {"set": name, "share": share, "seed": seed, **found}


def measure_groups(cls, arch: str, leakage: float, seed: int, steps: int = 400) -> dict:
    torch.set_num_threads(1)
    train, validation = data.load("grassy-mnist").split("official", 0)[0].split((0.75, 0.25), 0)
    seen, held = train.contrast(None)[0], validation.contrast(None)[0][:POINTS]
    method = cls.build(train.shape, s=8, z=16, arch=arch, seed=seed, leakage=leakage)
    twofold.fit(method, seen.groups(), steps=steps, seed=seed, optim={"lr": 1e-3}, progress=False)
    z, x = method.posterior(held.x)[1], unit(torch.as_tensor(held.x))
    found = {
        "z over noise": float(z.mean.var(0).sum() / z.variance.sum(1).mean()),
        "error": float((method.decode(method.encode(held.x)) - x).square().mean() / x.var(0).mean()),
    }
    print(f"{cls.name}, {arch}, {leakage:g}, seed {seed}: {found}", flush=True)
    return {"method": cls.name, "arch": arch, "leakage": leakage, "seed": seed, **found}


def table(cells: list[dict], by: tuple[str, ...], shown: dict[str, int]) -> None:
    """Markdown; `shown`: which measures, with how many digits."""
    print(f"| {' | '.join((*by, *shown))} |\n|{'---|' * (len(by) + len(shown))}")
    for row in dict.fromkeys(tuple(cell[key] for key in by) for cell in cells):
        same = [cell for cell in cells if tuple(cell[key] for key in by) == row]
        texts = [spread([cell[key] for cell in same], digits) for key, digits in shown.items()]
        print(f"| {' | '.join((*map(str, row), *texts))} |")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--groups", action="store_true")
    options.add_argument("--seeds", type=int)
    options.add_argument("--jobs", type=int, default=2)
    options.add_argument("--out", type=Path)
    args = options.parse_args()
    if args.groups:
        run, rows, seeds, out = measure_groups, GROUPS, 2, "results/silent-z-groups.json"
        by, shown = ("method", "arch", "leakage"), {"z over noise": 4, "error": 2}
    else:
        rows = [(name, share) for name in SETS for share in SHARES]
        run, seeds, out = measure, 3, "results/silent-z.json"
        by, shown = ("set", "share"), {"s": 1, "z": 1, "z over noise": 3}
    plan = [(*row, seed) for row in rows for seed in range(args.seeds or seeds)]
    cells = list(Parallel(args.jobs)(delayed(run)(*cell) for cell in plan))
    Path(args.out or out).write_text(json.dumps({**record(), "cells": cells}, indent=1, default=str))
    table(cells, by, shown)


if __name__ == "__main__":
    main()
