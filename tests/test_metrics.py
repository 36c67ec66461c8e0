"""Metrics against slow references, and their negative controls."""

import json
import sys
from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import optimize, signal, special, stats
from sklearn.linear_model import LogisticRegression

from twofold.errors import InputError
from twofold.metrics import (
    Classifier,
    Regressor,
    classifier,
    clustering,
    fit_probe,
    inception_score,
    intra_class_diversity,
    judges,
    leakage,
    matched_accuracy,
    probe,
    retrieval_precision,
    wasserstein2,
)

KINDS = ("linear", "mlp", "knn")


def gaussians(n=600, classes=3, width=4, apart=2.0, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    return (rng.normal(size=(n, width)) + apart * rng.normal(size=(classes, width))[y]).astype(np.float32), y


def halves(x, y, at=400):
    return x[:at], y[:at], x[at:], y[at:]


# --- probes: controls -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_shuffled_labels_probe_at_chance(kind):
    x, y = gaussians(3000)
    result = probe(*halves(x, np.random.default_rng(1).permutation(y), 2000), kind=kind)
    assert result.low <= result.chance <= result.high
    assert result.information < 0.02
    assert not result.beats_chance


@pytest.mark.parametrize("kind", KINDS)
def test_a_code_that_is_the_label_probes_at_one(kind):
    y = np.random.default_rng(0).integers(0, 5, 600)
    result = probe(*halves(np.eye(5)[y], y), kind=kind)
    assert result.score == result.train_score == 1
    assert result.beats_chance
    assert result.converged
    assert result.information > 0.9 * result.entropy
    assert set(result.per_class.values()) == {1.0}


@pytest.mark.parametrize("kind", KINDS)
def test_shuffled_values_are_told_no_better_than_by_the_median(kind):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(1500, 3)), rng.exponential(size=1500)
    result = probe(*halves(x, y, 1000), kind=kind)
    assert not result.beats_chance
    assert result.score < 1.1 * result.chance


@pytest.mark.parametrize(("kind", "share"), [("linear", 0.97), ("mlp", 0.5), ("knn", 0.7)])
def test_regression_finds_a_curve(kind, share):
    x = np.random.default_rng(0).uniform(-2, 2, size=(1500, 2))
    y = 100 * (x[:, 0] ** 2 + 0.5 * x[:, 1])
    result = probe(*halves(x, y, 1000), kind=kind)
    assert result.score < share * result.chance
    assert result.metric == "mae"
    assert result.low <= result.score <= result.high
    assert result.chance == pytest.approx(np.abs(y[1000:] - np.median(y[:1000])).mean(), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("codes", ["none", "constant", "rounding"])
def test_codes_without_content_get_the_best_constant(kind, codes):
    y = np.repeat([7, 8, 9], [60, 100, 40])
    y = np.random.default_rng(0).permutation(y)
    x = {
        "none": np.zeros((200, 0)),
        "constant": np.full((200, 2), 0.1, np.float32),
        "rounding": np.nextafter(np.float32(1), np.float32(2) * (y[:, None] == 7), dtype=np.float32),
    }[codes]
    result = probe(*halves(x, y, 120), kind=kind)
    assert result.score == result.chance == (y[120:] == 8).mean()
    assert result.information == pytest.approx(0, abs=1e-6)
    values = probe(*halves(x, y.astype(float), 120), kind=kind)
    assert values.score == values.chance == np.abs(y[120:] - 8).mean()


@pytest.mark.parametrize("kind", [*KINDS, KINDS])
def test_test_labels_never_reach_a_choice(kind):
    x, y = gaussians(apart=0.7)
    x_train, y_train, x_test, y_test = halves(x, y)
    wrong = np.random.default_rng(3).permutation(y_test)
    if kind == KINDS:
        code = [SimpleNamespace(s=x, z=x[:, :1]) for x in (x_train, x_test)]
        runs = [leakage(code[0], y_train, code[1], labels)["s"] for labels in (y_test, wrong)]
    else:
        runs = [probe(x_train, y_train, x_test, labels, kind=kind) for labels in (y_test, wrong)]
    right, wrong = ((r.kind, r.choice, r.validation_score, r.train_score, r.converged) for r in runs)
    assert right == wrong
    assert runs[0].score > runs[1].score


# --- probes: references -----------------------------------------------------------------------------------------------


def test_linear_regression_is_ridge():
    rng = np.random.default_rng(0)
    x = rng.normal(3, [1, 10, 0.1], size=(300, 3))
    y = (x @ [1, 0.2, 5] + rng.normal(size=300)).astype(np.float32).astype(float)
    fitted = fit_probe(x[:200], y[:200])
    standard = (x - x[:200].mean(0)) / x[:200].std(0)
    a = standard[:200]
    w = np.linalg.solve(a.T @ a + fitted.choice["alpha"] * np.eye(3), a.T @ (y[:200] - y[:200].mean()))
    expected = standard[200:] @ w + y[:200].mean()
    np.testing.assert_allclose(fitted.predict(x[200:]), expected, rtol=1e-6)
    result = fitted.test(x[200:], y[200:])
    error = np.abs(expected - y[200:])
    assert result.score == pytest.approx(error.mean())
    half = stats.t.ppf(0.975, 99) * error.std(ddof=1) / 10
    assert (result.low, result.high) == pytest.approx((error.mean() - half, error.mean() + half))


def test_linear_classification_is_penalised_cross_entropy():
    x, y = gaussians(300, apart=0.8)
    fitted = fit_probe(x[:200].astype(float), y[:200])
    standard = (x.astype(float) - x[:200].mean(0, dtype=float)) / x[:200].std(0, dtype=float)

    def loss(w):
        w = w.reshape(5, 3)
        logits = standard[:200] @ w[:4] + w[4]
        nll = special.logsumexp(logits, 1) - logits[np.arange(200), y[:200]]
        return fitted.choice["C"] * nll.sum() + 0.5 * (w[:4] ** 2).sum()

    w = optimize.minimize(loss, np.zeros(15), method="BFGS", options={"gtol": 1e-4}).x.reshape(5, 3)
    expected = special.softmax(standard[200:] @ w[:4] + w[4], 1)
    np.testing.assert_allclose(fitted.outputs(x[200:].astype(float)), expected, atol=2e-3)
    result = fitted.test(x[200:], y[200:])
    assert result.bits == pytest.approx(-np.log2(expected[np.arange(100), y[200:]]).mean(), abs=5e-3)
    assert result.entropy == pytest.approx(stats.entropy(np.bincount(y[200:]) / 100, base=2))
    assert result.information == pytest.approx(result.entropy - result.bits)


def test_neighbours_vote():
    x, y = gaussians(260, apart=0.6)
    fitted = fit_probe(x[:200], y[:200], kind="knn")
    k = fitted.choice["k"]
    scaled = x / x[:200].std(0)
    share = np.bincount(y[:200]) / 200
    for row, code in zip(fitted.outputs(x[200:]), scaled[200:]):
        near = np.argsort(((scaled[:200] - code) ** 2).sum(1))[:k]
        np.testing.assert_allclose(row, (np.bincount(y[near], minlength=3) + share) / (k + 1))
    values = fit_probe(x[:200], y[:200] + 0.5, kind="knn")
    near = np.argsort(((scaled[:200] - scaled[200]) ** 2).sum(1))[: values.choice["k"]]
    assert values.predict(x[200:201])[0] == np.median(y[near] + 0.5)


def test_interval_of_an_accuracy_is_wilsons():
    x, y = gaussians(apart=0.7)
    result = probe(*halves(x, y))
    p, n, z = result.score, 200, stats.norm.ppf(0.975)
    middle, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert (result.low, result.high) == pytest.approx(
        ((middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n))
    )
    assert result.score == pytest.approx(sum(a * (y[400:] == c).mean() for c, a in result.per_class.items()))


def test_chance_is_the_training_majority_on_the_test_labels():
    y = np.r_[np.zeros(30, int), np.ones(20, int), np.zeros(10, int), np.ones(40, int)]
    result = probe(*halves(np.random.default_rng(0).normal(size=(100, 2)), y, 50))
    assert result.chance == 0.2
    assert result.uniform == 0.5


def test_the_mlp_sees_what_a_line_cannot():
    x = np.random.default_rng(0).normal(size=(2000, 3))
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    line, mlp = (probe(*halves(x, y, 1500), kind=kind) for kind in ("linear", "mlp"))
    assert line.score < 0.6
    assert mlp.score > 0.9
    assert mlp.converged


def test_classes_may_be_strings_and_tensors_may_be_bfloat16():
    x, y = gaussians()
    names = np.array(["bus", "car", "van"])[y]
    as_numbers, as_names = probe(*halves(x, y)), probe(*halves(x, names))
    assert as_names.score == as_numbers.score
    assert set(as_names.per_class) == set(names)
    assert set(fit_probe(x, names).predict(x)) == set(names)
    assert probe(*halves(torch.from_numpy(x).bfloat16(), torch.from_numpy(y))).score == pytest.approx(
        as_names.score, abs=0.02
    )


def test_a_fit_that_gives_up_is_named(monkeypatch):
    def short(**options):
        return LogisticRegression(**options | {"max_iter": 1})

    monkeypatch.setattr(sys.modules["twofold.metrics.probe"], "LogisticRegression", short)
    result = probe(*halves(*gaussians()))
    assert not result.converged
    assert "not converged" in str(result)


# --- leakage ----------------------------------------------------------------------------------------------------------


def test_leakage_takes_the_strongest_probe_and_independent_codes_leak_nothing():
    rng = np.random.default_rng(0)
    s, z = rng.normal(size=(3000, 2)), rng.normal(size=(3000, 4))
    xor, size = (s[:, 0] * s[:, 1] > 0).astype(int), s[:, 0] * 3
    code = [SimpleNamespace(s=torch.tensor(s[rows]), z=z[rows]) for rows in (slice(2000), slice(2000, None))]
    factors = [{"xor": xor[rows], "size": size[rows]} for rows in (slice(2000), slice(2000, None))]
    found = leakage(code[0], factors[0], code[1], factors[1])
    assert found["xor"]["s"].kind in ("mlp", "knn")
    assert found["xor"]["s"].score > 0.95
    assert found["xor"]["z"].information < 0.01
    assert not found["xor"]["z"].beats_chance
    assert found["size"]["s"].kind == "linear"
    assert found["size"]["s"].score < 1e-3
    assert found["size"]["z"].score == pytest.approx(found["size"]["z"].chance, rel=0.05)
    assert found["xor"] == leakage(code[0], factors[0]["xor"], code[1], factors[1]["xor"])


# --- clustering and retrieval -----------------------------------------------------------------------------------------


def test_clusters_far_apart_are_found_with_and_without_tsne():
    x, y = gaussians(150, classes=4, apart=30)
    result = clustering(x, y, seeds=2)
    assert result.accuracy == result.direct.accuracy == 1
    assert result.silhouette == result.silhouette_clusters > 0.5
    assert 0.25 < result.chance < 0.45
    assert (result.space, result.direct.space, result.k, result.n) == ("t-SNE", "code", 4, 150)
    assert result == clustering(x, y, seeds=2)
    one = clustering(x, y, seeds=1)
    assert one.accuracies == result.accuracies[:1]
    assert one.accuracy_spread == 0


def test_clusters_of_noise_are_at_chance():
    y = np.random.default_rng(1).integers(0, 5, 1000)
    result = clustering(np.random.default_rng(0).normal(size=(1000, 3)), y, tsne=False)
    assert result.accuracy == pytest.approx(result.chance, abs=0.03)
    assert abs(result.silhouette) < 0.05
    assert result.direct is None


def test_matched_accuracy_against_all_matches():
    rng = np.random.default_rng(0)
    y, found = rng.integers(0, 4, 50), rng.integers(0, 4, 50)
    best = max((np.array(p)[found] == y).mean() for p in permutations(range(4)))
    assert matched_accuracy(y, found) == best
    assert matched_accuracy(y, np.array([2, 0, 3, 1])[found]) == best
    assert matched_accuracy(y, np.array([2, 0, 3, 1])[y] + 5) == 1
    assert matched_accuracy(y, np.zeros(50, int)) == np.bincount(y).max() / 50


@pytest.mark.parametrize("width", [0, 2])
def test_codes_all_equal_make_one_cluster(width):
    y = np.repeat([0, 1], [30, 10])
    result = clustering(np.ones((40, width)), y)
    assert result.accuracy == result.chance == result.direct.accuracy == 0.75
    assert result.silhouette == result.silhouette_clusters == 0


def test_clustering_works_on_few_points_many_clusters_and_samples_many():
    x, y = gaussians(5, classes=2)
    assert 0 < clustering(x, np.arange(5) % 2, seeds=1).accuracy <= 1
    few = clustering(np.eye(2)[np.arange(30) % 2], np.arange(30) % 2, k=5, seeds=1, tsne=False)
    assert few.accuracy == 1
    x, y = gaussians(300)
    assert clustering(x, y, seeds=1, points=50).n == 50


def test_retrieval_against_a_loop():
    x, y = gaussians(60, apart=0.7)
    pool, names = gaussians(80, apart=0.7, seed=1)
    own, other = retrieval_precision(x, y), retrieval_precision(x, y, pool, names)
    for result, codes, labels, skip in ((own, x, y, True), (other, pool, names, False)):
        for k in (1, 5, 10):
            hits = []
            for i in range(60):
                order = [j for j in np.argsort(((codes - x[i]) ** 2).sum(1)) if not (skip and j == i)]
                hits.append((labels[order[:k]] == y[i]).mean())
            assert result.precision[k] == pytest.approx(np.mean(hits))
            assert result.error[k] == pytest.approx(np.std(hits) / np.sqrt(60))
    assert own.chance == pytest.approx(np.mean([(np.delete(y, i) == y[i]).mean() for i in range(60)]))
    assert own == retrieval_precision(x, y, x, y, exclude_self=True)
    assert retrieval_precision(x, y, x, y).precision[1] == 1


@pytest.mark.parametrize("width", [0, 2])
def test_retrieval_by_codes_all_equal_is_at_chance(width):
    y = np.arange(2000) // 500
    result = retrieval_precision(np.ones((2000, width)), y, k=(10,))
    assert result.chance == pytest.approx(0.25, abs=1e-3)
    at_random = np.ones((2000, width)), y, np.ones((2000, width)), y
    assert retrieval_precision(*at_random, k=(200,)).precision[200] == pytest.approx(0.25, abs=0.08)


# --- transport --------------------------------------------------------------------------------------------------------


def test_w2_of_equal_sizes_is_the_best_assignment():
    """[Contrast21, Eq. 9]"""
    a, b = gaussians(40)[0].astype(float), gaussians(40, seed=1)[0].astype(float)
    cost = ((a[:, None] - b[None]) ** 2).sum(-1)
    rows, columns = optimize.linear_sum_assignment(cost)
    assert wasserstein2(a, b) == pytest.approx(cost[rows, columns].mean(), rel=1e-9)
    assert wasserstein2(a, a[::-1]) == pytest.approx(0, abs=1e-12)
    assert wasserstein2(torch.tensor(a), b) == pytest.approx(wasserstein2(b, a), rel=1e-12)


def test_w2_in_one_dimension_compares_quantiles():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=30), rng.normal(2, 3, size=20)
    expected = ((np.sort(np.repeat(a, 20)) - np.sort(np.repeat(b, 30))) ** 2).mean()
    assert wasserstein2(a[:, None], b[:, None]) == pytest.approx(expected, rel=1e-9)


def test_w2_of_a_shift_and_of_large_sets():
    a = np.random.default_rng(0).normal(size=(500, 3))
    assert wasserstein2(a, a + np.array([3, 4, 0])) == pytest.approx(25)
    assert wasserstein2(a, a + np.array([3, 4, 0]), points=50) == pytest.approx(25)
    assert wasserstein2(np.zeros((5, 0)), np.zeros((9, 0))) == 0


# --- generation -------------------------------------------------------------------------------------------------------


def test_inception_score_of_known_distributions():
    assert inception_score(np.full((50, 10), 0.1)) == pytest.approx(1)
    assert inception_score(np.eye(10)[np.arange(50) % 10]) == pytest.approx(10)
    p = torch.rand(30, 4, generator=torch.Generator().manual_seed(0)).softmax(1)
    q = p.double().numpy()
    q /= q.sum(1, keepdims=True)
    assert inception_score(p) == pytest.approx(np.exp((q * np.log(q / q.mean(0))).sum(1).mean()))
    mean, spread = inception_score(np.eye(10)[np.repeat(np.arange(10), 100)], splits=5)
    assert 9.8 < mean < 10
    assert 0 < spread < 0.1


def ms_ssim_reference(a, b, kernel, sigma, weights):
    line = np.exp(-0.5 * (np.arange(kernel) - kernel // 2) ** 2 / sigma**2)
    window = np.outer(line, line) / line.sum() ** 2
    product = 1.0
    for i, weight in enumerate(weights):
        last = i == len(weights) - 1  # torchmetrics mirrors the border there, and leaves it out elsewhere
        terms = []
        for u, v in np.pad(np.stack([a, b], 1), [(0, 0), (0, 0), *[(last * (kernel // 2),) * 2] * 2], mode="reflect"):
            mu, mv, uu, vv, uv = (signal.convolve2d(w, window, mode="valid") for w in (u, v, u * u, v * v, u * v))
            contrast = (2 * (uv - mu * mv) + 0.03**2) / (uu - mu**2 + vv - mv**2 + 0.03**2)
            luminance = (2 * mu * mv + 0.01**2) / (mu**2 + mv**2 + 0.01**2)
            terms.append(contrast * luminance if last else contrast)
        product *= max(np.mean(terms), 0) ** weight
        if not last:
            a, b = (w.reshape(len(w), w.shape[1] // 2, 2, w.shape[2] // 2, 2).mean((2, 4)) for w in (a, b))
    return product


@pytest.mark.parametrize(("side", "kernel", "sigma", "scales"), [(8, 3, 0.3, 2), (16, 7, 0.8, 2), (28, 7, 0.8, 3)])
def test_diversity_against_a_loop_over_all_pairs(side, kernel, sigma, scales):
    """[Zheng19, Eq. 12]"""
    rng = np.random.default_rng(0)
    smooth = rng.random((1, 2, side, side))
    x = (0.7 * smooth + 0.3 * rng.random((7, 2, side, side))).astype(np.float32)
    y = np.array([0, 0, 0, 0, 5, 5, 5])
    result = intra_class_diversity(x, y)
    assert (result.kernel, result.scales, result.pairs) == (kernel, scales, 6 + 3)
    assert sum(result.weights) == pytest.approx(1)
    expected = {}
    for c in (0, 5):
        images = x[y == c].astype(float)
        expected[c] = 1 - np.mean(
            [[ms_ssim_reference(a, b, kernel, sigma, result.weights) for a in images] for b in images]
        )
    assert result.per_class == pytest.approx(expected, abs=1e-5)
    assert result.score == pytest.approx(np.mean(list(expected.values())), abs=1e-5)
    assert result.per_class_without_self == pytest.approx({0: expected[0] * 4 / 3, 5: expected[5] * 3 / 2}, abs=1e-5)


def test_diversity_of_one_image_repeated_is_zero_and_pairs_are_capped():
    image = torch.randint(0, 256, (1, 3, 40, 33), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    same = intra_class_diversity(image.expand(5, -1, -1, -1))
    assert same.score == pytest.approx(0, abs=1e-6)
    assert same.without_self == pytest.approx(0, abs=1e-6)
    x = np.random.default_rng(0).random((40, 1, 16, 16))
    some, every = intra_class_diversity(x, pairs=300), intra_class_diversity(x)
    assert some.pairs == 300
    assert every.pairs == 780
    assert some.without_self == pytest.approx(every.without_self, abs=0.01)
    assert intra_class_diversity(np.random.default_rng(0).random((2, 1, 176, 180))).scales == 5


# --- judges -----------------------------------------------------------------------------------------------------------


def pictures(n=300, seed=0, shape=(2, 9, 12)):
    """A bright quarter tells the class, the level of all else is a real value."""
    rng = np.random.default_rng(seed)
    y, level = rng.integers(0, 4, n), rng.uniform(0, 0.5, n)
    x = level[:, None, None, None] + 0.1 * rng.random((n, *shape))
    for row, k in zip(x, y):
        row[:, 4 * (k // 2) : 4 * (k // 2) + 4, 6 * (k % 2) : 6 * (k % 2) + 5] += 0.4
    return x.astype(np.float32), y, 10 * level


@pytest.mark.parametrize("shape", [(2, 9, 12), None])
def test_judges_learn_classes_and_values_and_skip_what_is_not_known(shape):
    x, y, level = pictures()
    x = x if shape else 1000 * x.reshape(len(x), -1)  # columns in any units
    known = np.where(np.arange(300) % 3 == 0, -1, y)
    found = judges(x[:200], {"y": known[:200], "level": level[:200]}, steps=100)
    assert isinstance(found["y"], Classifier)
    assert isinstance(found["level"], Regressor)
    assert (found.steps, found.n_train) == (100, 200)
    told, error = found["y"].accuracy(x[200:], y[200:]), found["level"].error(x[200:], level[200:])
    assert told.score > 0.95
    assert told.beats_chance
    assert error.high < 0.6 * error.chance
    assert error.chance == pytest.approx(np.abs(level[200:] - np.median(level[:200])).mean(), rel=1e-5)
    both = found.predict(x[200:])
    assert np.array_equal(both["y"], found["y"].predict(x[200:]))
    assert np.array_equal(both["level"], found["level"].predict(x[200:]))


def test_a_judge_scores_as_said():
    x, y, _ = pictures(80)
    names = np.array(["a", "b", "c", "d"])
    judge = classifier(torch.from_numpy((255 * x.clip(0, 1)).astype(np.uint8)), names[y], steps=2)
    p = judge.probabilities(x[:9])
    np.testing.assert_allclose(p.sum(1), 1)
    assert judge.predict(x[:9]).tolist() == names[p.argmax(1)].tolist()
    numbers = classifier(x, y, steps=1)
    found, wanted = np.array([0, 1, 1, 3, 2, 0]), np.array([0, 1, 2, 3, -1, 1])
    result = numbers.compare(found, wanted)
    interval = stats.binomtest(3, 5).proportion_ci(method="wilson")
    assert (result.score, result.n) == (0.6, 5)
    assert (result.low, result.high) == (interval.low, interval.high)
    assert result.chance == pytest.approx((wanted[wanted >= 0] == np.bincount(y).argmax()).mean())
    assert result.per_class == {0: 1, 1: 0.5, 2: 0, 3: 1}


def test_one_judge_is_a_function_of_its_seed_and_takes_large_images():
    x, y, _ = pictures(40, shape=(1, 70, 100))
    one, same, other = (classifier(x, y, steps=2, seed=seed).probabilities(x) for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


# --- all --------------------------------------------------------------------------------------------------------------


def all_metrics():
    x, y = gaussians(200)
    train, test = (SimpleNamespace(s=x[rows], z=x[rows, :1]) for rows in (slice(100), slice(100, None)))
    images = np.random.default_rng(0).random((6, 1, 16, 16))
    return [
        *leakage(train, y[:100], test, y[100:]).values(),
        *leakage(train, x[:100, 0], test, x[100:, 0]).values(),
        clustering(x[:50], y[:50], seeds=2),
        retrieval_precision(x, y),
        intra_class_diversity(images, pairs=5),
        wasserstein2(x, x[:50], points=60),
        classifier(images, [0, 1] * 3, steps=2).accuracy(images, [0, 1] * 3),
        inception_score(special.softmax(x, 1), splits=3),
    ]


def test_metrics_repeat_and_leave_the_global_generators_alone():
    states = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    first = all_metrics()
    with torch.inference_mode():
        assert all_metrics() == first
    assert torch.equal(states[0], torch.get_rng_state())
    np.testing.assert_array_equal(states[1], np.random.get_state()[1])  # noqa: NPY002


def test_results_print_as_one_line_and_go_to_json():
    for result in (r for r in all_metrics() if hasattr(r, "as_dict")):
        assert json.loads(json.dumps(result.as_dict(), allow_nan=False))
        assert "\n" not in str(result)
        assert str(result) in repr(result)
    result = probe(*halves(*gaussians(apart=0.7)))
    assert str(result) == f"{result.score:.3f} [{result.low:.3f}, {result.high:.3f}], chance {result.chance:.3f}"
    assert float(result) == result.score


X, Y = gaussians(60)
HALF = SimpleNamespace(s=X, z=X)
JUDGE = classifier(X, Y, steps=1)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: probe(X[:, 0], Y, X, Y), "codes_train: shape (60,), float32; expected codes [N, D]"),
        (lambda: probe(X, Y, X[:, :2], Y), "codes_test: codes are 2 wide; expected 4"),
        (lambda: probe(X, Y[:9], X, Y), "y_train: 9 values for 60"),
        (lambda: probe(X, Y, X, Y[:9]), "y_test: 9 values for 60"),
        (lambda: probe(X * np.nan, Y, X, Y), "codes_train: NaN or Inf in 60 of 60"),
        (lambda: probe(X, Y, X[:0], Y[:0]), "codes_test: shape (0, 4), float32 holds no codes"),
        (lambda: probe(X, Y * 0, X, Y), "y_train: every value is 0"),
        (lambda: probe(X, np.arange(60), X, Y), "y_train: 60 values of 60 classes are too few"),
        (lambda: probe(X, Y, X, Y + 2), "y_test: training never saw 3, 4"),
        (lambda: probe(X, Y, X, Y + 0.5), "y_test: shape (60,), float64; the probe was trained on whole numbers"),
        (lambda: probe(X, Y, X[:1], Y[:1]), "y_test: 1 value; expected at least two"),
        (lambda: probe(X, Y, X, Y, kind="liner"), "did you mean 'linear'"),
        (lambda: leakage(X, Y, X, Y), "code_train: shape (60, 4), float32 has no halves"),
        (lambda: leakage(HALF, {"a": Y}, HALF, {"b": Y}), "y_test: factors 'a' of y_train are missing"),
        (lambda: leakage(HALF, {"a": Y}, HALF, {"a": Y[:5]}), "y_test['a']: 5 values"),
        (lambda: leakage(HALF, {"a": Y}, HALF, Y), "expected the same kind twice"),
        (lambda: clustering(X, Y + 0.5), "labels: shape (60,), float64; expected classes"),
        (lambda: clustering(X, Y * 0), "labels: only one class"),
        (lambda: clustering(X, Y, k=61), "k: 61; expected 1 to 60"),
        (lambda: clustering(X[:3], Y[:3]), "codes: 3 codes; expected at least 4"),
        (lambda: clustering(X, Y, seeds=0), "seeds: 0; expected at least 1"),
        (lambda: retrieval_precision(X, Y, k=(60,)), "k: (60,); expected whole numbers from 1 to 59"),
        (lambda: retrieval_precision(X, Y, X), "one is missing"),
        (lambda: retrieval_precision(X, Y, X[:5], Y[:5], exclude_self=True), "exclude_self: 60 queries, 5 gallery"),
        (lambda: wasserstein2(X, X[:, :1]), "b: codes are 1 wide; expected 4"),
        (lambda: inception_score(X), "rows lie outside [0, 1] or don't sum to 1"),
        (lambda: inception_score([0.5, 0.5]), "probabilities: shape (2,), float64; expected [N, C]"),
        (lambda: inception_score(np.full((4, 2), 0.5), splits=5), "splits: 5; expected 1 to 4"),
        (lambda: classifier(X, Y + 0.5), "y_train: real values; expected classes"),
        (lambda: classifier(X, Y * 0), "y_train: 1 known classes"),
        (lambda: classifier(X[:1], Y[:1]), "x_train: one observation"),
        (lambda: classifier(X, Y, batch_size=1), "batch_size, steps: 1, None"),
        (lambda: judges(X, {}), "factors: none"),
        (lambda: JUDGE.accuracy(X[:, :2], Y), "x: shape (60, 2), float32; the judge was trained on"),
        (lambda: JUDGE.accuracy(X, Y + 2), "y: the judge never saw 3, 4"),
        (lambda: JUDGE.accuracy(X, Y + 0.5), "expected classes as the judge was trained on: 0, 1, 2"),
        (lambda: JUDGE.accuracy(X, Y * 0 - 1), "y: no class is known"),
        (lambda: intra_class_diversity(X), "images: shape (60, 4), float32; expected images"),
        (lambda: intra_class_diversity(np.zeros((3, 1, 8, 8)), [0, 0, 1]), "labels: class 1 has one image"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(InputError) as error:
        call()
    assert words in str(error.value)
    assert "\n" not in str(error.value)
