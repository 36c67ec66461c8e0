"""The pictures of a report: what each shows, how to read it, and how it is drawn."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from twofold import curves, figures, judging, operations
from twofold.arrays import unit
from twofold.data import Dataset
from twofold.errors import UnsupportedError
from twofold.method import Code, Method
from twofold.metrics.common import sample
from twofold.subject import Subject
from twofold.supervision import Groups, Labels

ACROSS, DOWN, STEPS, CLASSES = 9, 6, 8, 10  # tiles
TOGETHER = 20  # observations of a class


def _pixels(part: Dataset) -> Tensor:
    return unit(torch.as_tensor(np.asarray(part.x[:])))


def _leakage(on: Subject) -> Figure:
    if not on.evaluation.factors:
        why = on.evaluation.skipped.get("codes", f"{on.test.name} has no factor that could be probed")
        raise UnsupportedError(why)
    return figures.leakage_chart({name: found.leakage for name, found in on.evaluation.factors.items()})


def _map(on: Subject) -> Figure:
    part, code = on.mapped
    values = None if on.factor is None else part.factors[on.factor]
    names = on.test.names.get(on.factor or "")
    back = None
    if on.background is not None and not on.evaluation.given:
        back = on.method.encode(on.background[sample(len(on.background), len(part) // 2 or 1, on.seed)].x)._asdict()
    return figures.code_map(code._asdict(), values, factor=on.factor or "", names=names, background=back, seed=on.seed)


def _reconstruction(on: Subject) -> Figure:
    part = on.some(ACROSS)
    s, z = on.encode(part)
    halves = {}
    if min(on.method.sizes) > 0:
        halves = {"s": Code(s, torch.zeros_like(z)), "z": Code(on.method.reference_s(len(s)), z)}
    made = {half: on.method.decode(code) for half, code in ({"both": Code(s, z)} | halves).items()}
    return figures.reconstruction_rows(_pixels(part), **made)


def _swap(on: Subject) -> Figure:
    on.two_halves()
    give_s, give_z = on.some(ACROSS), on.some(DOWN, ACROSS)
    return figures.swap_grid(_pixels(give_s), _pixels(give_z), on.decode(on.encode(give_s).s, on.encode(give_z).z))


def _interpolation(on: Subject) -> Figure:
    on.two_halves()
    part = on.test[on.order[:2]]
    if len(part) < 2:
        raise UnsupportedError(f"{on.test.name}: the test part holds one observation; a line needs two")
    (s, z), t = on.encode(part), torch.linspace(0, 1, STEPS)[:, None]
    return figures.interpolation_grid(on.decode(torch.lerp(s[:1], s[1:], t), torch.lerp(z[:1], z[1:], t)))


def _generation(on: Subject) -> Figure:
    if on.method.supervision is Labels and on.factor is not None:
        classes = judging.knows(on.method, torch.tensor(on.classes(CLASSES)))[0].tolist()
        if not classes:
            raise UnsupportedError(f"{type(on.method).__name__} knows none of the held-out classes")
        made = [operations.generate(on.method, STEPS, y=k, seed=on.seed) for k in classes]
        drawn = [figures.Span(0, STEPS - 1, "z from the prior", figures.Z)]
        return figures.image_grid(torch.stack(made), rows=[on.name(k) for k in classes], column_spans=drawn)
    on.two_halves()
    part = on.some(DOWN)
    s = on.encode(part).s
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(on.seed)
        z = torch.randn(len(s), STEPS, on.method.sizes[1])
    made = on.method.decode(Code(s.repeat_interleave(STEPS, 0), z.flatten(0, 1))).unflatten(0, z.shape[:2])
    return figures.generation_rows(_pixels(part), made, on.named(part))


def _synthesis(on: Subject) -> Figure:
    on.two_halves()
    on.has_prior()
    part = on.some(DOWN)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(on.seed)
        s = on.method.prior(STEPS).s
    return figures.generation_rows(_pixels(part), on.decode(s, on.encode(part).z), on.named(part), "z")


def _class_walk(on: Subject, half: str) -> Figure:
    """Within each class: between two draws from its prior; where classes have none, two held-out observations of it
    give s, and two draws z."""
    on.two_halves()
    classes = on.classes(DOWN)
    try:
        classes = judging.knows(on.method, torch.tensor(classes))[0].tolist() or classes
        ends = [on.by_class(k) for k in classes]
    except UnsupportedError:
        y, ends = on.test.factors[str(on.factor)].numpy()[on.order], []
        for k in classes:
            s, z = on.encode(on.test[on.order[y == k][:2]])
            if half == "z":
                with torch.random.fork_rng(devices=[]):
                    torch.default_generator.manual_seed(on.seed)
                    z = torch.randn(2, z.shape[1])
            ends.append(Code(s[[0, -1]], z))
    if half == "s" and all(torch.equal(*end.s) for end in ends):
        raise UnsupportedError("s has one value for each class: nothing to walk along")
    t = torch.linspace(0, 1, STEPS)[:, None]
    lines = {h: [torch.lerp(getattr(end, h)[0], getattr(end, h)[-1], t * (h == half)) for end in ends] for h in "sz"}
    made = on.method.decode(Code(torch.cat(lines["s"]), torch.cat(lines["z"]))).unflatten(0, (len(classes), STEPS))
    return figures.class_walks(made, [on.name(k) for k in classes], half)


def _prior(on: Subject) -> Figure:
    on.has_prior()
    if min(on.method.sizes) == 0:
        made = operations.generate(on.method, ACROSS * (DOWN - 2), seed=on.seed)
        return figures.image_grid(made.unflatten(0, (DOWN - 2, ACROSS)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(on.seed)
        code = on.method.prior(ACROSS)
    return figures.image_grid(
        on.decode(code.s, code.z[:DOWN]),
        column_spans=[figures.Span(0, ACROSS - 1, "s from the prior, one a column", figures.S)],
        row_spans=[figures.Span(0, DOWN - 1, "z from the prior, one a row", figures.Z)],
    )


def _retrieval(on: Subject) -> Figure:
    part, codes = on.mapped
    count = min(DOWN, len(on.order) // 2)
    queries, rest = on.order[:count], torch.from_numpy(np.flatnonzero(~np.isin(on.rows, on.order[:count])))
    if not count or not len(rest):
        raise UnsupportedError(f"{on.test.name}: the test part holds one observation; nothing to search")
    asked, gallery = on.encode(on.test[queries]), part[rest]
    y = None if on.named(gallery) is None else [p.factors[str(on.factor)] for p in (on.test[queries], gallery)]
    found: dict[str, Any] = {}
    for half, size in zip("sz", on.method.sizes):
        if size == 0 or (half == "s" and on.evaluation.given):
            continue
        distance = torch.cdist(getattr(asked, half), getattr(codes, half)[rest])
        near = distance.topk(min(5, len(rest)), largest=False)[1]
        found[f"by_{half}"] = _pixels(gallery)[near]
        found[f"same_{half}"] = None if y is None else y[1][near] == y[0][:, None]
    return figures.retrieval_rows(_pixels(on.test[queries]), **found)


def _walk(on: Subject, half: str) -> Figure:
    """From one observation's code, dimension by dimension, through two standard deviations of the codes either way."""
    at = "sz".index(half)
    if on.method.sizes[at] == 0:
        raise UnsupportedError(f"{type(on.method).__name__} has no {half}")
    if half == "s" and on.evaluation.given:
        raise UnsupportedError("s is the label; it has no directions to walk in")
    codes = on.mapped[1][at]
    spread, values = codes.std(0, correction=0), torch.linspace(-2, 2, ACROSS)
    widest = spread.argsort(descending=True)[:DOWN].sort()[0]
    start = on.encode(on.test[on.order[:1]])
    moved = start[at].repeat(len(widest), len(values), 1)
    for row, d in enumerate(widest):
        moved[row, :, d] = codes[:, d].mean() + values * spread[d]
    still = start[1 - at].expand(len(widest) * len(values), -1)
    halves = (moved.flatten(0, 1), still) if half == "s" else (still, moved.flatten(0, 1))
    made = on.method.decode(Code(*halves)).unflatten(0, moved.shape[:2])
    return figures.walks(made, widest.tolist(), values.tolist(), half)


def _inpainting(on: Subject) -> Figure:
    if len(on.method.shape) != 3:
        raise UnsupportedError("vectors have no halves or squares to cover")
    part = on.some(ACROSS)
    height, width = on.method.shape[1:]
    masks = torch.zeros(3, height, width)
    masks[0, :, width // 2 :] = 1
    masks[1, height // 2 :] = 1
    masks[2, height // 4 : -(height // 4), width // 4 : -(width // 4)] = 1
    x = _pixels(part)
    filled = [operations.inpaint(on.method, part.x, mask, on.labels(part)) for mask in masks]
    corrupted = [x * (1 - mask) for mask in masks]
    return figures.inpainting_rows(
        x, torch.stack(corrupted), torch.stack(filled), ["right half", "bottom half", "centre"]
    )


def _points(on: Subject) -> Figure:
    """What there is, what comes back, what is generated, at earlier steps too where they were kept."""
    if on.method.shape != (2,):
        raise UnsupportedError("for observations of two numbers only")
    part = on.test[on.rows]
    real = _pixels(part)
    y = None if on.factor is None or on.named(part) is None else part.factors[on.factor]
    panels: list[tuple[str, Tensor, Tensor | None]] = [("held-out", real, y)]
    with suppress(UnsupportedError):
        panels.append(("reconstructed", on.method.decode(on.mapped[1]), y))
    for when, method in {**{f", step {step:,}": kept for step, kept in on.snapshots.items()}, "": on.method}.items():
        if (made := _generated(on, method, part, y)) is not None:
            panels.append((f"generated{when}", *made))
    return figures.point_panels(panels, names=on.test.names.get(on.factor or ""), behind=real)


def _generated(on: Subject, method: Method, part: Dataset, y: Tensor | None) -> tuple[Tensor, Tensor | None] | None:
    """As many points as there are, of each class; where classes have none, from the prior; else with the s of each."""
    if y is not None and (y >= 0).any():
        with suppress(UnsupportedError):
            known = y[torch.isin(y, judging.knows(method, torch.tensor(on.classes(len(y))))[0])]
            return operations.generate(method, len(known), y=known, seed=on.seed), known
    with suppress(UnsupportedError):
        if method.needs is None:
            return operations.generate(method, len(part), seed=on.seed), None
        return operations.generate(method, len(part), examples=part.x, seed=on.seed), y
    return None


def _evidence(on: Subject) -> Figure:
    if not on.evaluation.evidence:
        raise UnsupportedError(f"no evidence of {type(on.method).__name__} was put together")
    return curves.evidence_curves(on.evaluation.evidence)


def _together(on: Subject) -> Figure:
    """s of one observation, and s of its class's held-out observations put together, each with its own z."""
    name = type(on.method).__name__
    if on.method.supervision is not Groups or hasattr(on.method, "infer") or getattr(on.method, "parts_of_s", {}):
        why = "s has parts for several groupings" if on.method.supervision is Groups else "it learns from no groups"
        raise UnsupportedError(f"{name}: {'a descent for each group' if hasattr(on.method, 'infer') else why}")
    on.two_halves()
    part = on.some(ACROSS)
    if on.named(part) is None:
        raise UnsupportedError(f"{on.test.name} has no classes to put together")
    y, classes = on.test.factors[str(on.factor)], part.factors[str(on.factor)]
    alike = {k: (y == k).nonzero()[:TOGETHER, 0] for k in classes.unique().tolist()}
    s = {
        k: operations.accumulate(on.method, on.test[rows].x, torch.zeros(len(rows), dtype=torch.long)).s
        for k, rows in alike.items()
    }
    code = on.encode(part)
    put = on.method.decode(Code(torch.cat([s[k] for k in classes.tolist()]), code.z))
    rows = {"original": _pixels(part), "by itself": on.method.decode(code), "with its group": put}
    return figures.image_grid(torch.stack([*rows.values()]), rows=[*rows], row_breaks=(1,))


def _few_shot(on: Subject) -> Figure:
    if not on.evaluation.few_shot:
        raise UnsupportedError("no groups that training never saw were identified")
    return curves.few_shot_curves(on.evaluation.few_shot)


def _losses(on: Subject) -> Figure:
    if not on.metrics:
        raise UnsupportedError("no losses were handed over (Run.metrics, or the metrics.csv of a run)")
    return figures.loss_curves(on.metrics)


class Picture(NamedTuple):
    title: str
    how: str
    draw: Callable[[Subject], Figure]


PICTURES = {
    "leakage": Picture(
        "What each half tells",
        "A bar is the strongest probe of that half on held-out observations, the line across its end the 95 % "
        "interval, the dashed line the best constant guess. Where s should hold a factor, look for blue far from the "
        "dashed line and orange at it.",
        _leakage,
    ),
    "map": Picture(
        "s and z in two dimensions",
        "Each point is a held-out observation. Neighbours in the map are neighbours in the code; distances between "
        "clusters mean nothing. A good split keeps the classes apart in s and mixes them in z.",
        _map,
    ),
    "reconstruction": Picture(
        "Reconstruction",
        "Top row: held-out originals. Below: through the whole code, through s alone (z at 0) and z alone (s at "
        "its reference value).",
        _reconstruction,
    ),
    "swap": Picture(
        "Swap",
        "Each tile has the s of the blue original above it and the z of the orange original to its left. In a good "
        "split, columns keep what s is about and rows keep everything else.",
        _swap,
    ),
    "interpolation": Picture(
        "Interpolation",
        "From one reconstruction (framed, top left) to another (bottom right): only s changes along a row, only z "
        "down a column.",
        _interpolation,
    ),
    "generation": Picture(
        "Conditional generation",
        "New observations: a row shares its s (of the framed original, or of the class), z is drawn from the prior. "
        "Rows should keep what s is about and vary in the rest.",
        _generation,
    ),
    "synthesis": Picture(
        "Conditional synthesis",
        "The framed originals with another s: z is the original's all along a row, s is drawn from the prior, the same "
        "one all down a column. Rows should keep what s is not about.",
        _synthesis,
    ),
    "class-walk-s": Picture(
        "s within a class",
        "Rows are classes, and z is the same all along a row. s moves on a straight line within the class: between two "
        "draws from its prior (the same noise in every row), or, where classes have none, between two held-out "
        "observations of it. The class should stay; what changes is what s holds beyond it.",
        partial(_class_walk, half="s"),
    ),
    "class-walk-z": Picture(
        "z across classes",
        "Rows are classes, and s is the same all along a row. z moves on a straight line between two draws from its "
        "prior, the same in every row. The class should stay, and columns should have the rest in common.",
        partial(_class_walk, half="z"),
    ),
    "prior": Picture(
        "Generation from the prior",
        "New observations without any example: both halves are drawn from the prior. Where there are two, a column "
        "shares its s and a row its z.",
        _prior,
    ),
    "points": Picture(
        "In the plane",
        "Observations of two numbers as points, coloured by class; grey: held-out ones. What is generated should cover "
        "the grey points of its class, no more and no less.",
        _points,
    ),
    "retrieval": Picture(
        "Retrieval",
        "The held-out observations nearest to each query, by s and by z; green frames are of the query's class. A "
        "good split has many frames under s and few under z.",
        _retrieval,
    ),
    "walk-s": Picture(
        "Single dimensions of s",
        "One original's code; a row moves one dimension of s through two standard deviations either way (of the codes "
        "of held-out observations) and keeps all else.",
        partial(_walk, half="s"),
    ),
    "walk-z": Picture(
        "Single dimensions of z",
        "The same for z: what s is about should not change anywhere.",
        partial(_walk, half="z"),
    ),
    "inpainting": Picture(
        "Inpainting",
        "The part that is covered is encoded as 0 and filled in from the reconstruction; what is not covered stays.",
        _inpainting,
    ),
    "evidence": Picture(
        "Evidence that accumulates",
        "What a classifier finds in the codes of k held-out observations of one class put together (samples, of at "
        "most 20 classes): s as the method does it, z multiplied; single z: each observation keeps its own. Bands are "
        "one standard deviation over trials, dotted lines chance. s should rise with k (a sample of a mixture stays "
        "where one observation is); z should stay at chance.",
        _evidence,
    ),
    "together": Picture(
        "With the evidence of its group",
        f"Held-out originals, what comes back through their own code, and through the s of up to {TOGETHER} held-out "
        "observations of their class put together, with their own z. The last row should show what the group has in "
        "common, and each observation's rest.",
        _together,
    ),
    "few-shot": Picture(
        "Who is it?",
        "Groups that training never saw, told apart by k examples of each: by the nearest centroid and by a logistic "
        "regression on the code. s should be far above the dotted line, z near it.",
        _few_shot,
    ),
    "losses": Picture(
        "Training",
        "What each player descends, term by term, averaged over the steps between two points; its sum; the norm of "
        "its gradient. A curve that still falls asks for more steps.",
        _losses,
    ),
}
