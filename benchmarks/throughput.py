"""Training throughput beside a bare PyTorch loop: the same network, batch, optimiser and losses, interleaved.

    python benchmarks/throughput.py [--steps 300] [--rounds 7] [--threads 2]

Prints the median over rounds of the ratio (bare seconds / ours), so that above 1 is faster than the bare loop. The
bare loops are what one writes by hand: shuffled indices, `x[i]` from a float tensor, forward, backward, Adam; one with
Adam's defaults and one with its fused form.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch.nn.functional as F
from torch import nn

import twofold
from twofold import methods

N, BATCH, GROUP = 10_000, 128, 8


class Bare(nn.Module):
    """784-500-tanh and back, 10 + 10 dimensions [Bouchacourt18, supplement 2.1], in plain PyTorch."""

    def __init__(self):
        super().__init__()
        self.hidden, self.head = nn.Linear(784, 500), nn.Linear(500, 40)
        self.up, self.out = nn.Linear(20, 500), nn.Linear(500, 784)

    def encode(self, x):
        return self.head(torch.tanh(self.hidden(x))).chunk(4, dim=1)

    def decode(self, code):
        return torch.sigmoid(self.out(torch.tanh(self.up(code))))


def sample(mean, log_var):
    return mean + torch.randn_like(mean) * torch.exp(0.5 * log_var)


def kl(mean, log_var):
    return 0.5 * (mean**2 + log_var.exp() - 1 - log_var).sum(-1)


def vae_loss(net, x):
    m, v, m2, v2 = net.encode(x)
    mean, log_var = torch.cat([m, m2], 1), torch.cat([v, v2], 1)
    rec = net.decode(sample(mean, log_var))
    return F.mse_loss(rec, x, reduction="none").sum(1).mean() / 0.02 + kl(mean, log_var).mean()


def mlvae_loss(net, x):
    m, v, m2, v2 = net.encode(x)
    groups = len(x) // GROUP
    precision = (-v).exp().view(groups, GROUP, -1)
    variance = 1 / precision.sum(1)
    mean = variance * (precision * m.view(groups, GROUP, -1)).sum(1)
    log_var = variance.log()
    c = sample(mean[:, None].expand(-1, GROUP, -1), log_var[:, None].expand(-1, GROUP, -1)).flatten(0, 1)
    rec = net.decode(torch.cat([c, sample(m2, v2)], 1))
    error = F.mse_loss(rec, x, reduction="none").sum() / groups / 0.02
    return error + kl(m2, v2).sum() / groups + kl(mean, log_var).mean()


def bare(loss, x, order, steps: int, fused: bool, device) -> float:
    net = Bare().to(device)
    adam = torch.optim.Adam(net.parameters(), 1e-3, fused=fused or None)
    start = time.perf_counter()
    for i in range(steps):
        at = i * BATCH % (len(order) - BATCH)
        total = loss(net, x[order[at : at + BATCH]])
        adam.zero_grad()
        total.backward()
        adam.step()
    total.item()
    return time.perf_counter() - start


def ours(cls, supervision, steps: int, precision: str, device) -> float:
    extra = {"s": 10, "z": 10, "leakage": 0.0} if cls is methods.MLVAE else {"z": 20}
    method = cls.build((1, 28, 28), arch="bouchacourt18-mnist", scale=0.1, **extra)
    start = time.perf_counter()
    twofold.fit(method, supervision, steps=steps, batch_size=BATCH, precision=precision, device=device, progress=False)
    return time.perf_counter() - start  # all of it: set-up, logging and the bookkeeping for NaN


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--steps", type=int, default=300)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--device", default="cpu")
    args = options.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    images = (torch.rand(N, 1, 28, 28) * 255).to(torch.uint8)
    flat = (images.float() / 255).flatten(1).to(args.device)
    group = torch.arange(N) % 10
    order = torch.randperm(N).to(args.device)
    grouped = group.argsort(stable=True).view(-1, GROUP)[torch.randperm(N // GROUP)].flatten().to(args.device)
    print(f"torch {torch.__version__}, {args.device}, {torch.get_num_threads()} threads, batch {BATCH}")
    subjects = [
        ("VAE", methods.VAE, twofold.Images(images), vae_loss, order),
        ("MLVAE", methods.MLVAE, twofold.Groups(images, group, GROUP), mlvae_loss, grouped),
    ]
    for name, cls, supervision, loss, rows in subjects:
        runs = {
            "bare": lambda n, loss=loss, rows=rows: bare(loss, flat, rows, n, False, args.device),
            "bare, fused Adam": lambda n, loss=loss, rows=rows: bare(loss, flat, rows, n, True, args.device),
            "twofold fp32": lambda n, cls=cls, sup=supervision: ours(cls, sup, n, "fp32", args.device),
            "twofold bf16": lambda n, cls=cls, sup=supervision: ours(cls, sup, n, "bf16", args.device),
        }
        seconds: dict[str, list[float]] = {key: [] for key in runs}
        for key in runs:
            runs[key](30)  # warm up
        for _ in range(args.rounds):
            for key in runs:
                seconds[key].append(runs[key](args.steps))
        for key, each in seconds.items():
            ratio = statistics.median(b / e for b, e in zip(seconds["bare"], each))
            step = statistics.median(each) / args.steps * 1e3
            print(f"{name:6} {key:17} {step:7.2f} ms a step   {ratio:5.2f} x the bare loop")


if __name__ == "__main__":
    main()
