"""docs/figures/toy-epochs.png: what two methods generate from the toy data as they learn [Zheng19, Sec. 4.1, Fig. 2].

    python benchmarks/toy.py [--epochs 1 5 20 50] [--seed 0]

The paper's networks (32, 64, 64 units) and Adam at 5e-4, 50 epochs; codes of 2 dimensions and batches of 32, which it
doesn't say; both methods with their defaults. Above each panel stands the epoch, and how far the generated points
are from held-out ones along the axis that the label does not tell: the mean over the classes of the 1D Wasserstein
distance. Points that sit still in the middle are 1.0 away; as many real training points, as printed at the end, are the
least that can be expected.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from scipy.stats import wasserstein_distance

import twofold
from twofold import data, figures, methods

OUT = Path("docs/figures/toy-epochs.png")
METHODS = ("LabelRelevantVAE", "CVAEGAN")


def away(made: torch.Tensor, real: torch.Tensor, y: torch.Tensor, y_real: torch.Tensor) -> float:
    """Along the second axis, the mean over classes."""
    each = [wasserstein_distance(made[y == k, 1], real[y_real == k, 1]) for k in y.unique()]
    return float(sum(each) / len(each))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--epochs", type=int, nargs="+", default=[1, 5, 20, 50])
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--out", type=Path, default=OUT)
    args = options.parse_args()
    train, test = data.load("toy").split((0.8, 0.2), seed=0)
    real, y_real = torch.as_tensor(test.x), test.factors["label"]
    y = torch.arange(3).repeat_interleave(200)
    panels = []
    for name in METHODS:
        method = methods.get(name).build(train.shape, s=2, z=2, arch="zheng19-toy", seed=args.seed)
        with tempfile.TemporaryDirectory() as folder:
            for at in sorted(args.epochs):  # each goes on from the checkpoint of the one before
                how = {"epochs": at, "seed": args.seed, "out": f"{folder}/run", "resume": at > min(args.epochs)}
                twofold.fit(method, train.labels(), batch_size=32, optim={"lr": 5e-4}, progress=False, **how)
                made = twofold.generate(method, len(y), y=y, seed=args.seed)
                far = away(made, real, y, y_real)
                panels.append((f"{name}, {at} ({far:.2f})", made, y))
                print(f"{name}, epoch {at}: {far:.3f} from the real points, across classes", flush=True)
    others = train[:600]
    floor = away(torch.as_tensor(others.x), real, others.factors["label"], y_real)
    print(f"real training points: {floor:.3f}")
    figure = figures.point_panels(panels, names=test.names["label"], behind=real)
    print(figures.save(figure, args.out))


if __name__ == "__main__":
    main()
