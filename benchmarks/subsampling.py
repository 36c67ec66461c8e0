"""The bias of taking a part of each group [Bouchacourt18, supplement 6], measured.

    python benchmarks/subsampling.py [--steps 1500] [--noise 128] [--seeds 3]

Trains ML-VAE on scikit-learn's digits by the paper's objective (leakage=0), with the product and with the mixture, then
takes whole groups of 64 training images of a digit, and the same groups cut into disjoint parts of h: the sum over the
parts of ELBO(G)_H (supplement Eq. 15) against ELBO(G) (Eq. 14), and their gradients (Eq. 16) for the decoder, the
encoder's content head, its style head and its trunk. Expectations are means over --noise draws, the same for whole and
parts. "shared KL" counts a part's content KL h / 64 times, so that the parts of a group count it once together: what is
left comes from the content itself, which fewer images know less well. The row "noise" is the whole once more, with
other draws: what can be seen. Prints a Markdown table for each rule (mean ± standard deviation over seeds), and writes
results/subsampling/digits.json and docs/figures/subsampling.png.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import twofold
from twofold import data, figures, methods
from twofold.arrays import gather
from twofold.distributions import Likelihood, Mixture
from twofold.runs import record

WHOLE, SIZES = 64, (1, 2, 4, 8, 16, 32)
RULES = ("product", "mixture")
ROOT = Path(__file__).parent.parent
FIGURE, OUT = ROOT / "docs" / "figures" / "subsampling.png", ROOT / "results" / "subsampling" / "digits.json"


def elbo(method, x, h: int, noise: int, scale: float, draws: int = 0):
    """Sum over parts, mean over draws and groups: (likelihood less style KL, content KL counted once a part)."""
    groups = len(x)
    q_C, q_S = method._posterior(x.flatten(0, 1))
    parts = q_C.unflatten((groups * WHOLE // h, h))
    first = torch.arange(len(q_C.mean)) // h * h  # of an image's part
    present = torch.ones(parts.mean.shape[:2])
    nll, random = Likelihood("gaussian", scale), torch.Generator().manual_seed(draws)
    rec, kl = 0, 0
    for _ in range(noise):
        eps_C, eps_S = (torch.randn(q.mean.shape, generator=random) for q in (q_C, q_S))
        member = first + (h * torch.rand(len(first), generator=random)).long()
        if method.evidence == "product":
            q_G = parts.product(dim=1)
            C = q_G.mean.repeat_interleave(h, 0) + q_G.stddev.repeat_interleave(h, 0) * eps_C
            kl = kl + q_G.kl().sum() / noise
        else:
            C = q_C.mean[member] + q_C.stddev[member] * eps_C
            kl = kl + Mixture(parts, present).kl(C.unflatten(0, present.shape).transpose(0, 1), present.T).sum() / noise
        rec = rec + nll(method.dec(C, q_S.mean + q_S.stddev * eps_S), x.flatten(0, 1)).sum() / noise
    return -(rec + q_S.kl().sum()) / groups, kl / groups


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


def errors(rule: str, seed: int, steps: int, noise: int) -> dict[str, list[float]]:
    """Of the ELBO, with and without its content KL shared, and of each gradient, for every h; last, the noise."""
    train, _ = data.load("digits").split((0.8, 0.2), seed=seed)
    paper = {"leakage": 0.0, "separate": False}  # one encoder with two heads
    method = methods.MLVAE.build(train.shape, s=10, z=10, evidence=rule, seed=seed, **paper)
    twofold.fit(method, train.groups(), steps=steps, seed=seed, progress=False)
    digit = train.factors["digit"]
    x = torch.stack([gather(train.x, (digit == d).nonzero().squeeze(1)[:WHOLE]) for d in range(10)])
    with torch.no_grad():
        scale = float((method.decode(method.encode(x.flatten(0, 1))) - x.flatten(0, 1)).square().mean().sqrt())
    term, kl = elbo(method, x, WHOLE, noise, scale)
    whole, exact = (term - kl).item(), gradients(method, term - kl)
    found: dict[str, list[float]] = {name: [] for name in ("ELBO", "shared KL", *exact)}
    for h, draws in [*((h, 0) for h in SIZES), (WHOLE, 1)]:
        term, kl = elbo(method, x, h, noise, scale, draws)
        found["ELBO"].append((term - kl).item() / WHOLE - whole / WHOLE)
        found["shared KL"].append((term - kl * h / WHOLE).item() / WHOLE - whole / WHOLE)
        for name, gradient in gradients(method, term - kl).items():
            found[name].append(float((gradient - exact[name]).norm() / exact[name].norm()))
    print(f"{rule}, seed {seed}: ELBO(G) = {whole / WHOLE:.2f} nats an image", flush=True)
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--steps", type=int, default=1_500)
    options.add_argument("--noise", type=int, default=128)
    options.add_argument("--seeds", type=int, default=3)
    args = options.parse_args()
    found = {}
    for rule in RULES:
        runs = [errors(rule, seed, args.steps, args.noise) for seed in range(args.seeds)]
        found[rule] = {name: np.array([run[name] for run in runs]) for name in runs[0]}  # [seeds, sizes + 1]
    for rule, measured in found.items():
        print(f"\n{rule}: errors of the ELBO, nats an image, and of gradients, |parts - whole| / |whole|\n")
        print(f"| h | {' | '.join(measured)} |\n|---{'|---' * len(measured)}|")
        for i, h in enumerate([*SIZES, "noise"]):
            print(f"| {h} | {' | '.join(spread(values[:, i]) for values in measured.values())} |")
    each = {rule: {name: values.tolist() for name, values in measured.items()} for rule, measured in found.items()}
    about = {"protocol": vars(args) | {"whole": WHOLE, "h": [*SIZES, "noise"]}, **record(), "found": each}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(about, indent=1, default=str))
    print(f"{OUT.relative_to(ROOT)}, {figures.save(draw(found), FIGURE).relative_to(ROOT)}")


def spread(values: np.ndarray) -> str:
    return f"{values.mean():.2f}" + (f" ± {values.std(ddof=1):.2f}" if len(values) > 1 else "")


def draw(found: dict[str, dict[str, np.ndarray]]) -> Figure:
    figure = Figure(figsize=(11, 3.3), layout="constrained")
    left, *right = figure.subplots(1, 1 + len(found))
    for (rule, measured), line in zip(found.items(), ("o-", "o--")):
        for name, colour, label in (("ELBO", figures.S, "as sampled"), ("shared KL", figures.Z, "content KL shared")):
            band(left, measured[name], line, colour, f"{rule}, {label}")
    left.axhline(0, color=figures.FAINT, lw=1)
    left.set_ylabel("error of the ELBO, nats an image")
    for axes, (rule, measured) in zip(right, found.items()):
        names = [name for name in measured if name not in ("ELBO", "shared KL")]
        for name, colour in zip(names, (figures.S, figures.Z, figures.MARK, figures.SOFT)):
            band(axes, measured[name], "o-", colour, name)
        axes.set_ylabel(f"{rule}: relative error of the gradient")
        axes.set_ylim(bottom=0)
    for axes in figure.axes:
        axes.set_xscale("log", base=2)
        axes.set_xticks(SIZES, [str(h) for h in SIZES])
        axes.set_xlabel(f"images taken from each group of {WHOLE}, h")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    return figure


def band(axes: Axes, values: np.ndarray, line: str, colour: str, label: str) -> None:
    """Mean and one standard deviation over seeds `[seeds, sizes + 1]`, without the last column, the noise."""
    mean, spread = values.mean(0)[:-1], values.std(0, ddof=min(1, len(values) - 1))[:-1]
    axes.plot(SIZES, mean, line, color=colour, ms=3.5, label=label)
    axes.fill_between(SIZES, mean - spread, mean + spread, color=colour, alpha=0.15, lw=0)


if __name__ == "__main__":
    main()
