"""CelebA and AffectNet, read from small made-up copies in their real file formats."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from twofold.data import available, load
from twofold.data.affectnet import EXPRESSIONS
from twofold.errors import InputError, MissingFileError

HEADER = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"
ATTRIBUTES = ("5_o_Clock_Shadow", "Eyeglasses", "Male", "Smiling", "Wearing_Hat")


def refused(text: str, kind: type[Exception] = InputError):
    """One line that holds `text`."""
    return pytest.raises(kind, match=rf"\A(?=[^\n]*\Z).*{text}")


def photograph(path, across, down, colour):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (across, down), colour).save(path, quality=95)


def close(pixels, colour):
    """A photograph of one colour, up to JPEG's loss."""
    return (pixels.float() - torch.tensor(colour).float()[:, None, None]).abs().max() < 6


# -- CelebA ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def celeba(tmp_path):
    """120 photographs, a quarter each: hat, glasses, neither, both. Red is the row, green the kind."""
    folder, random = tmp_path / "celeba", np.random.default_rng(0)
    lines, parts = ["120", " ".join(ATTRIBUTES) + " "], []
    for i in range(120):
        photograph(folder / "img_align_celeba" / f"{i + 1:06d}.jpg", 178, 218, (2 * i, 60 * (i % 4), 90))
        values = {"Wearing_Hat": i % 4 in (0, 3), "Eyeglasses": i % 4 in (1, 3), "Male": random.random() < 0.5}
        signs = " ".join(f"{1 if values.get(name) else -1:2d}" for name in ATTRIBUTES)
        lines.append(f"{i + 1:06d}.jpg {signs}")
        parts.append(f"{i + 1:06d}.jpg {0 if i < 60 else 1 if i < 90 else 2}")
    (folder / "list_attr_celeba.txt").write_text("\n".join(lines) + "\n")
    (folder / "list_eval_partition.txt").write_text("\n".join(parts) + "\n")
    return tmp_path


def test_celeba_by_attribute(celeba):
    data = load("celeba", root=celeba, per_class=10)
    assert data.shape == (3, 64, 64)
    assert data.names["attribute"] == ("Wearing_Hat", "Eyeglasses")
    parts = data.split("official")
    assert [len(part) for part in parts] == [20, 2, 2]  # the others: a tenth
    assert [len(part.background) for part in parts] == [15, 2, 2]  # there are no more
    lines = (celeba / "celeba" / "list_attr_celeba.txt").read_text().splitlines()[2:]
    low = 0
    for part, high in zip(parts, (60, 90, 120)):
        for of, kinds in ((part, part.factors["attribute"]), (part.background, torch.full((len(part),), 2))):
            for x, kind, male in zip(of.x, kinds.tolist(), of.factors["Male"].tolist()):
                row = kind + 4 * round((x[0].float().mean().item() / 2 - kind) / 4)
                assert close(x, (2 * row, 60 * kind, 90))
                assert low <= row < high
                assert lines[row].split()[1:][2] == ("1" if male else "-1")
        low = high
    assert data.background.factors.keys() == {"Male", "Smiling"}
    assert data.reference().target.shape == (24, 3, 64, 64)
    assert torch.equal(load("celeba", root=celeba / "celeba", per_class=10).x, data.x)  # in the folder itself
    assert load("celeba", root=celeba, per_class=10, seed=1).hash != data.hash


def test_celeba_options_and_the_middle_square(celeba):
    path = celeba / "celeba" / "img_align_celeba" / "000002.jpg"
    pixels = np.zeros((218, 178, 3), np.uint8)
    pixels[20:198] = 200  # the square in the middle
    Image.fromarray(pixels).save(path, quality=100)
    data = load("celeba", root=celeba, attributes="Eyeglasses", also=(), per_class=1000, size=16)
    assert data.shape == (3, 16, 16)
    assert list(data.factors) == ["attribute"]
    train, *_ = data.split("official")
    assert len(train) == 30  # with glasses, hat or no hat
    assert ((train.x.int() - 200).abs() < 6).flatten(1).all(1).sum() == 1


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda f: (f / "list_attr_celeba.txt").unlink(), "celeba: celeba/list_attr_celeba.txt is not in"),
        (lambda f: (f / "img_align_celeba").rename(f / "other"), "the folder celeba/img_align_celeba is not in"),
        (lambda f: [p.unlink() for p in f.glob("*/*9.jpg")], r"photographs are missing, 000\d\d9.jpg first"),
    ],
)
def test_celeba_says_what_is_missing(celeba, spoil, text):
    spoil(celeba / "celeba")
    with refused(text, MissingFileError):
        load("celeba", root=celeba)


def test_celeba_refuses_broken_files(celeba):
    folder = celeba / "celeba"
    kept = (folder / "list_attr_celeba.txt").read_text()
    for broken, text in (
        (kept[: len(kept) // 2].rsplit("\n", 1)[0] + "\n", r"list_attr_celeba.txt: \d+ rows of 5 attributes"),
        (kept.replace("000003.jpg -1", "000003.jpg  7"), "list_attr_celeba.txt: 120 rows"),
        ("", "list_attr_celeba.txt: can't be read"),
    ):
        (folder / "list_attr_celeba.txt").write_text(broken)
        with refused(text):
            load("celeba", root=celeba)
    (folder / "list_attr_celeba.txt").write_text(kept)
    with refused("attributes: 'Eyeglases' is not known .did you mean 'Eyeglasses'"):
        load("celeba", root=celeba, attributes=("Wearing_Hat", "Eyeglases"))
    partition = (folder / "list_eval_partition.txt").read_text()
    (folder / "list_eval_partition.txt").write_text(partition.replace("000007.jpg 0", "000007.jpg 5"))
    with refused("no part 0, 1 or 2 for 1 of 120 photographs, 000007.jpg first"):
        load("celeba", root=celeba)
    (folder / "list_eval_partition.txt").write_text(partition)
    data = load("celeba", root=celeba)
    (folder / "img_align_celeba" / "000001.jpg").write_bytes(b"no photograph")
    with refused("000001.jpg: can't be read"):
        _ = data.x


# -- AffectNet ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def affectnet(tmp_path):
    """Eleven expressions in turn; the face is a square whose colour tells row and expression."""
    folder = tmp_path / "affectnet"
    for name, n in (("training.csv", 110), ("validation.csv", 22)):
        lines = [HEADER]
        for i in range(n):
            file = f"{n}/{i:04d}.{'jpg' if i % 2 else 'png'}"
            path = folder / "Manually_Annotated_Images" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.full((60, 50, 3), 255, np.uint8)
            pixels[10:42, 8:40] = (2 * i, 20 * (i % 11), 30)
            Image.fromarray(pixels).save(path, **({"quality": 95} if i % 2 else {}))
            valence, arousal = (i / n, -i / n) if i % 11 < 8 else (-2, -2)  # -2: no expression
            lines.append(f"{file},8,10,32,32,1.5;2.5;3.5;4.5,{i % 11},{valence},{arousal}")
        (folder / name).write_text("\n".join(lines) + "\n")
    return tmp_path


def test_affectnet_expressions_against_neutral_faces(affectnet):
    data = load("affectnet", root=affectnet, per_class=6, reference=5, size=24)
    assert data.shape == (3, 24, 24)
    assert data.names["expression"] == EXPRESSIONS
    train, test = data.split("official")
    assert (len(train), len(test)) == (42, 14)
    assert (len(train.background), len(test.background)) == (5, 2)
    assert (train.factors["expression"].bincount() == 6).all()
    for part, n in ((train, 110), (test, 22)):
        for of, kinds in ((part, part.factors["expression"] + 1), (part.background, torch.zeros(5).long())):
            for x, kind, valence, arousal in zip(of.x, kinds.tolist(), of.factors["valence"], of.factors["arousal"]):
                row = round(valence.item() * n)
                assert arousal == -valence
                assert row % 11 == kind
                assert close(x[:, 8:-8, 8:-8], (2 * row, 20 * kind, 30))
                assert x.min() < 40  # nothing of the white around the face
                assert x[2].max() < 100
    assert torch.equal(load("affectnet", root=affectnet / "affectnet", per_class=6, reference=5, size=24).x, data.x)
    everything = load("affectnet", root=affectnet, per_class=None, reference=None)
    assert (len(everything), len(everything.background)) == (70 + 14, 10 + 2)


def test_affectnet_says_what_is_missing_or_broken(affectnet):
    folder = affectnet / "affectnet"
    kept = (folder / "training.csv").read_text()
    for broken, text in (
        (kept.replace("face_x", "x", 1), "training.csv: no column face_x; expected AffectNet's"),
        (kept.replace(",8,10,32,32,", ",,,,,", 1), "training.csv: 1 rows hold no numbers, 110/0000.png"),
        ("\n".join([HEADER, *(line for line in kept.splitlines() if ",0,0." in line)]), "0 with another expression"),
        ("", "training.csv: can't be read"),
    ):
        (folder / "training.csv").write_text(broken)
        with refused(text):
            load("affectnet", root=affectnet)
    (folder / "training.csv").write_text(kept.replace(",8,10,32,32,", ",80,10,32,32,", 1))
    with refused(r"0000.png: the box \(80, 10, 112, 42\) is not in its 50 x 60 pixels"):
        _ = load("affectnet", root=affectnet).background.x
    (folder / "training.csv").write_text(kept)
    (folder / "Manually_Annotated_Images" / "110" / "0001.jpg").unlink()
    with refused("Manually_Annotated_Images: 1 of 84 photographs are missing, 110/0001.jpg first", MissingFileError):
        load("affectnet", root=affectnet)
    (folder / "validation.csv").unlink()
    with refused("affectnet: affectnet/validation.csv is not in .*; twofold can't download it", MissingFileError):
        load("affectnet", root=affectnet)


def test_both_are_listed_without_the_data():
    entries = {entry.name: entry for entry in available()}
    for name in ("celeba", "affectnet"):
        assert entries[name].background
        assert entries[name].licence
        with refused(f"{name}: {name}/.* is not in", MissingFileError):
            load(name, root="/")
