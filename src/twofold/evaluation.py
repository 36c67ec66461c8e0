"""`evaluate`: all that is measured of one split code, in one go, for any method and any data set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from twofold import accumulation, contrasting, judging, metrics, probing
from twofold.arrays import generator, unit
from twofold.data import Dataset
from twofold.errors import InputError, UnsupportedError, choose
from twofold.findings import Consistency, Factor, Generated, PixelError, Swap
from twofold.method import Code, Method
from twofold.metrics.common import Skip, sample, take
from twofold.metrics.probe import KINDS
from twofold.progress import Progress
from twofold.supervision import Groups, Images, Labels, Reference
from twofold.verdict import Evaluation


def evaluate(
    method: Method,
    train: Dataset,
    test: Dataset,
    *,
    seed: int = 0,
    factor: str | None = None,
    factors: Sequence[str] | None = None,
    background: str | None = None,
    clustering: bool = True,
    classifier: bool = True,
    probes: Sequence[str] = tuple(KINDS),
    train_points: int = 10_000,
    test_points: int = 5_000,
    images: int = 1_000,
    cluster_points: int = 1_000,
    cluster_seeds: int = 3,
    classifier_steps: int = 500,
    progress: bool = False,
) -> Evaluation:
    """Measure the split of `method`, trained on `train`, on `test`.

    For each factor: leakage (the strongest probe from s and from z: score, 95 % interval, the best constant, bits), the
    linear probe and, for classes, clusters and the precision of retrieval. Further, the error per pixel of
    reconstructions from both halves and from either, what is found again in swapped images and, for methods that learn
    from a reference set (and others, where `background` is given, to compare), the distance of target and background in
    z, the size of s on the background, and whether a probe tells the two apart.

    Where s has a part for each of several groupings whose names are factors: what that part tells of its factor, and
    what the other parts do. What is put together, below, is then the part of `factor`.

    Of methods that learn from groups (and from images alone, to compare): what the codes of several observations of a
    class tell together, and, where classes are new, how well few examples identify them.

    Independent judges learn the factors from the real training observations and look at what is reconstructed, swapped
    and generated (see `metrics.classifier`): does a swap have the class of what gave s? Of generated observations: the
    class asked for, the Inception Score and the diversity within classes, beside those of real ones.

    factor: what s is about (default: the data's default factor; where there is a background, one that varies in the
    target and not in it, if there is such). factors: those to probe (default: all).
    background: "FACTOR=VALUE", as in `Dataset.reference`; all else is then measured on the target alone. Target and
    background are compared if each part holds five of both. Where the target has one value of that factor, it is
    neither probed nor what s is about, unless asked for.
    clustering: whether to look for clusters, by t-SNE for `factor`, in the code itself for the others.
    classifier: whether to train judges, for at most `classifier_steps`.
    probes: kinds to choose the strongest from.
    train_points, test_points, images: at most so many observations are encoded (once each), and reconstructed, swapped
    and generated; drawn by `seed`.
    cluster_points, cluster_seeds: at most so many are clustered, so many times.
    progress: whether to show it.

    Where most of the test part is of classes that training never saw (other identities), one half of it trains that
    factor's probes and judge and the other tests them; where few are, they are left out. The factor's `note` says so.
    Rows whose class is not known (-1) are left out.

    Raises `InputError` for unknown factors, observations of another shape, and numbers below 1. What a method or a data
    set can't have is in `.skipped`, with the reason.
    """
    for name, value in (
        ("train_points", train_points),
        ("test_points", test_points),
        ("images", images),
        ("classifier_steps", classifier_steps),
    ):
        if value < 1:
            raise InputError(f"{name}: {value}; expected at least 1")
    for name, part in (("train", train), ("test", test)):
        if not isinstance(part, Dataset):
            raise InputError(f"{name}: {type(part).__name__}; expected a Dataset, such as data.load gives")
    asked, factor = factor, train.default if factor is None else factor
    for argument, names in (("factor", [factor] if factor else []), ("factors", factors or [])):
        for name in names:
            choose(argument, name, train.factors)
    backs = lone = None
    if background or (method.supervision is Reference and train.background is not None):
        (train, back_train), (test, back_test) = train.apart(background), test.apart(background)
        if back_train is None and back_test is None:
            train.contrast(background)  # refuses, with the reason
        backs = back_train, back_test
        named = (background or "").partition("=")[0].strip()
        lone = named if named in train.factors and len(train.factors[named].unique()) < 2 else None
        factor = asked or contrasting.salient(train, back_train) or (None if factor == lone else factor)
    fit = train[sample(len(train), train_points, seed)]
    held = test[sample(len(test), test_points, seed)]
    chosen = [n for n in train.factors if (n != lone or n == factor if factors is None else n in factors)]
    chosen.sort(key=lambda name: name != factor)  # the one first
    classes = held.factors.get(factor or "")
    lacked = "were never seen in training"
    if len(fit) < len(train):
        lacked = f"are not among the {len(fit):,} training observations that were drawn"
    new, strays = probing.strangers(fit, held, chosen, lacked)
    skipped: dict[str, str] = {}
    found: dict[str, Factor] = {}
    reconstruction: dict[str, PixelError] = {}
    codes: _Codes | None = None
    swap = contrast = y = other = mixed = None
    outputs: dict[str, Tensor] = {}
    cuts: dict[str, slice] = getattr(method, "parts_of_s", {})
    shown = {"progress": progress} if hasattr(method, "infer") else {}  # a descent takes minutes
    with Progress("evaluate", len(chosen) + 6, progress) as bar:
        try:
            codes = _encode(method, fit, held, factor, shown)
            fit, held = codes.fit, codes.held
        except UnsupportedError as error:
            skipped["codes"] = str(error)
        bar.update(1)
        for i, name in enumerate(chosen):
            if codes is None:
                break
            try:
                y = held.factors.get(name)
                note = strays.get(name, "")
                names, unseen = fit.names.get(name, ()), lacked if name in new else None
                task = probing.task(fit.factors[name], y, codes.train, codes.test, seed, unseen, note, names)
            except Skip as reason:
                skipped[f"factor {name}"] = str(reason)
            else:
                points = cluster_points if clustering else 0
                maps, part = name == factor, cuts.get(name)
                measured = probing.measure(task, probes, points, cluster_seeds, maps, seed, part)
                found[name] = replace(measured, unit=train.units.get(name, ""))
            bar.update(i + 2)
        judges, free, without = None, torch.arange(len(held)), {}
        if classifier and chosen:
            judges, free, without = judging.learn(fit, held, chosen, seed, classifier_steps, method.device, progress)
        skipped |= {name: why for name, why in without.items() if f"factor {name.split(' ')[-1]}" not in skipped}
        bar.update(len(chosen) + 2)

        rows = free[sample(len(free), images, seed + 1)]
        some = held[rows]
        if codes:
            code, x = take(codes.test, rows), _pixels(some)
            y = some.factors[str(factor)] if codes.given else None
            outputs = _decoded(method, code)
            constant = _pixels(fit[sample(len(fit), 2_000, seed)]).mean(0)
            reconstruction = {w: _error(out - x) for w, out in (outputs | {"mean": constant}).items()}
            if len(some) < 2:
                skipped["swap"] = "the test part holds one observation only"
            elif min(method.sizes) == 0:
                skipped["swap"] = f"{type(method).__name__} has no {'s' if method.sizes[0] == 0 else 'z'}"
            else:
                known = None
                if factor in found and not (codes.given or factor in new or fit.factors[factor].is_floating_point()):
                    known = (codes.train.s, fit.factors[factor], some.factors[factor])
                other = _cycle(len(some), seed)
                mixed = method.decode(Code(code.s, code.z[other]))
                swap = _swap(code, other, method.encode(mixed, y, **shown), known, codes.given, seed)
        bar.update(len(chosen) + 3)

        told: dict[str, Consistency] = {}
        made: dict[str, Generated] = {}
        if judges:
            told = judging.consistency(judges, held[free], some, outputs.get("both"), mixed, other)
            judge = judges.get(factor or "")
            if isinstance(judge, metrics.Classifier):
                known = fit.factors[str(factor)]
                examples = None
                if codes and not codes.given and min(method.sizes) > 0:
                    examples = (take(codes.test, rows), some.factors[str(factor)])
                real = held[free], held.factors[str(factor)][free]
                made, refused = judging.generation(
                    method, judge, known[known >= 0].unique(), real, examples, images, seed
                )
                skipped |= refused
        bar.update(len(chosen) + 4)

        if codes and backs is not None and codes.given:
            skipped["background"] = f"{type(method).__name__} encodes with labels, which the background may not have"
        elif codes and backs is not None:
            try:
                contrast = contrasting.compare(
                    method, fit, held, codes.train, codes.test, *backs, probes, train_points, test_points, seed
                )
            except Skip as reason:
                skipped["background"] = str(reason)
        elif codes and method.supervision is Reference:
            skipped["background"] = f"{train.name} has no background set; name one by background='FACTOR=VALUE'"
        bar.update(len(chosen) + 5)

        evidence, few_shot = {}, {}
        if codes and codes.posteriors and factor in chosen and classes is not None and not classes.is_floating_point():
            rule = None if hasattr(method, "infer") else getattr(method, "evidence", "product")
            seen = train.factors[factor].unique()
            halves = codes.posteriors
            if factor in cuts:  # the other parts of s accumulate over other groups
                halves = halves | {"s": halves["s"][:, cuts[factor]]}
            evidence, few_shot, refused = accumulation.accumulated(halves, classes, rule, seen, seed)
            skipped |= refused
        bar.update(len(chosen) + 6)
    return Evaluation(
        method=type(method).__name__,
        data=train.name,
        about=factor,
        n_train=len(fit),
        n_test=len(held),
        seed=seed,
        sizes=method.sizes if codes else _sizes(method),
        given=bool(codes and codes.given),
        factors=found,
        reconstruction=reconstruction,
        swap=swap,
        background=contrast,
        skipped=skipped,
        consistency=told,
        generation=made,
        evidence=evidence,
        few_shot=few_shot,
    )


class _Codes(NamedTuple):
    """The parts that could be encoded, and their codes."""

    fit: Dataset
    held: Dataset
    train: Code
    test: Code
    given: bool  # encoding takes the label
    posteriors: dict[str, Any] | None = None  # of the test part; where they may be put together


def _encode(method: Method, fit: Dataset, held: Dataset, factor: str | None, shown: dict[str, Any]) -> _Codes:
    try:
        if method.supervision in (Groups, Images):
            seen = method.encode(fit.x, **shown)
            q_s, q_z = method.posterior(held.x, **shown)
            return _Codes(fit, held, seen, Code(q_s.mean, q_z.mean), False, {"s": q_s, "z": q_z})
        return _Codes(fit, held, method.encode(fit.x), method.encode(held.x), given=False)
    except UnsupportedError:
        raise
    except InputError:
        if method.supervision is not Labels or factor is None:
            raise
    fit, held = (part[part.factors[factor] >= 0] for part in (fit, held))
    codes = (method.encode(part.x, part.factors[factor]) for part in (fit, held))
    return _Codes(fit, held, *codes, given=True)


def _sizes(method: Method) -> tuple[int, int]:
    """Of a method that can't encode, as far as it knows."""
    try:
        return method.sizes
    except UnsupportedError:
        return 0, 0


def _pixels(part: Dataset) -> Tensor:
    return unit(torch.as_tensor(np.asarray(part.x[:])))


def _decoded(method: Method, code: Code) -> dict[str, Tensor]:
    """As `operations.reconstruct`, from codes that are there already."""
    halves = {"both": code}
    if min(method.sizes) > 0:
        halves["s"] = Code(code.s, torch.zeros_like(code.z))
        halves["z"] = Code(method.reference_s(len(code.s)), code.z)
    return {which: method.decode(half) for which, half in halves.items()}


def _error(difference: Tensor) -> PixelError:
    values: list[float] = []
    for error in (difference.square(), difference.abs()):
        each = error.flatten(1).mean(1).double()
        half = 1.96 * float(each.std()) / math.sqrt(len(each)) if len(each) > 1 else 0.0
        values += [float(each.mean()), max(0.0, float(each.mean()) - half), float(each.mean()) + half]
    return PixelError(*values, n=len(difference))


def _cycle(n: int, seed: int) -> Tensor:
    """Whose z each gets: one cycle, so that none keeps its own."""
    order = generator(seed, 22).permutation(n)
    return torch.from_numpy(np.roll(order, 1)[np.argsort(order)])


def _swap(code: Code, other: Tensor, again: Code, known: tuple | None, given: bool, seed: int) -> Swap:
    """`again`: the codes of images of s and of `other`'s z. `known`: s and classes to find neighbours among, and the
    classes of what gave s."""
    label = None
    if known is not None:
        s, classes, wanted = known
        fit, held = classes >= 0, wanted >= 0
        label = metrics.probe(s[fit], classes[fit], again.s[held], wanted[held], "knn", seed)
    return Swap(None if given else _found(code.s, again.s), _found(code.z[other], again.z), label, len(again.z))


def _found(given: Tensor, again: Tensor) -> float | None:
    spread = float((given - given.mean(0)).double().square().sum())
    return 1 - float((again - given).double().square().sum()) / spread if spread > 0 else None
