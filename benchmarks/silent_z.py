"""From which spread of z's means on should `Contrastive` pay for what they show? `divergences.AUDIBLE`.

    python benchmarks/silent_z.py [--seeds 3] [--jobs 2] [--out results/silent-z.json]

Without a threshold (0) the price, blind to scale, keeps a z silent that fell silent at the start, as with
convolutions; a large one lets z take early what it should leave to s. Rows: the share of the noise's variance from
which on the price is whole. Each trained with the method's defaults, s of 8 and z of 16, three quarters of the
training targets, Adam at 1e-3, by the networks of Contrast21's tables at CPU scale: grassy-digits and its nonlinear
twin (1,500 steps), grassy-mnist (1,000), and grassy-mnist with narrow convolutions (400). Measured on the other
quarter, at most 2,000 targets; no test part is seen: clusters of the digit in s and z (t-SNE, k-means, matched, %),
and z's spread over its noise's variance. Means ± standard deviations over seeds.
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
from twofold.methods import Contrastive
from twofold.runs import record

SHARES = (0.0, 0.001, 0.01, 0.1)
SETS = {  # name -> data, architecture, steps
    "digits": ("grassy-digits", "auto", 1_500),
    "digits, nonlinear": ("grassy-digits-nl", "auto", 1_500),
    "MNIST": ("grassy-mnist", "auto", 1_000),
    "MNIST, convolutions": ("grassy-mnist", "contrast21-narrow", 400),
}
POINTS = 2_000


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


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--jobs", type=int, default=2)
    options.add_argument("--out", type=Path, default=Path("results/silent-z.json"))
    args = options.parse_args()
    plan = [(name, share, seed) for name in SETS for seed in range(args.seeds) for share in SHARES]
    cells = list(Parallel(args.jobs)(delayed(measure)(*cell) for cell in plan))
    args.out.write_text(json.dumps({**record(), "cells": cells}, indent=1, default=str))
    print("| | share | s | z | z over noise |\n|---|---|---|---|---|")
    for name, share in ((name, share) for name in SETS for share in SHARES):
        same = [cell for cell in cells if (cell["set"], cell["share"]) == (name, share)]
        texts = [spread([cell[k] for cell in same], digits) for k, digits in (("s", 1), ("z", 1), ("z over noise", 3))]
        print(f"| {name} | {share:g} | {' | '.join(texts)} |")


if __name__ == "__main__":
    main()
