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
    path.write_text("a,dose\n" + "\n".join(f"{i}.5,{i % 3}" for i in range(30)))
    data = load(path, factors="dose", scale="dose=0")
    assert data.x[data.factors["dose"] == 0].mean() == pytest.approx(0, abs=1e-6)


def written(path, *lines):
    path.write_text("\n".join(lines) + "\n")
    return path


def test_controls_are_found_however_they_are_written(tmp_path):
    path = tmp_path / "t.csv"
    rows = (
        "1,2, control ,true",
        "3,5,control\t,false",
        "4,7,patient  A,true",
        "6, 8,patient A,false",
        "7,9,control,true",
    )
    data = load(written(path, "a , b, group,flag", *rows), scale="flag=TRUE")
    assert data.names == {"group": ("control", "patient A"), "flag": ("False", "True")}
    assert data.scaling.columns == ("a", "b")
    assert [len(part) for part in data.contrast("group=control")] == [2, 3]
    for told in ("flag=true", "flag=True", "flag = TRUE"):
        assert [len(part) for part in data.contrast(told)] == [2, 3]
    with pytest.raises(InputError, match=r"background \(flag\): 'yes' is not known; choose from False, True"):
        data.contrast("flag=yes")
    twins = r"t.csv: column 'group' has the classes 'Control' and 'control'; write one as the other"
    with pytest.raises(InputError, match=twins):
        load(written(path, "a,b,group", "1,2,control", "2,4,Control", "3,1,patient"))
    with pytest.raises(InputError, match="two columns are called 'a'"):
        load(written(path, "a,b,a ", "1,2,3", "2,4,5"))
    with pytest.raises(InputError, match="2 missing or infinite values in 2 of 3 columns"):
        load(written(path, "a,b,group", "1, ,control", "2,4,patient", "3,1, "))  # blanks are no class, nor text


def test_columns_that_number_the_rows_are_refused(tmp_path):
    path, n = tmp_path / "t.csv", 40
    order = np.random.default_rng(0).permutation(n) + 1

    def rows(ids):
        return [f"{i},{k % 7},{k % 5},{'ab'[k % 2]}" for k, i in enumerate(ids)]

    for ids, low, high in ((range(1, n + 1), 1, n), (order, 1, n), ([*range(5), *range(8, n + 3)], 0, n + 2)):
        with pytest.raises(InputError, match=f"'id' numbers the rows, {low} to {high}, .*factors='id'"):
            load(written(path, "id,x,y,group", *rows(ids)))
    kept = load(path, factors="id")
    assert kept.scaling.columns == ("x", "y")
    assert load(path, factors="id", scale=kept.scaling).x.equal(kept.x)
    assert load(written(path, "age,x,y,group", *rows(f"{i}.0" for i in order))).shape == (3,)  # a measurement
    assert load(written(path, ",x,y,group", *rows(2 * order))).scaling.columns == ("x", "y")  # an index
    assert load(written(path, "dose,x,y,group", *rows(3 * order))).shape == (3,)
    ranks = [f"{i},{n - i},{(7 * i) % 41},a" for i in order]
    assert load(written(path, "a,b,c,group", *ranks)).shape == (3,)
    later = load(written(path, "x,y,group", *(f"{i},{i % 3},a" for i in range(12))), scale=kept.scaling)
    assert len(later) == 12  # the first table said which columns are measurements


def test_what_is_constant_in_the_controls_is_scaled_by_all_rows(tmp_path):
    rows = [f"{0 if k < 6 else 5000 + 40 * k},{k % 5}.5,3,{'control' if k < 6 else 'patient'}" for k in range(16)]
    data = load(written(tmp_path / "t.csv", "seen,b,c,group", *rows), scale="group=control")
    values = torch.tensor([0.0] * 6 + [5000 + 40 * k for k in range(6, 16)])
    torch.testing.assert_close(data.x[:, 0], values / values.std(correction=0))
    assert data.x.abs().max() < 4
    assert data.scaling.std[2] == 1  # constant everywhere
    assert data.scaling.constant == ("seen",)
    assert json.loads(json.dumps(data.scaling.facts()))["constant"] == ["seen"]
    torch.testing.assert_close(data.unscale(data.x)[:, 0], values)
    assert load(tmp_path / "t.csv").scaling.constant == ()


def test_units_make_measurements_of_factors(tmp_path):
    path = written(tmp_path / "t.csv", "a,age,dose,group", "1,20,1,x", "3,31,0,y", "4,44,1,x")
    for units in ({"age": "years"}, "age:years", ["age:years"]):
        data = load(path, factors=["age", "dose"], units=units)
        assert data.units == {"age": "years"}
        assert data.factors["age"].tolist() == [20.0, 31.0, 44.0]
        assert data.classes() == ["dose", "group"]  # without a unit, whole numbers are classes
    for units, text in (
        ("age", "units: 'age'; expected COLUMN:UNIT, say 'age:years'"),
        ("a:mm", r"'a' is no factor of numbers \(they are: age\); .*factors='a' too"),
        ({"group": "mm"}, "'group' is no factor of numbers"),
    ):
        with pytest.raises(InputError, match=text):
            load(path, factors="age", units=units)


def test_a_column_of_x_says_how_to_become_a_factor(tmp_path):
    path = written(tmp_path / "t.csv", "a,group,kind", "1,0,x", "3,1,y", "4,1,x")
    for ask in (
        lambda: load(path).reference("group=0"),
        lambda: load(path).groups("group"),
        lambda: load(path, scale="group=0"),
    ):
        with pytest.raises(InputError, match="'group' is a column of x; to have it as a factor, pass factors='group'"):
            ask()
    assert len(load(path, factors="group", scale="group=0").contrast("group=0")[1]) == 1


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


def test_a_default_factor_is_a_class(tmp_path):
    (tmp_path / "t.csv").write_text("v1,v2,g\n" + "\n".join(f"{i / 7},{i / 3},{i % 2}" for i in range(12)))
    with pytest.raises(InputError, match=r"t.csv: factor: 'v1' holds real numbers; .*pass factors='v1'"):
        load(tmp_path / "t.csv", factor="v1")
    with pytest.raises(InputError, match=r"factor: 'v'.* choose from g$"):
        load(tmp_path / "t.csv", factor="v")
    with pytest.raises(InputError, match=r"factor: 'v'.*choose from v1, v2, g$"):
        load(tmp_path / "t.csv", factors="v")
