"""Independent judges: networks that learn a factor from real observations only, and say what made ones show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn

from twofold.arrays import Observations, gather, mix, observations
from twofold.errors import InputError, shown
from twofold.metrics.common import Result, target
from twofold.networks import Conv, Mlp
from twofold.progress import Progress

IMAGES = Conv((16, 32, 64), 3, (2, 2, 2), norm=nn.BatchNorm2d, fc=(128,))
VECTORS = Mlp((128, 128))
SIDE = 64  # larger images are reduced to it
RATE, DECAY = 1e-2, 1e-2  # AdamW, one cycle
PASSES, FEWEST, MOST = 30, 100, 1_000  # over the data; steps


@dataclass(frozen=True, repr=False)
class Score(Result):
    """What a judge finds, against what should be there. Accuracies lie in [0, 1]; errors are in the factor's units."""

    score: float  # accuracy, or mean absolute error
    low: float  # 95 % interval
    high: float
    chance: float  # the best constant: of the classes tested, the one that training had most; or training's median
    metric: str  # "accuracy" or "mae"
    n: int
    per_class: dict[Any, float] | None = None  # accuracy within each class that should be there

    @property
    def beats_chance(self) -> bool:
        """Whether the whole interval lies on the good side of the best constant."""
        return self.low > self.chance if self.metric == "accuracy" else self.high < self.chance

    def __float__(self) -> float:
        return self.score

    def __str__(self) -> str:
        digits = ".3f" if self.metric == "accuracy" else ".3g"
        score, low, high, chance = (format(v, digits) for v in (self.score, self.low, self.high, self.chance))
        return f"{score} [{low}, {high}], chance {chance}"


class Classifier:
    """Tells the classes of a factor. `classes [C]`: as they were given, sorted."""

    def __init__(self, judges: Judges, name: str, classes: np.ndarray, counts: np.ndarray):
        self._judges, self._name, self.classes, self._counts = judges, name, classes, counts

    def probabilities(self, x) -> np.ndarray:
        """p(class | x) `[N, C]` of observations `x [N, *shape]`."""
        return self._judges._outputs(x, [self._name])[self._name]

    def predict(self, x) -> np.ndarray:
        """The likeliest class of each `x`, `[N]`, as it was given."""
        return self._found(self.probabilities(x))

    def accuracy(self, x, y) -> Score:
        """How often it finds the class `y [N]` in `x [N, *shape]`; where y is -1, "not known", x is left out.

        On real held-out observations, this is how far the judge itself can be trusted.
        """
        return self.compare(self.predict(x), y)

    def compare(self, found, y) -> Score:
        """The score of classes found `[N]` against those that should be there. Raises `InputError` for others."""
        y = target(y, len(found), "y", missing=True)
        if y.dtype.kind != self.classes.dtype.kind:
            raise InputError(f"y: {shown(y)}; expected classes as the judge was trained on: {_some(self.classes)}")
        known = y >= 0 if y.dtype.kind == "i" else np.ones(len(y), bool)
        found, y = np.asarray(found)[known], y[known]
        if not len(y):
            raise InputError("y: no class is known; there is nothing to compare with")
        strange = np.setdiff1d(y, self.classes)
        if len(strange):
            raise InputError(f"y: the judge never saw {_some(strange)}; train it on every class that is tested")
        right = found == y
        # where other classes are tested than most of training's, the majority of all would never be right
        constant = self.classes[np.where(np.isin(self.classes, y), self._counts, 0).argmax()]
        interval = stats.binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
        return Score(
            score=float(right.mean()),
            low=float(interval.low),
            high=float(interval.high),
            chance=float((y == constant).mean()),
            metric="accuracy",
            n=len(y),
            per_class={c: float(right[y == c].mean()) for c in np.unique(y).tolist()},
        )

    def _found(self, out: np.ndarray) -> np.ndarray:
        return self.classes[out.argmax(1)]


class Regressor:
    """Tells the value of a real-valued factor, by the absolute error."""

    def __init__(self, judges: Judges, name: str, mean: float, std: float, median: float):
        self._judges, self._name, self._scale, self._median = judges, name, (mean, std), median

    def predict(self, x) -> np.ndarray:
        """The value of each of `x [N, *shape]`, `[N]`, in the factor's units."""
        return self._found(self._judges._outputs(x, [self._name])[self._name])

    def error(self, x, y) -> Score:
        """The mean absolute error of what it reads from `x [N, *shape]` against `y [N]`."""
        return self.compare(self.predict(x), y)

    def compare(self, found, y) -> Score:
        """The error of values found `[N]` against those that should be there."""
        y = target(y, len(found), "y").astype(np.float64)
        error = np.abs(np.asarray(found, np.float64) - y)
        half = float(stats.t.ppf(0.975, len(y) - 1) * stats.sem(error)) if len(y) > 1 else 0.0
        score, chance = float(error.mean()), float(np.abs(self._median - y).mean())
        return Score(score, max(0.0, score - half), score + half, chance, "mae", len(y))

    def _found(self, out: np.ndarray) -> np.ndarray:
        mean, std = self._scale
        return out[:, 0] * std + mean


class Judges(dict[str, "Classifier | Regressor"]):
    """A judge for each of several factors; they share all but their last layer."""

    shape: tuple[int, ...]
    n_train: int
    steps: int
    _network: _Network

    def predict(self, x) -> dict[str, np.ndarray]:
        """What each finds in `x [N, *shape]`, as its own `predict`, in one pass."""
        return {name: self[name]._found(out) for name, out in self._outputs(x, list(self)).items()}

    def _outputs(self, x, names: list[str]) -> dict[str, np.ndarray]:
        x = observations(x)
        if tuple(x.shape[1:]) != self.shape:
            raise InputError(f"x: {shown(x)}; the judge was trained on observations of shape {self.shape}")
        parts: list[dict[str, Tensor]] = []
        with torch.no_grad():
            for rows in torch.arange(len(x)).split(500):
                parts.append(self._network(gather(x, rows).to(self._network.device)))
        found = {name: torch.cat([part[name] for part in parts]).double().cpu() for name in names}
        return {n: (out.softmax(1) if isinstance(self[n], Classifier) else out).numpy() for n, out in found.items()}


class _Network(nn.Module):
    """`x [B, *shape]` -> `{factor: [B, outputs]}`."""

    def __init__(self, shape: tuple[int, ...], widths: dict[str, int]):
        super().__init__()
        if len(shape) == 3:
            sides = tuple(max(8, round(side * min(1, SIDE / max(shape[1:])))) for side in shape[1:])
            first = nn.AdaptiveAvgPool2d(sides) if sides != shape[1:] else nn.Identity()
            trunk, width = IMAGES.trunk((shape[0], *sides))
        else:
            first = nn.BatchNorm1d(shape[0])  # columns come in any units
            trunk, width = VECTORS.trunk(shape)
        self.trunk, self.widths = nn.Sequential(first, trunk), widths
        self.heads = nn.Linear(width, sum(widths.values()))

    @property
    def device(self) -> torch.device:
        return self.heads.weight.device

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.widths, self.heads(self.trunk(x)).split(list(self.widths.values()), 1)))


def classifier(
    x_train,
    y_train,
    *,
    seed: int = 0,
    steps: int | None = None,
    batch_size: int = 64,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> Classifier:
    """A classifier trained on real observations, to judge what a method makes: label consistency, Inception Score.

    `x_train`: `[N, C, H, W]` or `[N, D]`; `y_train` `[N]`: classes, -1 where not known (left out). Images get three
    convolutions of stride 2 with batch normalisation and one hidden layer (those of more than 64 pixels are reduced to
    64), vectors two hidden layers; AdamW, its rate over one cycle. `steps`: 30 passes over the data, but 100 to 1,000
    (MNIST: a test accuracy of 98.7 %). On a CPU, `seed` decides everything.

    It is as good as its own accuracy on held-out real observations says (`accuracy`): give that with every number.

    Raises `InputError` for real values, unequal or empty arrays, NaN, and fewer than two classes.
    """
    found = judges(
        x_train, {"y_train": y_train}, seed=seed, steps=steps, batch_size=batch_size, device=device, progress=progress
    )["y_train"]
    if isinstance(found, Regressor):
        raise InputError("y_train: real values; expected classes (judges() takes both)")
    return found


def judges(
    x_train,
    factors: Mapping[str, Any],
    *,
    seed: int = 0,
    steps: int | None = None,
    most: int = MOST,
    batch_size: int = 64,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> Judges:
    """A judge for each factor of `{name: values [N]}`, a `Classifier` or, of real values, a `Regressor`.

    All share one network but for its last layer, trained together on `x_train` as `classifier` says; so one is as cheap
    as many. Where a class is not known (-1), that factor's loss leaves the observation out. `most`: of the steps that
    are taken unless `steps` says how many.
    """
    x = observations(x_train, "x_train")
    if not factors:
        raise InputError("factors: none; expected {name: one value an observation}")
    if batch_size < 2 or (steps is not None and steps < 1):
        raise InputError(f"batch_size, steps: {batch_size}, {steps}; expected at least 2 and 1")
    if len(x) < 2:
        raise InputError("x_train: one observation; expected at least two to learn from")
    found, goals, widths = Judges(), {}, {}
    for name, values in factors.items():
        y = target(values, len(x), name, missing=True)
        if y.dtype.kind == "f":
            mean, std = float(y.mean()), float(y.std()) or 1.0
            found[name] = Regressor(found, name, mean, std, float(np.median(y)))
            goals[name], widths[name] = torch.from_numpy((y - mean) / std).float(), 1
            continue
        known = y >= 0 if y.dtype.kind == "i" else np.ones(len(y), bool)
        classes, counts = np.unique(y[known], return_counts=True)
        if len(classes) < 2:
            raise InputError(f"{name}: {len(classes)} known classes; a judge needs at least two to tell apart")
        found[name] = Classifier(found, name, classes, counts)
        numbers = np.where(known, np.searchsorted(classes, y), -1)
        goals[name], widths[name] = torch.from_numpy(numbers), len(classes)
    size = min(batch_size, len(x))
    found.shape, found.n_train = tuple(x.shape[1:]), len(x)
    found.steps = min(most, max(FEWEST, PASSES * len(x) // size)) if steps is None else steps
    with torch.inference_mode(False), torch.enable_grad():
        found._network = _train(x, goals, widths, found.steps, size, seed, torch.device(device), progress)
    return found


def _train(
    x: Observations,
    goals: dict[str, Tensor],
    widths: dict[str, int],
    steps: int,
    size: int,
    seed: int,
    device: torch.device,
    progress: bool,
) -> _Network:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(mix(seed, 41))
        network = _Network(tuple(x.shape[1:]), widths).to(device)
    noise = torch.Generator().manual_seed(mix(seed, 42))
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps + 1)
    order = torch.zeros(0, dtype=torch.int64)
    with Progress("classifier", steps, progress) as bar:
        for step in range(steps):
            if len(order) < size:  # a rest smaller than a batch is dropped, as batch normalisation likes it
                order = torch.randperm(len(x), generator=noise)
            rows, order = order[:size], order[size:]
            out = network(gather(x, rows).to(device))
            loss = torch.stack([_loss(out[name], y[rows].to(device)) for name, y in goals.items()]).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            rate.step()
            bar.update(step + 1)
    return network.eval()


def _loss(out: Tensor, goal: Tensor) -> Tensor:
    if goal.is_floating_point():
        return F.l1_loss(out[:, 0], goal)
    return F.cross_entropy(out, goal, ignore_index=-1, reduction="sum") / len(goal)


def _some(classes: np.ndarray) -> str:
    return ", ".join(map(str, classes[:5])) + ", ..." * (len(classes) > 5)
