"""Shared by all tests: one quiet thread, shapes checked where they are annotated, and a few small data sets."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch loads; subprocesses inherit it
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))  # `sketches`, here and in the processes that tests spawn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # others' warnings when they are compiled for the first time
    import numpy as np
    import ot  # noqa: F401
    import pytest
    import torch
    from jaxtyping import install_import_hook

# the documented shapes are executed: where shapes are annotated (beartype can't take typing.Self in a plain function)
install_import_hook(["twofold.distributions", "twofold.divergences"], "beartype.beartype")
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def anyof():
    """`anyof(kind, shape, n=48, seed=0)`: a supervision of class `kind` on random observations, groups and classes."""

    def make(kind, shape=(1, 8, 8), n: int = 48, seed: int = 0):
        random = np.random.default_rng(seed)
        x = torch.from_numpy(random.random((n, *shape), np.float32))
        y = random.permutation(np.arange(n) % 4)
        group = random.permutation(np.repeat(np.arange(7), [n - 27, 9, 7, 5, 3, 2, 1]))  # unequal, one of them single
        return {
            "Images": lambda: kind(x),
            "Labels": lambda: kind(x, y),
            "Groups": lambda: kind(x, group, per_group=4),
            "Triplets": lambda: kind(x, y),
            "Reference": lambda: kind(x[: n // 2], x[n // 2 :]),
        }[kind.__name__]()

    return make


@pytest.fixture
def noise(monkeypatch):
    """What `torch.randn` and `torch.multinomial` gave, by shape: the noise of a loss, for its reference."""
    drawn = {}
    for name in ("randn", "multinomial"):
        original = getattr(torch, name)

        def recording(*args, original=original, **options):
            value = original(*args, **options)
            assert value.shape not in drawn, "two draws of one shape can't be told apart"
            drawn[value.shape] = value
            return value

        monkeypatch.setattr(torch, name, recording)
    torch.manual_seed(0)
    return drawn
