"""Probes: how well does a code tell a factor? Trained and tuned on one set of codes, tested on another."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import NearestNeighbors

from twofold.errors import InputError, choose, shown
from twofold.metrics.common import Result, code_matrix, sample, target

VALIDATION = 0.2  # the part of the training codes that every choice is made on
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2)  # C of the logistic regression
RIDGES = (1e-6, 1e-4, 1e-2, 1e-1, 1.0, 1e1)  # alpha of the ridge regression, per training code
NEIGHBOURS = (1, 3, 5, 9, 15, 31, 63)
HIDDEN, PATIENCE, EPOCHS = 256, 10, 300
TRAIN_ROWS = 5_000  # the training score is taken on at most so many codes


@dataclass(frozen=True, repr=False)
class Probe(Result):
    """What a probe finds on test codes. Accuracies lie in [0, 1]; absolute errors are in y's own units."""

    score: float  # accuracy, or mean absolute error
    low: float  # 95 % interval of the score
    high: float
    chance: float  # the best constant: the majority class, or the median, of the training targets
    kind: str
    metric: str  # "accuracy" or "mae"
    n_train: int
    n_test: int
    train_score: float  # the same score on (at most 5,000 of) the training codes
    validation_score: float  # the score that the choices were made by
    choice: dict[str, Any]  # what was chosen on validation data
    converged: bool  # False: the optimiser gave up, trust the score as a lower bound only
    uniform: float | None = None  # 1 / number of classes
    per_class: dict[Any, float] | None = None  # accuracy within each class of the test codes
    bits: float | None = None  # upper bound of H(Y | code)
    bits_error: float | None = None  # its standard error
    entropy: float | None = None  # H(Y) of the test labels, in bits
    information: float | None = None  # max(0, H(Y) - H(Y | code)), in bits

    @property
    def beats_chance(self) -> bool:
        """Whether the whole interval lies on the good side of the best constant."""
        return self.low > self.chance if self.metric == "accuracy" else self.high < self.chance

    def __float__(self) -> float:
        return self.score

    def __str__(self) -> str:
        digits = ".3f" if self.metric == "accuracy" else ".3g"
        score, low, high, chance = (format(v, digits) for v in (self.score, self.low, self.high, self.chance))
        text = f"{score} [{low}, {high}], chance {chance}"
        return text if self.converged else text + " (not converged)"


def probe(codes_train, y_train, codes_test, y_test, kind: str = "linear", seed: int = 0) -> Probe:
    """Train a probe on some codes, test it on others.

    `codes_*`: `[N, D]`, arrays or tensors; `y_*`: `[N]`. Whole numbers (or strings) are classes, scored by accuracy;
    real numbers are scored by the mean absolute error, in their own units. `kind`:

    - `"linear"`: logistic regression, or ridge regression [Ruiz19, Sec. 5.2]; the penalty is chosen.
    - `"mlp"`: two linear layers, 256 hidden units [Mathieu16, Sec. 5; Bouchacourt18, supplement 3.1], here with ReLU
      and Adam, cross-entropy or absolute error, stopped early by the validation loss.
    - `"knn"`: nearest neighbours (vote, or median); their number is chosen.

    Features are standardised by the training codes. Every choice is made on a fifth of the *training* codes (drawn
    class by class), by accuracy or absolute error; the linear and neighbour probes are then refitted on all of them.
    Codes without width, or all constant, get the best constant.

    The 95 % interval is about the test codes, taken as independent: Wilson's for an accuracy, Student's t of the
    absolute errors for their mean. `bits` is the cross-entropy of the test labels, an upper bound of H(Y | code)
    [Bouchacourt18, supplement 3.2]; the neighbours' votes get one more, split as the training labels are, to keep it
    finite.

    Raises `InputError` for unequal or empty arrays, NaN, one class only, and test classes that training never saw.
    """
    choose("kind", kind, KINDS)
    fitted = fit_probe(codes_train, y_train, kind, seed, names=("codes_train", "y_train"))
    return fitted.test(codes_test, y_test, names=("codes_test", "y_test"))


@dataclass(frozen=True, repr=False)
class FittedProbe:
    """A trained probe. `test` is the only thing that sees test labels."""

    kind: str
    choice: dict[str, Any]
    validation_score: float
    train_score: float
    converged: bool
    classes: np.ndarray | None  # None: a regression
    constant: np.ndarray  # class frequencies [C], or the median []
    n_train: int
    width: int
    _outputs: Callable[[np.ndarray], np.ndarray]

    def outputs(self, codes, name: str = "codes") -> np.ndarray:
        """Class probabilities `[N, C]`, or values `[N]`, for codes `[N, D]` (called `name` in errors)."""
        return self._outputs(code_matrix(codes, name, self.width))

    def predict(self, codes) -> np.ndarray:
        """Classes `[N]`, as they were given, or values `[N]`."""
        out = self.outputs(codes)
        return out if self.classes is None else self.classes[out.argmax(1)]

    def test(self, codes, y, names: tuple[str, str] = ("codes", "y")) -> Probe:
        """The result on test codes `[N, D]` with targets `[N]` (called `names` in errors)."""
        out = self.outputs(codes, names[0])
        y = target(y, len(out), names[1])
        kind = "f" if self.classes is None else self.classes.dtype.kind
        if y.dtype.kind != kind:
            trained = {"f": "real numbers", "i": "whole numbers"}.get(kind, "strings")
            raise InputError(f"{names[1]}: {shown(y)}; the probe was trained on {trained}, expected the same")
        if len(y) < 2:
            raise InputError(f"{names[1]}: {len(y)} value; expected at least two, for an interval")
        result = _mae(out, y, self.constant) if self.classes is None else self._accuracy(out, y, names[1])
        return Probe(
            kind=self.kind,
            n_train=self.n_train,
            n_test=len(y),
            train_score=self.train_score,
            validation_score=self.validation_score,
            choice=self.choice,
            converged=self.converged,
            **result,
        )

    def _accuracy(self, out: np.ndarray, y: np.ndarray, name: str) -> dict[str, Any]:
        assert self.classes is not None
        index = np.minimum(np.searchsorted(self.classes, y), len(self.classes) - 1)
        unseen = np.unique(y[self.classes[index] != y])
        if len(unseen):
            raise InputError(
                f"{name}: training never saw {', '.join(map(str, unseen[:5]))}{', ...' if len(unseen) > 5 else ''}; "
                "a probe tells only the classes that it was trained on, so split within each class"
            )
        right = out.argmax(1) == index
        interval = stats.binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
        counts = np.bincount(index, minlength=len(self.classes))
        hits = np.bincount(index, weights=right, minlength=len(self.classes))
        bits, entropy = _bits(out, index), float(stats.entropy(counts, base=2))
        return {
            "metric": "accuracy",
            "score": float(right.mean()),
            "low": float(interval.low),
            "high": float(interval.high),
            "chance": float(counts[self.constant.argmax()] / len(y)),
            "uniform": 1 / len(self.classes),
            "per_class": {c: float(h / n) for c, h, n in zip(self.classes.tolist(), hits, counts) if n},
            "bits": float(bits.mean()),
            "bits_error": float(bits.std() / np.sqrt(len(bits))),
            "entropy": entropy,
            "information": max(0.0, entropy - float(bits.mean())),
        }

    def __repr__(self) -> str:
        return f"FittedProbe({self.kind}, {self.choice}, validation {self.validation_score:.3f})"


def _mae(out: np.ndarray, y: np.ndarray, constant: np.ndarray) -> dict[str, Any]:
    error = np.abs(out - y)
    score, half = float(error.mean()), float(stats.t.ppf(0.975, len(y) - 1) * stats.sem(error))
    chance = float(np.abs(constant - y).mean())
    return {"metric": "mae", "score": score, "low": max(0.0, score - half), "high": score + half, "chance": chance}


class _Candidate(NamedTuple):
    quality: tuple[float, float]  # on validation data; larger is better
    choice: dict[str, Any]
    finish: Callable[[], tuple[Callable[[np.ndarray], np.ndarray], bool]]  # refits: (what it predicts, did it converge)


def fit_probe(
    codes, y, kind: str | Sequence[str] = "linear", seed: int = 0, names: tuple[str, str] = ("codes", "y")
) -> FittedProbe:
    """The training half of `probe`, for codes that are tested more than once (say, at several group sizes).

    Of several kinds, the one with the best validation score is kept; the lower cross-entropy decides between equals.
    `names` are those of the arguments in errors.
    """
    return next(iter(fit_probes(codes, y, [kind] if isinstance(kind, str) else kind, seed, names).values()))


def fit_probes(
    codes,
    y,
    kinds: Sequence[str] = ("linear", "mlp", "knn"),
    seed: int = 0,
    names: tuple[str, str] = ("codes", "y"),
    also: Sequence[str] = (),
) -> dict[str, FittedProbe]:
    """`{kind: probe}`: the strongest of `kinds`, as `fit_probe` gives it, then those of them that are wanted `also`."""
    kinds = list(kinds)
    for name in kinds:
        choose("kind", name, KINDS)
    if not kinds:
        raise InputError(f"kind: none given; choose from {', '.join(KINDS)}")
    x = code_matrix(codes, names[0])
    y = target(y, len(x), names[1])
    values, inverse = np.unique(y, return_inverse=True)
    if len(values) == 1:
        raise InputError(f"{names[1]}: every value is {values[0]!s}; a probe needs at least two to tell apart")
    rng = np.random.default_rng(seed)
    if y.dtype.kind == "f":
        classes, goal, constant = None, y, np.median(y)
        held = np.zeros(len(y), bool)
        held[rng.permutation(len(y))[: round(VALIDATION * len(y))]] = True
    else:
        classes, goal, constant = values, inverse, np.bincount(inverse) / len(y)
        held = _stratified(inverse, rng)
    if not held.any():
        raise InputError(f"{names[1]}: {len(y)} values of {len(values)} classes are too few to tune a probe")

    mean, std = x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64)
    columns = std > 8 * np.finfo(x.dtype).eps * np.abs(x).max(0)  # what varies by rounding only tells nothing
    scale = np.where(columns, std, 1.0)

    def standard(x: np.ndarray) -> np.ndarray:
        return ((x - mean) / scale)[:, columns]

    features = standard(x)
    part = _Part(features, goal, held, None if classes is None else len(classes), constant, seed)
    candidates = {name: KINDS[name](part) if columns.any() else _constant(part) for name in kinds}
    best = max(candidates, key=lambda name: candidates[name].quality)
    rows = sample(len(x), TRAIN_ROWS, seed)

    def finish(name: str) -> FittedProbe:
        outputs, converged = candidates[name].finish()
        return FittedProbe(
            kind=name,
            choice=candidates[name].choice,
            validation_score=abs(candidates[name].quality[0]),
            train_score=abs(_quality(outputs(features[rows]), goal[rows])[0]),
            converged=converged,
            classes=classes,
            constant=np.asarray(constant),
            n_train=len(x),
            width=x.shape[1],
            _outputs=lambda x: outputs(standard(x)),
        )

    return {name: finish(name) for name in dict.fromkeys([best, *(name for name in also if name in candidates)])}


class _Part(NamedTuple):
    x: np.ndarray  # [N, D] standardised
    y: np.ndarray  # [N] class numbers, or values
    held: np.ndarray  # [N] the validation part
    classes: int | None
    constant: np.ndarray
    seed: int

    @property
    def split(self):
        return self.x[~self.held], self.y[~self.held], self.x[self.held], self.y[self.held]


def _linear(part: _Part) -> _Candidate:
    x, y, x_held, y_held = part.split
    if part.classes is None:
        fits = {a: Ridge(alpha=a * len(x)).fit(x, y) for a in RIDGES}
        qualities = {a: _quality(model.predict(x_held), y_held) for a, model in fits.items()}
        alpha = max(qualities, key=qualities.__getitem__) * len(part.x)
        return _Candidate(
            max(qualities.values()), {"alpha": alpha}, lambda: (Ridge(alpha=alpha).fit(part.x, part.y).predict, True)
        )
    model = LogisticRegression(max_iter=2_000, warm_start=True)  # from strong to weak: each starts at the one before
    qualities = {}
    for c in PENALTIES:
        _converges(model.set_params(C=c), x, y)
        qualities[c] = _quality(model.predict_proba(x_held), y_held)
    c = max(qualities, key=qualities.__getitem__)
    final = LogisticRegression(max_iter=2_000, C=c)
    return _Candidate(qualities[c], {"C": c}, lambda: (final.predict_proba, _converges(final, part.x, part.y)))


def _converges(model: LogisticRegression, x: np.ndarray, y: np.ndarray) -> bool:
    with warnings.catch_warnings(record=True) as caught:  # told by `converged` instead
        warnings.simplefilter("always")
        model.fit(x, y)
    return not caught


def _knn(part: _Part) -> _Candidate:
    x, y, x_held, y_held = part.split
    counts = [k for k in NEIGHBOURS if k <= max(1, len(x) // 2)]
    qualities = {k: _quality(out, y_held) for k, out in _neighbours(x, y, x_held, counts, part)}
    best = max(qualities, key=qualities.__getitem__)

    def outputs(x_new: np.ndarray) -> np.ndarray:
        return next(_neighbours(part.x, part.y, x_new, [best], part))[1]

    return _Candidate(qualities[best], {"k": best}, lambda: (outputs, True))


def _neighbours(x, y, x_new, counts: list[int], part: _Part):
    """Yields (k, outputs) for each of the growing `counts` of neighbours, from one search."""
    near = y[
        NearestNeighbors(n_neighbors=counts[-1], algorithm="brute").fit(x).kneighbors(x_new, return_distance=False)
    ]
    if part.classes is None:
        yield from ((k, np.median(near[:, :k], axis=1)) for k in counts)
        return
    votes, rows, done = np.tile(part.constant, (len(x_new), 1)), np.arange(len(x_new)), 0
    for k in counts:
        for rank in range(done, k):
            votes[rows, near[:, rank]] += 1
        done = k
        yield k, votes / (k + 1)


def _mlp(part: _Part) -> _Candidate:
    with torch.inference_mode(False), torch.enable_grad():
        weights, epochs, stopped = _train_mlp(part)
    shift, scale = (0.0, 1.0) if part.classes else (part.y.mean(), part.y.std())

    @torch.no_grad()
    def outputs(x_new: np.ndarray) -> np.ndarray:
        out = _network(torch.from_numpy(x_new).float(), weights).double()
        return (out.softmax(1) if part.classes else out[:, 0] * scale + shift).numpy()

    return _Candidate(
        _quality(outputs(part.x[part.held]), part.y[part.held]), {"epochs": epochs}, lambda: (outputs, stopped)
    )


def _train_mlp(part: _Part):
    noise = torch.Generator().manual_seed(part.seed)
    x, y, x_held, y_held = part.split
    x, x_held = torch.from_numpy(x).float(), torch.from_numpy(x_held).float()
    if part.classes:
        y, y_held, loss = torch.from_numpy(y), torch.from_numpy(y_held), F.cross_entropy
    else:
        y, y_held = (torch.from_numpy((v - part.y.mean()) / part.y.std()).float()[:, None] for v in (y, y_held))
        loss = F.l1_loss
    widths = (x.shape[1], HIDDEN, part.classes or 1)
    weights = [
        ((2 * torch.rand(shape, generator=noise) - 1) * fan_in**-0.5).requires_grad_()
        for fan_in, fan_out in pairwise(widths)
        for shape in ((fan_out, fan_in), (fan_out,))
    ]
    size = min(max(len(x) // 16, 32), 512)
    adam = torch.optim.Adam(weights, lr=5e-3 * (size / 512) ** 0.5, fused=True)
    best, kept, epochs, epoch = float("inf"), weights, 0, 0
    while epoch - epochs < PATIENCE and epoch < EPOCHS:
        epoch += 1
        order = torch.randperm(len(x), generator=noise)
        for x_batch, y_batch in zip(x[order].split(size), y[order].split(size)):
            adam.zero_grad()
            loss(_network(x_batch, weights), y_batch).backward()
            adam.step()
        with torch.no_grad():
            held = loss(_network(x_held, weights), y_held).item()
        if held < best - 1e-4:  # or a loss that only creeps to zero would never stop
            best, kept, epochs = held, [w.detach().clone() for w in weights], epoch
    return kept, epochs, epochs > 0 and epoch - epochs >= PATIENCE


def _network(x: torch.Tensor, weights: list[torch.Tensor]) -> torch.Tensor:
    return F.linear(F.linear(x, weights[0], weights[1]).relu(), weights[2], weights[3])


def _constant(part: _Part) -> _Candidate:
    def outputs(x_new: np.ndarray) -> np.ndarray:
        return np.broadcast_to(part.constant, (len(x_new), *np.shape(part.constant)))

    return _Candidate(
        _quality(outputs(part.x[part.held]), part.y[part.held]), {"constant": True}, lambda: (outputs, True)
    )


KINDS: dict[str, Callable[[_Part], _Candidate]] = {"linear": _linear, "mlp": _mlp, "knn": _knn}


def _quality(out: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    if out.ndim == 2:
        return float((out.argmax(1) == y).mean()), -float(_bits(out, y).mean())
    return -float(np.abs(out - y).mean()), 0.0


def _bits(probabilities: np.ndarray, y: np.ndarray) -> np.ndarray:
    return -np.log2(np.maximum(probabilities[np.arange(len(y)), y], 1e-12))


def _stratified(y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A fifth of every class, at random; none of a class with fewer than three."""
    order = rng.permutation(len(y))
    order = order[np.argsort(y[order], kind="stable")]
    counts = np.bincount(y)
    rank = np.arange(len(y)) - np.repeat(np.cumsum(counts) - counts, counts)
    held = np.zeros(len(y), bool)
    held[order] = rank < np.repeat(np.round(VALIDATION * counts), counts)
    return held
