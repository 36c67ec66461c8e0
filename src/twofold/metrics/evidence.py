"""Evidence that accumulates: what a code tells of the class, against how many observations of it are put together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from twofold.arrays import generator, mix
from twofold.distributions import Gaussian, Mixture
from twofold.errors import InputError, choose, shown, whole
from twofold.metrics.common import Result, class_target, code_matrix, wholes

HIDDEN, RATE, BATCH, EPOCHS, PATIENCE = 256, 1e-3, 100, 300, 20


class Trials(Result):
    """Base of results with one value a trial and a number `k` of observations."""

    k: tuple[int, ...]

    def curve(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation (n - 1) over the trials of the measure `name`, both `[len(k)]`."""
        values = np.asarray(getattr(self, name))
        return values.mean(0), values.std(0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1])

    def _line(self, name: str) -> str:
        mean, spread = self.curve(name)
        ends = dict.fromkeys((0, len(self.k) - 1))
        return ", ".join(f"k = {self.k[i]}: {mean[i]:.3f} ± {spread[i]:.3f}" for i in ends)


@dataclass(frozen=True, repr=False)
class Evidence(Trials):
    """Accuracy and conditional entropy on test codes, `[trials][len(k)]` each."""

    k: tuple[int, ...]
    accuracy: tuple[tuple[float, ...], ...]
    bits: tuple[tuple[float, ...], ...]  # cross-entropy: an upper bound of H(Y | code)
    per_class: int  # the paper's K
    classes: int
    evidence: str | None
    codes: str
    chance: float  # of the accuracy; classes are even
    entropy: float  # H(Y), in bits

    def __str__(self) -> str:
        return f"{self._line('accuracy')}, chance {self.chance:.3f}"


def evidence(
    posterior,
    y,
    per_class: int = 10,
    *,
    k: int | Sequence[int] | None = None,
    evidence: Literal["product", "mixture"] | None = "product",
    codes: Literal["samples", "means"] = "samples",
    trials: int = 5,
    seed: int = 0,
) -> Evidence:
    """How well codes tell the class, when the codes of k observations of one class are put together
    [Bouchacourt18, Sec. 4 and supplement 3].

    posterior: Gaussians of test observations, `[N, d]`, as `Method.posterior` gives for s or for z. y: classes `[N]`.
    per_class: the paper's K (100 on MNIST). Training, validation and test set of the classifier each hold K test
    observations of each class, so a class needs 3 K.
    k: how many observations to test with, a number or several, 1 to K (default: all).
    evidence: how a group's Gaussians make one: "product" (Eqs. 6-7), "mixture" (supplement Eq. 1), or None: each
    observation keeps its own (the paper's style code). A VAE's code with "product" is the paper's baseline.
    codes: "samples" from the group's posterior, one an observation (the paper's protocol), or its "means".

    The classifier (256 hidden units, tanh, softmax; Adam at 1e-3) learns from codes of groups of K; it is tested on
    groups of k, for k = 1 (no group information) to K. `bits` is the cross-entropy of the test codes in bits, an upper
    bound of H(Y | code) (supplement Eqs. 4-6). The paper tests one group of k a class, and 5 trials on other images as
    that is few; here each trial tests all disjoint groups of k among the K test images: the same expectation, less
    noise. Where it is silent: batches of 100, at most 300 epochs, stopped by the validation loss.

    Raises `InputError` for classes too small, numbers that are not whole or out of range, or a posterior without a
    spread.
    """
    choose("evidence", str(evidence), ("product", "mixture", "None"))
    choose("codes", codes, ("samples", "means"))
    q = gaussian(posterior, "posterior")
    labels, dense = np.unique(class_target(y, len(q.mean), "y"), return_inverse=True)
    per_class, trials, seed = whole("per_class", per_class, 1), whole("trials", trials, 1), whole("seed", seed, 0)
    counts = np.bincount(dense)
    if len(labels) < 2:
        raise InputError("y: one class only; expected at least two")
    if counts.min() < 3 * per_class:
        raise InputError(
            f"per_class: {per_class}; class {labels[counts.argmin()]} has {counts.min()} observations, and training, "
            f"validation and test need {per_class} each: at most {counts.min() // 3}"
        )
    ks = tuple(range(1, per_class + 1)) if k is None else wholes("k", k, per_class, "per_class")
    found = []
    for trial in range(trials):
        shuffled = generator(seed, 42, trial).permutation(len(dense))
        rows = shuffled[np.argsort(dense[shuffled], kind="stable")]
        first = np.cumsum(counts) - counts
        chosen = torch.from_numpy(rows[first[:, None] + np.arange(3 * per_class)])  # [classes, 3 K]
        train, valid, test = chosen.split(per_class, dim=1)

        def drawn(part: Tensor, size: int, tag: int, trial=trial) -> tuple[Tensor, Tensor]:
            return _codes(q, part, size, evidence, codes, _noise(seed, trial, tag))

        fit, stop = drawn(train, per_class, 0), drawn(valid, per_class, -1)
        network = _classifier(*fit, *stop, len(labels), _noise(seed, trial, -2))
        found.append([_test(network, *drawn(test, size, size)) for size in ks])
    accuracy, bits = (tuple(tuple(at[i] for at in each) for each in found) for i in (0, 1))
    return Evidence(
        ks, accuracy, bits, per_class, len(labels), evidence, codes, 1 / len(labels), math.log2(len(labels))
    )


def _noise(seed: int, trial: int, tag: int) -> torch.Generator:
    return torch.Generator().manual_seed(mix(seed, 41, trial, tag))


def gaussian(posterior, name: str) -> Gaussian:
    """A Gaussian with its log-variances, in float64, from anything with `.mean` and `.variance`, `[N, d]`."""
    if not hasattr(posterior, "mean") or not hasattr(posterior, "variance") or callable(posterior.mean):
        raise InputError(f"{name}: {shown(posterior)}; expected Gaussians, as Method.posterior(x) gives for s or z")
    mean = torch.from_numpy(code_matrix(posterior.mean, f"{name}.mean")).double()
    variance = torch.from_numpy(code_matrix(posterior.variance, f"{name}.variance", mean.shape[1])).double()
    if mean.shape[1] == 0:
        raise InputError(f"{name}: codes without width; this method has no such half")
    if not (variance > 0).all():
        raise InputError(f"{name}: variances of 0; a code without spread has no evidence to multiply")
    return Gaussian(mean, variance.log())


def _codes(q: Gaussian, rows: Tensor, size: int, evidence: str | None, codes: str, noise) -> tuple[Tensor, Tensor]:
    """A code for each observation of disjoint groups of `size` among `rows [classes, K]`, and its class."""
    groups = rows.shape[1] // size
    part = q[rows[:, : groups * size].reshape(-1, size)]  # [classes * groups, size]
    if evidence == "mixture":
        mixture = Mixture(part, torch.ones(part.mean.shape[:2], dtype=torch.float64))
        mean = mixture.mean.unsqueeze(1).expand_as(part.mean)
        if codes == "samples":
            member = torch.randint(size, part.mean.shape[:2], generator=noise).unsqueeze(-1).expand_as(part.mean)
            part = Gaussian(part.mean.gather(1, member), part.log_var.gather(1, member))
    else:
        if evidence == "product":
            whole = part.product(dim=1)
            part = Gaussian(*(v.unsqueeze(1).expand(-1, size, -1) for v in (whole.mean, whole.log_var)))
        mean = part.mean
    if codes == "samples":
        mean = part.mean + part.stddev * torch.randn(part.mean.shape, generator=noise, dtype=torch.float64)
    label = torch.arange(len(rows)).repeat_interleave(groups * size)
    return mean.flatten(0, 1).float(), label


def _classifier(x: Tensor, y: Tensor, x_valid: Tensor, y_valid: Tensor, classes: int, noise) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.default_generator.manual_seed(int(torch.randint(1 << 62, (), generator=noise)))
        layers = torch.nn.Linear(x.shape[1], HIDDEN), torch.nn.Tanh(), torch.nn.Linear(HIDDEN, classes)
        network = torch.nn.Sequential(*layers)
        optimiser = torch.optim.Adam(network.parameters(), RATE, fused=True)
        best, kept, waited = math.inf, network.state_dict(), 0
        for _ in range(EPOCHS):
            for rows in torch.randperm(len(x)).split(BATCH):
                optimiser.zero_grad()
                F.cross_entropy(network(x[rows]), y[rows]).backward()
                optimiser.step()
            with torch.no_grad():
                loss = float(F.cross_entropy(network(x_valid), y_valid))
            if loss < best:
                best, kept, waited = loss, {name: v.clone() for name, v in network.state_dict().items()}, 0
            else:
                waited += 1
                if waited == PATIENCE:
                    break
        network.load_state_dict(kept)
    return network


@torch.no_grad()
def _test(network: torch.nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    logits = network(x).double()
    return float((logits.argmax(1) == y).double().mean()), float(F.cross_entropy(logits, y)) / math.log(2)
