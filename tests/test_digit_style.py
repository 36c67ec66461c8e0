"""Digit style [Ruiz19, A.3.1]: pixel by pixel, from the digits' own pixels; sizes, parts, units, seeds."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
import scipy.ndimage
import torch

from twofold.data import load
from twofold.data.digit_style import Styled, dilated, outlines, shrinking
from twofold.errors import InputError
from twofold.supervision import Reference


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """MNIST's files with few digits: bars whose place tells the label."""
    folder, random = tmp_path_factory.mktemp("data") / "mnist", np.random.default_rng(0)
    folder.mkdir()
    for part, n in (("train", 60), ("t10k", 20)):
        digit = random.permutation(np.arange(n) % 10).astype(np.uint8)
        images = np.zeros((n, 28, 28), np.uint8)
        for image, d in zip(images, digit):
            image[4:24, 4 + d : 10 + d] = 255
        for array, kind in ((images, "images-idx3"), (digit, "labels-idx1")):
            header = bytes([0, 0, 8, array.ndim]) + np.asarray(array.shape, ">u4").tobytes()
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes(), mtime=0))
    return folder.parent


def blobs(n: int = 12) -> torch.Tensor:
    random = np.random.default_rng(0)
    return torch.from_numpy(
        (scipy.ndimage.gaussian_filter(random.random((n, 40, 44)), (0, 3, 3)) > 0.5) * np.uint8(255)
    )


def test_outlines_are_what_erosion_takes_away():
    images = blobs()
    cross = scipy.ndimage.generate_binary_structure(2, 1)
    for image, found in zip(images.numpy(), outlines(images).numpy()):
        inside = image > 127
        assert (found == (inside & ~scipy.ndimage.binary_erosion(inside, cross))).all()
    grey = torch.tensor([[[127, 128]]], dtype=torch.uint8)
    assert outlines(grey).tolist() == [[[0, 1]]]


def test_dilation_by_a_square_of_each_width():
    images = outlines(blobs(20))
    width = torch.arange(20) % 10 + 1
    for image, w, found in zip(images.numpy(), width.tolist(), dilated(images, width).numpy()):
        reference = scipy.ndimage.grey_dilation(image, (w, w), mode="constant")
        if w % 2 == 0:  # an even square has no middle: SciPy's lies one to the left and up, ours to the right and down
            reference = np.roll(reference, (1, 1), (0, 1))
        assert (found[1:, 1:] == reference[1:, 1:]).all()
    dot = torch.zeros(10, 21, 21, dtype=torch.uint8)
    dot[:, 10, 10] = 1
    assert dilated(dot, torch.arange(1, 11)).sum((1, 2)).tolist() == [w**2 for w in range(1, 11)]


@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.parametrize("scale", [1.0, 0.5, 0.73])
def test_scaling_by_area_averages_about_the_middle(size, scale):
    """Against the same average on a grid 16 times as fine."""
    (weights,) = shrinking(torch.tensor([scale], dtype=torch.float64), size)
    fine, reach = 64 * 16, 64 / size / scale
    centre = (np.arange(fine * 3) + 0.5) / 16 - 64  # of the fine pixels, in old ones, zeros around
    value = np.random.default_rng(0).random(64)
    row = np.where((centre > 0) & (centre < 64), value[np.clip(centre, 0, 63).astype(int)], 0)
    for j, found in enumerate((weights.numpy() @ value).tolist()):
        low = 32 + (j - size / 2) * reach
        inside = (centre >= low) & (centre < low + reach)
        assert found == pytest.approx(row[inside].sum() / (16 * reach), abs=0.1 / reach)
    if scale == 1.0 and size == 64:
        assert torch.equal(weights, torch.eye(64))
    assert weights.sum().item() == pytest.approx(size * scale, rel=1e-5)  # nothing is lost, all is smaller


def test_an_image_is_its_outline_widened_coloured_and_scaled(root):
    data = load("digit-style-mnist", root=root)
    digits = load("mnist", root=root)
    box = {int(d): np.nonzero(digits.x[i, 0].numpy()) for i, d in enumerate(digits.factors["digit"])}
    for i in range(0, len(data), 7):
        f = {name: values[i].item() for name, values in data.factors.items()}
        x = data.x[i].numpy()
        assert x.shape == (3, 64, 64)
        grey = x.sum(0) / 255  # colours sum to 1
        np.testing.assert_allclose(
            x / 255, np.array([f["red"], f["green"], f["blue"]])[:, None, None] * grey, atol=0.01
        )
        rows, columns = box[int(f["digit"])]
        high, across = (np.ptp(v) + 1 for v in (rows, columns))
        w = round(10 * f["width"])
        solid = [f["scale"] * (64 / 28 * side + w - 1) for side in (high, across)]  # a bar's outline, widened
        assert (grey.max(0) > 0.02).sum() == pytest.approx(solid[1], abs=3)
        assert (grey.max(1) > 0.02).sum() == pytest.approx(solid[0], abs=3)
        assert grey.max() == pytest.approx(1, abs=0.4 if w <= 2 else 0.03)


def test_the_reference_is_plain(root):
    for data in (load("digit-style-mnist", root=root), load("digit-style", size=64)):
        x = data.background[:60].x
        assert ((x == 0) | (x == 255)).all()
        assert (x == x[:, :1]).all()
        assert list(data.background.factors) == ["digit"]


def test_factors_are_spread_as_the_paper_says():
    data = load("digit-style", times=30)
    f = {name: values.numpy() for name, values in data.factors.items()}
    colour = np.stack([f[name] for name in ("red", "green", "blue")])
    np.testing.assert_allclose(colour.sum(0), 1, atol=1e-5)
    assert data.names["colour"] == ("red", "green", "blue")
    np.testing.assert_array_equal(f["colour"], colour.argmax(0))
    np.testing.assert_allclose(np.bincount(f["colour"]) / len(data), 1 / 3, atol=0.02)
    assert (np.unique(np.rint(10 * f["width"])) == np.arange(1, 11)).all()
    assert (f["scale"].min(), f["scale"].max()) == (pytest.approx(0.5, abs=0.001), pytest.approx(1, abs=0.001))
    best = {name: np.abs(v - np.median(v)).mean() for name, v in f.items()}
    for name, mae in {"red": 0.144, "green": 0.144, "blue": 0.144, "scale": 0.125, "width": 0.25}.items():
        assert best[name] == pytest.approx(mae, abs=0.004)
    assert np.abs(np.corrcoef([f["red"], f["scale"], f["width"]]) - np.eye(3)).max() < 0.03
    assert set(data.units) < set(f)


@pytest.mark.parametrize(("times", "often"), [(2, 1), (1, 1), (5, 3)])
def test_parts_and_how_often_a_digit_is_transformed(root, times, often):
    data = load("digit-style-mnist", root=root, times=times, size=16)
    parts = data.split("official")
    assert [len(part) for part in parts] == [30 * times, 10 * often, 10 * often]
    assert [len(part.background) for part in parts] == [30, 10, 10]
    digit = data.factors["digit"]
    assert ((parts[0].factors["digit"].bincount() - 3 * times).abs() <= times).all()  # a half of each digit, or so
    assert torch.equal(digit[:30].repeat(times), digit[: 30 * times])
    supervision = parts[0].reference()
    assert isinstance(supervision, Reference)
    assert supervision.target.shape == (30 * times, 3, 16, 16)


def test_no_digit_is_in_two_parts():
    """Rows of digits behind the images: those of the background and of the three parts are disjoint."""
    data = load("digit-style")
    source, back = data._source, data.background._source
    assert isinstance(source, Styled)
    sets = [set(source.row[rows].tolist()) for rows in data._splits["official"]]
    reference, *tests = [set(back.row[rows].tolist()) for rows in data.background._splits["official"]]
    assert len(sets[0] | sets[1] | sets[2] | reference) == sum(map(len, (*sets, reference))) == 1797
    assert tests == sets[1:]  # the probe parts' own digits, plain


def test_digits_come_with_a_margin_and_sizes_agree():
    large, small = (load("digit-style", size=size)[::20] for size in (64, 16))
    assert torch.equal(large.factors["width"], small.factors["width"])
    average = large.x.float().view(-1, 3, 16, 4, 16, 4).mean((3, 5))
    assert (average - small.x.float()).abs().max() < 1.01
    assert (large.background[::20].x[:, :, :3] == 0).all()


def test_seeds_and_subsets(root):
    a, b, c = (load("digit-style-mnist", root=root, size=16, seed=seed) for seed in (0, 0, 1))
    assert a.hash == b.hash != c.hash
    few = load("digit-style-mnist", root=root, size=16, digits=20)
    assert [len(part) for part in few.split("official")] == [20, 4, 3]
    with pytest.raises(InputError, match=r"^digits: 3 of 60 leave fewer than two of the test part's"):
        load("digit-style-mnist", root=root, digits=3)
    for option, value in (("size", 65), ("size", 7), ("times", 0), ("seed", -1), ("digits", 61)):
        with pytest.raises(InputError, match=rf"^{option}: {value}; expected a whole number"):
            load("digit-style-mnist", root=root, **{option: value})
