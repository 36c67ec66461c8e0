"""Tables with a control column: scaled by whom, what was missing, back to units; the flat sets of scikit-learn."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_wine

from twofold import fit, reconstruct
from twofold.data import load
from twofold.errors import InputError
from twofold.methods import AbidZou, Contrastive, RbVAE, SRbVAE


@pytest.fixture
def patients(tmp_path):
    """60 patients and 40 controls, three columns in units of their own, some values missing."""
    random, path = np.random.default_rng(0), tmp_path / "patients.csv"
    values = random.normal(size=(100, 3)) * [10, 0.1, 1] + [170, 5, 0]
    values[:60, 0] += 30
    told = [[f"{v:.6f}" for v in row] for row in values]
    for row, column in ((3, 0), (70, 0), (9, 2)):
        told[row][column] = ""
        values[row, column] = np.nan
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("height", "ratio", "score", "group")])
        csv.writer(file).writerows([*row, "patient" if i < 60 else "control"] for i, row in enumerate(told))
    return path, np.round(values, 6)


def test_a_class_that_is_not_known_is_minus_one(tmp_path):
    path = tmp_path / "some.csv"
    path.write_text("a,b,kind\n1,2,x\n3,4,-1\n5,7,y\n")
    data = load(path)
    assert data.factors["kind"].tolist() == [0, -1, 1]
    assert data.names["kind"] == ("x", "y")


def test_missing_values_are_refused_or_dealt_with_and_recorded(patients):
    path, values = patients
    with pytest.raises(InputError, match=r"3 missing or infinite values in 2 of 4 columns \(height 2, score 1\); pass"):
        load(path)
    whole = values[~np.isnan(values).any(1)]
    dropped = load(path, missing="drop")
    assert len(dropped) == 97
    assert dropped.scaling.dropped == 3
    np.testing.assert_allclose(dropped.unscale(dropped.x), whole, rtol=1e-5, atol=1e-5)
    for how, of in (("mean", np.nanmean), ("median", np.nanmedian)):
        data = load(path, missing=how)
        filled = np.where(np.isnan(values), of(values, 0), values)
        np.testing.assert_allclose(data.unscale(data.x), filled, rtol=1e-5, atol=1e-5)
        assert data.scaling.filled == (("height", 2), ("score", 1))
        np.testing.assert_allclose(data.scaling.fill, of(values, 0))


def test_scaled_by_all_rows_by_the_controls_or_not_at_all(patients):
    path, _ = patients
    data = load(path, missing="median")
    assert data.scaling.rows == "all"
    torch.testing.assert_close(data.x.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    by = load(path, missing="median", scale="group=control")
    target, control = by.contrast("group=control")
    assert by.scaling.rows == "group=control"
    torch.testing.assert_close(control.x.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(control.x.std(0, correction=0), torch.ones(3), atol=1e-5, rtol=0)
    assert target.x[:, 0].mean() == pytest.approx(3, abs=0.6)  # in the controls' standard deviations
    torch.testing.assert_close(by.unscale(by.x), data.unscale(data.x), rtol=1e-5, atol=1e-4)
    raw = load(path, missing="median", scale=False)
    assert raw.scaling.rows == "none"
    assert torch.equal(raw.unscale(raw.x), raw.x)
    for wrong, text in (
        ("group", r"scale: 'group'; expected True, False or FACTOR=VALUE, say 'group=control'"),
        ("group=controls", r"scale \(group\): 'controls' is not known \(did you mean 'control'\?\)"),
        ("grup=control", r"scale: 'grup' is not known \(did you mean 'group'\?\)"),
        (3, r"scale: .*; expected True, False, FACTOR=VALUE or the .scaling"),
    ):
        with pytest.raises(InputError, match=text):
            load(path, missing="drop", scale=wrong)


def test_numbers_may_name_the_controls(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,dose\n" + "\n".join(f"{i},{i % 3}" for i in range(30)))
    data = load(path, factors="dose", scale="dose=0")
    assert data.x[data.factors["dose"] == 0].mean() == pytest.approx(0, abs=1e-6)


def test_later_data_are_treated_as_the_first_were(patients, tmp_path):
    path, _ = patients
    first = load(path, missing="median", scale="group=control")
    (tmp_path / "later.csv").write_text("height,ratio,score,group\n,5,0,patient\n170,5,0,control\n")
    later = load(tmp_path / "later.csv", missing="median", scale=first.scaling)
    assert later.scaling.filled == (("height", 1),)
    assert later.unscale(later.x)[0, 0].item() == pytest.approx(first.scaling.fill[0].item(), rel=1e-5)
    assert (later.scaling.dropped, later.scaling.rows) == (0, "group=control")


def test_the_record_is_json(patients):
    scaling = load(patients[0], missing="median", scale="group=control").scaling
    told = json.loads(json.dumps(scaling.facts()))
    assert told["columns"] == ["height", "ratio", "score"]
    assert told["filled"] == {"height": 2, "score": 1}
    assert told["rows"] == "group=control"
    assert told["mean"] == scaling.mean.tolist()


@pytest.mark.parametrize("cls", [AbidZou, Contrastive, RbVAE, SRbVAE])
def test_methods_run_on_a_table_and_decode_to_its_units(patients, cls):
    path, _ = patients
    data = load(path, missing="median", scale="group=control")
    method = cls.build(data.shape, s=2, z=2, arch="zheng19-toy")
    optim = {"lr": 1e-3}
    fit(method, data.reference("group=control"), steps=100, batch_size=32, optim=optim, progress=False)
    target, control = data.contrast("group=control")
    plain = data.unscale(reconstruct(method, target.x, "z"))
    assert plain.shape == (60, 3)
    both = data.unscale(reconstruct(method, target.x))
    error = (both[:, 0] - data.unscale(target.x)[:, 0]).abs().mean()
    assert error < 10  # centimetres, of 30 between the groups
    assert method.encode(control.x).s.shape == (40, 2)


def test_flat_sets_of_scikit_learn():
    for name, source, factor in (
        ("wine", load_wine(), "cultivar"),
        ("breast-cancer", load_breast_cancer(), "diagnosis"),
        ("digits-table", load_digits(), "digit"),
    ):
        data = load(name)
        np.testing.assert_allclose(data.unscale(data.x), source.data, rtol=1e-4, atol=1e-4)
        assert data.scaling.columns == tuple(source.feature_names)
        assert (data.factors[factor].numpy() == source.target).all()
    target, back = load("wine").contrast("cultivar=0")
    assert (len(target), len(back)) == (119, 59)
    target, back = load("breast-cancer").contrast("diagnosis=benign")
    assert (len(target), len(back)) == (212, 357)
