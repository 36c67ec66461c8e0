"""`fit`: settings, logs, run folders; killed, resumed, diverged, out of disk; one's own networks."""

from __future__ import annotations

import csv
import errno
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from trainings import example
from twofold import Run, fit, load, loop
from twofold.distributions import Gaussian, Point
from twofold.errors import DivergedError, InputError, MissingFileError, TwofoldError
from twofold.method import read_tensors
from twofold.methods import MLVAE, VAE, LabelRelevantVAE
from twofold.supervision import Groups, Images, Labels

CHECKPOINT, METHOD = "checkpoint.safetensors", "method.safetensors"


def images(n=40, seed=0) -> Images:
    return Images(np.random.default_rng(seed).random((n, 6), np.float32))


def small(cls=VAE, **options):
    return cls.build((6,), s=2, z=3, arch="zheng19-toy", **{"scale": 0.5, **options})


def run(method=None, supervision=None, **options) -> Run:
    settings = {"steps": 4, "batch_size": 8, "progress": False} | options
    return fit(method or small(), supervision or images(), **settings)


def weights(method) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in method.named_parameters()}


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def timeless(rows) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def logged(path) -> list[dict[str, float]]:
    with open(path / "metrics.csv", newline="") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def refused(text: str, kind: type[Exception] = InputError):
    """One line that begins so."""
    return pytest.raises(kind, match=rf"\A(?=[^\n]*\Z){text}")


# -- what fit does -----------------------------------------------------------------------------------------------------


def test_a_run_folder(tmp_path):
    done = run(steps=5, out=tmp_path / "a" / "b", seed=4, about={"data": "mine"})
    assert done.path == tmp_path / "a" / "b"
    assert done.steps == 5
    assert done.seconds > 0
    names = {path.name for path in done.path.iterdir()}
    assert {"config.json", "metrics.csv", CHECKPOINT, METHOD} <= names
    assert not [name for name in names if name.startswith(".")]
    config = json.loads((done.path / "config.json").read_text())
    assert config["method"] == "VAE"
    assert config["config"] == done.method.config
    assert config["plan"]["seed"] == 4
    assert config["plan"]["batch_size"] == 8
    assert config["plan"]["optim"] == {"model": {"name": "adam", "lr": 1e-3}}
    assert config["about"] == {"data": "mine"}
    assert config["supervision"] == "Images"
    assert config["data"] == images().fingerprint()
    assert config["record"]["versions"]["torch"] == torch.__version__
    assert [row["step"] for row in done.metrics] == [1, 2, 3, 4, 5]
    assert set(done.metrics[0]) == {"step", "seconds", "model/rec", "model/kl_z", "model/grad_norm"}
    assert logged(done.path) == done.metrics
    assert same(weights(done.method), weights(load(done.path)))


def test_rows_are_means_over_the_interval(monkeypatch):
    """201 steps are logged every 2: each row is the mean of its terms."""
    values, original = [], VAE.losses

    def watched(self, draw):
        for update in original(self, draw):
            values.append({name: term.item() for name, term in update["model"].items()})
            yield update

    monkeypatch.setattr(VAE, "losses", watched)
    done = run(steps=201)
    assert [row["step"] for row in done.metrics] == [*range(2, 201, 2), 201]
    for i, row in enumerate(done.metrics):
        part = values[2 * i : 2 * i + 2]
        for term in ("rec", "kl_z"):
            assert row[f"model/{term}"] == pytest.approx(np.mean([v[term] for v in part]), rel=1e-5)


@pytest.mark.parametrize(("epochs", "steps"), [(1, 5), (2, 10), (0.5, 3), (1.01, 6)])
def test_epochs(epochs, steps):
    assert run(steps=None, epochs=epochs).steps == steps  # 40 images, 8 a batch


def test_an_epoch_of_a_method_with_several_draws():
    x, y = np.random.default_rng(0).random((48, 6), np.float32), np.arange(48) % 3
    assert (
        run(LabelRelevantVAE.build((6,), s=2, z=2, n_gm=1), Labels(x, y), steps=None, epochs=1).steps == 3
    )  # 2 draws a step


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 3, "epochs": 1}, "steps, epochs: 3 and 1; give one of the two"),
        ({"steps": 0}, "steps: 0; expected a whole number of at least 1"),
        ({"steps": 2.5}, "steps: 2.5; expected a whole"),
        ({"steps": True}, "steps: True; expected a whole"),
        ({"seed": True}, "seed: True; expected a whole number of at least 0"),
        ({"steps": None, "epochs": True}, "epochs: True; expected a positive"),
        ({"steps": None, "epochs": -1}, "epochs: -1; expected a positive"),
        ({"batch_size": 0}, "batch_size: 0; expected a whole number of at least 1"),
        ({"devices": 0}, "devices: 0; expected a whole"),
        ({"device": "tpu"}, r"device: 'tpu' is not known.*; choose from auto, cpu, cuda, mps"),
        ({"device": "mps"}, r"device: mps is not available here; use 'cpu' or 'auto'"),
        ({"precision": "fp8"}, "precision: 'fp8' is not known"),
        ({"optim": {"name": "adamm"}}, r"optim: name: 'adamm' is not known \(did you mean 'adam'\?\)"),
        ({"optim": {"modle": {"lr": 1.0}}}, r"optim: player: 'modle' is not known \(did you mean 'model'\?\)"),
        ({"optim": {"lr": -1.0}}, r"optim: .*Invalid learning rate"),
        ({"optim": {"learning_rate": 1.0}}, r"optim: .*learning_rate"),
        ({"resume": True}, "resume: needs out"),
    ],
    ids=str,
)
def test_bad_settings(options, message, tmp_path):
    if options.get("device") == "mps" and torch.backends.mps.is_available():
        pytest.skip("there is one")
    with refused(message):
        run(**options)
    if "resume" not in options:
        with refused(message):
            run(**options, out=tmp_path / "new")
        assert not (tmp_path / "new").exists()  # nothing half-written


def test_optimiser_settings(monkeypatch):
    made = {}
    for name, cls in loop.OPTIMISERS.items():

        class Spy(cls):
            def __init__(self, parameters, name=name, **settings):
                made[name] = settings
                super().__init__(parameters, **settings)

        monkeypatch.setitem(loop.OPTIMISERS, name, Spy)
    run()
    assert made.pop("adam")["lr"] == 1e-3  # the paper's
    run(optim={"lr": 0.5, "betas": (0.5, 0.99)})
    assert made.pop("adam") == {"lr": 0.5, "betas": (0.5, 0.99)}
    run(optim={"model": {"name": "sgd", "lr": 0.1, "momentum": 0.9}})
    assert made.pop("sgd") == {"lr": 0.1, "momentum": 0.9}

    class Own(VAE):
        optim = {"model": {"name": "rmsprop", "lr": 0.2}}

    run(small(Own), optim={"alpha": 0.5})
    assert made == {"rmsprop": {"lr": 0.2, "alpha": 0.5}}


def test_each_player_has_its_own_settings():
    x, y = np.random.default_rng(0).random((48, 6), np.float32), np.arange(48) % 3
    method = LabelRelevantVAE.build((6,), s=2, z=2)
    method.bind(Labels(x, y))
    before = weights(method)
    still = {player: {"lr": 0.0} for player in ("psi", "phi", "omega", "theta", "theta_d")}
    run(method, Labels(x, y), optim=still | {"mixture": {"name": "sgd", "lr": 0.1}})
    moved = {name for name, p in weights(method).items() if not torch.equal(p, before[name])}
    assert moved == {"mu", "log_var"}


def test_what_is_frozen_stays():
    class Half(VAE):
        players = {"model": "enc"}

    method = small(Half)
    method.enc.head.bias.requires_grad_(False)
    before = weights(method)
    run(method)
    moved = {name for name, p in weights(method).items() if not torch.equal(p, before[name])}
    assert moved == {n for n in before if n.startswith("enc.") and n != "enc.head.bias"}


@pytest.mark.parametrize(
    ("players", "message"),
    [
        ({"a": "enc dec", "b": "dec"}, r"players: dec\..* belongs to both a and b"),
        ({"a": "enc decoder"}, "players: .* has no decoder for player a"),
    ],
)
def test_bad_players(players, message):
    cls = type("Other", (VAE,), {"players": players})
    with refused(message):
        run(small(cls))


def test_gradients_that_were_there_are_not_used():
    method, other = small(), small()
    for p in other.parameters():
        p.grad = torch.ones_like(p)
    assert same(weights(run(method).method), weights(run(other).method))


def test_the_callers_generators_are_left_alone(tmp_path):
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    states = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    run(out=tmp_path / "run")
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == np.random.get_state()[1].tolist()  # noqa: NPY002
    with pytest.raises(DivergedError):
        run(optim={"name": "sgd", "lr": 1e30})
    assert torch.equal(states[0], torch.get_rng_state())


def test_progress_degrades_to_plain_lines(capfd):
    run(progress=False)
    assert capfd.readouterr() == ("", "")
    run(progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("VAE 4/4  rec ")
    assert "0 s left" in err


def test_tensorboard_is_written_where_it_is_installed(tmp_path):
    pytest.importorskip("tensorboard")
    run(out=tmp_path / "run")
    events = list((tmp_path / "run" / "tensorboard").iterdir())
    assert len(events) == 1
    assert events[0].stat().st_size > 200


# -- run folders in use ------------------------------------------------------------------------------------------------


def test_a_folder_in_use_is_refused(tmp_path):
    run(out=tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()}
    with refused(r"out: .*run exists and is not empty; choose another, or go on with it by resume"):
        run(out=tmp_path / "run")
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()}
    (tmp_path / "file").write_text("mine")
    with refused(r"out: .*file is a file; expected a folder"):
        run(out=tmp_path / "file")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("mine")
    with refused(r"out: .*photos holds no run to resume"):
        run(out=tmp_path / "photos", resume=True)
    assert run(out=tmp_path / "empty").path == tmp_path / "empty"
    (tmp_path / "made").mkdir()
    assert (run(out=tmp_path / "made").path / METHOD).is_file()  # an empty one is free
    assert (run(out=tmp_path / "new", resume=True).path / METHOD).is_file()  # nothing there yet: begin


class Refusing(VAE):
    """Refuses its data, at some step."""

    at = 0

    def losses(self, draw):
        if self.at == 0:
            raise InputError("x: not this")
        self.at -= 1
        yield from super().losses(draw)


def test_what_is_refused_at_the_first_step_leaves_nothing(tmp_path):
    (tmp_path / "mine").mkdir()
    for out in ("new", "mine", "deep/er"):
        with refused("x: not this"):
            run(small(Refusing), out=tmp_path / out)
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]
    later = small(Refusing)
    later.at = 1
    with refused("x: not this"):
        run(later, out=tmp_path / "new")
    assert (tmp_path / "new" / CHECKPOINT).is_file()  # a step was done
    with refused("x: not this"):
        run(small(Refusing), out=tmp_path / "new", resume=True)
    assert (tmp_path / "new" / CHECKPOINT).is_file()  # it was there before


def test_a_run_goes_on_only_as_it_began(tmp_path):
    out = tmp_path / "run"

    def again(method=None, supervision=None, **options):
        return run(method, supervision, out=out, resume=True, **{"steps": 6, "checkpoint_every": 0.0} | options)

    run(out=out, steps=4, seed=1)
    before = (out / CHECKPOINT).read_bytes()
    refusals = [
        ({"seed": 2}, "resume: plan.seed was 1 and is now 2; expected the same"),
        ({"seed": 1, "batch_size": 16}, "resume: plan.batch_size was 8 and is now 16"),
        ({"seed": 1, "precision": "bf16"}, "resume: plan.precision was 32-true and is now bf16-mixed"),
        ({"seed": 1, "optim": {"lr": 0.1}}, "resume: plan.optim.model.lr was 0.001 and is now 0.1"),
        ({"seed": 1, "method": small(beta=3.0)}, "resume: config.beta was None and is now 3.0"),
        ({"seed": 1, "supervision": images(seed=1)}, "resume: data was .* and is now"),
        ({"seed": 1, "steps": 2}, "steps: 2; the run has taken 4 already"),
    ]
    for options, message in refusals:
        with refused(message):
            again(**options)
    groups = Groups(np.random.default_rng(0).random((40, 6), np.float32), np.arange(40) % 5)
    with refused("resume: .* was .* and is now"):
        again(small(MLVAE), groups, seed=1)
    assert before == (out / CHECKPOINT).read_bytes()
    assert again(seed=1).metrics[-1]["step"] == 6
    assert again(seed=1).metrics[-1]["step"] == 6  # a finished run, once more


def test_another_cut_of_the_groups_is_another_run(tmp_path):
    x, group = np.random.default_rng(0).random((40, 6), np.float32), np.arange(40) % 5
    run(small(MLVAE), Groups(x, group, per_group=4), out=tmp_path / "run")
    with refused("resume: .*per_group was 4 and is now 8"):
        run(small(MLVAE), Groups(x, group, per_group=8), out=tmp_path / "run", resume=True, steps=6)


def test_files_of_another_kind(tmp_path):
    done = run(out=tmp_path / "run")
    whole = (tmp_path / "run" / CHECKPOINT).read_bytes()
    for name, content in {
        "cut": whole[: len(whole) // 2],
        "cut-in-header": whole[:20],
        "empty": b"",
        "text": b"hello, world; no tensors here",
    }.items():
        (tmp_path / name).write_bytes(content)
        with refused(rf".*{name}: truncated, or not a safetensors file"):
            load(tmp_path / name)
    torch.save(done.method.state_dict(), tmp_path / "pickled")
    with refused(r".*pickled: truncated, or not a safetensors file"):
        load(tmp_path / "pickled")
    safetensors.torch.save_file({"w": torch.ones(2)}, tmp_path / "foreign")
    with refused(r".*foreign: a safetensors file, but not one of twofold's"):
        load(tmp_path / "foreign")
    with refused(r".*none: no such file; expected one written by save\(\) or a run's folder", MissingFileError):
        load(tmp_path / "none")
    with refused(r".*: no such file", MissingFileError):
        load(tmp_path)
    with refused(r".*: holds a VAE, not a MLVAE"):
        load(tmp_path / "run", method=small(MLVAE))
    with refused(r".*: does not fit this VAE: size mismatch"):
        load(tmp_path / "run", method=VAE.build((6,), z=9, arch="zheng19-toy"))
    (tmp_path / "run" / CHECKPOINT).write_bytes(whole[:-10])
    with refused(r".*: truncated, or not a safetensors file"):
        run(out=tmp_path / "run", resume=True)


def test_a_folder_stands_for_its_method_or_else_its_checkpoint(tmp_path):
    run(out=tmp_path / "run")
    (tmp_path / "run" / METHOD).unlink()
    found = load(tmp_path / "run")
    assert isinstance(found, VAE)
    assert found.encode(images().x).z.shape == (40, 3)


# -- killed ------------------------------------------------------------------------------------------------------------


class Interrupted(BaseException):
    """A kill, as far as what lies on the disk is concerned."""


@pytest.mark.parametrize("checkpoint_every", [0.0, 1e9], ids=["often", "never"])
@pytest.mark.parametrize("kills", [(1,), (5,), (3, 7), (4, 4, 9)], ids=str)
def test_interrupted_and_resumed_equals_undisturbed(kills, checkpoint_every, tmp_path, monkeypatch):
    """Stopped after a row was logged, before its checkpoint: weights, optimiser state and rows come out the same."""

    def go(path, until=None, resume=False):
        def update(self, at, values=None):
            if at == until:
                raise Interrupted

        monkeypatch.setattr(loop.Progress, "update", update)
        return run(out=tmp_path / path, steps=10, resume=resume, checkpoint_every=checkpoint_every)

    whole = go("whole")
    for i, until in enumerate(kills):
        with pytest.raises(Interrupted):
            go("parts", until, resume=i > 0)
    parts = go("parts", resume=True)
    ours, theirs = (read_tensors(tmp_path / name / CHECKPOINT) for name in ("whole", "parts"))
    assert same(ours[0], theirs[0])
    assert ours[1] == theirs[1]
    assert timeless(parts.metrics) == timeless(whole.metrics)
    assert timeless(logged(tmp_path / "parts")) == timeless(whole.metrics)


def test_a_row_that_was_cut_off(tmp_path):
    whole = run(out=tmp_path / "run", steps=6)
    run(out=tmp_path / "cut", steps=4)
    kept = (tmp_path / "cut" / "metrics.csv").read_bytes()
    checkpoint = (tmp_path / "cut" / CHECKPOINT).read_bytes()
    row = b"5,0.1,3.25,0.5,7.125\r\n"
    for length in range(len(row) + 1):
        (tmp_path / "cut" / "metrics.csv").write_bytes(kept + row[:length])
        (tmp_path / "cut" / CHECKPOINT).write_bytes(checkpoint)
        (tmp_path / "cut" / f".{CHECKPOINT}.part").write_bytes(b"half")
        parts = run(out=tmp_path / "cut", steps=6, resume=True)
        assert timeless(parts.metrics) == timeless(whole.metrics)
        assert [row["step"] for row in logged(tmp_path / "cut")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("left", [[], [".config.json.part"], ["config.json"], ["config.json", "metrics.csv"]], ids=str)
def test_killed_before_the_first_checkpoint(left, tmp_path):
    whole = run(out=tmp_path / "whole")
    (tmp_path / "parts").mkdir()
    for name in left:
        (tmp_path / "parts" / name).write_text("step,sec")
    assert same(weights(run(out=tmp_path / "parts", resume=True).method), weights(whole.method))
    assert timeless(logged(tmp_path / "parts")) == timeless(whole.metrics)


def test_sigkill(tmp_path):
    """Another process is killed for good in the middle of its run; resumed, it is as if nothing had happened."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import trainings; " + (
        f"trainings.example({str(tmp_path / 'parts')!r}, checkpoint_every=0.02)"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    rows, start = tmp_path / "parts" / "metrics.csv", time.monotonic()
    while process.poll() is None and not (rows.exists() and rows.read_text().count("\n") > 30):
        assert time.monotonic() - start < 120
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL, "it ended before it was killed"
    reached = read_tensors(tmp_path / "parts" / CHECKPOINT)[1]["step"]
    assert 0 < reached < 120
    parts, whole = example(tmp_path / "parts", resume=True, checkpoint_every=0.02), example(tmp_path / "whole")
    ours, theirs = (read_tensors(tmp_path / name / CHECKPOINT)[0] for name in ("whole", "parts"))
    assert any(name.startswith("optim/") for name in ours)
    assert same(ours, theirs)
    assert timeless(parts.metrics) == timeless(whole.metrics)
    assert [row["step"] for row in logged(tmp_path / "parts")] == list(range(1, 121))


# -- diverged, or out of disk ------------------------------------------------------------------------------------------


def breaking(cls, at: int, player: str = "model", term: str = "rec", value: float = math.nan):
    """A method whose term is `value` in step `at`."""

    class Broken(cls):
        count = 0

        def losses(self, *draws):
            self.count += 1
            for update in super().losses(*draws):
                if self.count == at and term in update.get(player, {}):
                    update[player][term] = update[player][term] * value
                yield update

    Broken.__name__ = cls.__name__
    return Broken


@pytest.mark.parametrize(("steps", "at", "good"), [(9, 7, 6), (9, 1, 0), (600, 8, 6), (600, 12, 6), (600, 13, 12)])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_divergence_names_the_step_the_term_and_the_checkpoint(steps, at, good, value, tmp_path):
    """600 steps are logged every 6; the step of the first bad term is named all the same."""
    method = small(breaking(VAE, at, value=value))
    message = rf"loss: model/rec = {value}.* at step {at}; last good checkpoint: .*{CHECKPOINT} \(step {good}\); try"
    with refused(message, DivergedError):
        run(method, steps=steps, out=tmp_path / "run", checkpoint_every=0.0)
    assert not (tmp_path / "run" / METHOD).exists()
    kept = load(tmp_path / "run")
    assert all(p.isfinite().all() for p in kept.parameters())
    assert read_tensors(tmp_path / "run" / CHECKPOINT)[1]["step"] == good
    assert all(math.isfinite(v) for row in logged(tmp_path / "run") for v in row.values()) if good else True


def test_divergence_without_a_folder():
    with refused(r"loss: model/rec = nan.* at step 3; no checkpoint was kept \(give out\)", DivergedError):
        run(small(breaking(VAE, 3)))


@pytest.mark.parametrize(("steps", "at"), [(20, 5), (400, 6)])
def test_divergence_in_a_step_of_several_updates(steps, at):
    """Zheng19's inner loop logs its terms twice a step, the joint step once."""
    x, y = np.random.default_rng(0).random((48, 6), np.float32), np.arange(48) % 3
    for player, term in (("theta", "adv"), ("mixture", "cls")):
        method = breaking(LabelRelevantVAE, at, player, term).build((6,), s=2, z=2)
        with refused(rf"loss: .*{player}/{term} = nan.* at step {at};", DivergedError):
            run(method, Labels(x, y), steps=steps)


def test_weights_that_break_in_the_last_step(tmp_path):
    """The loss was still finite; what would be kept is not."""
    with refused(r"loss: weights that are NaN or infinite at step 1; last good checkpoint: .*step 0", DivergedError):
        run(out=tmp_path / "run", steps=1, optim={"name": "sgd", "lr": 1e39})
    with pytest.raises(DivergedError):
        run(steps=1, optim={"name": "sgd", "lr": 1e39})


@pytest.mark.parametrize("call", ["replace", "write"])
def test_a_full_disk(call, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    run(out=tmp_path / "run", steps=3)
    before = (tmp_path / "run" / CHECKPOINT).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full) if call == "replace" else patch.setattr(os, "fsync", full)
        with refused(r"out: no space left for .*run; free some and run again with resume", TwofoldError):
            run(out=tmp_path / "run", steps=6, resume=True)
    assert (tmp_path / "run" / CHECKPOINT).read_bytes() == before
    assert not list((tmp_path / "run").glob(".*.part"))
    whole = run(out=tmp_path / "whole", steps=6)
    assert same(weights(run(out=tmp_path / "run", steps=6, resume=True).method), weights(whole.method))


# -- one's own networks ------------------------------------------------------------------------------------------------


class Encoder(nn.Module):
    def __init__(self, s=2, z=3, point=False):
        super().__init__()
        self.s, self.z, self.point = nn.Linear(6, s if point else 2 * s), nn.Linear(6, 2 * z), point

    def forward(self, x):
        s, z = self.s(x), self.z(x)
        return Point(s) if self.point else Gaussian(*s.chunk(2, -1)), Gaussian(*z.chunk(2, -1))


class Decoder(nn.Module):
    def __init__(self, s=2, z=3):
        super().__init__()
        self.layer = nn.Linear(s + z, 6)

    def forward(self, s, z):
        return self.layer(torch.cat([s, z], -1))


def own(**options):
    torch.manual_seed(0)
    return MLVAE(Encoder(), Decoder(), **options)


def test_own_networks_train_save_and_load(tmp_path):
    x, group = np.random.default_rng(0).random((40, 6), np.float32), np.arange(40) % 5
    method = own(scale=0.5)
    with refused("shape: not known yet; it is learned from the data, in fit or bind"):
        method.encode(x)
    before = weights(method)
    done = run(method, Groups(x, group, 4), out=tmp_path / "run")
    assert not any(torch.equal(weights(method)[name], p) for name, p in before.items())
    assert method.sizes == (2, 3)
    method.save(tmp_path / "m")
    for path in (tmp_path / "m", done.path):
        with refused(r".*: a MLVAE with networks of its own; pass method=MLVAE\(encoder, decoder\)"):
            load(path)
        loaded = load(path, method=MLVAE(Encoder(), Decoder(), scale=0.5))
        assert all(map(torch.equal, method.encode(x), loaded.encode(x)))
        code = method.encode(x)
        assert torch.equal(method.decode(code), loaded.decode(code))
    with refused(r".*: does not fit this MLVAE: size mismatch"):
        load(tmp_path / "m", method=MLVAE(Encoder(s=4), Decoder(s=4)))
    whole = run(own(scale=0.5), Groups(x, group, 4), steps=6)
    parts = run(own(scale=0.5), Groups(x, group, 4), steps=6, out=tmp_path / "run", resume=True)
    assert same(weights(whole.method), weights(parts.method))


def test_own_networks_of_another_size_cannot_resume(tmp_path):
    supervision = Groups(np.random.default_rng(0).random((40, 6), np.float32), np.arange(40) % 5, 4)
    run(own(scale=0.5), supervision, out=tmp_path / "run")
    with refused(".*size mismatch"):
        run(MLVAE(Encoder(z=5), Decoder(z=5)), supervision, out=tmp_path / "run", resume=True, steps=6)


def test_saving_while_the_file_is_there_replaces_it_whole(tmp_path):
    a, b = small(), VAE.build((6,), z=3, arch="zheng19-toy", seed=1)
    a.save(tmp_path / "deep" / "m")
    b.save(tmp_path / "deep" / "m")
    assert same(weights(load(tmp_path / "deep" / "m")), weights(b))
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["m"]
