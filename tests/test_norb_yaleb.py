"""Readers of NORB and of Extended Yale B, on small copies in the authors' formats."""

from __future__ import annotations

import gzip
import re
import struct
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from twofold.data import available, load
from twofold.data.norb import PARTS, matrix
from twofold.errors import InputError, MissingFileError


def refused(text, kind=InputError):
    return pytest.raises(kind, match=text)


# NORB


def write_matrix(path: Path, array: np.ndarray, packed: bool = False):
    """As the authors describe it: magic, number of axes, at least three lengths, values; all little-endian."""
    magic = {"uint8": 0x1E3D4C55, "int32": 0x1E3D4C54}[array.dtype.name]
    lengths = [*array.shape, 1, 1][: max(3, array.ndim)]
    content = struct.pack(f"<{2 + len(lengths)}I", magic, array.ndim, *lengths) + array.tobytes()
    if packed:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(content, mtime=0))
    else:
        path.write_bytes(content)


@pytest.fixture(scope="module")
def norb(tmp_path_factory):
    """A data folder, and what was written there: for each part (images, categories, info)."""
    root, random, wrote = tmp_path_factory.mktemp("data"), np.random.default_rng(0), {}
    (root / "norb").mkdir()
    for part, instances in (("training", (4, 9)), ("testing", (0, 5))):
        rows = list(product(range(5), instances, (0, 8), (0, 34), (0, 5)))
        rows = np.array(rows)[random.permutation(len(rows))].astype(np.int32)
        images = random.integers(0, 256, (len(rows), 2, 96, 96), np.uint8)
        wrote[part] = images, rows[:, 0], rows[:, 1:]
        for kind, array in zip(("dat", "cat", "info"), wrote[part]):
            write_matrix(root / "norb" / f"{PARTS[part]}-{kind}.mat", array, packed=part == "training" or kind == "dat")
    return root, wrote


def test_norb_is_read(norb):
    root, wrote = norb
    data = load("norb", root=root)
    images, category, info = (np.concatenate([wrote[part][i] for part in PARTS]) for i in range(3))
    assert data.x.dtype == torch.uint8
    assert (data.x.numpy() == images[:, :1]).all()
    factors = {name: values.numpy() for name, values in data.factors.items()}
    assert (factors["category"] == category).all()
    for name, column in (("instance", info[:, 0]), ("elevation", info[:, 1]), ("lighting", info[:, 3])):
        assert (factors[name] == column).all()
    assert [data.names["azimuth"][i] for i in factors["azimuth"]] == [str(10 * a) for a in info[:, 2]]
    assert [data.names["elevation"][i] for i in factors["elevation"]] == [str(30 + 5 * e) for e in info[:, 1]]
    kinds = ("animal", "human", "plane", "truck", "car")
    told = [data.names["identity"][i] for i in factors["identity"]]
    assert told == [f"{kinds[c]} {i}" for c, i in zip(category, info[:, 0])]
    train, test = data.split("official")
    assert (len(train), len(test)) == (80, 80)
    assert not set(train.factors["identity"].tolist()) & set(test.factors["identity"].tolist())
    assert train.triplets().classes == 10  # unseen identities at test
    entry = next(entry for entry in available() if entry.name == "norb")
    assert (tuple(data.factors), data.default) == (entry.factors, entry.default)


def test_norb_options(norb):
    root, wrote = norb
    both = load("norb", root=root, stereo=True)
    assert (both.x[:80].numpy() == wrote["training"][0]).all()
    half = load("norb", root=root, size=48)
    mean = wrote["training"][0][:, :1].reshape(80, 1, 48, 2, 48, 2).mean((3, 5))
    assert half.x[:80].numpy() == pytest.approx(mean, abs=0.51)
    with refused(r"^stereo: 'yes'"):
        load("norb", root=root, stereo="yes")
    with refused(r"^size: 97.* 8 to 96"):
        load("norb", root=root, size=97)


def test_norb_says_what_is_missing_or_broken(norb, tmp_path):
    root, wrote = norb
    with refused(
        r"^norb: norb/smallnorb-.*-training-dat.mat is not in .*norb-v1.0-small.*TWOFOLD_DATA", MissingFileError
    ):
        load("norb", root=tmp_path)
    for path in (root / "norb").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())  # in the folder itself
    assert len(load("norb", root=tmp_path)) == 160
    info = tmp_path / f"{PARTS['testing']}-info.mat"
    content = info.read_bytes()
    for broken in (content[:-4], content[:11], b"", b"\x00" * 64, content + b"0"):
        info.write_bytes(broken)
        with refused(info.name):
            load("norb", root=tmp_path)
    values = wrote["testing"][2].copy()
    values[3, 2] = 35
    write_matrix(info, values)
    with refused(f"{info.name}: values out of range"):
        load("norb", root=tmp_path)
    write_matrix(info, values[:-1])
    with refused(f"{info.name}: does not fit the 80 pairs"):
        load("norb", root=tmp_path)
    write_matrix(info, wrote["testing"][2])
    category = tmp_path / f"{PARTS['testing']}-cat.mat"
    write_matrix(category, wrote["testing"][1] + 1)
    with refused(f"{category.name}: category 1 to 5; expected 0 to 4"):
        load("norb", root=tmp_path)
    (tmp_path / f"{PARTS['training']}-dat.mat").write_bytes(b"")  # found before the gzipped one
    with refused("-dat.mat: not a matrix"):
        load("norb", root=tmp_path)


def test_norb_matrices_of_one_axis(tmp_path):
    array = np.arange(5, dtype=np.int32)
    write_matrix(tmp_path / "a.mat", array)
    assert (tmp_path / "a.mat").stat().st_size == 4 * (2 + 3 + 5)  # three lengths, though it has one axis
    assert (matrix(tmp_path / "a.mat") == array).all()


# Yale B


@pytest.fixture
def yale(tmp_path):
    """A data folder, and the faces by path."""
    random, faces = np.random.default_rng(0), {}
    for subject in ("01", "02", "39"):
        folder = tmp_path / "yaleb" / f"yaleB{subject}"
        folder.mkdir(parents=True)
        for light in ("A+005E-10", "A-130E+20", "A+000E+90"):
            path = folder / f"yaleB{subject}_P00{light}.pgm"
            faces[path] = random.integers(0, 256, (48, 42), np.uint8)
            Image.fromarray(faces[path]).save(path)
        Image.fromarray(np.zeros((60, 60), np.uint8)).save(folder / f"yaleB{subject}_P00_Ambient.pgm")
        (folder / f"yaleB{subject}_P00A-050E+00.pgm.bad").write_bytes(b"P5")
        (folder / f"yaleB{subject}_P00.info").write_text("yaleB_P00_Ambient.pgm")
    return tmp_path, faces


def test_yaleb_is_read(yale):
    root, faces = yale
    data = load("yaleb", root=root, size=48)
    assert data.shape == (1, 48, 42)
    for i, path in enumerate(sorted(faces)):
        assert (data.x[i, 0].numpy() == faces[path]).all()
        subject, azimuth, elevation = (data.names[name][data.factors[name][i]] for name in data.factors)
        told = re.match(r"(yaleB\d+)_P00A(.*)E(.*)\.pgm", path.name)
        assert told
        assert (subject, int(azimuth), int(elevation)) == (told[1], int(told[2]), int(told[3]))
    entry = next(entry for entry in available() if entry.name == "yaleb")
    assert (tuple(data.factors), data.default) == (entry.factors, entry.default)
    small = load("yaleb", root=root, size=16)
    assert small.shape == (1, 16, 14)
    first = faces[min(faces)].reshape(16, 3, 14, 3).mean((1, 3))
    assert small.x[0, 0].numpy() == pytest.approx(first, abs=1.01)  # rounded along each axis
    assert data.triplets().classes == 3


def test_yaleb_poses_and_other_places(yale):
    root, faces = yale
    for path in faces:
        Image.fromarray(faces[path]).save(path.with_name(path.name.replace("P00", "P08")))
    data = load("yaleb", root=root, size=48)
    assert tuple(data.factors) == ("subject", "pose", "azimuth", "elevation")
    assert data.names["pose"] == ("P00", "P08")
    (root / "CroppedYale").mkdir()
    (root / "yaleb").rename(root / "CroppedYale" / "inside")
    (root / "yaleb").mkdir()
    (root / "CroppedYale" / "inside").rename(root / "yaleb" / "CroppedYale")
    assert load("yaleb", root=root, size=48).hash == data.hash


def test_yaleb_says_what_is_missing_or_broken(yale, tmp_path_factory):
    root, faces = yale
    with refused(r"^yaleb: yaleb/yaleB01/.* is not in .*CroppedYale.zip.*TWOFOLD_DATA", MissingFileError):
        load("yaleb", root=tmp_path_factory.mktemp("empty"))
    with refused(r"^size: 96; expected a whole number from 8 to 48"):
        load("yaleb", root=root)
    last = max(faces)
    content = last.read_bytes()
    Image.fromarray(np.zeros((24, 24), np.uint8)).save(last)
    with refused(f"{re.escape(last.name)}: 24 x 24 pixels; expected 42 x 48"):
        load("yaleb", root=root, size=48)
    for broken in (content[:-9], b"", b"P5 many"):
        last.write_bytes(broken)
        with refused(f"{re.escape(last.name)}: can't be read"):
            load("yaleb", root=root, size=48)
