"""Measurements of the docs still measure what they say; small."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import pytest
import scipy.stats

from twofold import data, divergences
from twofold.methods import MLVAE

FOLDER = Path(__file__).parent.parent / "benchmarks"


def script(name: str):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("rule", ["product", "mixture"])
def test_the_bias_of_parts(rule, capsys):
    """Each gradient is there, and the noise is below the error of parts of one image."""
    found = script("subsampling").errors(rule, seed=0, steps=3, noise=2)
    assert list(found) == ["ELBO", "shared KL", "content head", "style head", "trunk", "decoder"]
    assert all(math.isfinite(value) for values in found.values() for value in values)
    for name in ("content head", "trunk"):
        one, *_, noise = found[name]
        assert noise < one
    assert "nats an image" in capsys.readouterr().out


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_silent_z_is_measured_at_each_share(share, monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setattr(divergences, "AUDIBLE", divergences.AUDIBLE)
    module = script("silent_z")
    module.SETS = {"digits": ("grassy-digits", "auto", 2)}
    found = module.measure("digits", share, seed=0)
    assert pytest.approx(share, abs=1e-20) == divergences.AUDIBLE
    assert all(0 <= found[half] <= 100 for half in "sz")
    assert 0 < found["z over noise"] < 1


@pytest.mark.parametrize("leakage", [2, 0])
def test_silent_z_of_groups(leakage, monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    module = script("silent_z")
    monkeypatch.setattr(module.data, "load", lambda _, load=data.load: load("grassy-digits"))
    found = module.measure_groups(MLVAE, "conv", leakage, seed=0, steps=2)
    assert 0 < found["z over noise"] < 1
    assert 0.5 < found["error"] < 50
    assert (found["method"], found["leakage"]) == ("ml-vae", leakage)


def test_a_row_beside_itself_in_another_table(tmp_path, monkeypatch, capsys):
    for table, values in (("long", (3.0, 4.0, 6.0)), ("short", (1.0, 2.5, 3.5))):
        line = {"block": "b", "row": "ours", "values": {"s": {"seeds": dict(enumerate(values))}}}
        (tmp_path / "book").mkdir(exist_ok=True)
        (tmp_path / "book" / f"{table}.cpu.json").write_text(json.dumps({"rows": [line]}))
    where = ["--also", "short", "--block", "b", "--results", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["pairs.py", "book", "long", "s", "ours", "short: ours", *where])
    script("pairs").main()
    wanted = scipy.stats.ttest_rel([3.0, 4.0, 6.0], [1.0, 2.5, 3.5]).pvalue
    assert f"+2.0000 [+0.7579, +3.2421], p {wanted:.3f}, corrected {wanted:.3f}: short: ours" in capsys.readouterr().out
