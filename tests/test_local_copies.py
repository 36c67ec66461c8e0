"""The tables' rows for data that can't be handed out, on small made-up copies: at the cpu scale, cut short."""

from __future__ import annotations

from functools import cached_property
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from test_faces_data import ATTRIBUTES, HEADER
from test_norb_yaleb import write_matrix
from twofold import tables
from twofold.data.norb import PARTS
from twofold.tables.cell import Cell, lacks
from twofold.tables.table import Protocol

OWN = {
    "bouchacourt18": "ml-vae",
    "contrast21": "contrastive",
    "mathieu16": "mathieu",
    "ruiz19": "srb-vae",
    "zheng19": "label-relevant-vae",
}
RANDOM = np.random.default_rng(0)


def noise(path: Path, across: int, down: int, *channels: int):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RANDOM.integers(0, 256, (down, across, *channels), np.uint8)).save(path)


def classes(root: Path, name: str, count: int, each: int):
    for k, i in product(range(count), range(each)):
        noise(root / name / f"class{k:02d}" / f"{i:02d}.png", 32, 32, 3)


def celeba(root: Path, count: int = 240):
    lines, parts = [f"{count}", " ".join(ATTRIBUTES) + " "], []
    for i in range(count):
        noise(root / "celeba" / "img_align_celeba" / f"{i:06d}.jpg", 178, 218, 3)
        has = {"Wearing_Hat": i % 4 in (0, 3), "Eyeglasses": i % 4 in (1, 3)}
        lines.append(f"{i:06d}.jpg {' '.join('1' if has.get(name) else '-1' for name in ATTRIBUTES)}")
        parts.append(f"{i:06d}.jpg {0 if i < count // 2 else 1 if i < 3 * count // 4 else 2}")
    (root / "celeba" / "list_attr_celeba.txt").write_text("\n".join(lines) + "\n")
    (root / "celeba" / "list_eval_partition.txt").write_text("\n".join(parts) + "\n")


def affectnet(root: Path):
    for name, count in (("training", 330), ("validation", 110)):
        lines = [HEADER]
        for i in range(count):
            file = f"{name}/{i:04d}.jpg"
            noise(root / "affectnet" / "Manually_Annotated_Images" / file, 60, 50, 3)
            lines.append(f"{file},8,10,32,32,1.5;2.5,{i % 11},{i / count},{-i / count}")
        (root / "affectnet" / f"{name}.csv").write_text("\n".join(lines) + "\n")


def norb(root: Path):
    (root / "norb").mkdir()
    for part, instances in (("training", (4, 6, 7)), ("testing", (0, 1, 2))):
        rows = np.array(list(product(range(5), instances, (0, 4), (0, 20), (0, 5))), np.int32)
        images = RANDOM.integers(0, 256, (len(rows), 2, 96, 96), np.uint8)
        for kind, array in zip(("dat", "cat", "info"), (images, rows[:, 0], rows[:, 1:])):
            write_matrix(root / "norb" / f"{PARTS[part]}-{kind}.mat", np.ascontiguousarray(array))


def yaleb(root: Path):
    for subject in (k for k in range(1, 40) if k != 14):
        for light in ("A+000E+00", "A+005E-10", "A-130E+20", "A+070E+45"):
            noise(root / "yaleb" / f"yaleB{subject:02d}" / f"yaleB{subject:02d}_P00{light}.pgm", 168, 192)


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for write in (celeba, affectnet, norb, yaleb):
        write(root)
    for name, count, each in (("cifar10", 10, 12), ("facescrub", 8, 12), ("msceleb", 24, 14)):
        classes(root, name, count, each)
    return root


class Cut(Cell):
    """Two steps, small parts, the smoke scale's measures; else as it is."""

    @cached_property
    def protocol(self) -> Protocol:
        p = self.table.resolve(self.row, self.scale)
        measure = {k: v for k, v in self.table.scales["smoke"].get("measure", {}).items() if k != "per_class"}
        parts = (
            {} if p.data == "msceleb" else {"n_train": min(p.n_train or 120, 120), "n_test": min(p.n_test or 80, 80)}
        )
        return p.merged({"steps": 2, "batch_size": 16, "measure": measure, **parts})


def recipes():
    """Of each table and data set the paper's own method, and PCA."""
    for book, method in OWN.items():
        for table in tables.get(book).tables:
            kinds = {}
            for row in table.rows:
                if row.recipe and (row.control == "pca" or (row.control is None and row.method == method)):
                    kinds.setdefault((table.resolve(row, "cpu").data, row.control), row)
            for row in kinds.values():
                yield pytest.param(table, row, id=f"{book}-{table.name}-{row.slug}")


@pytest.mark.parametrize(("table", "row"), list(recipes()))
def test_rows_for_local_copies_run(table, row, desk):
    assert lacks(table, row, "cpu", None) is not None
    assert lacks(table, row, "cpu", desk) is None
    found = Cut(table, row, "cpu", 0, desk).run()
    assert set(found["values"]) == {column.name for column in table.columns}
    assert any(value is not None for value in found["values"].values())
