"""What independent judges see: they learn factors from real observations only, and look at what a method makes."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import torch
from torch import Tensor

from twofold import metrics, operations
from twofold.arrays import generator
from twofold.data import Dataset
from twofold.errors import InputError, UnsupportedError
from twofold.findings import Consistency, Generated
from twofold.method import Code, Method
from twofold.metrics import Classifier, Judges

PAIRS = 2_000  # compared for the diversity within classes, all together


def learn(
    train: Dataset, test: Dataset, names: list[str], seed: int, most: int, device: torch.device, progress: bool
) -> tuple[Judges | None, Tensor, dict[str, str]]:
    """Judges of the factors `names`; the rows of `test` that they have not seen; which have none, and why.

    They learn from `train`. Where `test` holds classes that `train` lacks (other identities), one half of it is learned
    too, as it is for probes.
    """
    factors, skipped = {}, {}
    x, learned = train.x, np.zeros(len(test), bool)
    for name in names:
        y, y_test = train.factors[name], test.factors.get(name)
        if y_test is None or not (y_test.is_floating_point() or (y_test >= 0).any()):
            continue
        factors[name] = y
        if not learned.any() and not _covers(y, y_test):
            half = rank(y_test.numpy(), seed) % 2 == 0
            learned = half if _covers(y_test[half], y_test[~half]) else learned
    free = torch.from_numpy(np.flatnonzero(~learned))
    if learned.any():
        more = test[learned]
        x = torch.cat([torch.as_tensor(np.asarray(part.x[:])) for part in (train, more)])
        factors = {name: torch.cat([y, more.factors[name]]) for name, y in factors.items()}
    for name, y in list(factors.items()):
        wanted = test.factors[name][free]
        reason = "" if _covers(y, wanted) else "held-out classes that it could not learn"
        if not (reason or wanted.is_floating_point()) and len(wanted[wanted >= 0].unique()) < 2:
            reason = "the held-out observations to judge are of one class only"
        if len(y.unique() if y.is_floating_point() else y[y >= 0].unique()) < 2:
            reason = "one value only"
        if reason:
            skipped[f"judge of {name}"] = reason
            del factors[name]
    if not factors:
        return None, free, skipped
    return metrics.judges(x, factors, seed=seed, most=most, device=device, progress=progress), free, skipped


def _covers(y: Tensor, wanted: Tensor) -> bool:
    """Whether what is wanted can be learned from y: its known classes are there, and some are known."""
    wanted = wanted if wanted.is_floating_point() else wanted[wanted >= 0]
    return len(wanted) > 0 and (wanted.is_floating_point() or bool(torch.isin(wanted, y).all()))


def consistency(
    judges: Judges,
    real: Dataset,
    some: Dataset,
    reconstructed: Tensor | None,
    swapped: Tensor | None,
    other: Tensor | None,
) -> dict[str, Consistency]:
    """`reconstructed` and `swapped` `[N, *shape]` of `some`, the latter with the z of its rows `other`."""
    seen = {"real": judges.predict(real.x)}
    for what, x in (("reconstruction", reconstructed), ("swap", swapped)):
        if x is not None:
            seen[what] = judges.predict(_shown(x))
    found = {}
    for name in judges:
        y = some.factors[name]
        away = None if other is None else y[other]
        wanted = {"real": ("real", real.factors[name]), "reconstruction": ("reconstruction", y)}
        wanted |= {"swap_s": ("swap", y), "swap_z": ("swap", away)}
        scores = {
            field: judges[name].compare(seen[what][name], y)
            for field, (what, y) in wanted.items()
            if what in seen and y is not None and (y.is_floating_point() or (y >= 0).any())
        }
        found[name] = Consistency(**scores)
    return found


def generation(
    method: Method,
    judge: Classifier,
    classes: Tensor,
    real: tuple[Dataset, Tensor],
    examples: tuple[Code, Tensor] | None,
    n: int,
    seed: int,
) -> tuple[dict[str, Generated], dict[str, str]]:
    """About `n` observations each way that `method` can generate, of `classes [C]`; and what it refused, with reasons.

    real: held-out observations and their classes. examples: codes of some, and their classes; their s is used.
    """
    found, skipped = {}, {}
    try:
        able, refused = knows(method, classes)
    except UnsupportedError:  # no class to generate from; examples, or the prior, will do
        able, refused = classes[:0], {}
    if refused:
        skipped[f"generation of class {', '.join(map(str, refused))}"] = next(iter(refused.values()))
    part, y = real
    classes = able if len(able) else y[y >= 0].unique()
    each = max(2, n // len(classes))
    asked = classes.repeat_interleave(each)
    rows = np.flatnonzero((rank(y.numpy(), seed) < each) & torch.isin(y, classes).numpy())
    if len(rows):
        found["real"] = _generated(judge, part[rows].x, y[rows], seed)
    if len(able):
        found["class"] = _generated(judge, operations.generate(method, len(asked), y=asked, seed=seed), asked, seed)
    if examples is not None:
        code, y = examples
        order = np.argsort(rank(y.numpy(), seed), kind="stable")
        rows = np.resize(order[(y >= 0).numpy()[order]], len(asked)) if (y >= 0).any() else order[:0]
        if len(rows):
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)
                z = torch.randn(len(rows), code.z.shape[1])
            found["examples"] = _generated(judge, method.decode(Code(code.s[rows], z)), y[rows], seed)
    if method.needs is None:
        with suppress(UnsupportedError):
            found["prior"] = _generated(judge, operations.generate(method, len(asked), seed=seed), None, seed)
    return found, skipped


def knows(method: Method, classes: Tensor) -> tuple[Tensor, dict[int, str]]:
    """Those of `classes` that `method` generates from; of the others, why not. `UnsupportedError`: from none at all."""
    refused: dict[int, str] = {}
    with torch.random.fork_rng(devices=[]):
        for k in classes.tolist():
            try:
                method.prior(1, torch.tensor([k]))
            except InputError as error:
                refused[k] = str(error)
    return classes[[k not in refused for k in classes.tolist()]], refused


def _generated(judge: Classifier, x, asked: Tensor | None, seed: int) -> Generated:
    x = _shown(x)
    told = judge.probabilities(x)
    kept, diversity = None, None
    if asked is not None:
        kept = judge.compare(judge.classes[told.argmax(1)], asked)
        paired = asked.bincount()[asked] > 1
        if x.ndim == 4 and paired.any():
            pairs = max(10, PAIRS // len(asked.unique()))
            images = torch.as_tensor(np.asarray(x[:]))[paired]
            diversity = metrics.intra_class_diversity(images, asked[paired], pairs, seed)
    return Generated(metrics.inception_score(told), kept, diversity, len(told))


def _shown(x):
    """Images as they are seen: rounding may take a decoder's a hair outside [0, 1]."""
    return x.clamp(0, 1) if isinstance(x, Tensor) and x.ndim == 4 and x.is_floating_point() else x


def rank(y: np.ndarray, seed: int) -> np.ndarray:
    """Each row's place, at random, among those of its class."""
    order = generator(seed, 21).permutation(len(y))
    order = order[np.argsort(y[order], kind="stable")]
    counts = np.unique(y, return_counts=True)[1]
    found = np.empty(len(y), np.int64)
    found[order] = np.arange(len(y)) - np.repeat(np.cumsum(counts) - counts, counts)
    return found
