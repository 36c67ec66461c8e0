"""Two processes (gloo) on the same global batch, sampling noise switched off, give the weights of one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from trainings import QUIET, RANKED, ranked
from twofold import Images, fit, load
from twofold.errors import InputError
from twofold.method import read_tensors


def close(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.allclose(a[k], b[k], rtol=0, atol=1e-5) for k in a)


@pytest.fixture(scope="module")
def launched(tmp_path_factory) -> Path:
    """A folder with each training's weights by each of two ranks, run as by torchrun."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import trainings; "
    code += f"trainings.ranked_all({str(folder)!r})"
    world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "NODE_RANK": "0", "GROUP_RANK": "0"}
    world |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | world | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        outputs = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], outputs
    return folder


@pytest.mark.parametrize("name", RANKED)
def test_two_ranks_give_the_weights_of_one(name, launched):
    first, second = (read_tensors(launched / f"{name}-{rank}")[0] for rank in (0, 1))
    assert all(torch.equal(first[k], second[k]) for k in first)  # the ranks agree to the bit
    one = ranked(name).method
    start = type(one).build(**{k: v for k, v in one.config.items() if k != "shape"}, shape=one.config["shape"])
    assert not close(dict(start.state_dict()), first)
    assert close(dict(one.state_dict()), first)


def test_fit_starts_the_processes_itself(tmp_path):
    two, one = ranked("mlvae", devices=2, out=tmp_path / "run"), ranked("mlvae")
    assert close(dict(one.method.state_dict()), dict(two.method.state_dict()))
    assert not two.method.training
    assert [row["step"] for row in two.metrics] == [row["step"] for row in one.metrics]
    for a, b in zip(one.metrics, two.metrics):
        for term in a.keys() - {"seconds"}:
            assert b[term] == pytest.approx(a[term], rel=1e-4), term
    loaded = load(tmp_path / "run", method=one.method)
    assert close(dict(loaded.state_dict()), dict(two.method.state_dict()))


def test_a_batch_that_ranks_cannot_share_is_refused(tmp_path):
    method = QUIET["VAE"].build((6,), z=3, arch="zheng19-toy", scale=0.3)
    with pytest.raises(InputError, match=r"^batch_size: 9; expected a positive multiple of 2"):
        fit(method, Images(torch.rand(20, 6)), steps=2, batch_size=9, device="cpu", devices=2, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
