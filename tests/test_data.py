"""Data sets: the built-in ones from files in their real formats, one's own files, splits, supervision, bad input."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import os
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from twofold.arrays import Rows, gather
from twofold.data import Dataset, available, load, mnist
from twofold.data.grassy import EDGE, grass, superimpose
from twofold.errors import InputError, MissingFileError
from twofold.supervision import Groups, Images, Labels, Reference, Triplets

SHARED = Path(os.environ.get("TWOFOLD_DATA") or "nowhere")
NAMES = [entry.name for entry in available()]


def real(file: str):
    return pytest.mark.skipif(not (SHARED / file).is_file(), reason=f"TWOFOLD_DATA holds no {file}")


def refused(text: str, kind: type[Exception] = InputError):
    """One line that holds `text`."""
    return pytest.raises(kind, match=rf"\A(?=[^\n]*\Z).*{text}")


def write_idx(path: Path, array: np.ndarray, packed: bool):
    header = bytes([0, 0, 8, array.ndim]) + np.asarray(array.shape, ">u4").tobytes()
    content = header + array.tobytes()
    if packed:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(content, mtime=0))
    else:
        path.write_bytes(content)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A small data folder in the real formats."""
    root, random = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    (root / "mnist").mkdir()
    for part, n, packed in (("train", 120, True), ("t10k", 50, False)):  # both forms
        digits = random.permutation(np.arange(n) % 10).astype(np.uint8)
        images = random.integers(0, 256, (n, 28, 28), np.uint8)
        images[:, 0, 0] = digits  # a mark that tells the label from the image
        write_idx(root / "mnist" / f"{part}-images-idx3-ubyte", images, packed)
        write_idx(root / "mnist" / f"{part}-labels-idx1-ubyte", digits, not packed)
    (root / "sprites").mkdir()
    frames = {"walk": 3, "thrust": 2, "spellcast": 2, "slash": 1, "shoot": 2, "hurt": 2}
    np.savez_compressed(
        root / "sprites" / "sprites.npz",
        **{k: random.integers(0, 7, (6, 1 if k == "hurt" else 4, n, 60, 60), np.uint8) for k, n in frames.items()},
        palette=random.integers(0, 256, (6, 7, 3), np.uint8),
        labels=random.integers(0, 2, (6, 7), np.uint8),
        label_names=np.array(["gender", "body", "armor", "hair", "arm", "greaves", "weapon"]),
        directions=np.array(["up", "left", "down", "right"]),
        train_idx=np.array([3, 0, 5]),
        val_idx=np.array([1]),
        test_idx=np.array([2, 4]),
    )
    (root / "cars3d").mkdir()
    np.savez_compressed(
        root / "cars3d" / "cars3d_gray64.npz",
        images=random.integers(0, 256, (5, 4, 24, 64, 64), np.uint8),
        elevation_deg=np.array([0, 6, 12, 18]),
        azimuth_deg=np.arange(24) * 15,
        car_id=np.array([1, 2, 3, 7, 9]),
    )
    return root


# The list


def test_the_list_is_there_without_the_data():
    code = "import twofold.data as d, sys; print(len(d.available()), 'sklearn' in sys.modules, 'pandas' in sys.modules)"
    env = {**os.environ, "TWOFOLD_DATA": "/nowhere"}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True).stdout
    assert out.split() == [str(len(NAMES)), "False", "False"]
    assert len(set(NAMES)) == len(NAMES)
    assert {"digits", "mnist", "grassy-digits", "grassy-mnist", "grassy-digits-nl", "grassy-mnist-nl"} < set(NAMES)
    assert {"sprites", "cars3d", "toy"} < set(NAMES)


@pytest.mark.parametrize("entry", available(), ids=NAMES)
def test_the_list_tells_the_truth(entry):
    if entry.files and not all((SHARED / file).is_file() for file in entry.files):
        pytest.skip(f"TWOFOLD_DATA lacks {entry.name}")
    data = load(entry.name, root=SHARED if entry.files else None)
    assert (data.name, data.shape, len(data), data.default) == (entry.name, entry.shape, entry.n, entry.default)
    assert tuple(data.factors) == entry.factors
    assert (data.background is not None) == entry.background == ("reference" in entry.supervision)
    assert entry.summary.endswith((".", "`"))
    assert entry.source
    assert entry.licence
    assert all(len(values) == len(data) for values in data.factors.values())
    part = data[:4000]
    part.background = part.background and part.background[:500]
    assert len(part.hash) == 32
    assert part.x.dtype == (torch.uint8 if len(data.shape) == 3 else torch.float32)
    for kind in entry.supervision:
        getattr(part, kind)()


# Built-in sets


def test_digits():
    from sklearn.datasets import load_digits

    data, source = load("digits"), load_digits()
    assert data.x.dtype == torch.uint8
    assert (data.x.min(), data.x.max()) == (0, 255)
    torch.testing.assert_close(data.x[:, 0].numpy() * (16 / 255), source.images, atol=0.04, rtol=0)
    assert (data.factors["digit"].numpy() == source.target).all()


def test_mnist_reads_idx_files_gzipped_or_not_from_the_folder_or_its_parent(root, monkeypatch):
    data = load("mnist", root=root)
    assert data.x.shape == (170, 1, 28, 28)
    assert (data.x[:, 0, 0, 0] == data.factors["digit"]).all()
    train, test = data.split("official")
    assert (len(train), len(test)) == (120, 50)
    assert train.x.data_ptr() == data.x.data_ptr()  # a contiguous part is a view
    assert (test.x == data.x[120:]).all()
    monkeypatch.setenv("TWOFOLD_DATA", str(root / "mnist"))
    assert load("mnist").hash == data.hash


def test_mnist_download_is_only_on_demand_and_verified(root, tmp_path, monkeypatch):
    served = tmp_path / "served"
    served.mkdir()
    for name in mnist.SHA256:
        source = root / "mnist" / name
        packed = source.read_bytes() if source.is_file() else gzip.compress(source.with_suffix("").read_bytes())
        (served / name).write_bytes(packed)
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=served)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        here = f"http://127.0.0.1:{server.server_address[1]}/"
        monkeypatch.setattr(mnist, "MIRRORS", (here + "gone/", here))
        with refused("could not be downloaded.*hash"):  # not the published files
            load("mnist", root=tmp_path / "new", download=True)
        assert not any(path.is_file() for path in (tmp_path / "new").rglob("*"))
        hashes = {name: hashlib.sha256((served / name).read_bytes()).hexdigest() for name in mnist.SHA256}
        monkeypatch.setattr(mnist, "SHA256", hashes)
        with refused("download=True", MissingFileError):
            load("mnist", root=tmp_path)
        assert load("mnist", root=tmp_path / "new", download=True).hash == load("mnist", root=root).hash
        server.shutdown()
    assert len(load("mnist", root=tmp_path / "new")) == 170  # now from the folder


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("train-images-idx3-ubyte.gz", lambda b: b[: len(b) // 2], "truncated"),
        ("train-images-idx3-ubyte.gz", lambda b: b"no gzip", "truncated, or not gzipped"),
        ("t10k-images-idx3-ubyte", lambda b: b[:-5], "truncated, or not an IDX"),
        ("t10k-images-idx3-ubyte", lambda b: b"", "truncated, or not an IDX"),
        ("t10k-images-idx3-ubyte", lambda b: b"\x00\x00\x0d" + b[3:], "not an IDX file"),
        ("train-labels-idx1-ubyte", lambda b: b[:7] + bytes([119]) + b[8:-1], "labels .119. for images .120, 28, 28."),
    ],
)
def test_mnist_refuses_broken_files(root, tmp_path, name, content, text):
    for file in (root / "mnist").iterdir():
        (tmp_path / file.name).write_bytes(content(file.read_bytes()) if file.name == name else file.read_bytes())
    with refused(f"{name}.*{text}"):
        load("mnist", root=tmp_path)


def test_grassy_equations_pixel_by_pixel():
    random = np.random.default_rng(0)
    y, t = (torch.from_numpy(random.integers(0, 256, (6, 1, 9, 8), np.uint8)) for _ in range(2))
    for rho, threshold in ((0.5, None), (0.3, None), (0.5, 0.3), (0.75, 0.6)):
        x = superimpose(y, t, rho, threshold)
        assert x.dtype == torch.uint8
        for where in np.ndindex(*y.shape):
            grass_pixel, digit_pixel = y[where].item() / 255, t[where].item() / 255
            want = rho * grass_pixel + (1 - rho) * digit_pixel  # Eq. 10
            if threshold is not None and not grass_pixel > threshold:
                want = 0.0  # Eq. 11
            assert abs(x[where].item() - 255 * want) <= 0.5 + 1e-4


@pytest.mark.parametrize("name", ["grassy-digits", "grassy-digits-nl", "grassy-mnist", "grassy-mnist-nl"])
def test_grassy_sets_are_digits_on_their_background(root, name):
    few = {"per_digit": 4, "patches": 30} if "mnist" in name else {"per_digit": 20, "patches": 30}
    data = load(name, root=root, **few)
    digits = load("mnist", root=root) if "mnist" in name else load("digits")
    parts = data.split("official")
    sources = digits.split("official") if "mnist" in name else digits.split((0.8, 0.2))
    assert [len(part) for part in parts] == [10 * few["per_digit"]] * 2
    seen = []
    for part, source in zip(parts, sources):
        assert (part.factors["digit"].bincount() == few["per_digit"]).all()
        assert part.background is not None
        back = part.background.x
        assert len(back) == 30
        torch.testing.assert_close(part.background.factors["brightness"], back.float().mean((1, 2, 3)) / 255)
        found = []
        threshold = 0.3 if name.endswith("nl") else None
        for image, digit, light in zip(part.x, part.factors["digit"], part.factors["brightness"]):
            rows = torch.nonzero(source.factors["digit"] == digit)[:, 0]
            patch = back[(part.background.factors["brightness"] - light).abs().argmin()]
            made = superimpose(patch.expand(len(rows), *patch.shape), source.x[rows], 0.5, threshold)
            (match,) = torch.nonzero((made == image).flatten(1).all(1), as_tuple=True)
            assert len(match) >= 1
            found.append(int(rows[match[0]]))
        seen.append(found)
    assert all(len(set(found)) > 0.95 * len(found) for found in seen)  # no digit twice
    assert load(name, root=root, **few).hash == data.hash != load(name, root=root, **few, seed=1).hash


def test_grass_in_colour(root):
    """A green a patch, grey digits; all else is as without."""
    few = {"per_digit": 4, "patches": 30}
    grey, green = (load("grassy-mnist", root=root, colour=colour, **few) for colour in (False, True))
    assert green.shape == (3, 28, 28)
    assert green.background.shape == (3, 28, 28)
    red, leaf, blue = (channel.float() for channel in green.background.x.unbind(1))
    assert (leaf >= red - 1).all()
    assert (red >= 0.8 * blue - 1).all()
    light = grey.background.x[:, 0].float()
    tint = (leaf.flatten(1).sum(1) / light.flatten(1).sum(1))[:, None, None]
    assert (leaf - tint * light).abs().max() < 1  # the same grass, one colour a patch
    assert 0.89 < tint.min() < tint.max() < 1.01
    white = load("grassy-mnist", root=root, colour=True, rho=0.0, **few)
    assert torch.equal(white.x[:, 0], white.x[:, 2])  # digits have no colour
    with pytest.raises(InputError, match=r"^colour: 1; expected True"):
        load("grassy-mnist", root=root, colour=1, **few)


def test_grass_of_train_and_test_comes_from_disjoint_regions():
    import skimage.data

    photo = skimage.data.grass()
    data = load("grassy-digits", size=16, patches=40)
    assert data.shape == (1, 16, 16)
    weight = np.random.default_rng(0).integers(0, 1 << 40, (16, 16))  # a key that tells each window from all others
    keys = np.einsum("ijkl,kl->ij", np.lib.stride_tricks.sliding_window_view(photo, (16, 16)).astype(np.int64), weight)
    assert len(np.unique(keys)) == keys.size
    patches = [part.background.x[:, 0].numpy().astype(np.int64) for part in data.split("official")]
    tops = [np.array([np.argwhere(keys == (patch * weight).sum())[0, 0] for patch in part]) for part in patches]
    assert tops[0].max() + 16 <= EDGE <= tops[1].min()
    assert len(np.unique(tops[0])) > 25  # any offset
    assert (grass(1, 128, EDGE, 512, np.random.default_rng(0))[0, 0, :, :1].numpy() != 0).any()  # the largest fits


@real("mnist/train-images-idx3-ubyte.gz")
def test_grassy_mnist_has_the_papers_counts():
    train, test = load("grassy-mnist", root=SHARED).split("official")
    assert (train.factors["digit"].bincount() == 4986).all()
    assert (test.factors["digit"].bincount() == 892).all()
    assert (len(train.background), len(test.background)) == (4986, 892)
    digits = load("mnist", root=SHARED).split("official")[0]
    assert digits.factors["digit"].bincount().min() == 5421
    with refused("per_digit: 5422.*1 to 5421"):
        load("grassy-mnist", root=SHARED, per_digit=5422)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"rho": 1.5}, "rho: 1.5.*0, 1"),
        ({"rho": "half"}, "rho: 'half'"),
        ({"size": 4}, "size: 4; .*8 to 128"),
        ({"size": 300}, "size: 300"),
        ({"per_digit": 0}, "per_digit: 0"),
        ({"per_digit": 1000}, "per_digit: 1000"),
        ({"patches": 1.5}, "patches: 1.5"),
        ({"seed": -1}, "seed: -1"),
        ({"threshold": 0.3}, "option of grassy-digits: 'threshold' is not known.*rho"),
    ],
)
def test_grassy_refuses(options, text):
    with refused(text):
        load("grassy-digits", **options)
    with refused("threshold: 2"):
        load("grassy-digits-nl", threshold=2)


def test_sprites_are_palettes_decoded(root):
    held = dict(np.load(root / "sprites" / "sprites.npz"))
    data = load("sprites", root=root)
    assert len(data) == 6 * 4 * (3 + 2 + 2 + 1 + 2)
    assert data.x.shape == (240, 3, 60, 60)
    assert data.names["direction"] == ("up", "left", "down", "right")
    for i in range(0, 240, 13):
        at = {name: int(values[i]) for name, values in data.factors.items()}
        name = data.names["animation"][at["animation"]]
        indices = held[name][at["character"], at["direction"], at["frame"]]
        assert (data.x[i].numpy() == held["palette"][at["character"]][indices].transpose(2, 0, 1)).all()
        assert [at[name] for name in held["label_names"]] == held["labels"][at["character"]].tolist()
    keys = torch.stack([data.factors[k] for k in ("character", "animation", "direction", "frame")], 1)
    assert len(keys.unique(dim=0)) == 240
    parts = data.split("official")
    assert [sorted(set(p.factors["character"].tolist())) for p in parts] == [[0, 3, 5], [1], [2, 4]]
    assert (parts[2].x == data.x[torch.isin(data.factors["character"], torch.tensor([2, 4]))]).all()


def test_sprites_options(root):
    one = load("sprites", root=root, animations="walk", frames=2, size=30)
    assert len(one) == 6 * 4
    assert set(one.factors["frame"].tolist()) == {2}
    full = load("sprites", root=root, animations=["walk"], frames=[2])
    want = full.x.float().unflatten(3, (30, 2)).unflatten(2, (30, 2)).mean((3, 5))
    torch.testing.assert_close(one.x.float(), want, atol=0.51, rtol=0)
    hurt = load("sprites", root=root, animations=["hurt"])
    assert hurt.factors["direction"].unique().tolist() == [2]
    for options, text in (
        ({"animations": ["fly"]}, "animations: 'fly' is not known.*walk"),
        ({"animations": []}, "animations: ..; expected one or more"),
        ({"frames": "some"}, "frames: 'some'.*all"),
        ({"frames": 3}, r"frames \(walk\): .*3.*0 to 2"),
        ({"size": 61}, "size: 61"),
    ):
        with refused(text):
            load("sprites", root=root, **options)


def test_cars3d(root):
    images = np.load(root / "cars3d" / "cars3d_gray64.npz")["images"]
    data = load("cars3d", root=root)
    car, elevation, azimuth = (data.factors[name].numpy() for name in ("car", "elevation", "azimuth"))
    assert (data.x[:, 0].numpy() == images[car, elevation, azimuth]).all()
    assert data.names["car"] == ("1", "2", "3", "7", "9")
    assert data.names["elevation"] == ("0", "6", "12", "18")
    with refused("cars3d.*no 'official' split.*by="):
        data.split("official")
    train, test = data.split((0.6, 0.4), by="car")
    assert not set(train.factors["car"].tolist()) & set(test.factors["car"].tolist())
    assert (len(train), len(test)) == (3 * 96, 2 * 96)
    assert load("cars3d", root=root, size=16).shape == (1, 16, 16)


@pytest.mark.parametrize("name", ["sprites/sprites.npz", "cars3d/cars3d_gray64.npz"])
def test_broken_archives_are_named(root, tmp_path, name):
    data, file = name.split("/")
    with refused(f"{data}: {name} is not in .*root=.*TWOFOLD_DATA", MissingFileError):
        load(data, root=tmp_path)
    content = (root / name).read_bytes()
    for broken in (content[: len(content) // 2], content[:50], b"", b"text"):
        (tmp_path / file).write_bytes(broken)
        with refused(file):
            load(data, root=tmp_path)
    np.savez(tmp_path / file, foreign=np.zeros(3))
    with refused(f"{file}: no array .*found foreign"):
        load(data, root=tmp_path)


def test_toy():
    data = load("toy", n=6000)
    label, (x, y) = data.factors["label"], data.x.T
    assert data.names["label"] == ("green", "red", "blue")
    assert (label.bincount() == 2000).all()
    torch.testing.assert_close(data.factors["irrelevant"], y)
    for k in range(3):
        torch.testing.assert_close(x[label == k].mean(), torch.tensor(2.0 * (k - 1)), atol=0.03, rtol=0)
        torch.testing.assert_close(x[label == k].std(), torch.tensor(0.3), atol=0.02, rtol=0)
        torch.testing.assert_close(y[label == k].std(), torch.tensor(4 / 12**0.5), atol=0.04, rtol=0)
    assert load("toy", seed=1).hash != load("toy").hash == load("toy").hash
    with refused("n: 2;"):
        load("toy", n=2)


# Names and paths


def test_unknown_names_and_options(tmp_path, monkeypatch):
    with refused("data: 'mnits' is not known .did you mean 'mnist'.*a folder of images"):
        load("mnits")
    with refused("does not exist", MissingFileError):
        load(tmp_path / "gone")
    with refused("gone.csv' does not exist", MissingFileError):
        load("gone.csv")
    (tmp_path / "a.txt").write_text("x")
    with refused("a.txt'; expected a folder"):
        load(tmp_path / "a.txt")
    with refused("data: 3; expected a name"):
        load(3)  # pyright: ignore
    with refused("option: 'size'; digits takes none"):
        load("digits", size=3)
    with refused("option of toy: 'sed' is not known .did you mean 'seed'"):
        load("toy", sed=3)
    monkeypatch.delenv("TWOFOLD_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with refused("mnist: .*download=True.*root=.*TWOFOLD_DATA", MissingFileError):
        load("mnist")
    with refused("root .or TWOFOLD_DATA.: 'nowhere' is not a folder", MissingFileError):
        load("mnist", root="nowhere")


# Folders


def picture(path: Path, value=(10, 20, 30), size=(12, 10), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


def test_folder_of_sub_folders(tmp_path):
    picture(tmp_path / "cat" / "1.png", (10, 20, 30))
    picture(tmp_path / "cat" / "deep" / "2.BMP", (40, 50, 60))
    picture(tmp_path / "ant" / "3.png", 70, mode="L")
    picture(tmp_path / "ant" / ".hidden.png", size=(3, 3))
    (tmp_path / "ant" / "notes.txt").write_text("not an image")
    (tmp_path / ".cache").mkdir()
    data = load(tmp_path)
    assert data.name == tmp_path.name
    assert data.x.shape == (3, 3, 10, 12)
    assert data.x[:, :, 0, 0].tolist() == [[70] * 3, [10, 20, 30], [40, 50, 60]]
    assert data.factors["label"].tolist() == [0, 1, 1]
    assert data.names["label"] == ("ant", "cat")
    assert isinstance(data.labels(), Labels)
    assert load(tmp_path, grey=True, size=(9, 8)).x.shape == (3, 1, 9, 8)


def test_folder_with_images_of_no_known_label(tmp_path):
    for i, name in enumerate(("cat", "ant", "new", "new")):
        picture(tmp_path / name / f"{i}.png", 10 * i, mode="L")
    data = load(tmp_path, unlabelled="new")
    assert data.factors["label"].tolist() == [0, 1, -1, -1]
    assert data.names["label"] == ("ant", "cat")
    assert data.labels().y.tolist() == [0, 1, -1, -1]
    with refused("unlabelled: 'old'.*ant, cat, new"):
        load(tmp_path, unlabelled="old")


def test_flat_folder_of_grey_images_and_other_modes(tmp_path):
    picture(tmp_path / "a.png", 7, mode="L")
    Image.fromarray(np.full((10, 12), 257 * 9, np.uint16)).save(tmp_path / "b.png")
    data = load(str(tmp_path))
    assert data.x[:, 0, 0, 0].tolist() == [7, 9]
    assert data.x.shape[1] == 1
    assert isinstance(data.images(), Images)
    with refused("no classes.*one sub-folder"):
        data.labels()
    picture(tmp_path / "c.png", (1, 2, 3, 0), mode="RGBA")
    picture(tmp_path / "d.gif", 0, mode="P")
    assert load(tmp_path).x[:, 2, 0, 0].tolist()[:3] == [7, 9, 3]
    turned = Image.new("RGB", (10, 12))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "e.jpg", exif=exif)
    assert load(tmp_path).x.shape == (5, 3, 10, 12)


def test_folder_refuses(tmp_path):
    with refused("no images; expected .png"):
        load(tmp_path)
    for i in range(3):
        picture(tmp_path / "a" / f"{i}.png", size=(40, 40))
    whole = (tmp_path / "a" / "0.png").read_bytes()
    picture(tmp_path / "b" / "odd.png", size=(9, 9))
    with refused("b/odd.png is 9 x 9 pixels, a/0.png 40 x 40; pass size="):
        load(tmp_path)
    assert load(tmp_path, size=8).x.shape == (4, 3, 8, 8)
    for bad, text in ((5, "size: 5"), ((8, 8, 8), "size: .8, 8, 8."), ("big", "size: 'big'")):
        with refused(text):
            load(tmp_path, size=bad)
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a" / "cut.png")
    cut = (tmp_path / "a" / "cut.png").read_bytes()
    (tmp_path / "a" / "cut.png").write_bytes(cut[: len(cut) // 2])
    with refused("1 of 5 files can't be read: a/cut.png"):
        load(tmp_path, size=8)
    (tmp_path / "a" / "text.png").write_bytes(b"no image")
    (tmp_path / "b" / "empty.jpg").write_bytes(b"")
    with refused("3 of 7 files can't be read: a/cut.png, a/text.png, b/empty.jpg"):
        load(tmp_path, size=8)
    for name in ("a/cut.png", "a/text.png", "b/empty.jpg"):
        (tmp_path / name).unlink()
    (tmp_path / "c").mkdir()
    assert load(tmp_path, size=8).empty == ("c",)
    assert load(tmp_path, size=8, unlabelled="b")[:2].empty == ("c",)
    (tmp_path / "b" / "odd.png").unlink()
    with refused("no images in b, c;"):  # one folder that holds images: a slip
        load(tmp_path, size=8)
    (tmp_path / "c" / "0.png").write_bytes(whole)
    (tmp_path / "loose.png").write_bytes(whole)
    with refused("1 images lie beside the sub-folders .loose.png"):
        load(tmp_path, size=8)


# Tables


def table(tmp_path: Path, text: str, name: str = "t.csv") -> Path:
    (tmp_path / name).write_text(text)
    return tmp_path / name


def test_table(tmp_path):
    rows = "\n".join(f"{i},{i % 4},{'control' if i % 3 else 'case'},{10 * i + 1},5,{i % 2 == 0}" for i in range(12))
    path = table(tmp_path, ",id,group,dose,same,flag\n" + rows)
    data = load(path)
    assert data.x.shape == (12, 3)  # id, dose, same; the nameless index is left out
    assert data.scaling is not None
    assert data.scaling.columns == ("id", "dose", "same")
    dose = 10.0 * torch.arange(12) + 1
    torch.testing.assert_close(data.x[:, 1], (dose - dose.mean()) / dose.std(correction=0))
    assert (data.x[:, 2] == 0).all()  # constant
    assert data.scaling.std[2] == 1
    torch.testing.assert_close(data.scaling.undo(data.x)[:, 1], dose)
    assert data.names == {"group": ("case", "control"), "flag": ("False", "True")}
    with refused("no default for labels.*group, flag"):
        data.labels()
    target, background = data.contrast("group=control")
    assert (len(target), len(background)) == (4, 8)
    assert isinstance(data.reference("flag=True"), Reference)

    again = load(path, factor="id", factors=("dose",), scale=False)
    assert again.default == "id"
    assert again.factors["id"].tolist() == [i % 4 for i in range(12)]
    assert again.x.shape == (12, 1)
    assert (again.x == 5).all()
    assert isinstance(again.groups(), Groups)

    later = load(table(tmp_path, "id,dose,same\n1,21,5\n1,31,6\n", "later.csv"), scale=data.scaling)
    torch.testing.assert_close(later.x[:, 1], data.x[2:4, 1])
    assert load(table(tmp_path, "a\tb\n1\t2\n3\t5\n", "t.tsv")).x.shape == (2, 2)
    assert load(table(tmp_path, "a;b\n1;2\n3;5\n"), sep=";").x.shape == (2, 2)
    comma = table(tmp_path, "a;b;c\n1,5;2;x\n3,25;5;y\n")
    assert load(comma, sep=";", decimal=",", scale=False).x.tolist() == [[1.5, 2], [3.25, 5]]
    with pytest.raises(InputError, match=r"column 'a' holds '1,5'; if that is a decimal comma, pass decimal=','"):
        load(comma, sep=";")


def test_table_with_missing_values(tmp_path):
    path = table(tmp_path, "a,b,k,g\n1,2,0,u\n,4,1,v\n3,inf,,\n5,6,1,u\n")
    with refused("4 missing or infinite values in 4 of 4 columns .a 1, b 1, k 1, g 1.; pass missing="):
        load(path)
    drop = load(path, missing="drop", scale=False, factors="k")
    assert drop.x.tolist() == [[1, 2], [5, 6]]
    assert drop.factors["k"].tolist() == [0, 1]
    mean = load(path, missing="mean", scale=False, factors=["k"])
    assert mean.x.tolist() == [[1, 2], [3, 4], [3, 4], [5, 6]]
    assert mean.factors["k"].tolist() == [0, 1, -1, 1]
    assert mean.factors["g"].tolist() == [0, 1, -1, 0]
    assert mean.names["g"] == ("u", "v")
    assert [len(part) for part in mean.contrast("g=v")] == [2, 1]  # the unknown is on neither side
    with refused("missing: 'maen' is not known .did you mean 'mean'"):
        load(path, missing="maen")


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "can't be read as a table"),
        ("a,b\n", {}, "0 rows"),
        ("a;b\n1;2\n", {}, "sep="),
        ("1,2\n3,4\n", {}, "first line holds numbers"),
        ("a,b\n1,2\n3,4,5,6\n", {}, "can't be read as a table"),
        ("a,b\nx,y\nz,w\n", {}, "no numeric column"),
        ("a,b\n1,2\n?,3\n5,6\n", {}, "column 'a' holds 1 entries that are no numbers, such as '?'"),
        ("a,b\n1,2\n3,4\n", {"factor": "c"}, "factor: 'c' is not known"),
        ("a,b\n1,2\n3,4\n", {"scale": "yes"}, "scale: 'yes'"),
        ("a,b\n,2\n,4\n", {"missing": "mean"}, "column a holds no value"),
        ("a,b\n,2\n3,\n", {"missing": "drop"}, "leaves no row"),
        ("a,b\n1,.5\n3,\n", {"missing": "mean", "factor": "b"}, "lacks 1 real values"),
        ("a,b\n1,-4\n3,0\n", {"factor": "b"}, "b: -4 is out of range"),
    ],
)
def test_table_refuses(tmp_path, text, options, message):
    with refused(message):
        load(table(tmp_path, text), **options)
    with refused("t.png.csv: can't be read"):
        (tmp_path / "t.png.csv").write_bytes(b"\x89PNG\r\n\x1a\n\x00\xff\xfe")
        load(tmp_path / "t.png.csv")


# Arrays


def test_npz(tmp_path):
    random = np.random.default_rng(0)
    x, y = random.integers(0, 256, (20, 3, 8, 9), np.uint8), np.arange(20) % 4
    np.savez(tmp_path / "a.npz", x=x, y=y, age=random.random(20), site=np.array(["b", "a"] * 10))
    data = load(tmp_path / "a.npz", factor="y")
    assert (data.x.numpy() == x).all()
    assert data.factors["y"].dtype == torch.int64
    assert data.factors["age"].dtype == torch.float32
    assert data.names == {"site": ("a", "b")}
    assert data.factors["site"].tolist()[:2] == [1, 0]
    with refused("factor: 'age' holds real numbers; labels.. takes classes: y, site"):
        data.labels("age")
    np.savez(tmp_path / "b.npz", images=x.transpose(0, 2, 3, 1), other=np.zeros(3), y=y)
    with refused("b.npz: no array 'x'; found images, other, y; .*x="):
        load(tmp_path / "b.npz")
    with refused("other: 3 values for 20 observations"):
        load(tmp_path / "b.npz", x="images")
    last = load(tmp_path / "b.npz", x="images", factors="y")  # channels last
    assert (last.x.numpy() == x).all()
    assert list(last.factors) == ["y"]
    np.savez(tmp_path / "c.npz", x=x, y=np.array([{}] * 20, object))
    with refused("c.npz: holds Python objects"):
        load(tmp_path / "c.npz")


def test_npy_stays_on_disk(tmp_path):
    path = tmp_path / "a.npy"
    random = np.random.default_rng(0)
    x = np.lib.format.open_memmap(path, "w+", np.uint8, (500, 1, 8, 8))
    x[:] = random.integers(0, 256, x.shape, np.uint8)
    data = load(path)
    assert isinstance(data.x, np.memmap)
    part = data[100:200]
    assert isinstance(part.x, np.memmap)
    assert np.shares_memory(part.x, data.x)
    assert (part.x == x[100:200]).all()
    some = data[np.arange(500) % 3 == 0][5:50]
    assert isinstance(some.x, Rows)
    assert np.shares_memory(some.x.base, data.x)
    assert (some.x[:] == x[::3][5:50]).all()
    assert some.x.shape == (45, 1, 8, 8)
    index = torch.tensor([[4, 0], [44, 7]])
    torch.testing.assert_close(gather(some.x, index), torch.from_numpy(x[::3][5:50][index.numpy()] / np.float32(255)))
    draw = some.images().draw(0, batch_size=7)
    torch.testing.assert_close(draw.x, gather(some.x, draw.index))
    train, test = data.split((0.8, 0.2))
    assert isinstance(train.images().x, Rows)
    assert (len(train), len(test)) == (400, 100)
    assert Dataset(some.x).hash == some.hash != data.hash
    np.save(tmp_path / "grey.npy", np.asarray(x[:, 0]))
    grey = load(tmp_path / "grey.npy")
    assert isinstance(grey.x, np.memmap)
    assert grey.shape == (1, 8, 8)
    np.save(tmp_path / "rows.npy", random.random((6, 5)))  # float64: read
    assert load(tmp_path / "rows.npy").x.dtype == torch.float32


def test_a_map_larger_than_what_may_be_read(tmp_path):
    """A sparse file of 32 GiB: whatever reads it whole fails, by memory or by time."""
    path = tmp_path / "huge.npy"
    try:
        np.lib.format.open_memmap(path, "w+", np.uint8, (1 << 19, 1, 256, 256))
    except OSError:
        pytest.skip("the file system holds no sparse files")
    start = time.perf_counter()
    data = load(path)
    train, _ = data.split((0.9, 0.1))
    assert train.images().draw(3, batch_size=4).x.shape == (4, 1, 256, 256)
    assert len(train[:50].hash) == 32
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 8, 8), np.float32), "add the channel axis"),
        (np.zeros(4), "shape .4,., float64"),
        (np.zeros((0, 5)), "holds nothing"),
        (np.zeros((0, 5), np.float32), "holds nothing"),
        (np.full((3, 2), np.nan), "NaN or Inf in 3 of 3"),
        (np.zeros((3, 1, 8, 8), np.int64), "int64; images are uint8"),
        (np.zeros((3, 2), complex), "a.npy: x: shape .3, 2., complex128"),  # the file and the argument
    ],
)
def test_npy_refuses(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array)
    with refused(message):
        load(tmp_path / "a.npy")


def test_npy_and_npz_refuse_broken_files(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((100, 50), np.float32))
    content = (tmp_path / "a.npy").read_bytes()
    for broken in (content[:1000], content[:20], b"", b"hello world"):
        (tmp_path / "b.npy").write_bytes(broken)
        with refused("b.npy"):
            load(tmp_path / "b.npy")
        (tmp_path / "b.npz").write_bytes(broken)
        with refused("b.npz"):
            load(tmp_path / "b.npz")
    (tmp_path / "c.npz").write_bytes(content)
    with refused("c.npz: not an .npz"):
        load(tmp_path / "c.npz")
    np.savez(tmp_path / "d.npz", x=np.zeros((3, 2)))
    (tmp_path / "d.npz").rename(tmp_path / "d.npy")
    with refused("d.npy: an .npz archive"):
        load(tmp_path / "d.npy")
    (tmp_path / "big.npy").write_bytes(content.replace(b"<f4", b">f4"))
    assert load(tmp_path / "big.npy").x.shape == (100, 50)  # the other byte order is read


# torch data sets


class Listed(torch.utils.data.Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


def test_torch_data_sets():
    x = torch.rand(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = torch.arange(10) % 2
    data = load(torch.utils.data.TensorDataset(x, y))
    assert (data.x == x).all()
    assert (data.factors["label"] == y).all()
    assert (load(torch.utils.data.TensorDataset(x)).x == x).all()
    assert Dataset.from_torch(Listed(list(x)), name="mine").name == "mine"
    pil = load(Listed([(Image.new("RGB", (9, 8), (i, 0, 0)), "ab"[i % 2]) for i in range(4)]))
    assert pil.x.shape == (4, 3, 8, 9)
    assert pil.x.dtype == torch.uint8
    assert pil.names["label"] == ("a", "b")
    for items, text in (
        ([], "0 labels for 0 items"),
        ([(x[0], 1, 2)], "item 0 is a tuple of 3"),
        ([x[0], torch.zeros(1, 9, 8)], "item 1 is shape .1, 9, 8.*expected shape .1, 8, 8.*item 0"),
        ([(x[0], 1), x[1]], "1 labels for 2 items"),
        ([(x[0], [1, 2])], "label: shape .1, 2."),
        ([x[0] + 5], "expected .0, 1"),
    ):
        with refused(text):
            load(Listed(items))

    class Endless(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter([])

    with refused("Endless has no length"):
        load(Endless())


# The data set itself


@pytest.fixture
def data() -> Dataset:
    random = np.random.default_rng(0)
    x = torch.from_numpy(random.integers(0, 256, (103, 1, 8, 8), np.uint8))
    return Dataset(x, {"kind": np.arange(103) % 5, "size": random.random(103)}, name="made")


def test_a_single_factor_of_classes_is_the_default(data):
    assert data.default == "kind"
    assert data.shape == (1, 8, 8)
    assert repr(data) == "Dataset made: 103 x [1, 8, 8]; factors kind, size"


@pytest.mark.parametrize(
    "index",
    [
        slice(3, 40),
        slice(None, None, 7),
        [5, 2, 2, -1],
        np.arange(103) % 2 == 0,
        torch.arange(103) > 99,
        slice(-5, None),
    ],
)
def test_indexing_as_the_tensor_does(data, index):
    part = data[index]
    want = torch.as_tensor(index) if not isinstance(index, slice) else index
    assert (part.x == data.x[want]).all()
    assert (part.factors["size"] == data.factors["size"][want]).all()
    if len(part) > 3:
        assert (part[1:3].x == data.x[want][1:3]).all()  # composed
    assert part.default == "kind"


def test_one_row_and_iteration(data):
    assert (data[7].x == data.x[7:8]).all()
    assert sum(1 for _ in data[:4]) == 4


@pytest.mark.parametrize(
    ("index", "text"),
    [
        (103, "103 is out of range for 103"),
        ([0, -104], "-104 is out of range"),
        ([True, False], "a mask of 2 for 103"),
        (torch.zeros(103, dtype=torch.bool), "selects none"),
        (slice(5, 5), "selects none"),
        ([0.5], "float64; expected a number"),
        ("kind", "expected a number"),
    ],
)
def test_indexing_refuses(data, index, text):
    with refused(f"index: .*{text}"):
        data[index]


def rows_of(data: Dataset, parts) -> list[list[int]]:
    where = {tuple(row.flatten().tolist()): i for i, row in enumerate(data.x)}
    return [[where[tuple(row.flatten().tolist())] for row in part.x] for part in parts]


def test_random_splits(data):
    parts = data.split((0.7, 0.1, 0.2))
    rows = rows_of(data, parts)
    assert [len(r) for r in rows] == [72, 10, 21]
    assert sorted(i for part in rows for i in part) == list(range(103))  # disjoint and exhaustive
    assert all(r == sorted(r) for r in rows)
    for part, share in zip(parts, (0.7, 0.1, 0.2)):  # each class to a row or two
        counts = part.factors["kind"].bincount(minlength=5)
        assert (counts - share * data.factors["kind"].bincount()).abs().max() <= 2
    assert rows_of(data, data.split((0.7, 0.1, 0.2))) == rows != rows_of(data, data.split((0.7, 0.1, 0.2), seed=1))
    few = rows_of(data, data.split((0.25, 0.25)))
    assert not set(few[0]) & set(few[1])
    assert len(few[0] + few[1]) in (51, 52)


def test_splits_deal_out_the_classes_of_any_factor():
    group = np.arange(200) < 30
    data = Dataset(np.arange(200.0)[:, None], {"group": group.astype(int), "kind": np.arange(200) % 3})
    for seed in range(10):
        held = data.split((0.8, 0.2), seed, stratify="group")[1].factors["group"]
        assert abs(int(held.sum()) - 6) <= 2
    alone = Dataset(data.x, {"group": data.factors["group"]})
    parts = zip(alone.split((0.8, 0.2)), alone.split((0.8, 0.2), stratify="group"))
    assert all(a.x.equal(b.x) for a, b in parts)  # the default factor is dealt out anyway
    both = data.split((0.8, 0.2), stratify=["group", "kind"])[1].factors
    for group, share in ((0, 34 / 3), (1, 2)):
        counts = both["kind"][both["group"] == group].bincount(minlength=3)
        assert (counts - share).abs().max() <= 2
    with refused("stratify: 'knid' is not known .did you mean 'kind'"):
        data.split((0.8, 0.2), stratify="knid")
    with refused("by, stratify: 'kind' and 'group'; give one"):
        data.split((0.8, 0.2), by="kind", stratify="group")


def test_a_part_may_hold_none_of_the_background(data):
    data.names = {"kind": tuple("abcde")}
    some = data[data.factors["kind"] > 1]
    assert [some.apart("kind=a")[0].hash, some.apart("kind=a")[1]] == [some.hash, None]
    with refused("'kind=a' holds 0 of 61 observations"):
        some.contrast("kind=a")
    data.names = {}
    some = data[data.factors["kind"] > 1]
    assert some.apart("kind=0")[1] is None
    with refused("'0' is not known; choose from 2, 3, 4"):
        some.contrast("kind=0")


def test_splits_do_not_depend_on_or_move_the_global_generators(data):
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    load("grassy-digits", per_digit=3)
    data.split((0.5, 0.5))
    assert (torch.get_rng_state() == before[0]).all()
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002


def test_splits_by_a_factor_share_no_class(data):
    parts = data.split((0.6, 0.2, 0.2), by="kind")
    kinds = [set(part.factors["kind"].tolist()) for part in parts]
    assert [len(k) for k in kinds] == [3, 1, 1]
    assert set.union(*kinds) == set(range(5))
    assert sum(map(len, parts)) == 103
    with refused("0.1 of the 5 classes of 'kind' is none"):
        data.split((0.8, 0.1, 0.1), by="kind")
    some = data.factors["kind"].clone()
    some[:9] = -1  # not known: no class of its own
    first, *others = Dataset(data.x, {"kind": some}).split((0.6, 0.2, 0.2), by="kind")
    assert len(first.factors["kind"].unique()) == 4
    assert int((first.factors["kind"] < 0).sum()) == 9
    assert [len(part.factors["kind"].unique()) for part in others] == [1, 1]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (((0.8, 0.4),), "fractions: .0.8, 0.4.*sum 1"),
        (((0.8, -0.1),), "fractions"),
        ((0.8,), "fractions: 0.8"),
        (((),), "fractions: .."),
        ((("a", "b"),), "fractions"),
        (((0.999, 0.001),), "0.001 of 103 observations is none"),
        (("official",), "made .or this part of it. has no 'official' split"),
        (((0.5, 0.5), 0.5), "seed: 0.5"),
    ],
)
def test_splits_refuse(data, arguments, text):
    with refused(text):
        data.split(*arguments)
    with refused("by: 'size' is not known; choose from kind"):
        data.split((0.5, 0.5), by="size")
    with refused("fractions: 'offical' is not known .did you mean 'official'"):
        Dataset(data.x, splits={"official": ([0, 1], [2])}).split("offical")


def test_a_part_has_no_official_split(root):
    with refused("this part of it"):
        load("mnist", root=root)[:50].split("official")


def test_the_background_is_split_alike():
    data = load("grassy-digits", per_digit=10, patches=50)
    parts = data.split((0.8, 0.2))
    assert [len(part.background) for part in parts] == [80, 20]
    target, background = parts[1].contrast()
    assert target is parts[1]
    assert background is parts[1].background
    assert background.name == "grassy-digits, background"
    assert "digit" not in background.factors


def test_supervision_from_a_data_set(data):
    assert isinstance(data.images(), Images)
    assert (data.labels().y == data.factors["kind"]).all()
    assert data.groups(per_group=4).per_group == 4
    assert isinstance(data.triplets("kind"), Triplets)
    reference = data.reference("kind=2")
    assert (len(reference.x), len(reference.background)) == (103 - 21, 21)
    assert (reference.background == data.x[data.factors["kind"] == 2]).all()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda d: d.labels("kinf"), "factor: 'kinf' is not known .did you mean 'kind'"),
        (lambda d: d.groups("size"), "factor: 'size' holds real numbers; groups.. takes classes: kind"),
        (lambda d: d.reference(), "background: made has no background.*FACTOR=VALUE .of kind.*grassy-digits"),
        (lambda d: d.reference("kind"), "background: 'kind'; expected FACTOR=VALUE"),
        (lambda d: d.reference("kind=7"), "background .kind.: '7' is not known; choose from 0, 1, 2, 3, 4"),
        (lambda d: d.reference("mind=1"), "background: 'mind' is not known"),
        (lambda d: d.reference("size=1"), "background: 'size' holds real numbers"),
        (lambda d: d[d.factors["kind"] == 1].reference("kind=1"), "holds 21 of 21 observations"),
        (lambda d: Dataset(d.x).triplets(), "factor: data has no classes, so triplets.. can't be had; images.. can"),
        (lambda d: Dataset(d.x, {"a": d.factors["kind"], "b": d.factors["kind"]}).labels(), "choose from a, b"),
        (lambda d: Dataset(d.x, {"a": d.factors["kind"][:5]}), "a: 5 values for 103"),
        (lambda d: Dataset(d.x, {"a": d.factors["kind"]}, default="b"), "default: 'b' is not known; choose from a"),
        (lambda d: Dataset(d.x[:, 0]), "add the channel axis"),
    ],
)
def test_supervision_refuses(data, call, text):
    with refused(text):
        call(data)


def test_the_hash_tells_contents(data):
    same = Dataset(data.x.clone(), {"kind": np.arange(103) % 5, "size": data.factors["size"]}, name="other")
    assert same.hash == data.hash
    pixel = data.x.clone()
    pixel[50, 0, 3, 3] ^= 1
    assert Dataset(pixel, data.factors).hash != data.hash
    assert Dataset(data.x, {"kind": data.factors["kind"]}).hash != data.hash
    assert data[1:].hash != data.hash == data[:].hash


@real("sprites/sprites.npz")
def test_sprites_show_the_weapon_in_two_animations_only():
    """Of characters that differ in nothing else: what s can reach is bounded by what the images show."""
    data = load("sprites", root=SHARED, size=24)
    f, rest = data.factors, ("gender", "body", "armor", "hair", "arm", "greaves")
    first = torch.stack([(f["character"] == c).nonzero()[0, 0] for c in f["character"].unique()])
    alike: dict[tuple[int, ...], dict[int, int]] = {}
    for row in first.tolist():
        alike.setdefault(tuple(int(f[a][row]) for a in rest), {})[int(f["weapon"][row])] = int(f["character"][row])
    pairs = [list(found.values()) for found in alike.values() if len(found) == 2][:40]
    assert len(pairs) == 40
    part, shown = data[torch.isin(f["character"], torch.tensor(pairs).flatten())], {}
    x, who, animation = torch.as_tensor(part.x[:]).short(), part.factors["character"], part.factors["animation"]
    for a, b in pairs:
        apart = (x[who == a] - x[who == b]).abs().flatten(1).amax(1) > 8
        for k, name in enumerate(data.names["animation"]):
            shown.setdefault(name, []).append(apart[animation[who == a] == k].double().mean().item())
    share = {name: sum(values) / len(values) for name, values in shown.items()}
    assert min(share["thrust"], share["shoot"]) > 0.99
    assert max(share["walk"], share["slash"]) == 0
    assert share["spellcast"] < 0.05


@real("sprites/sprites.npz")
def test_sprites_official_split_and_chance():
    data = load("sprites", root=SHARED, frames=0)
    parts = data.split("official")
    characters = [part.factors["character"].unique() for part in parts]
    assert [len(c) for c in characters] == [500, 72, 100]
    assert len(torch.cat(characters).unique()) == 672
    assert [int(data.factors[name].max()) + 1 for name in list(data.factors)[:7]] == [2, 4, 3, 6, 2, 2, 2]
    assert data.labels().facts()["classes"] == 672
