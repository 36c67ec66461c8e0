"""The bias of taking a part of each group [Bouchacourt18, supplement 6], measured.

    python benchmarks/subsampling.py [--steps 1500] [--noise 32] [--seed 0]

Trains ML-VAE on scikit-learn's digits by the paper's objective (leakage=0), then takes whole groups of 64 training
images of a digit, and the same groups cut into disjoint parts of h: the sum over the parts of ELBO(G)_H (supplement
Eq. 15) against ELBO(G) (Eq. 14), and their gradients (Eq. 16) for the decoder, the encoder's content head, its style
head and its trunk. Expectations are means over --noise draws, the same for whole and parts. "shared KL" counts a
part's content KL h / 64 times, so that the parts of a group count it once together: what is left comes from the
content itself, which fewer images know less well. Prints a table and writes docs/figures/subsampling.png.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from matplotlib.figure import Figure

import twofold
from twofold import data, figures, methods
from twofold.arrays import gather
from twofold.distributions import Likelihood

WHOLE, SIZES = 64, (1, 2, 4, 8, 16, 32, 64)
FIGURE = Path(__file__).parent.parent / "docs" / "figures" / "subsampling.png"


def elbo(method, x, h: int, noise: int, scale: float):
    """Sum over parts, mean over draws and groups: (likelihood less style KL, content KL counted once a part)."""
    groups = len(x)
    q_C, q_S = method._posterior(x.flatten(0, 1))
    q_G = q_C.unflatten((groups * WHOLE // h, h)).product(dim=1)
    nll, random = Likelihood("gaussian", scale), torch.Generator().manual_seed(0)
    rec = 0
    for _ in range(noise):
        eps_C, eps_S = (torch.randn(q.mean.shape, generator=random) for q in (q_C, q_S))
        C = q_G.mean.repeat_interleave(h, 0) + q_G.stddev.repeat_interleave(h, 0) * eps_C
        rec = rec + nll(method.dec(C, q_S.mean + q_S.stddev * eps_S), x.flatten(0, 1)).sum() / noise
    return -(rec + q_S.kl().sum()) / groups, q_G.kl().sum() / groups


def gradients(method, value) -> dict[str, torch.Tensor]:
    """Flat gradients of the decoder, the heads' rows for C and for S, and the trunk."""
    head, s = method.enc.head, method.enc.heads[0]
    named = {"trunk": list(method.enc.trunk.parameters()), "decoder": list(method.dec.parameters())}
    found = torch.autograd.grad(value, [head.weight, head.bias, *named["trunk"], *named["decoder"]])
    weight, bias, *rest = found
    out = {"content head": torch.cat([weight[:s].flatten(), bias[:s]])}
    out["style head"] = torch.cat([weight[s:].flatten(), bias[s:]])
    for name, parameters in named.items():
        out[name] = torch.cat([g.flatten() for g in rest[: len(parameters)]])
        rest = rest[len(parameters) :]
    return out


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--steps", type=int, default=1500)
    options.add_argument("--noise", type=int, default=32)
    options.add_argument("--seed", type=int, default=0)
    args = options.parse_args()
    train, _ = data.load("digits").split((0.8, 0.2), seed=args.seed)
    method = methods.MLVAE.build(train.shape, s=10, z=10, leakage=0.0, seed=args.seed)
    twofold.fit(method, train.groups(), steps=args.steps, seed=args.seed, progress=False)
    digit = train.factors["digit"]
    x = torch.stack([gather(train.x, (digit == d).nonzero().squeeze(1)[:WHOLE]) for d in range(10)])
    with torch.no_grad():
        scale = float((method.decode(method.encode(x.flatten(0, 1))) - x.flatten(0, 1)).square().mean().sqrt())
    data_term, kl = elbo(method, x, WHOLE, args.noise, scale)
    whole, exact = data_term - kl, gradients(method, data_term - kl)
    print(f"digits, groups of {WHOLE}, {args.steps} steps, seed {args.seed}")
    print(f"ELBO(G) = {whole.item() / WHOLE:.2f} nats an image")
    print(f"{'h':>3} {'ELBO error':>11} {'shared KL':>10}   gradient error, |parts - whole| / |whole|")
    print(f"{'':3} {'nats/image':>11} {'':10}   " + "  ".join(f"{name:>12}" for name in exact))
    errors: dict[str, list[float]] = {name: [] for name in exact} | {"ELBO": [], "shared": []}
    for h in SIZES:
        data_term, kl = elbo(method, x, h, args.noise, scale)
        found = gradients(method, data_term - kl)
        errors["ELBO"].append((data_term - kl - whole).item() / WHOLE)
        errors["shared"].append((data_term - kl * h / WHOLE - whole).item() / WHOLE)
        for name, gradient in found.items():
            errors[name].append(float((gradient - exact[name]).norm() / exact[name].norm()))
        each = "  ".join(f"{errors[name][-1]:12.3f}" for name in exact)
        print(f"{h:3} {errors['ELBO'][-1]:11.2f} {errors['shared'][-1]:10.2f}   {each}")
    figures.save(draw(errors, list(exact)), FIGURE)
    print(f"figure: {FIGURE.relative_to(FIGURE.parent.parent.parent)}")


def draw(errors: dict[str, list[float]], names: list[str]) -> Figure:
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(SIZES, errors["ELBO"], "o-", color=figures.S, ms=4, label="as the paper samples")
    left.plot(SIZES, errors["shared"], "o-", color=figures.Z, ms=4, label="content KL shared by the parts")
    left.axhline(0, color=figures.FAINT, lw=1)
    left.set_ylabel("error of the ELBO, nats an image")
    for name, colour in zip(names, (figures.S, figures.Z, figures.MARK, figures.SOFT)):
        right.plot(SIZES, errors[name], "o-", color=colour, ms=4, label=name)
    right.set_ylabel("relative error of the gradient")
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(SIZES, [str(h) for h in SIZES])
        axes.set_xlabel(f"images taken from each group of {WHOLE}, h")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    main()
