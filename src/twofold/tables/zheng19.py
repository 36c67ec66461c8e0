"""Disentangling latent space for VAE by label relevant/irrelevant dimensions (2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
import torch
from scipy.stats import wasserstein_distance
from torch import Tensor

from twofold import generate, metrics
from twofold.arrays import mix
from twofold.data import Dataset
from twofold.method import Code, Method
from twofold.metrics.common import sample
from twofold.supervision import Labels
from twofold.tables import controls
from twofold.tables.cell import Cell
from twofold.tables.measures import KINDS, judge
from twofold.tables.table import Column, Row, Table

# -- class-conditional generation --------------------------------------------------------------------------------------


def quality(cell: Cell, *, per_class: int = 500, pairs: int = 1_000, judge_steps: int | None = None) -> dict[str, Any]:
    """`per_class` generated images of every class, judged by a classifier of the real training images."""
    classes = int(cell.train.factors[str(cell.factor)].max()) + 1
    y = torch.arange(classes).repeat_interleave(per_class)
    return _judged(cell, generate(cell.method, len(y), y=y, seed=mix(cell.seed, 51)), y, pairs, judge_steps)


def real(cell: Cell, *, per_class: int = 500, pairs: int = 1_000, judge_steps: int | None = None) -> dict[str, Any]:
    """The same of real test images: what a perfect generator would reach."""
    y = cell.test.factors[str(cell.factor)]
    rows = torch.cat([(y == c).nonzero()[:per_class, 0] for c in range(int(y.max()) + 1)])
    return _judged(cell, cell.test[rows].x, y[rows], pairs, judge_steps)


def each_class(cell: Cell, n: int) -> tuple[Tensor, Tensor]:
    """`n` observations of every class, and their classes, from a control that learns each class by itself: normal in
    its principal components, or its mean."""
    y, p = cell.train.factors[str(cell.factor)], cell.protocol
    made = []
    for c in range(int(y.max()) + 1):
        part = cell.train[y == c]
        pca = cell.row.control == "pca"
        alone = controls.pca(part, 0, p.s + p.z, cell.seed) if pca else controls.constant(part, 0, p.z)
        made.append(generate(alone, n, seed=mix(cell.seed, 55, c)))
    return torch.cat(made), torch.arange(len(made)).repeat_interleave(n)


def quality_of_each(
    cell: Cell, *, per_class: int = 500, pairs: int = 1_000, judge_steps: int | None = None
) -> dict[str, Any]:
    """`quality` of a control that learns each class by itself."""
    return _judged(cell, *each_class(cell, per_class), pairs, judge_steps)


def _judged(cell: Cell, x: Any, y: Tensor, pairs: int, steps: int | None) -> dict[str, Any]:
    name = str(cell.factor)
    classifier = judge(cell.train, name, steps)
    diversity = metrics.intra_class_diversity(x, y, pairs=pairs, seed=cell.seed)
    return {
        "Inception Score": metrics.inception_score(classifier.probabilities(x)),
        "diversity": diversity.score,
        "diversity, no self-pairs": diversity.without_self,
        "shows its class": classifier.accuracy(x, y),
        "classifier": classifier.accuracy(cell.test.x, cell.test.factors[name]),
        "extra": {"diversity of each class": diversity},
    }


# -- the toy -----------------------------------------------------------------------------------------------------------


def coverage(cell: Cell) -> dict[str, Any]:
    """1D Wasserstein distances of each class's generated points to its real test points, mean over the classes, and
    the same of a second real sample as large: the training points."""
    name = str(cell.factor)
    y = cell.train.factors[name]
    return _apart(
        cell,
        {c: generate(cell.method, int((y == c).sum()), y=c, seed=mix(cell.seed, 52)) for c in y.unique().tolist()},
    )


def coverage_of_each(cell: Cell) -> dict[str, Any]:
    """`coverage` by a control that learns each class by itself."""
    x, y = each_class(cell, len(cell.train) // len(cell.train.factors[str(cell.factor)].unique()))
    return _apart(cell, {c: x[y == c] for c in y.unique().tolist()})


def _apart(cell: Cell, of_class: Mapping[int, Tensor]) -> dict[str, Any]:
    found: dict[str, list[float]] = {}
    name = str(cell.factor)
    for c, made in of_class.items():
        truth, second = (part[part.factors[name] == c].x[:] for part in (cell.test, cell.train))
        for axis, column in enumerate(("along x", "along y")):
            for row, points in ((column, made), (f"{column}, real", second)):
                apart = wasserstein_distance(np.asarray(points)[:, axis], np.asarray(truth)[:, axis])
                found.setdefault(row, []).append(float(apart))
    return {column: fmean(each) for column, each in found.items()} | {"extra": {"classes": found}}


# -- missing labels ----------------------------------------------------------------------------------------------------


def partly(cell: Cell) -> tuple[Dataset, Tensor, int]:
    """The training part, its labels with -1 where they are kept back, and the number of classes that are left."""
    how, train = cell.protocol.measure, cell.train
    y = train.factors[str(cell.factor)]
    known = ~torch.isin(y, torch.tensor([int(c) for c in how.get("unseen", ())], dtype=y.dtype))
    if per_class := how.get("labels"):
        order = torch.from_numpy(cell.random(53).permutation(len(y)))
        keep = torch.zeros_like(known)
        for c in y[known].unique():
            keep[order[(y[order] == c) & known[order]][:per_class]] = True
        known = keep
    y = torch.where(known, y, -1)
    return train, y, int(y.max()) + 1


def labelled_part(cell: Cell) -> Method:
    """Trained on the labelled images alone."""
    train, y, _ = partly(cell)
    return cell.fit(cell.build(), Labels(train[y >= 0].x, y[y >= 0]))


def both_parts(cell: Cell) -> Method:
    """Trained on labelled and unlabelled images together."""
    train, y, _ = partly(cell)
    return cell.fit(cell.build(), Labels(train.x, y))


def in_stages(cell: Cell) -> Method:
    """As in the paper: trained on the labelled images, then on the others; half of the steps each."""
    train, y, classes = partly(cell)
    method, half = cell.build(), {"epochs": cell.protocol.epochs and cell.protocol.epochs / 2}
    if cell.protocol.steps:
        half = {"steps": max(1, cell.protocol.steps // 2)}
    cell.fit(method, Labels(train[y >= 0].x, y[y >= 0]), **half)
    return cell.fit(method, Labels(train[y < 0].x, y[y < 0], classes=classes), **half)


def unlabelled(
    cell: Cell,
    *,
    labels: int | None = None,
    unseen: Sequence[int] = (),
    points: int = 10_000,
    kinds: Sequence[str] = KINDS,
    judge_steps: int | None = None,
) -> dict[str, Any]:
    """The strongest probes on s and z, and whether a swap shows the class of s. `labels` a class and the `unseen`
    classes say what training was told; the probes are told all."""
    name, seed = str(cell.factor), cell.protocol.split_seed
    train, test = (part[sample(len(part), points, seed)] for part in (cell.train, cell.test))
    y = test.factors[name]
    code = cell.encode(test)
    told = metrics.leakage(cell.encode(train), train.factors[name], code, y, cell.seed, kinds)
    classifier = judge(cell.train, name, judge_steps)
    other = torch.from_numpy(cell.random(54).permutation(len(y)))
    swapped = cell.method.decode(Code(code.s, code.z[other]))
    found: dict[str, Any] = {"s": told["s"], "z": told["z"], "swap shows s": classifier.accuracy(swapped, y)}
    if unseen and cell.row.control != "constant":  # which is no chance level of some classes
        rows = torch.isin(y, torch.tensor([int(c) for c in unseen], dtype=y.dtype))
        per_class = told["s"].per_class
        found["s, unseen"] = fmean(per_class[c] for c in unseen if c in per_class) if per_class else None
        found["swap shows s, unseen"] = classifier.accuracy(swapped[rows], y[rows])
    return found | {"extra": {"classifier": classifier.accuracy(test.x, y)}}


# -- the tables --------------------------------------------------------------------------------------------------------

FACESCRUB = (
    "FaceScrub: a copy of one's own in the data folder's `facescrub/`, one sub-folder a person (530), faces cut out, "
    "aligned and resized to 64 x 64 pixels. The paper has 92,000 images."
)
CIFAR = (
    "CIFAR-10: a copy of one's own in the data folder's `cifar10/`, one sub-folder a class, images of 32 x 32 pixels."
)
FEATURES = {"mean_d": 0.001, "mean_c": 0.001}  # CVAE-GAN's own; ours are a hundred times that
LEFT_OUT = ("cGAN", "label relevant VAE without its discriminator")  # of Sprites, for their time
SEMI = {"unlabelled": "known"}, {"unlabelled": "unseen"}


def algorithm_1(pixels: int, channels: int = 1, z: int = 10, swapped: bool = False) -> dict[str, Any]:
    """The paper's weights and losses for images of so many `pixels`; what is ours is off. lambda_kl and lambda_rec as
    printed, or `swapped`: a mean over pixels would go with the reconstruction."""
    kl, rec = (1 / z, 10 / pixels) if swapped else (10 / pixels, 1 / z)
    return dict(
        scale=1.0,
        lambda_lkd=0.1,
        lambda_kl=kl,
        lambda_rec=rec,
        lambda_rec_s=1.0,
        sigma_s=0.0,
        leakage=0.0,
        lambda_gan=1 / (pixels * channels),  # ours is times the number of values
        gan="log",
        spectral=False,
    )


def generators(block: str, printed: dict[str, tuple[float, ...]], size: tuple[int, int], **more: Any) -> list[Row]:
    """The paper's four methods, ours without its pixel discriminator, and real images. size: pixels, channels."""
    kinds: dict[str, dict[str, Any]] = {
        "conditional VAE": dict(method="conditional-vae"),
        "cGAN": dict(method="cgan", note="our weights"),
        "CVAE-GAN": dict(method="cvae-gan", note="our weights"),
        "CVAE-GAN, the paper's weights": dict(method="cvae-gan", options=FEATURES),
        "label relevant VAE": dict(
            method="label-relevant-vae", options=algorithm_1(*size), note="the paper's weights, as printed"
        ),
        "label relevant VAE, λ_kl and λ_rec swapped": dict(
            method="label-relevant-vae", options=algorithm_1(*size, swapped=True), note="else the paper's weights"
        ),
        "label relevant VAE, our weights": dict(method="label-relevant-vae", note="leakage 10"),
        "label relevant VAE without its discriminator": dict(
            method="label-relevant-vae", options={"lambda_gan": 0.0}, note="our weights, leakage 10"
        ),
        "untrained": dict(method="label-relevant-vae", control="untrained"),
        "shuffled labels": dict(method="label-relevant-vae", control="shuffled", note="our weights, leakage 10"),
        "PCA": dict(control="pca", measure=quality_of_each, note="of each class: normal in 20 components"),
        "constant": dict(control="constant", measure=quality_of_each, note="each class's mean image"),
        "real test images": dict(control="constant", measure=real, note="no model; what a generator can reach"),
    }
    columns = ("Inception Score", "diversity")
    return [
        Row(name=name, block=block, printed=dict(zip(columns, printed.get(name, ()))), **what, **more)
        for name, what in kinds.items()
    ]


def stages(block: str, options: dict[str, Any], **more: Any) -> list[Row]:
    """With and without the unlabelled images, and with all labels."""
    ours: dict[str, Any] = {"method": "label-relevant-vae", "options": options, "block": block, **more}
    return [
        Row(name="labelled images alone", train=labelled_part, **ours),
        Row(name="and unlabelled ones", train=both_parts, **ours),
        Row(name="unlabelled ones afterwards", train=in_stages, note="as in the paper", **ours),
        Row(name="all labels", method="label-relevant-vae", block=block, competes=False, **more),
        Row(name="untrained", method="label-relevant-vae", control="untrained", block=block, **more),
        Row(name="shuffled labels", method="label-relevant-vae", control="shuffled", block=block, **more),
        Row(name="PCA", control="pca", block=block, **more),
        Row(name="constant", control="constant", note="chance", block=block, **more),
    ]


SMOKE = dict(data="digits", split=(0.8, 0.2), data_options={}, steps=2, n_train=200, n_test=100, batch_size=32)

TABLES = [
    Table(
        name="generation",
        title="Images of a class: Inception Score and intra-class diversity",
        source="Zheng19, Tables 1 and 2",
        columns=[
            Column(name="Inception Score", better="high", format=".2f", comparable=False),
            Column(
                name="diversity", better="high", format=".4f", about="Eq. 12, self-pairs included", comparable=False
            ),
            Column(name="diversity, no self-pairs", better="high", format=".4f"),
            Column(name="shows its class", better="high", about="accuracy of the classifier on generated images"),
            Column(name="classifier", about="its accuracy on real test images"),
            Column(name="seconds", format=".0f"),
        ],
        rows=[
            *generators("MNIST", {}, (784, 1), protocol={"data": "mnist"}),
            *[
                row
                for row in generators(
                    "Sprites, hair",
                    {},
                    (576, 3),
                    protocol={"data": "sprites"},
                    at={
                        "cpu": {"data_options": {"size": 24}, "factor": "hair", "steps": 2000, "arch": "mlp"},
                        "paper": {"data_options": {"size": 24}, "factor": "hair", "arch": "conv"},
                    },
                )
                if row.name not in LEFT_OUT
            ],
            *generators(
                "FaceScrub",
                {
                    "conditional VAE": (9.55,),
                    "cGAN": (10.02,),
                    "CVAE-GAN, the paper's weights": (16.75, 0.0141),
                    "label relevant VAE": (17.91, 0.0157),
                },
                (4096, 3),
                protocol={"data": "facescrub", "split": (0.9, 0.1), "arch": "conv", "measure": {"per_class": 100}},
                at={"smoke": {"arch": "auto"}},
                recipe=FACESCRUB,
            ),
            *generators(
                "CIFAR-10",
                {
                    "conditional VAE": (3.01,),
                    "cGAN": (6.27,),
                    "CVAE-GAN, the paper's weights": (6.99, 0.0136),
                    "label relevant VAE": (7.04, 0.0149),
                },
                (1024, 3),
                protocol={"data": "cifar10", "split": (5 / 6, 1 / 6), "arch": "conv"},
                at={"smoke": {"arch": "auto"}},
                recipe=CIFAR,
            ),
        ],
        measure=quality,
        protocol=dict(batch_size=64),
        scales={
            "smoke": SMOKE | {"measure": {"per_class": 4, "pairs": 4, "judge_steps": 5}},
            "cpu": dict(steps=3000),
            "paper": dict(epochs=100),
        },
        about="""500 generated images a class (FaceScrub: 100), as many for every method. p(y|x) is a classifier's
            that was trained here on the real training images; the paper's was an Inception-ResNet-v1, and its
            scores don't compare with ours. Diversity is one minus the mean MS-SSIM within a class, at most
            1,000 pairs of each, as many scales as the images' size allows; values compare only at one size. A
            generator of noise is diverse, too: read it beside the score. The paper doesn't give its networks.
            Where epochs are counted, all draws of a step count, and the label relevant VAE draws twice: it
            takes half the steps of the others. At CPU scale all networks are fully connected. Sprites stand in
            for faces: the class is the hair, of six; animation, direction and clothes are label irrelevant. Rates of
            Adam are the methods' own: the paper's 5e-4 for its method and CVAE-GAN, 1e-3 for the two others.""",
    ),
    Table(
        name="toy",
        title="Points in the plane: is the label irrelevant axis covered?",
        source="Zheng19, Sec. 4.1 and Fig. 2",
        columns=[
            Column(name="along y", better="low", about="1D Wasserstein distance to the real points, label irrelevant"),
            Column(name="along y, real", about="of a second real sample"),
            Column(name="along x", better="low", about="the same along the label relevant axis"),
            Column(name="along x, real"),
            Column(name="seconds", format=".0f"),
        ],
        rows=[
            Row(
                name="label relevant VAE",
                method="label-relevant-vae",
                options=algorithm_1(2, z=2),
                note="the paper's weights, as printed",
            ),
            Row(
                name="label relevant VAE, λ_kl and λ_rec swapped",
                method="label-relevant-vae",
                options=algorithm_1(2, z=2, swapped=True),
                note="else the paper's weights",
            ),
            Row(name="label relevant VAE, our weights", method="label-relevant-vae", note="leakage 10"),
            Row(
                name="label relevant VAE without its discriminator",
                method="label-relevant-vae",
                options={"lambda_gan": 0.0},
                note="our weights, leakage 10",
            ),
            Row(name="CVAE-GAN", method="cvae-gan", note="our weights"),
            Row(name="CVAE-GAN, the paper's weights", method="cvae-gan", options=FEATURES),
            Row(name="conditional VAE", method="conditional-vae"),
            Row(name="cGAN", method="cgan", note="our weights"),
            Row(name="untrained", method="label-relevant-vae", control="untrained"),
            Row(
                name="shuffled labels", method="label-relevant-vae", control="shuffled", note="our weights, leakage 10"
            ),
            Row(name="PCA", control="pca", measure=coverage_of_each, note="of each class: normal in both components"),
            Row(name="constant", control="constant", measure=coverage_of_each, note="each class's mean point"),
        ],
        measure=coverage,
        protocol=dict(
            data="toy", data_options={"n": 6000}, split=(0.5, 0.5), s=2, z=2, arch="zheng19-toy", batch_size=64
        ),
        scales={
            "smoke": dict(steps=2, data_options={"n": 120}),
            "cpu": dict(steps=3000),
            "paper": dict(epochs=50),
        },
        about="""x is normal about its class, y uniform on [-2, 2] whatever the class. 1,000 points of each class are
            generated and compared with 1,000 real ones, axis by axis; distances are means over the classes, in the
            units of the axes (a single point in the middle would be 1.0 away along y). The paper shows pictures.
            All have 3,000 steps at CPU scale; the label relevant VAE draws two batches for each. Rates of Adam are
            the methods' own: the paper's 5e-4 for its method and CVAE-GAN, 1e-3 for the two others. The bound is
            "along y, real" and "along x, real": a second sample of the data.""",
    ),
    Table(
        name="missing-labels",
        title="Labels missing: accuracy of the strongest probe, and what a swap shows",
        source="Zheng19, Secs. 3.6 and 4.4; no numbers there",
        columns=[
            Column(name="s", better="high"),
            Column(name="z", better="low"),
            Column(name="swap shows s", better="high", about="a classifier's accuracy for the class that s came from"),
            Column(name="s, unseen", better="high", about="among images of 8 and 9"),
            Column(name="swap shows s, unseen", better="high"),
            Column(name="seconds", format=".0f"),
        ],
        rows=[
            *stages("100 labels a class", SEMI[0], protocol={"measure": {"labels": 100}}),
            *stages(
                "8 and 9 never labelled",
                SEMI[1],
                protocol={"measure": {"unseen": (8, 9)}},
                at={"smoke": {"measure": {"labels": None}}},
            ),
        ],
        measure=unlabelled,
        protocol=dict(data="mnist", batch_size=64),
        scales={
            "smoke": SMOKE | {"measure": {"labels": 10, "points": 100, "kinds": ("linear",), "judge_steps": 5}},
            "cpu": dict(steps=3000),
            "paper": dict(epochs=100),
        },
        about="""MNIST's official split. Probes are fitted on codes of 10,000 training images with all their labels,
            whatever training was told, and tested on 10,000 test images. Swaps take s of one test image and z of
            another. At CPU scale all rows of a block have the same number of steps; where labels are missing, half
            of each batch is labelled. Every label is drawn anew for each seed. The bound is "all labels".""",
    ),
]
