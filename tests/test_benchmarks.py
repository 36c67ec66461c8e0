"""Measurements of the docs still measure what they say; small."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import pytest

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
