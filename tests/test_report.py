"""Evaluation, figures and report: what they say, what they show, and what they refuse."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from torch import nn

from twofold import accumulation, figures, methods, metrics, operations, pictures, report, summary
from twofold.data import Dataset
from twofold.distributions import Gaussian, Point
from twofold.errors import InputError, MissingFileError, UnsupportedError
from twofold.evaluation import evaluate
from twofold.findings import Background, Factor, PixelError, Swap, interval
from twofold.method import Code, Method
from twofold.metrics import Probe
from twofold.subject import Subject
from twofold.supervision import Groups, Labels, Triplets
from twofold.training import fit
from twofold.verdict import Evaluation

WALKS = {"class-walk-s", "class-walk-z"}
QUICK = {"clustering": False, "probes": ("knn",), "classifier_steps": 3}


def blobs(shape=(1, 8, 8), n=120, classes=4, seed=0, **options) -> Dataset:
    """Images or vectors of a level for each class, and noise; a second factor, `shade`, of real numbers."""
    random = np.random.default_rng(seed)
    y = random.permutation(np.arange(n) % classes)
    x = np.clip(0.2 + 0.6 * y.reshape(-1, *[1] * len(shape)) / classes + 0.1 * random.random((n, *shape)), 0, 1)
    factors = {"kind": y, "shade": x.reshape(n, -1).mean(1)}
    return Dataset(x.astype(np.float32), factors, name="blobs", default="kind", **options)


def halves(data: Dataset) -> tuple[Dataset, Dataset]:
    return data.split((0.6, 0.4))


def trained(kind, data: Dataset, steps=4, **options):
    method = kind.build(data.shape, s=3, z=4, **options)
    supervision = getattr(data, kind.supervision.__name__.lower())()
    return fit(method, supervision, steps=steps, batch_size=32, progress=False)


@pytest.fixture(scope="module")
def parts():
    return halves(blobs(names={"kind": ["red <b>", "a & b", "$x$", '"q"']}))


@pytest.fixture(scope="module")
def run(parts):
    return trained(methods.MLVAE, parts[0], 30)


@pytest.fixture(scope="module")
def found(run, parts):
    return evaluate(run.method, *parts, cluster_points=40, cluster_seeds=1)


class Linear(Method):
    """A linear split of vectors: s the first two columns, z the others; the decoder puts them back."""

    name, supervision = "linear", Triplets

    def __init__(self):
        nn.Module.__init__(self)
        self.dummy = nn.Parameter(torch.zeros(()))
        self.config = {"shape": [6]}

    def losses(self, *draws):
        raise NotImplementedError

    def _posterior(self, x, y=None):
        return Point(x[:, :2]), Gaussian(x[:, 2:], torch.zeros_like(x[:, 2:]))

    def _decode(self, s, z):
        return torch.cat([s, z], 1)


class Given(Linear):
    """s is the one-hot label."""

    supervision, needs = Labels, "y"

    @property
    def sizes(self):
        return 3, 4

    def _posterior(self, x, y=None):
        if y is None:
            raise InputError("y: None; s is the label")
        return Point(torch.eye(3)[y]), Point(x[:, 2:])

    def _decode(self, s, z):
        return torch.cat([s[:, :2], z], 1)

    def prior(self, n, y=None):
        return Code(torch.eye(3)[torch.as_tensor(y)], torch.randn(n, 4))


class Parted(Linear):
    """s in two parts, a column each; the second is about the wrong thing."""

    supervision, evidence = Groups, "product"
    parts_of_s = {"kind": slice(0, 1), "other": slice(1, 2)}

    def _posterior(self, x, y=None):
        return Gaussian(x[:, :2], torch.zeros_like(x[:, :2])), Gaussian(x[:, 2:], torch.zeros_like(x[:, 2:]))


class Blind(Given):
    """Can't encode."""

    def _posterior(self, x, y=None):
        raise self._lacks("encoder")


def vectors(n=90, seed=0) -> Dataset:
    random = np.random.default_rng(seed)
    y = np.arange(n) % 3
    x = random.standard_normal((n, 6)).astype(np.float32)
    x[:, :2] += 5 * np.stack([y == 1, y == 2], 1)
    return Dataset(x, {"kind": y}, name="vectors")


# -- evaluation --------------------------------------------------------------------------------------------------------


def test_parts_of_s_are_told_apart(monkeypatch):
    """The first column is of the kind, the second too, and of the other factor z alone."""
    random = np.random.default_rng(2)
    kind, other = np.arange(400) % 2, np.arange(400) // 2 % 2
    x = random.standard_normal((400, 6)).astype(np.float32)
    x[:, 0] += 8 * kind
    x[:, 1] += 8 * kind
    x[:, 3] += 8 * other
    whole = Dataset(x, {"kind": kind, "other": other, "shade": x[:, 5]}, default="kind")
    data = whole[slice(0, 200)], whole[slice(200, 400)]  # both factors balanced in each
    found = evaluate(Parted(), *data, **QUICK)
    for name, own, others, z in (("kind", True, True, False), ("other", False, False, True)):
        factor = found.factors[name]
        assert [factor.parts[which].beats_chance for which in ("own", "others")] == [own, others]
        assert factor.leakage["z"].beats_chance == z
    assert found.factors["shade"].parts == {}
    assert [c.partition(":")[0] for c in found.caveats if "part" in c or "z tells" in c] == [
        "Other parts of s tell the kind",
        "The part of s for the other does not tell it",
        "z tells the other",
    ]
    again = Evaluation.from_dict(json.loads(json.dumps(found.as_dict())))
    assert again == found
    assert [row.half for row in summary.probes(found)][:4] == ["s", "z", "s, its part", "s, other parts"]
    console = Console(width=80, file=io.StringIO())
    console.print(found.table())
    assert console.file.getvalue().count("s, other") == 2
    part = found.evidence["s"]
    monkeypatch.setattr(Parted, "parts_of_s", {})
    assert evaluate(Parted(), *data, **QUICK).evidence["s"] != part


def test_evaluation_measures_what_it_says(run, parts, found):
    method, (train, test) = run.method, parts
    codes = method.encode(train.x), method.encode(test.x)
    told = metrics.leakage(codes[0], train.factors["kind"], codes[1], test.factors["kind"])
    assert found.factors["kind"].leakage == told
    assert list(found.factors) == ["kind", "shade"]
    assert found.factors["shade"].leakage["s"].metric == "mae"
    assert found.factors["kind"].clustering["s"].space == "t-SNE"
    assert found.factors["kind"].clustering["s"].direct is not None
    assert not found.factors["shade"].retrieval
    assert (found.n_train, found.n_test, found.sizes, found.about) == (72, 48, (3, 4), "kind")
    for which in ("both", "s", "z"):
        difference = operations.reconstruct(method, test.x, which) - test.x
        assert found.reconstruction[which].mse == pytest.approx(float(difference.square().mean()), rel=1e-5)
        assert found.reconstruction[which].mae == pytest.approx(float(difference.abs().mean()), rel=1e-5)
    constant = torch.as_tensor(train.x).mean(0)
    assert found.reconstruction["mean"].mse == pytest.approx(float((test.x - constant).square().mean()), rel=1e-5)


def test_evaluation_goes_through_json(found):
    again = Evaluation.from_dict(json.loads(json.dumps(found.as_dict())))
    assert again == found
    assert again.headline == found.headline
    with pytest.raises(InputError, match="evaluation: not one"):
        Evaluation.from_dict({"method": "x"})


def test_evaluation_prints_a_table(found):
    console = Console(width=80, file=io.StringIO())
    console.print(found.table())
    text = console.file.getvalue()
    assert "kind *" in text
    assert "(mean error)" in text
    assert interval(found.factors["kind"].leakage["z"]) in text
    assert found.headline[:40] in text
    assert "…" not in text


def test_evaluation_is_a_function_of_its_seed(run, parts):
    before = torch.get_rng_state()
    kwargs = {**QUICK, "train_points": 50, "test_points": 30, "images": 10}
    one, two, three = (evaluate(run.method, *parts, seed=seed, **kwargs) for seed in (0, 0, 1))
    assert one == two != three
    assert (one.n_train, one.n_test, one.reconstruction["both"].n) == (50, 30, 10)
    assert torch.equal(before, torch.get_rng_state())


def test_a_perfect_split_is_called_one():
    train, test = halves(vectors(300, seed=1))
    found = evaluate(Linear(), train, test, clustering=False)
    assert found.verdict == "clean"
    assert "A clean split" in found.headline
    assert not found.caveats
    assert found.swap.s == pytest.approx(1)
    assert found.swap.z == pytest.approx(1)
    assert found.swap.label.score > 0.95
    assert found.reconstruction["both"].mse == pytest.approx(0, abs=1e-12)


def a_probe(score: float, chance=0.1, metric="accuracy", n=400) -> Probe:
    wide = 0.05 if metric == "accuracy" else 0.002
    rest = dict.fromkeys(("train_score", "validation_score"), score)
    return Probe(
        score, score - wide, score + wide, chance, "mlp", metric, n_train=n, n_test=n, choice={}, converged=True, **rest
    )


def an_evaluation(s, z, metric="accuracy", chance=0.1, **changed) -> Evaluation:
    told = Factor({"s": a_probe(s, chance, metric), "z": a_probe(z, chance, metric)})
    errors = {
        which: PixelError(m, 0.9 * m, 1.1 * m, m, m, m, 100)
        for which, m in {"both": 0.01, "s": 0.05, "z": 0.06, "mean": 0.1}.items()
    }
    whole = {
        "method": "M", "data": "D", "sizes": (2, 2), "about": "digit", "given": False, "factors": {"digit": told},
        "reconstruction": errors, "swap": None, "background": None, "skipped": {}, "n_train": 400, "n_test": 400,
        "seed": 0,
    }  # fmt: skip
    return Evaluation(**whole | changed)


@pytest.mark.parametrize(
    ("s", "z", "changed", "verdict", "words"),
    [
        (0.97, 0.11, {}, "clean", "A clean split, as far as 400 test observations can show"),
        (0.97, 0.16, {}, "leaks", "z partly tells it: 0.16 [0.11, 0.21]"),
        (0.97, 0.80, {}, "leaks", "z still largely tells it"),
        (0.97, 0.93, {}, "failed", "z tells it as well"),
        (0.12, 0.90, {}, "failed", "s does not"),
        (0.12, 0.12, {}, "weak", "Neither half tells the digit"),
        (0.10, 0.90, {"sizes": (0, 4)}, "no s", "has no s"),
        (0.90, 0.10, {"sizes": (4, 0)}, "no z", "has no z. s, its whole code"),
        (1.00, 0.30, {"given": True}, "given", "s is the digit itself, given to the encoder; z still tells it"),
        (0.97, 0.11, {"about": None}, "unknown", "not measured"),
        (0.97, 0.11, {"about": "x", "skipped": {"codes": "M has no encoder"}}, "unknown", "M has no encoder"),
    ],
)
def test_the_headline_follows_the_intervals(s, z, changed, verdict, words):
    found = an_evaluation(s, z, **changed)
    assert found.verdict == verdict
    assert words in found.headline
    assert ("clean" in found.headline) == (verdict == "clean")


def test_no_split_is_clean_that_a_linear_probe_sees_through():
    """The probe is chosen without the test part, and among few observations perhaps the wrong one."""
    quiet, loud = a_probe(0.11), replace(a_probe(0.5), kind="linear")
    told = Factor({"s": a_probe(0.97), "z": quiet}, linear={"s": a_probe(0.9), "z": loud})
    found = an_evaluation(0.97, 0.11, factors={"digit": told})
    assert found.verdict == "leaks"
    assert "z still largely tells it: 0.50 [0.45, 0.55]" in found.headline
    assert told.told("s") is told.leakage["s"]
    weak = an_evaluation(0.1, 0.1, factors={"digit": Factor({"s": quiet, "z": quiet}, linear={"s": loud, "z": quiet})})
    assert weak.verdict == "clean"


def test_errors_are_better_when_smaller():
    assert an_evaluation(0.02, 0.10, "mae").verdict == "clean"
    assert an_evaluation(0.02, 0.05, "mae").verdict == "leaks"
    assert an_evaluation(0.05, 0.02, "mae").verdict == "failed"
    assert (
        "with a mean error of 0.02 [0.018, 0.022], the best constant 0.1;" in an_evaluation(0.02, 0.05, "mae").headline
    )


def test_what_speaks_against_a_split_is_said():
    fine = an_evaluation(0.97, 0.11)
    assert fine.caveats == []
    unused = replace(fine, reconstruction=fine.reconstruction | {"s": fine.reconstruction["both"]})
    assert unused.verdict == "empty"
    assert "z holds next to nothing" in unused.headline
    assert "z is hardly used: reconstructions without it are as good." in unused.caveats
    flat = replace(fine, reconstruction=dict.fromkeys(("both", "s", "z", "mean"), fine.reconstruction["mean"]))
    assert flat.caveats == ["Reconstructions are no better than the mean training observation."]
    lost = replace(fine, swap=Swap(0.5, 0.5, a_probe(0.12), 100))
    assert lost.caveats == ["Swapped observations do not keep the digit of s: 0.12 [0.07, 0.17]."]
    told = {"s": a_probe(0.9, 0.5), "z": a_probe(0.9, 0.5)}
    back = replace(fine, background=Background(1.0, 0.1, 1.0, 0.5, 0.1, told, 100))
    assert [re.split(" (is|tells) ", caveat)[0] for caveat in back.caveats] == ["s", "z"]


class Leaky(Linear):
    """The decoder takes the class from z."""

    def _posterior(self, x, y=None):
        return Point(x[:, 4:]), Gaussian(x[:, :4], torch.zeros_like(x[:, :4]))

    def _decode(self, s, z):
        return torch.cat([z, s], 1)


def test_judges_see_what_swaps_keep():
    train, test = halves(vectors(300, seed=1))
    quick = {"clustering": False, "probes": ("knn",), "classifier_steps": 100}
    split, leaky = (evaluate(method, train, test, **quick) for method in (Linear(), Leaky()))
    good, bad = split.consistency["kind"], leaky.consistency["kind"]
    for found in (good, bad):
        assert found.real.score > 0.95
        assert found.reconstruction.score == found.real.score
    assert good.swap_s.score > 0.95
    assert not good.swap_z.beats_chance
    assert bad.swap_z.score > 0.95
    assert not bad.swap_s.beats_chance
    assert split.caveats == []
    assert [c.split(":")[0] for c in leaky.caveats if c.startswith("Swapped")] == [
        "Swapped observations do not keep the kind of s",
        "Swapped observations show the kind of what gave z",
    ]
    assert set(split.generation) == {"real", "examples", "prior"}
    assert split.generation["examples"].kept.score > 0.95
    assert leaky.generation["examples"].kept.score < 0.8
    assert split.generation["real"].inception > 2.5 > 2 > leaky.generation["prior"].inception
    assert split.generation["real"].diversity is None


def test_generation_is_measured_without_an_encoder():
    train, test = halves(vectors(300, seed=1))
    found = evaluate(Blind(), train, test, clustering=False, classifier_steps=100)
    assert set(found.generation) == {"real", "class"}
    assert (found.sizes, found.given, found.factors, found.swap) == ((3, 4), False, {}, None)
    assert found.consistency["kind"].swap_s is None
    assert found.generation["class"].n == 999
    assert not evaluate(Blind(), train, test, classifier=False).consistency
    again = Evaluation.from_dict(json.loads(json.dumps(found.as_dict())))
    assert again == found


class Some(Given):
    """Never saw the last class."""

    def prior(self, n, y=None):
        if (torch.as_tensor(y) > 1).any():
            raise InputError("y: class 2; the labelled classes are 0, 1")
        return super().prior(n, y)


def test_classes_that_a_method_does_not_know_are_named():
    found = evaluate(Some(), *halves(vectors()), **QUICK)
    assert set(found.generation["class"].kept.per_class) == {0, 1}
    assert found.skipped["generation of class 2"] == "y: class 2; the labelled classes are 0, 1"


def test_diversity_of_generated_images(run, parts, found):
    made = found.generation
    assert set(made) == {"real", "examples", "prior"}
    assert made["real"].diversity.n == made["real"].n == len(parts[1])
    assert made["prior"].diversity is None
    assert made["examples"].n == 1000
    assert found.consistency["shade"].real.metric == "mae"


def test_files_of_the_first_version_are_read(found):
    old = json.loads(json.dumps(found.as_dict()))
    for later in ("consistency", "generation"):
        del old[later]
    for factor in old["factors"].values():
        del factor["linear"], factor["unit"]
    again = Evaluation.from_dict(old)
    assert again.headline == found.headline
    assert again.consistency == {}


def test_linear_probes_and_units_are_kept(run, parts):
    train, test = (Dataset(p.x, p.factors, default="kind", units={"shade": "lux"}) for p in parts)
    found = evaluate(run.method, train, test, clustering=False, probes=("linear", "knn"), classifier=False)
    shade = found.factors["shade"]
    assert (shade.unit, shade.linear["s"].kind, shade.linear["z"].metric) == ("lux", "linear", "mae")
    code, code_test = run.method.encode(train.x), run.method.encode(test.x)
    expected = metrics.probe(code.s, train.factors["shade"], code_test.s, test.factors["shade"], "linear")
    assert shade.linear["s"] == expected


def test_observations_are_encoded_once(parts, monkeypatch):
    method = methods.MLVAE.build(parts[0].shape, s=2, z=2)
    seen = []
    posterior = type(method).posterior
    monkeypatch.setattr(type(method), "posterior", lambda self, x, *a: seen.append(len(x)) or posterior(self, x, *a))
    evaluate(method, *parts, **QUICK)
    assert seen == [72, 48, 48]  # the parts, and the swapped


def test_evidence_of_groups_is_put_together(run, parts, found):
    q = run.method.posterior(parts[1].x)[0]
    y = parts[1].factors["kind"]
    assert list(found.evidence) == ["s", "z", "single z"]
    assert found.evidence["s"] == metrics.evidence(q, y, 2, k=(1, 2), trials=3)  # 12 of a class: three times 2 of K
    assert not found.few_shot  # every class was seen
    assert "put together, single z: k = 1:" in found.table().caption


def test_of_a_mixture_z_is_multiplied(parts):
    method = methods.MLVAE.build(parts[0].shape, s=2, z=2, evidence="mixture")
    found, y = evaluate(method, *parts, **QUICK), parts[1].factors["kind"]
    for half, rule, q in zip("sz", ("mixture", "product"), method.posterior(parts[1].x)):
        assert found.evidence[half] == metrics.evidence(q, y, 2, k=(1, 2), evidence=rule, trials=3)


def test_groups_never_seen_are_identified():
    data = blobs(n=240)
    data.factors["who"] = torch.arange(240) // 20
    train, test = data.split((0.5, 0.5), by="who")
    method = trained(methods.MLVAE, train, evidence="mixture").method
    found = evaluate(method, train, test, factor="who", **QUICK)
    q = method.posterior(test.x)
    assert found.few_shot["z"] == metrics.few_shot(q[1].mean, test.factors["who"], (1, 2, 5, 10))
    assert found.evidence["s"].evidence == "mixture"
    assert Evaluation.from_dict(json.loads(json.dumps(found.as_dict()))) == found


def people(sizes, train_of, seed=0):
    """Images of as many people, `train_of` each of which are trained on and the others held out."""
    who = np.repeat(np.arange(len(sizes)), sizes)
    data = blobs((8,), n=len(who), seed=seed)
    data = Dataset(data.x, {"who": who})
    nth = np.concatenate([np.arange(size) for size in sizes])
    first = nth < np.repeat(train_of, sizes)
    return data[first], data[~first]


def test_few_new_classes_are_left_out_and_the_others_probed_as_ever():
    """Folders of one image, some of which the split holds out: the others were trained on, and are not new."""
    sizes, train_of = [20] * 8 + [1] * 12, [14] * 8 + [1] * 7 + [0] * 5
    train, test = people(sizes, train_of)
    method = trained(methods.MLVAE, train).method
    found = evaluate(method, train, test, **QUICK)
    factor = found.factors["who"]
    assert factor.note == (
        "5 of the test part's 13 classes were never seen in training: their 5 observations are left out"
    )
    assert (factor.leakage["s"].n_train, factor.leakage["s"].n_test) == (len(train), 48)
    assert found.consistency["who"].real.n == 48  # and no judge learns from held-out images
    assert found.swap.label is not None
    assert not found.few_shot
    assert found.skipped["few-shot identification"] == (
        "0 of the 5 classes that training never saw have two held-out observations, expected two"
    )
    assert (found.evidence["s"].classes, found.evidence["s"].per_class) == (8, 2)
    assert found.skipped["evidence of 5 classes"] == "fewer than 6 held-out observations"
    assert (test.factors["who"] >= 0).all()  # what was passed stays as it is


def test_few_new_classes_are_identified_among_themselves():
    train, test = people([20] * 8 + [6] * 3, [10] * 8 + [0] * 3)
    method = trained(methods.MLVAE, train).method
    found = evaluate(method, train, test, **QUICK)
    assert "3 of the test part's 11 classes" in found.factors["who"].note
    q, y = method.posterior(test.x), test.factors["who"]
    assert found.few_shot["s"] == metrics.few_shot(q[0][y >= 8], y[y >= 8], (1, 2, 5))
    assert found.few_shot["s"].ways == 3


def test_more_than_fifty_classes_are_not_new_for_that():
    train, test = people([8] * 60, [4] * 60)
    found = evaluate(trained(methods.MLVAE, train).method, train, test, **QUICK | {"probes": ("linear", "knn")})
    assert "60 classes" in found.factors["who"].note
    assert not found.few_shot
    assert found.swap.label is not None


def test_evidence_takes_the_classes_that_are_large_enough():
    y = torch.cat([torch.arange(22).repeat_interleave(6), torch.full((30,), 30), torch.full((5,), 31)])
    random = torch.Generator().manual_seed(0)
    q = Gaussian(torch.randn(len(y), 2, generator=random), torch.zeros(len(y), 2))

    def found(rows):
        return accumulation.accumulated({"s": q[rows]}, y[rows], "product", y.unique(), 0)

    evidence, few, skipped = found(torch.arange(len(y)))
    assert (evidence["s"].classes, evidence["s"].k, few) == (20, (1, 2), {})
    assert skipped == {"evidence of a class": "fewer than 6 held-out observations"}
    evidence, _, skipped = found((y >= 30).nonzero()[:, 0])
    assert (evidence, skipped) == ({}, {"evidence": "1 of 2 classes have 6 held-out observations, expected two"})


@pytest.mark.parametrize(
    ("sizes", "k"), [([2, 20], (1,)), ([1, 1, 1, 9, 9], (1, 2, 5)), ([3, 3, 30, 30], (1, 2, 5, 10))]
)
def test_shots_leave_two_classes_to_tell_apart(sizes, k):
    y = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    q = Gaussian(torch.randn(len(y), 2, generator=torch.Generator().manual_seed(0)), torch.zeros(len(y), 2))
    few = accumulation.accumulated({"s": q}, y, None, y.new_tensor([99]), 0)[1]["s"]
    assert (few.k, few.ways) == (k, 2)


def test_unseen_classes_are_probed_on_halves_of_the_test_part():
    data = vectors(240)
    data.factors["who"] = torch.arange(240) // 20
    train, test = data.split((0.5, 0.5), by="who")
    found = evaluate(Linear(), train, test, factor="who", **QUICK)
    factor = found.factors["who"]
    assert "6 of the test part's 6 classes were never seen" in factor.note
    assert (factor.leakage["s"].n_train, factor.leakage["s"].n_test) == (60, 60)
    assert found.factors["kind"].note == ""
    assert found.swap.label is None
    assert found.consistency["who"].real.n == 60
    assert found.consistency["kind"].real.n == 60
    kept = json.loads(json.dumps(found.as_dict()))
    assert kept["factors"]["who"]["note"] == factor.note


def test_what_cannot_be_probed_is_skipped_with_a_reason():
    data = vectors(90)
    data.factors["same"] = torch.zeros(90, dtype=torch.int64)
    data.factors["own"] = torch.arange(90)
    data.factors["rare"] = torch.full((90,), -1)
    train, test = halves(data)
    test.factors.pop("same")
    found = evaluate(Linear(), train, test, factor="kind", **QUICK)
    assert list(found.factors) == ["kind"]
    assert {name: why.split()[0] for name, why in found.skipped.items()} == {
        "factor same": "the", "factor own": "36", "factor rare": "0",
    }  # fmt: skip


def test_rows_of_unknown_class_are_left_out():
    data = vectors(200)
    data.factors["kind"][::2] = -1
    train, test = halves(data)
    found = evaluate(Linear(), train, test, factor="kind", **QUICK)
    told = found.factors["kind"].leakage["s"]
    assert told.n_train == int((train.factors["kind"] >= 0).sum())
    assert told.n_test == int((test.factors["kind"] >= 0).sum())


def test_many_classes_have_no_linear_probe():
    data = vectors(600)
    data.factors["who"] = torch.arange(600) % 60
    found = evaluate(Linear(), *halves(data), factor="kind", clustering=False, probes=("linear", "knn"))
    assert found.factors["who"].leakage["s"].kind == "knn"
    assert "60 classes: no linear probe" in found.factors["who"].note


def test_a_code_without_s_is_told_so(parts):
    method = methods.VAE.build(parts[0].shape, z=3)
    found = evaluate(method, *parts, **QUICK)
    assert found.verdict == "no s"
    assert found.swap is None
    assert found.skipped["swap"] == "VAE has no s"
    assert set(found.reconstruction) == {"both", "mean"}


def test_what_s_is_about_varies_in_the_target_only():
    """Of digits in styles and plain ones, the styles, whatever the data set's default."""
    back = blobs(n=60, seed=1)
    del back.factors["shade"]
    train, test = halves(blobs(background=back))
    method = methods.RbVAE.build(train.shape, s=2, z=2)
    fit(method, train.reference(), steps=1, batch_size=16, progress=False)
    assert evaluate(method, train, test, **QUICK).about == "shade"
    assert evaluate(method, train, test, factor="kind", **QUICK).about == "kind"


def test_background_is_measured():
    data = blobs(background=blobs(n=80, classes=1, seed=1))
    data.background.name = "empty"
    train, test = halves(data)
    method = trained(methods.Contrastive, train).method
    found = evaluate(method, train, test, **QUICK).background
    q_s, _ = method.posterior(test.background.x)
    assert found.s_background == pytest.approx(float(q_s.mean.square().sum(1).mean()), rel=1e-5)
    assert found.variance_background == pytest.approx(float(q_s.variance.sum(1).mean()), rel=1e-5)
    assert found.points == 16
    assert found.w2 >= 0
    assert found.told_apart["z"].chance == 0.5
    by_value = evaluate(method, *halves(blobs()), background="kind=0", **QUICK)
    assert by_value.background is not None
    assert by_value.n_train < 72
    assert "no background set" in evaluate(method, *halves(blobs()), **QUICK).skipped["background"]


def test_what_names_the_background_is_not_what_s_is_about():
    data = blobs((6,), classes=2, names={"kind": ["case", "control"]})
    train, test = halves(data)
    method = methods.VAE.build((6,), z=3)
    fit(method, train.images(), steps=2, progress=False)
    found = evaluate(method, train, test, background="kind=control", **QUICK)
    assert found.about is None
    assert list(found.factors) == ["shade"]
    assert not any("kind" in what for what in found.skipped)
    assert found.headline.startswith("This method has no s. z, its whole code, tells target from background with")
    assert not any("target from background" in caveat for caveat in found.caveats)  # once is enough
    asked = evaluate(method, train, test, background="kind=control", factor="kind", **QUICK)
    assert asked.about == "kind"
    assert asked.skipped["factor kind"] == "it has one value only, case"
    several = evaluate(method, *halves(blobs((6,))), background="kind=0", **QUICK)
    assert several.about == "kind"  # of which the target has three


def test_other_methods_are_measured_on_a_background_that_is_named(tmp_path, sketched):
    train, test = halves(blobs())
    vae = trained(methods.VAE, train).method
    plain, named = (evaluate(vae, train, test, background=of, **QUICK) for of in (None, "kind=0"))
    assert (plain.background, "background" in plain.skipped) == (None, False)
    assert named.background.s_target == named.background.s_background == 0
    assert named.background.told_apart["z"].score > named.background.told_apart["z"].chance
    assert named.n_train < plain.n_train  # the target's alone
    path = report.write(tmp_path / "r.html", method=vae, train=train, test=test, evaluation=named, background="kind=0")
    assert "Target or background, from z" in read(path).text
    assert "Size of s" not in read(path).text
    told = evaluate(Given(), *halves(vectors()), background="kind=0", **QUICK)
    assert told.background is None
    assert told.skipped["background"].startswith("Given encodes with labels")


def test_labels_reach_an_encoder_that_asks_for_them():
    train, test = halves(vectors())
    found = evaluate(Given(), train, test, **QUICK)
    assert found.verdict == "given"
    assert found.factors["kind"].leakage["s"].score == 1
    assert found.swap.s is None
    blind = evaluate(Blind(), train, test, **QUICK)
    assert blind.verdict == "unknown"
    assert blind.skipped == {"codes": "Blind has no encoder"}


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"factor": "knid"}, "did you mean 'kind'"),
        ({"factors": ["nothing"]}, "factors: 'nothing'"),
        ({"train_points": 0}, "train_points: 0"),
        ({"probes": ("tree",)}, "'tree'"),
        ({"train": np.zeros((3, 4))}, "train: ndarray; expected a Dataset"),
        ({"test": blobs((1, 9, 9))}, "made for observations of shape"),
    ],
)
def test_evaluate_refuses(run, parts, kwargs, words):
    with pytest.raises(InputError, match=re.escape(words)):
        evaluate(run.method, **{"train": parts[0], "test": parts[1]} | kwargs)


# -- figures -----------------------------------------------------------------------------------------------------------


def levels(*shape) -> torch.Tensor:
    """A different grey for each image of a grid `shape`, none of them white."""
    grey = torch.linspace(0.05, 0.9, int(np.prod(shape))).reshape(*shape, 1, 1, 1)
    return grey.expand(*shape, 1, 8, 8)


def page(figure) -> np.ndarray:
    return np.asarray(figure.axes[0].images[0].get_array())


def seen(figure) -> dict[int, tuple[float, float]]:
    """Of each grey that a page has besides white: the middle of its pixels (down, across)."""
    grey = page(figure)[..., 0]
    return {int(v): tuple(np.argwhere(grey == v).mean(0)) for v in np.unique(grey) if v != 255}


def expected(images: torch.Tensor) -> np.ndarray:
    return images.mul(255).round().byte()[..., 0, 0, 0].numpy()


def frames(figure) -> list[str]:
    return [to_hex(patch.get_edgecolor()).upper() for patch in figure.axes[0].patches]


def test_a_grid_shows_every_tile_in_its_place():
    x = levels(3, 4)
    places, want = seen(figures.image_grid(x)), expected(x)
    assert sorted(places) == sorted(want.flatten())
    down = np.array([[places[v][0] for v in row] for row in want])
    across = np.array([[places[v][1] for v in row] for row in want])
    assert (np.ptp(down, axis=1) == 0).all() and (np.diff(down[:, 0]) == 144 + figures.GAP).all()  # noqa: PT018
    assert (np.ptp(across, axis=0) == 0).all() and (np.diff(across[0]) == 144 + figures.GAP).all()  # noqa: PT018


def test_pixels_are_enlarged_without_smoothing():
    x = torch.rand(1, 1, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.9
    shown = page(figures.image_grid(x))
    tile = shown[figures.EDGE : figures.EDGE + 144, figures.EDGE : figures.EDGE + 144]
    assert np.array_equal(tile[::18, ::18], x[0, 0].mul(255).round().byte().permute(1, 2, 0).numpy())
    assert np.array_equal(tile, tile[::18, ::18].repeat(18, 0).repeat(18, 1))
    assert np.array_equal(page(figures.image_grid((x * 255).round().byte())), shown)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 33, 40), (4, 9, 30), (2, 28, 28), (1, 300, 200), (5,), (2,), (90,)])
def test_grids_of_any_shape(shape):
    x = torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(0))
    x[1, 2] = torch.nan
    figure = figures.image_grid(x, rows=["one", "two"], columns=["a", "b", "a rather long label"])
    width, height = figure.get_size_inches() * figures.DPI
    picture = Image.open(io.BytesIO(figures.png(figure)))
    assert picture.size == (round(width), round(height))
    if len(shape) == 1:
        assert len(figure.axes[0].patches) == 5  # the tile of NaN stays empty
    else:
        tile = 144 / max(shape[1:])
        assert page(figure).shape[:2] == (round(height), round(width))
        assert width > 3 * shape[2] * (round(tile) if tile >= 1 else tile)


def test_transparent_pixels_are_white():
    x = torch.zeros(1, 1, 4, 8, 8)
    assert page(figures.image_grid(x)).min() == 255


def test_a_swap_grid_has_the_originals_on_its_borders():
    x = levels(4 * 3 + 4 + 3)
    s, z, made = x[:4], x[4:7], x[7:].unflatten(0, (3, 4))
    figure = figures.swap_grid(s, z, made)
    places = seen(figure)
    assert len(places) == 19
    first_row, first_column = ([places[v] for v in expected(part)] for part in (s, z))
    body = np.array([[places[v] for v in row] for row in expected(made)])
    assert [p[1] for p in first_row] == [p[1] for p in body[0]]
    assert [p[0] for p in first_column] == [p[0] for p in body[:, 0]]
    assert first_row[0][0] < body[0, 0, 0] - 144
    assert first_column[0][1] < body[0, 0, 1] - 144
    assert frames(figure) == [figures.S] * 4 + [figures.Z] * 3
    with pytest.raises(InputError, match="a row a z, a column an s"):
        figures.swap_grid(z, s, made)


def test_rows_of_other_figures():
    x = levels(40)
    assert len(seen(figures.reconstruction_rows(x[:5], x[5:10], x[10:15], x[15:20]))) == 20
    assert len(seen(figures.reconstruction_rows(x[:5], x[5:10]))) == 10
    generated = figures.generation_rows(x[:3], x[3:15].unflatten(0, (3, 4)), ["a", "b", "c"])
    assert len(seen(generated)) == 15
    assert frames(generated) == [figures.S] * 3
    near = figures.retrieval_rows(
        x[:2], x[2:8].unflatten(0, (2, 3)), x[8:14].unflatten(0, (2, 3)), same_z=[[1, 0, 0], [0, 0, 1]]
    )
    assert len(seen(near)) == 14
    assert frames(near) == [figures.MARK] * 2
    assert len(seen(figures.walks(x[:6].unflatten(0, (2, 3)), [0, 4], [-1, 0, 1]))) == 6
    before, after = x[3:9].unflatten(0, (2, 3)), x[9:15].unflatten(0, (2, 3))
    assert len(seen(figures.inpainting_rows(x[:3], before, after, ["left", "right"]))) == 15
    assert len(seen(figures.class_walks(x[:6].unflatten(0, (2, 3)), ["a", "b"], "z"))) == 6
    line = figures.interpolation_grid(x[:9].unflatten(0, (3, 3)))
    assert frames(line) == [figures.MARK] * 2


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: figures.image_grid(torch.zeros(3, 8, 8, 1)),
        lambda: figures.image_grid(torch.zeros(0, 3, 1, 8, 8)),
        lambda: figures.image_grid(levels(2, 2), rows=["one"]),
        lambda: figures.reconstruction_rows(levels(3), levels(4)),
        lambda: figures.reconstruction_rows(levels(3), torch.zeros(3, 1, 9, 9)),
        lambda: figures.generation_rows(levels(3), levels(2, 4)),
        lambda: figures.retrieval_rows(levels(3), levels(2, 4)),
        lambda: figures.walks(levels(1, 3), [0], [0, 1, 2], half="x"),
        lambda: figures.inpainting_rows(levels(3), levels(1, 3), levels(2, 3)),
        lambda: figures.loss_curves([]),
        lambda: figures.loss_curves([{"step": 1, "seconds": 2.0}]),
        lambda: figures.leakage_chart({}),
        lambda: figures.code_map({"s": np.zeros((5, 2)), "z": np.zeros((5, 0))}),
        lambda: figures.code_map({"s": np.eye(5)}, np.zeros(4, int)),
        lambda: figures.class_walks(levels(1, 3), ["a"], half="y"),
        lambda: figures.point_panels([]),
        lambda: figures.point_panels([("a", np.zeros((4, 3)), None)]),
        lambda: figures.point_panels([("a", np.zeros((4, 2)), np.zeros(3))]),
        lambda: figures.embed(np.full((5, 3), np.nan)),
        lambda: figures.save(figures.image_grid(levels(1, 1)), "figure.jpg"),
    ],
)
def test_figures_refuse(wrong):
    with pytest.raises(InputError):
        wrong()


def test_loss_curves_show_each_term():
    rows = [
        {"step": i, "seconds": i, "a/rec": 5 - i, "a/kl": i, "a/grad_norm": 1.0, "b/adv": 10.0**-i} for i in range(3)
    ]
    panels = {axes.get_title(loc="left"): axes for axes in figures.loss_curves(rows).axes if axes.get_visible()}
    assert list(panels) == ["a: sum", "a: rec", "a: kl", "a: gradient norm", "b: adv"]
    assert panels["a: sum"].lines[0].get_ydata().tolist() == [5, 5, 5]
    assert panels["b: adv"].lines[0].get_xdata().tolist() == [0, 1, 2]
    assert figures.loss_curves([{"step": 1, "a/rec": 1.0}]).axes


def test_leakage_chart_shows_scores_beside_chance():
    told = {"digit": {"s": a_probe(0.9), "z": a_probe(0.3)}}
    width = {"s": a_probe(0.05, 0.2, "mae"), "z": a_probe(0.1, 0.2, "mae")}
    (bars,) = figures.leakage_chart(told).axes
    assert [bar.get_width() for bar in bars.patches] == pytest.approx([0.9, 0.3])
    assert [to_hex(bar.get_facecolor()).upper() for bar in bars.patches] == [figures.S, figures.Z]
    ends = [line.get_xdata() for line in bars.lines]
    assert np.allclose(ends, [[0.85, 0.95], [0.25, 0.35], [0.1, 0.1]])
    both = figures.leakage_chart(told | {"width": width}).axes
    assert [bar.get_width() for bar in both[1].patches] == pytest.approx([0.25, 0.5])


def test_maps():
    random = np.random.default_rng(0)
    codes = {"s": random.standard_normal((40, 5)), "z": random.standard_normal((40, 2))}
    y = np.arange(40) % 3 - 1
    figure = figures.code_map(codes, y, factor="f", names=["a", "b"])
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["t-SNE of s (5 dimensions)", "z (2 dimensions)"]
    points = [c.get_offsets() for c in figure.axes[1].collections]
    assert sorted(map(len, points)) == [13, 13, 14]
    assert np.array_equal(points[1], codes["z"][y == 0])
    assert {t.get_text() for t in figure.axes[1].texts} == {"a", "b"}
    assert len(figures.code_map(codes, random.random(40), factor="f").axes) == 3  # a colour bar
    assert len(figures.code_map(codes | {"s": np.zeros((40, 0))}, np.arange(40)).axes) == 1
    behind = figures.code_map(codes, background={"s": codes["s"][:9], "z": codes["z"][:9]})
    assert sorted(len(c.get_offsets()) for c in behind.axes[0].collections) == [9, 40]


def test_point_panels_share_a_scale_and_colours():
    a, b = np.random.default_rng(0).standard_normal((2, 30, 2))
    figure = figures.point_panels([("one", a, np.arange(30) % 3), ("two", 5 * b, None)], names="xyz", behind=a[:7])
    one, two = figure.axes
    assert one.get_xlim() == two.get_xlim()
    assert one.get_ylim() == two.get_ylim()
    assert [len(c.get_offsets()) for c in one.collections] == [7, 10, 10, 10, 0]
    assert [len(c.get_offsets()) for c in two.collections] == [7, 30]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["x", "y", "z"]


def test_embedding():
    random = np.random.default_rng(0)
    x = random.standard_normal((30, 4))
    assert figures.embed(x).shape == (30, 2)
    assert np.array_equal(figures.embed(x, 1), figures.embed(x, 1))
    few = figures.embed(x[:6])
    assert np.allclose(few.std(0), np.linalg.svd(x[:6] - x[:6].mean(0))[1][:2] / np.sqrt(6))
    assert np.array_equal(figures.embed(x[:, :2]), x[:, :2])
    assert np.array_equal(figures.embed(x[:, :1])[:, 0], x[:, 0])


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_figures_are_saved(tmp_path, suffix, start):
    figure = figures.image_grid(levels(2, 2))
    path = figures.save(figure, tmp_path / "new" / f"grid.{suffix}")
    assert path.read_bytes().startswith(start)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert suffix != "png" or path.read_bytes() == figures.png(figures.image_grid(levels(2, 2)))


def test_figures_leave_pyplot_alone():
    code = (
        "import sys, torch; from twofold import figures; figures.png(figures.image_grid(torch.zeros(1, 1, 1, 8, 8)));"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# -- report ------------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a page refers to, its tags, its text, and its sections."""

    def __init__(self, text: str):
        super().__init__()
        self.links, self.tags, self.ids, self.words = [], set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        for name, value in attributes:
            if name in ("src", "href", "srcset", "action", "data", "poster"):
                self.links.append(value)
            if name == "id":
                self.ids.append(value)

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def sketched(monkeypatch):
    """Figures are made, but neither rendered nor embedded by t-SNE: these take the time."""
    monkeypatch.setattr(figures, "png", lambda figure: figure.get_size_inches().tobytes())
    monkeypatch.setattr(figures.charts, "embed", lambda codes, seed=0: np.asarray(codes)[:, [0, -1]])


def read(path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def test_the_report_is_one_whole_file(tmp_path, run, parts, found):
    path = report.write(
        tmp_path / "deep" / "report.html",
        method=run.method,
        train=parts[0],
        test=parts[1],
        metrics=run.metrics,
        config={"config": run.method.config, "plan": {"steps": 30, "note": "<script>alert(1)</script>"}},
        evaluation=found,
        figures_dir=tmp_path / "figures",
    )
    text, there = path.read_text(encoding="utf-8"), read(path)
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in there.links)
    assert {link[1:] for link in there.links if link[0] == "#"} <= set(there.ids)
    assert not {"script", "link", "iframe", "object", "b <"} & there.tags
    assert "@import" not in text
    assert "url(" not in text
    assert "Content-Security-Policy" in text
    assert len(there.ids) == len(set(there.ids))
    assert set(report.PICTURES) < set(there.ids)
    assert found.headline in there.text
    for row in summary.probes(found):
        assert row.score in there.text
    assert "<script>alert(1)</script>" in there.text  # as text
    for title in ("By independent judges", "Generated observations", "Linear probes", "Class by class"):
        assert title in there.text
    for table in (summary.judged(found), summary.generated(found), summary.linear(found)):
        assert all(value in there.text for row in table for value in row)
    assert {p.stem for p in (tmp_path / "figures").iterdir()} == set(report.PICTURES) - {"points", "few-shot"}
    assert path.stat().st_size < 3_000_000


def test_the_report_is_a_function_of_its_seed(tmp_path, run, parts, found, monkeypatch):
    shown = []
    monkeypatch.setattr(figures.charts, "embed", lambda codes, seed=0: np.asarray(codes)[:, [0, -1]])
    monkeypatch.setattr(figures, "png", lambda figure: shown.append(drawn(figure)) or b"x")
    before = torch.get_rng_state()
    for seed in (0, 0, 1):
        kwargs = {"train": parts[0], "test": parts[1], "evaluation": found.as_dict(), "config": {}, "seed": seed}
        report.write(tmp_path / "r.html", method=run.method, **kwargs)
    count = len(report.PICTURES) - 3
    assert read(tmp_path / "r.html").text.count("no losses were handed over") == 1
    same, other = (
        [all(map(np.array_equal, a, b)) for a, b in zip(shown[:count], shown[i * count : (i + 1) * count], strict=True)]
        for i in (1, 2)
    )
    assert all(same)
    assert sum(other) == 3  # the evaluation is the same, evidence too, and all of this small test part is in the map
    assert torch.equal(before, torch.get_rng_state())


def drawn(figure) -> list[np.ndarray]:
    """What a figure shows: its pixels, points, lines and texts."""
    parts = []
    for axes in figure.axes:
        parts += [np.asarray(image.get_array()) for image in axes.images]
        parts += [np.asarray(points.get_offsets()) for points in axes.collections]
        parts += [line.get_xydata() for line in axes.lines]
        parts += [np.array([text.get_text() for text in axes.texts])]
    return parts


def test_the_picture_of_a_group_has_the_s_of_all_its_members(run, parts, found, monkeypatch):
    shown = []
    monkeypatch.setattr(figures, "image_grid", lambda images, **_: shown.append(torch.as_tensor(images)))
    on = Subject(run.method, parts[1], found, None, (), 0)
    pictures.PICTURES["together"].draw(on)
    part, y = on.some(pictures.ACROSS), parts[1].factors["kind"]
    for i, kind in enumerate(part.factors["kind"].tolist()):
        s = operations.accumulate(run.method, parts[1].x[y == kind], np.zeros(int((y == kind).sum()), int)).s
        z = run.method.encode(part.x[i : i + 1]).z
        assert torch.allclose(shown[0][2, i], run.method.decode(Code(s, z))[0], atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "absent"), [((3, 9, 14), {"points"}), ((6,), {"inpainting", "points"}), ((2,), {"inpainting"})]
)
def test_reports_on_any_shape(tmp_path, sketched, shape, absent):
    train, test = halves(blobs(shape, n=80))
    done = trained(methods.MLVAE, train)
    path = report.write(
        tmp_path / "r.html", method=done.method, train=train, test=test, metrics=done.metrics,
        evaluation=evaluate(done.method, train, test, **QUICK),
    )  # fmt: skip
    assert left_out(path) == absent | {"few-shot"}


def left_out(path) -> set[str]:
    """Pictures that are named with a reason only."""
    text = path.read_text(encoding="utf-8")
    return {key for key in report.PICTURES if re.search(rf'<dt id="{key}">[^<]+</dt><dd>[^<]+</dd>', text)}


def test_a_method_without_s(tmp_path, sketched, parts):
    method = methods.VAE.build(parts[0].shape, z=3)
    found = evaluate(method, *parts, **QUICK)
    path = report.write(tmp_path / "r.html", method=method, train=parts[0], test=parts[1], evaluation=found)
    assert left_out(path) == WALKS | {
        "swap", "interpolation", "generation", "synthesis", "walk-s", "points", "few-shot", "together", "losses"
    }  # fmt: skip
    assert "One code, no split" in read(path).text


def test_a_method_with_a_background(tmp_path, sketched):
    train, test = halves(blobs(background=blobs(n=60, classes=1, seed=1)))
    method = methods.Contrastive.build(train.shape, s=2, z=2)
    found = evaluate(method, train, test, **QUICK)
    path = report.write(tmp_path / "r.html", method=method, train=train, test=test, evaluation=found)
    assert left_out(path) == {"points", "evidence", "few-shot", "together", "losses"}
    assert "Size of s on the background" in read(path).text


def test_methods_that_lack_a_part(tmp_path, sketched):
    train, test = halves(vectors())
    for method, absent in (
        (
            Given(),
            {"prior", "synthesis", "walk-s", "class-walk-s", "inpainting", "points"}
            | {"evidence", "together", "few-shot", "losses"},
        ),
        (Blind(), set(report.PICTURES) - {"generation", "class-walk-z"}),
    ):
        found = evaluate(method, train, test, **QUICK)
        path = report.write(tmp_path / "r.html", method=method, train=train, test=test, evaluation=found)
        assert left_out(path) == absent


@pytest.mark.parametrize("name", sorted(methods.CLASSES))
def test_every_method_is_measured_and_shown(tmp_path, sketched, name):
    cls = methods.CLASSES[name]
    train, test = halves(blobs(n=60, background=blobs(n=40, classes=1, seed=1)))
    options = {"inference_steps": 2} if "inference_steps" in cls.options() else {}
    method = cls.build(train.shape, s=2, z=2, arch="mlp", **options)
    fit(method, getattr(train, cls.supervision.__name__.lower())(), steps=1, batch_size=16, progress=False)
    quick = QUICK | {"train_points": 36, "images": 20, "classifier_steps": 1}
    found = evaluate(method, train, test, **quick)
    assert Evaluation.from_dict(json.loads(json.dumps(found.as_dict()))) == found
    assert found.generation["real"].n == 20
    assert len(found.generation) > 1
    path = report.write(tmp_path / "r.html", method=method, train=train, test=test, evaluation=found)
    assert "losses" in left_out(path) != set(report.PICTURES)


def test_data_without_factors(tmp_path, sketched):
    train, test = halves(Dataset(blobs().x, name="bare"))
    method = methods.VAE.build(train.shape, z=2)
    path = report.write(tmp_path / "r.html", method=method, train=train, test=test)
    assert "was not measured: no factor says what s is about" in read(path).text
    assert "leakage" in left_out(path)


def test_one_observation_is_enough(tmp_path, sketched, run, parts):
    path = report.write(tmp_path / "r.html", method=run.method, train=parts[0], test=parts[1][:1])
    assert {"map", "retrieval", "interpolation"} < left_out(path)
    assert "class-walk-s" in left_out(path)


def test_a_report_from_a_run(tmp_path, sketched, parts):
    folder = tmp_path / "run"
    method = methods.MLVAE.build(parts[0].shape, s=2, z=2)
    fit(method, parts[0].groups(), steps=3, batch_size=16, out=folder, progress=False)
    data = {"train": parts[0], "test": parts[1]}
    kept = an_evaluation(0.97, 0.5, about="kind", factors={"kind": an_evaluation(0.97, 0.5).factors["digit"]})
    (folder / "evaluation.json").write_text(json.dumps(kept.as_dict()))
    path = report.from_run(folder, **data)
    assert path == folder / "report.html"
    assert kept.headline in read(path).text
    assert "plan" not in left_out(path) and "checkpoint_every" in read(path).text  # noqa: PT018
    with open(folder / "metrics.csv", "a") as file:
        file.write("4,0.1,")  # cut off by a kill
    report.from_run(folder, path=tmp_path / "other.html", **data)
    assert (tmp_path / "other.html").is_file()
    (folder / "evaluation.json").write_text("{")
    with pytest.raises(InputError, match=r"evaluation\.json: truncated"):
        report.from_run(folder, **data)
    with pytest.raises(MissingFileError, match="holds no run"):
        report.from_run(tmp_path / "nothing", **data)


def test_points_of_the_plane_are_shown_as_they_were_at_earlier_steps(tmp_path, monkeypatch):
    data = blobs((2,))
    method = methods.ConditionalVAE.build((2,), s=2, z=2)
    fit(method, data.labels(), steps=20, batch_size=16, out=tmp_path / "run", progress=False)
    drawn = []
    monkeypatch.setattr(figures, "point_panels", lambda panels, **_: drawn.extend(panels) or Figure())
    train, test = halves(data)
    report.from_run(tmp_path / "run", train=train, test=test, evaluation=evaluate(method, train, test, **QUICK))
    steps = ["generated, step 1", "generated, step 2", "generated, step 6", "generated"]
    assert [title for title, _, _ in drawn] == ["held-out", "reconstructed", *steps]
    assert torch.equal(drawn[-1][1], operations.generate(method, len(test), y=drawn[-1][2], seed=0))
    assert not torch.equal(drawn[-2][1], drawn[-1][1])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"path": "."}, "path: . is a folder"),
        ({"method": None}, "method: NoneType; expected a Method"),
        ({"train": np.zeros(3)}, "train: ndarray; expected a Dataset"),
        ({"evaluation": {"a": 1}}, "evaluation: not one"),
        ({"evaluation": None, "factor": "knid"}, "did you mean 'kind'"),
    ],
)
def test_the_report_refuses(tmp_path, run, parts, found, changed, words):
    kwargs = {"path": tmp_path / "r.html", "method": run.method, "train": parts[0], "test": parts[1]}
    with pytest.raises(InputError, match=re.escape(words)):
        report.write(**kwargs | {"evaluation": found} | changed)
    assert not list(tmp_path.iterdir())


def test_a_bug_is_not_a_reason(tmp_path, sketched, run, parts, found, monkeypatch):
    """Only the library's own refusals leave a figure out."""
    monkeypatch.setattr(figures, "swap_grid", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        report.write(tmp_path / "r.html", method=run.method, train=parts[0], test=parts[1], evaluation=found)
    monkeypatch.setattr(figures, "swap_grid", lambda *_: (_ for _ in ()).throw(UnsupportedError("no <swap>")))
    report.write(tmp_path / "r.html", method=run.method, train=parts[0], test=parts[1], evaluation=found)
    assert "no <swap>" in read(tmp_path / "r.html").text
