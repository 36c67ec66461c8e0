"""The foundation's numbers in RESULTS.md: ML-VAE on MNIST, at CPU scale.

    TWOFOLD_DATA=... python benchmarks/foundation.py [CELL ...] [--seeds 1]   # all, or those that begin so
    python benchmarks/foundation.py --render                                  # its section, from what is there

Each cell writes results/foundation/CELL-SEED.json (value, protocol, versions, commit, seconds) and is left out when it
is there already, so that a killed run goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

import twofold
from twofold import data, methods, metrics, tables
from twofold.arrays import generator
from twofold.distributions import Gaussian
from twofold.runs import record
from twofold.tables import render as pages

OUT = Path("results/foundation")


def evidence(code, y, k: int, seed: int, part: int):
    """One accumulated code for each of 2,000 groups of k images of one digit, drawn from one half of the images."""
    random = generator(seed, k, part)
    rows, labels = [], []
    half = torch.arange(len(y)) % 2 == part
    for digit in y.unique().tolist():
        members = torch.nonzero((y == digit) & half).flatten().numpy()
        rows.append(torch.from_numpy(random.choice(members, (200, k))))
        labels += [digit] * 200
    rows = torch.cat(rows)
    q = Gaussian(code.mean[rows], code.log_var[rows])
    return q.product(dim=1).mean, torch.tensor(labels)


def mnist(seed: int, method: str, epochs: float = 40, **options) -> dict:
    """The paper's network and batch of groups, 50,000 training images; MLP probes on the 10,000 test images: trained on
    codes of one half, scored on the other, means; with k images' evidence multiplied, in z as in s."""
    train, test = data.load("mnist").split("official")
    train, _ = train.split((5 / 6, 1 / 6), seed=0)
    cls = methods.get(method)
    groups = method == "ml-vae"
    model = cls.build(train.shape, s=10, z=10 if groups else 20, arch="bouchacourt18-mnist", seed=seed, **options)
    run = twofold.fit(model, train.groups() if groups else train.images(), epochs=epochs, seed=seed)
    q_s, q_z = model.posterior(test.x)
    y, out = test.factors["digit"], {"steps": run.steps, "seconds": run.seconds}
    for name, q in (("s", q_s), ("z", q_z)):
        for k in (1, 10) if q.mean.shape[1] else ():
            probe = metrics.probe(*evidence(q, y, k, seed, 0), *evidence(q, y, k, seed, 1), kind="mlp", seed=seed)
            out[f"{name}, k={k}"] = probe.as_dict()
    x = test.x[:5000].float() / 255
    out["reconstruction MSE"] = float((twofold.reconstruct(model, test.x[:5000]) - x).square().mean())
    return out


PAPER = {"leakage": 0.0}
CELLS = {
    "mnist-mlvae-ours": lambda seed: mnist(seed, "ml-vae", separate=True),
    "mnist-mlvae-paper": lambda seed: mnist(seed, "ml-vae", **PAPER),
    "mnist-vae": lambda seed: mnist(seed, "vae"),
}


def render() -> None:
    """results/foundation/section.md from the JSON files beside it, then all of RESULTS.md."""
    found = [json.loads(path.read_text()) for path in sorted(OUT.glob("*.json"))]
    by = {(f["cell"], f["seed"]): f for f in found}
    lines = [
        "## The foundation",
        "",
        "Measured by `python benchmarks/foundation.py` (protocols in its docstrings) at CPU scale: small budgets, not",
        "the papers' own, one thread of two shared cores. One seed unless said: an anecdote, not a ranking. Each row's",
        "JSON, with configuration, versions and commit, is in `results/foundation/`.",
        "",
        "### ML-VAE on MNIST",
        "",
        "The paper's network (784-500-tanh, 10 + 10), 40 epochs of 50,000 images (the paper: 2,000), batch 128.",
        "Accuracy of an MLP probe on held-out test images, chance 0.10; k images' evidence multiplied.",
        "",
        "| method | seed | s, k=1 | s, k=10 | z, k=1 | z, k=10 | MSE | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    names = {
        "mnist-mlvae-ours": "`MLVAE(separate=True)` (leakage 2)",
        "mnist-mlvae-paper": "`MLVAE(leakage=0)`, the paper's objective",
        "mnist-vae": "`VAE`, z of 20",
    }

    def score(f: dict, key: str) -> str:
        return f"{f[key]['score']:.3f} [{f[key]['low']:.3f}, {f[key]['high']:.3f}]" if key in f else ""

    for (cell, seed), f in by.items():
        if cell in names:
            row = [names[cell], str(seed), *(score(f, k) for k in ("s, k=1", "s, k=10", "z, k=1", "z, k=10"))]
            lines.append(f"| {' | '.join(row)} | {f['reconstruction MSE']:.4f} | {f['seconds']:.0f} |")
    (OUT / "section.md").write_text("\n".join(lines) + "\n")
    pages.render(list(tables.books().values()), OUT.parent, Path("RESULTS.md"))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("cells", nargs="*")
    options.add_argument("--seeds", type=int, default=1)
    options.add_argument("--render", action="store_true")
    args = options.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    for seed in range(args.seeds) if not args.render else ():
        for cell, run in CELLS.items():
            path = OUT / f"{cell}-{seed}.json"
            if path.exists() or (args.cells and not cell.startswith(tuple(args.cells))):
                continue
            start = time.perf_counter()
            print(f"{cell}, seed {seed}", flush=True)
            found = {"cell": cell, "seed": seed, **run(seed), "device": "cpu", **record()}
            found["total seconds"] = time.perf_counter() - start
            part = path.with_suffix(".part")
            part.write_text(json.dumps(found, indent=1, default=str))
            part.replace(path)
    render()


if __name__ == "__main__":
    main()
