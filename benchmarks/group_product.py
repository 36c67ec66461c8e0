"""What the product of a group's posteriors costs, beside a Python loop over groups [Bouchacourt18, Eqs. 6-7].

    python benchmarks/group_product.py [--rounds 15] [--d 10] [--threads 1] [--total 4096]

Forward and backward, milliseconds of CPU time (which a busy machine spoils less). "ours" is `Gaussian.product` on
padded groups with a mask, as `MLVAE` calls it; "by ids" first lays out a batch in any order by its groups, as `MLVAE`
does for several groupings; "loop" multiplies one group after the other. Medians over interleaved rounds, and the median
of the rounds' ratios loop / ours. First --total images in few groups and in many: does the count of groups cost? Then
more groups of 8, and 64 groups of more members. A tenth of the places is padding, where a group has more than one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from twofold.distributions import Gaussian
from twofold.methods.ml_vae import _arranged


def ours(mean, log_var, mask):
    q = Gaussian(mean, log_var).product(dim=1, mask=mask)
    return q.mean, q.log_var


def by_ids(mean, log_var, group, order):
    of = _arranged(group, torch.ones(len(group)))
    return ours(mean.flatten(0, 1)[order][of.rows], log_var.flatten(0, 1)[order][of.rows], of.mask)


def loop(mean, log_var, mask):
    means, log_vars = [], []
    for m, v, present in zip(mean, log_var, mask.bool()):
        precision = (-v[present]).exp()
        total = precision.sum(0)
        means.append((precision * m[present]).sum(0) / total)
        log_vars.append(-total.log())
    return torch.stack(means), torch.stack(log_vars)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--d", type=int, default=10)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--total", type=int, default=4_096)
    args = options.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {args.threads} threads, {args.d} dimensions, forward and backward, CPU ms")
    print(f"{'groups':>7} {'members':>8} {'ours':>8} {'by ids':>8} {'loop':>9} {'loop / ours':>12}")
    fixed = [(groups, args.total // groups) for groups in (16, 64, 256, 1024, 4096) if groups <= args.total]
    for groups, members in [*fixed, (10, 8), (64, 8), (256, 8), (1024, 8), (64, 2), (64, 32), (64, 128), (64, 512)]:
        mean, log_var = (torch.randn(groups, members, args.d, requires_grad=True) for _ in range(2))
        mask = (torch.rand(groups, members) < 0.9).float().index_fill_(1, torch.tensor(0), 1)
        order = torch.randperm(groups * members)
        group = torch.arange(groups).repeat_interleave(members)[order]
        subjects = {
            "ours": lambda m=mean, v=log_var, k=mask: ours(m, v, k),
            "by ids": lambda m=mean, v=log_var, g=group, o=order: by_ids(m, v, g, o),
            "loop": lambda m=mean, v=log_var, k=mask: loop(m, v, k),
        }
        seconds: dict[str, list[float]] = {name: [] for name in subjects}
        for turn in range(args.rounds + 2):
            for name, made in subjects.items():
                start = time.process_time()
                torch.autograd.grad(sum(v.sum() for v in made()), (mean, log_var))
                if turn >= 2:
                    seconds[name].append(time.process_time() - start)
        ratio = statistics.median(b / a for a, b in zip(seconds["ours"], seconds["loop"]))
        a, b, c = (1e3 * statistics.median(each) for each in seconds.values())
        print(f"{groups:7} {members:8} {a:8.2f} {b:8.2f} {c:9.2f} {ratio:12.1f}")


if __name__ == "__main__":
    main()
