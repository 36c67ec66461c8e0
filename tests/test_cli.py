"""The command line: what it understands, what it refuses and how, what it leaves, and what a kill can't spoil."""

from __future__ import annotations

import errno
import inspect
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
from cyclopts import App, CycloptsError
from PIL import Image
from torch import nn

from twofold import evaluation, methods, report, training
from twofold.__main__ import main
from twofold.cli import commands, parse, source
from twofold.cli.settings import Settings

QUICK = "--arch bouchacourt18-mnist --s 2 --z 2"  # small networks


def run(line: str) -> int:
    return main(shlex.split(line))


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    """A folder with data as users have them: good, odd and broken."""
    desk, random = tmp_path_factory.mktemp("desk"), np.random.default_rng(0)

    def images(folder: str, count: int = 6, height: int = 33, grow: int = 0):
        (desk / folder).mkdir(parents=True)
        for i in range(count):
            pixels = random.integers(0, 256, (height + i * grow, 40, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(desk / folder / f"{i}.png")

    images("photos/anna"), images("photos/bert")
    images("flat")
    images("mixed/anna", grow=1), images("mixed/bert")
    images("alone/only")
    images("torn/anna"), images("torn/bert")
    (desk / "torn/anna/0.png").write_bytes(b"\x89PNG and no more")
    (desk / "empty").mkdir()
    x, y = random.random((60, 5), np.float32), np.arange(60) % 3
    spoilt = x.copy()
    spoilt[7, 2] = np.nan
    np.savez(desk / "ok.npz", x=x, y=y)
    np.savez(desk / "nan.npz", x=spoilt, y=y)
    np.savez(desk / "short.npz", x=x, y=y[:50])
    np.savez(desk / "one.npz", x=x, y=0 * y)
    np.savez(desk / "negative.npz", x=x, y=y - 2)
    np.savez(desk / "none.npz", x=x[:0], y=y[:0])
    np.savez(desk / "bright.npz", x=255 * random.random((60, 1, 8, 8), np.float32), y=y)
    np.savez(desk / "named.npz", pictures=x, y=y)
    np.savez(desk / "objects.npz", x=np.array([None, "a"]), y=y[:2])
    (desk / "torn.npz").write_bytes((desk / "ok.npz").read_bytes()[:200])
    rows = [f"{20 + i % 41},{i % 9},{'control' if i % 2 else 'case'},{i % 3}" for i in range(60)]
    (desk / "patients.csv").write_text("\n".join(["age,score,group,site", *rows]))
    (desk / "comma.csv").write_text(
        "\n".join(["age;score;group", *(f"{i},5;{i % 7};{'ab'[i % 2]}" for i in range(48))])
    )
    rows = [f"{i % 7}.5,{i % 9}.25,{'ab'[i % 2]},{i % 3}" for i in range(60)]
    (desk / "real.csv").write_text("\n".join(["v1,v2,group,site", *rows]))
    (desk / "numbers.csv").write_text("\n".join(["v1,v2", *(f"{i % 7}.5,{i % 9}.25" for i in range(60))]))
    np.savez(desk / "real.npz", x=x, y=y, age=x[:, 0])
    (desk / "gaps.csv").write_text("\n".join(["age,score,group,site", ",3,case,1", *rows]))
    (desk / "ids.csv").write_text("\n".join(["id,a,group", *(f"{i + 1},{i % 4},{'ab'[i % 2]}" for i in range(30))]))
    (desk / "twins.csv").write_text("a,b,group\n1,2,control\n3,3,Control\n4,9,case")
    (desk / "notes.txt").write_text("hello")
    (desk / "wrong.toml").write_text('method = "vae"\ndata = "toy"\nbathc_size = 3')
    (desk / "typed.json").write_text('{"method": "vae", "data": "toy", "steps": "many"}')
    (desk / "torn.toml").write_text("steps = [")
    return desk


def tree(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


WRONG = {  # the command -> what its one line must say
    "trian": ["trian", "train"],
    "--bogus": ["--bogus"],
    "list extra": ["extra"],
    "train": ["METHOD, DATA", "missing"],
    "train ml-vae": ["DATA", "missing"],
    "train ml-va digits": ["method", "'ml-va'", "did you mean 'ml-vae'"],
    "train ml-vae digitz": ["data", "'digitz'", "did you mean 'digits'"],
    "train ml-vae digits more": ["more", "twofold train --help"],
    "train ml-vae digits --stps 3": ["--stps", "--steps"],
    "train ml-vae digits --bta 3": ["--bta", "--beta"],
    "train ml-vae digits --lambda-s 3": ["--lambda-s"],
    "train ml-vae digits --steps": ["--steps", "requires"],
    "train ml-vae digits --lambda-z 3": ["--lambda-z", "an option of contrastive"],
    "train ml-vae digits --steps many": ["--steps", "'many'", "whole number"],
    "train ml-vae digits --steps 1.5": ["--steps", "'1.5'", "whole number"],
    "train ml-vae digits --steps 1 --steps 2": ["--steps", "multiple"],
    "train ml-vae digits --steps 0": ["steps", "0", "at least 1"],
    "train ml-vae digits --steps -4": ["steps", "-4", "at least 1"],
    "train ml-vae digits --steps 4 --epochs 1": ["steps, epochs", "one of the two"],
    "train ml-vae digits --batch-size 0": ["batch_size", "0", "at least 1"],
    "train ml-vae digits --seed x": ["--seed", "'x'"],
    "train ml-vae digits --lr -1": ["lr", "-1"],
    "train ml-vae digits --s -1": ["s: -1", "at least 0"],
    "train vae digits --z 0": ["z", "at least one"],
    "train ml-vae digits --arch cnn": ["arch", "'cnn'", "conv"],
    "train ml-vae ok.npz --arch conv": ["arch", "conv needs images", "mlp"],
    "train ml-vae digits --beta x": ["--beta", '"x"', "float"],
    "train ml-vae digits --scale 0": ["scale", "positive"],
    "train ml-vae digits --evidence prodct": ["--evidence", '"prodct"', 'Did you mean "product"'],
    "train ml-vae digits --device tpu": ["device", "'tpu'", "cpu"],
    "train ml-vae digits --devices 0": ["devices", "0", "at least 1"],
    "train ml-vae digits --precision fp16": ["--precision", "fp16", "bf16"],
    "train ml-vae patients.csv --factor site,site": ["factor", "names one twice"],
    "train ml-vae digits --s 0": ["s: 0", "at least one dimension of s"],
    "train ml-vae digits --factor digt": ["factor", "'digt'", "digit"],
    "train ml-vae digits --per-group 0": ["per_group", "0", "at least 1"],
    "train vae digits --per-group 4": ["per_group", "vae learns from images", "ml-vae"],
    "train ml-vae digits --background digit=0": ["background", "ml-vae learns from groups", "contrastive"],
    "train contrastive digits": ["background", "FACTOR=VALUE", "grassy-digits", "contrastive learns from reference"],
    "train contrastive digits --background digit": ["background", "'digit'", "FACTOR=VALUE"],
    "train contrastive digits --background digit=12": ["background (digit)", "'12'"],
    "train contrastive patients.csv --background group=contrl": ["'contrl'", "did you mean 'control'"],
    "train contrastive patients.csv --background sight=1": ["'sight'", "did you mean 'site'"],
    "train ml-vae patients.csv --factor sight": ["factor", "'sight'", "did you mean 'site'"],
    "train ml-vae real.csv --factor v1": ["'v1' holds real numbers", "learns from groups", "numbers): group\n"],
    "train conditional-vae real.csv --factor v2": ["'v2' holds real numbers", "from labels", "): group\n"],
    "train ml-vae real.csv --factor group,v1": ["'v1' holds real numbers"],
    "train ml-vae numbers.csv --factor v1": ["'v1' holds real numbers", "there is none"],
    "train ml-vae real.npz --factor age": ["'age' holds real numbers", "): y\n"],
    "train ml-vae real.npz --factor agee": ["'agee' is not known", "choose from y\n"],
    "train ml-vae digits --data-option size": ["data-option", "'size'", "NAME=VALUE"],
    "train ml-vae digits --data-option size=3": ["'size'", "digits takes none"],
    "train ml-vae photos --data-option sise=3": ["'sise'", "did you mean 'size'"],
    "train ml-vae photos --data-option size=big": ["size", "'big'", "whole number"],
    "train ml-vae mixed": ["mixed", "40", "--data-option size="],
    "train ml-vae photos --hold-out lable": ["hold_out", "'lable'", "label"],
    "train vae flat --hold-out label": ["hold_out", "'label'", "has no classes"],
    "train ml-vae photos --hold-out label": ["hold_out: 'label' has 2 classes", "at least 4", "two to hold out"],
    "train ml-vae one.npz --factor y --hold-out y": ["hold_out: 'y' has 1 class;", "at least 4"],
    "train ml-vae flat": ["flat has no classes", "sub-folder", "from images alone", "vae"],
    "train ml-vae alone": ["one group only", "at least two"],
    "train ml-vae torn": ["1 of 12 files", "anna/0.png"],
    "train ml-vae empty": ["empty", "no images"],
    "train ml-vae notes.txt": ["data", "notes.txt", ".csv"],
    "train ml-vae nowhere.csv": ["data", "nowhere.csv", "does not exist"],
    "train ml-vae nan.npz": ["nan.npz", "NaN or Inf in 1 of 60"],
    "train ml-vae short.npz": ["short.npz", "50 values for 60"],
    "train ml-vae one.npz": ["one group only"],
    "train ml-vae negative.npz": ["-2 is out of range"],
    "train ml-vae none.npz": ["none.npz", "at least one observation"],
    "train ml-vae bright.npz": ["bright.npz", "[0, 1]"],
    "train ml-vae objects.npz": ["objects.npz"],
    "train ml-vae torn.npz": ["torn.npz", "can't be read"],
    "train ml-vae named.npz": ["'x'", "pictures", "--data-option x="],
    "train ml-vae ids.csv --factor group": ["'id' numbers the rows, 1 to 30", "--data-option factors="],
    "train ml-vae twins.csv": ["twins.csv", "the classes 'Control' and 'control'"],
    "train ml-vae patients.csv --factor group --data-option units=age:years": ["'age'", "--data-option factors="],
    "train ml-vae gaps.csv --factor group": ["gaps.csv", "1 missing", "--data-option missing="],
    "train vae mnist --data-dir nowhere": ["data-dir", "nowhere' is not a folder"],
    "train vae mnist --data-dir empty": ["mnist", "--data-dir"],
    "train ml-vae digits --out notes.txt": ["out", "notes.txt", "is a file"],
    "train ml-vae digits --out photos": ["out", "photos", "exists", "resume"],
    "train ml-vae digits --out notes.txt/run --steps 2": ["out", "notes.txt/run"],
    "train ml-vae digits --resume": ["resume", "--out"],
    "train --resume --out nowhere": ["nowhere", "is no folder"],
    "train ml-vae digits --resume --out photos": ["out", "photos", "no run to resume"],
    "train --config nowhere.toml": ["config", "nowhere.toml", "does not exist"],
    "train --config notes.txt": ["config", "notes.txt", ".toml or .json"],
    "train --config torn.toml": ["config", "torn.toml is no TOML"],
    "train --config wrong.toml": ["wrong.toml", "'bathc-size'", "did you mean 'batch-size'"],
    "train --config typed.json": ["steps", "'many'", "whole number"],
    "evaluate": ["RUN", "requires"],
    "evaluate nowhere": ["RUN", "nowhere", "is no folder"],
    "evaluate photos": ["RUN", "photos", "config.json"],
    "report nowhere": ["RUN", "nowhere", "is no folder"],
    "demo --steps x": ["--steps", "'x'"],
    "demo --out photos": ["out", "photos", "exists"],
}


@pytest.mark.parametrize("line", WRONG)
def test_bad_input_is_one_line_status_2_and_nothing_written(line, desk, monkeypatch, capsys):
    monkeypatch.chdir(desk)
    monkeypatch.delenv("TWOFOLD_DATA", raising=False)
    before = tree(desk)
    assert run(line) == 2
    out, err = capsys.readouterr()
    assert out == "" or (out.startswith("data: ") and out.count("\n") == 1)  # what was read is told before it trains
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for part in WRONG[line]:
        assert part in err
    assert tree(desk) == before


def test_bad_input_to_the_process_itself(desk):
    """No traceback, no warning, no folder: as a user sees it."""
    before = tree(desk)
    words = [sys.executable, "-m", "twofold", "train", "ml-vae", "digits", "--steps", "many"]
    done = subprocess.run(words, cwd=desk, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: Invalid value for --steps: 'many'; expected a whole number")
    assert done.stderr.count("\n") == 1
    assert tree(desk) == before


def test_help_does_not_wait_for_torch_and_threads_wait_passively():
    code = """
import os, sys
from twofold.__main__ import main
for line in ("--help", "--version", "", "train --help", "train vae", "evaluate --help", "demo --help"):
    try:
        main(line.split())
    except SystemExit as end:
        assert not end.code
assert not {"torch", "numpy", "sklearn", "matplotlib"} & set(sys.modules)
print(os.environ["OMP_WAIT_POLICY"], os.environ.get("KMP_BLOCKTIME"))
"""
    for policy, waits in ((None, "PASSIVE 0"), ("ACTIVE", "ACTIVE None")):
        environ = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "KMP_BLOCKTIME")}
        environ |= {} if policy is None else {"OMP_WAIT_POLICY": policy}
        done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True)
        assert done.stdout.splitlines()[-1:] == [waits], done.stderr
        for command in ("demo", "train", "evaluate", "report", "list"):
            assert f" {command} " in done.stdout


def test_a_reader_that_goes_away_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", "twofold", "--help"], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode != 0


def test_the_help_of_a_method_shows_its_own_options(capsys):
    assert run("train ml-vae --help") == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for part in (
        "Multi-Level VAE",
        "--evidence",
        "--beta",
        "weights both KLs",
        "default: 1.0",
        "--batch-size",
        "groups",
    ):
        assert part in text
    assert "[choices: product, mixture]" in text


@pytest.mark.parametrize("cls", methods.CLASSES.values(), ids=lambda cls: cls.__name__)
def test_every_option_of_a_method_is_an_option_of_train(cls):
    own = parse.own(cls)
    hints = get_type_hints(cls.__init__)
    assert set(own) == {name for name in cls.options() if parse.writable(hints[name])}
    common = {field.name for field in fields(Settings)} | set(inspect.signature(commands.train).parameters)
    assert not common & set(own), "an option of the method would hide one of train's"
    for name, option in own.items():
        assert option.default == cls.options()[name]
        told = parse._told(cls, name) or get_origin(hints[name]) is Literal  # its choices say it
        assert told, f"{cls.__name__}'s docstring doesn't say what `{name}` does"
        if type(None) in get_args(hints[name]):
            assert "May be none" in option.annotation.__metadata__[0].help
            line, app = f"{cls.name} toy --{name.replace('_', '-')}=none", App(default_command=parse._command(cls))
            _, bound, _ = app.parse_args(line, print_error=False, exit_on_error=False)
            assert bound.arguments[name] is None


@pytest.mark.parametrize("cls", [methods.SRbVAE, methods.SymmetricVAE, methods.ReferenceMathieu])
def test_each_option_has_a_text_of_its_own(cls):
    texts = [parse._told(cls, name) for name in parse.own(cls)]
    assert len(set(texts)) == len(texts)
    assert not any(" as in " in text for text in texts)


class Odd(methods.VAE):
    """A method whose options are of every kind. `rounds`: how many. `sharp`: whether.

    `widths` are numbers; `frozen` is a network of one's own.
    """

    name = "odd"

    def __init__(
        self,
        encoder,
        decoder,
        *,
        rounds: int = 3,
        warmup: int | None = None,
        sharp: bool = True,
        widths: tuple[int, ...] = (4, 2),
        kind: Literal["I", "II"] = "I",
        frozen: nn.Module | None = None,
    ):
        super().__init__(encoder, decoder)


def test_options_of_every_kind():
    assert list(parse.own(Odd)) == ["rounds", "warmup", "sharp", "widths", "kind"]
    app = App(default_command=parse._command(Odd))

    def read(line: str) -> dict:
        _, bound, _ = app.parse_args(f"odd toy {line}", print_error=False, exit_on_error=False)
        return {name: value for name, value in bound.arguments.items() if name in parse.own(Odd)}

    assert read("") == {}
    line = "--no-sharp --rounds 5 --warmup 7 --widths 8 --widths 4 --kind II"
    assert read(line) == {"sharp": False, "rounds": 5, "warmup": 7, "widths": (8, 4), "kind": "II"}
    assert read("--sharp --warmup none") == {"sharp": True, "warmup": None}
    for wrong in ("--rounds 1.5", "--warmup soon", "--kind III", "--widths a", "--frozen x"):
        with pytest.raises(CycloptsError):
            read(wrong)
    assert parse._told(Odd, "sharp") == "`sharp`: whether."
    assert parse._told(Odd, "widths").startswith("`widths` are numbers")


def test_train_has_the_defaults_of_fit_and_build():
    told = Settings()
    here = inspect.signature(commands.train).parameters
    for name, parameter in inspect.signature(training.fit).parameters.items():
        if name in here:
            assert (here[name].default or None) == (parameter.default or None), name
        elif hasattr(told, name):
            assert getattr(told, name) == parameter.default, name
    for name, parameter in inspect.signature(methods.VAE.build).parameters.items():
        assert not hasattr(told, name) or getattr(told, name) == parameter.default, name
    assert set(get_args(get_type_hints(Settings)["precision"])) <= set(training.PRECISIONS)
    assert {source.kind(cls) for cls in methods.CLASSES.values()} <= set(source.TAKES)


def test_list_names_methods_data_and_networks(capsys):
    assert run("list") == 0
    text = capsys.readouterr().out
    for part in (*methods.names(), "digits", "sprites", "1 x 8 x 8", "character*", "bouchacourt18-mnist", "groups"):
        assert part in text


@pytest.fixture
def here(tmp_path, monkeypatch, desk) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("ok.npz", "photos", "patients.csv", "gaps.csv", "comma.csv", "mixed"):
        (tmp_path / name).symlink_to(desk / name)
    return tmp_path


def config(folder: str) -> dict:
    return json.loads((Path(folder) / "config.json").read_text())


def test_train_numbers_its_folders_and_says_what_is_next(here, capsys):
    for number in (1, 2):
        assert run(f"train --beta 2 ml-vae ok.npz {QUICK} --steps 3 --seed 5 --lr 0.01 --batch-size=16") == 0
        out = capsys.readouterr().out
        assert f"run: runs/ml-vae-ok-00{number} " in out
        assert f"twofold evaluate runs/ml-vae-ok-00{number}" in out
        assert f"twofold report runs/ml-vae-ok-00{number}" in out
    found = config("runs/ml-vae-ok-001")
    assert found["config"]["beta"] == 2
    assert found["config"]["evidence"] == "product"  # the whole configuration, defaults too
    assert found["plan"]["optim"]["model"]["lr"] == 0.01
    assert (found["plan"]["steps"], found["plan"]["batch_size"], found["plan"]["seed"]) == (3, 16, 5)
    told = found["about"]["settings"]
    assert told["data"] == str((here / "ok.npz").resolve())
    assert (told["method"], told["own"]["beta"], told["seed"]) == ("ml-vae", 2, 5)
    one, two = (Path(f"runs/ml-vae-ok-00{i}/method.safetensors").read_bytes() for i in (1, 2))
    assert one == two


@pytest.mark.parametrize(
    ("line", "supervision", "n"),
    [
        ("train ml-vae photos --arch mlp", "Groups", 10),
        ("train ml-vae mixed --arch mlp --data-option size=8,10 --data-option grey=true", "Groups", 10),
        ("train ml-vae patients.csv --factor site", "Groups", 48),  # a column of numbers, made a factor
        ("train ml-vae gaps.csv --factor group --data-option missing=drop --per-group 3", "Groups", 48),
        ("train contrastive patients.csv --background group=control", "Reference", 24),
        ("train rb-vae comma.csv --background group=a --data-option sep=; --data-option decimal=,", "Reference", 18),
        ("train rb-vae patients.csv --background group=control", "Reference", 24),
        ("train vae ok.npz --factor y --epochs 1", "Images", 48),
    ],
)
def test_data_and_flags_make_the_supervision(line, supervision, n, here, capsys):
    length = "" if "--epochs" in line else "--steps 2"
    assert run(f"{line} --s 2 --z 2 {length} --out run") == 0, capsys.readouterr().err
    assert config("run")["supervision"] == supervision
    assert config("run")["facts"]["n"] == n


def table(name: str, controls: int, rows: int = 146) -> None:
    """Patients of two kinds and controls; two columns of text, so that no factor is the default one."""
    random = np.random.default_rng(0)
    lines = ["m0,m1,m2,age,group,kind"]
    for i in range(rows):
        values = ",".join(f"{v:.3f}" for v in random.normal(size=3) + (i >= controls))
        lines.append(f"{values},{i % 50},{'control,none' if i < controls else f'patient,{i % 2}kind'}")
    Path(name).write_text("\n".join(lines))


def test_the_controls_are_shared_out(here, capsys):
    table("t.csv", 30)
    for seed in range(5):
        told = Settings(data="t.csv", background="group=control", seed=seed)
        train, test = source.parts(told)
        assert len(test) == 29
        assert abs(len(test.contrast("group=control")[1]) - 6) <= 1
        assert len(train) + len(test) == 146
    (here / "official.toml").write_text('[data-option]\nunits = {age = "years"}\nfactors = "age"')
    line = "train abid-zou t.csv --background group=control --s 2 --z 2 --steps 2 --out run"
    assert run(f"{line} --config official.toml") == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == (
        "data: 146 rows, 29 held out: target 116, background 30; x: m0, m1, m2 (3 columns); "
        "factors: age in years, group (control, patient), kind (0kind, 1kind, none)"
    )
    assert "note" not in err


@pytest.mark.parametrize("controls", [2, 6])
def test_few_controls_can_be_trained_with_and_what_they_cannot_show_is_skipped(controls, here, light, capsys):
    table("t.csv", controls, 60)
    assert run("train contrastive t.csv --background group=control --s 2 --z 2 --steps 2 --out run") == 0
    assert "note: too few to compare target and background, which takes 5 of each: " in capsys.readouterr().err
    assert run("evaluate run --json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["background"] is None
    assert found["skipped"]["background"].startswith("too few to compare target and background")
    assert "kind" in found["factors"]
    assert run("report run") == 0
    table("t.csv", 58, 60)
    assert run("train contrastive t.csv --background group=control --s 2 --z 2 --steps 2 --out other") == 2
    assert "holds 12 of 12 observations" in capsys.readouterr().err
    assert not Path("other").exists()


def test_a_control_column_alone_says_how_s_and_z_tell_target_from_background(here, light, capsys):
    random = np.random.default_rng(0)
    rows = [
        f"{a:.3f},{b:.3f},{'control' if i % 2 else 'case'}" for i, (a, b) in enumerate(random.normal(size=(120, 2)))
    ]
    Path("t.csv").write_text("\n".join(["a,b,group", *rows]))
    for folder in ("case", "control"):
        (Path("scans") / folder).mkdir(parents=True)
        for i in range(40):
            Image.fromarray(random.integers(0, 256, (8, 8)).astype(np.uint8)).save(f"scans/{folder}/{i}.png")
    for data, factor in (("t.csv", "group"), ("scans", "label")):
        assert run(f"train contrastive {data} --background {factor}=control --s 2 --z 2 --steps 2 --out {factor}") == 0
        capsys.readouterr()
        assert run(f"evaluate {factor}") == 0
        out = capsys.readouterr().out
        assert "target or background  s" in out
        assert "target from background" in out
        assert "one value only" not in out
        found = json.loads(Path(factor, "evaluation.json").read_text())
        assert (found["about"], found["factors"], found["skipped"]) == (None, {}, {})
        assert found["verdict"] != "unknown"
        assert run(f"report {factor}") == 0
        assert found["headline"] in Path(factor, "report.html").read_text()


def test_every_method_has_the_same_split_of_a_table(here):
    """Told of the controls or not; with its share of each column's classes in either part."""
    kinds = ["control", "A", "B"]
    lines = [f"{i * 7 % 13}.5,{i * i % 7}.5,{kinds[i % 3]},{'mf'[i % 2]},subject {i}" for i in range(90)]
    Path("t.csv").write_text("\n".join(["a,b,kind,sex,name", *lines]))
    told, untold = (source.parts(Settings(data="t.csv", background=b)) for b in ("kind=control", None))
    assert all(torch.equal(one.x, other.x) for one, other in zip(told, untold))
    held = told[1].factors
    assert (held["kind"].bincount() - 6).abs().max() <= 1
    assert (held["sex"].bincount() - 9).abs().max() <= 1


def test_a_lone_control_that_is_held_out_is_told_of(here, capsys):
    table("t.csv", 1, 60)
    parts = (source.parts(Settings(data="t.csv", background="group=control", seed=seed)) for seed in range(50))
    seed = next(i for i, (_, test) in enumerate(parts) if test.apart("group=control")[1])
    assert run(f"train contrastive t.csv --background group=control --s 2 --z 2 --seed {seed} --out run") == 2
    err = capsys.readouterr().err
    assert "holds 0 of 48 observations" in err
    assert "(that is the part to train on; of the 12 rows held out, 1 are of it)" in err


def test_a_refused_setting_leaves_no_run(here, capsys):
    line = "train beta-tcvae ok.npz --s 2 --z 2 --steps 2 --estimator stratified --out run"
    assert run(f"{line} --batch-size 1000") == 2
    assert "the stratified estimator needs 2 to 48" in capsys.readouterr().err
    assert not Path("run").exists()
    assert run(f"{line} --batch-size 16") == 0
    assert run(f"{line.replace('--out run', '')} --batch-size 1000") == 2
    assert not Path("runs").exists()


def test_each_class_is_printed_of_what_s_is_about(here, monkeypatch, capsys):
    less = {"probes": ("linear",), "clustering": False, "classifier": False}
    monkeypatch.setattr("twofold.evaluation.evaluate", partial(evaluation.evaluate, **less))
    assert run(f"train ml-vae ok.npz {QUICK} --steps 2 --out run") == 0
    capsys.readouterr()
    assert run("evaluate run") == 0
    out = capsys.readouterr().out.splitlines()
    told = json.loads(Path("run/evaluation.json").read_text())["factors"]["y"]["linear"]
    for half in "sz":
        (line,) = (line for line in out if line.startswith(f"y (linear, {half}): "))
        assert line.split(": ")[1] == ", ".join(f"{k} {v:.2f}" for k, v in told[half]["per_class"].items())


def test_methods_that_know_of_no_controls_are_measured_on_them(here, light, capsys):
    table("t.csv", 60)
    assert run("train vae t.csv --z 2 --steps 2 --out run --data-option scale=group=control") == 0
    assert "data: 146 rows, 29 held out; x: m0, m1, m2, age (4 columns)" in capsys.readouterr().out

    def measured(line: str) -> tuple:
        assert run(line) == 0, capsys.readouterr().err
        found = json.loads(Path("run/evaluation.json").read_text())
        return found["background"] is not None, found["against"], Path("run/evaluation.json").stat().st_mtime_ns

    first = measured("evaluate run --background group=control")
    assert first[:2] == (True, "group=control")
    assert measured("report run") == first  # what was measured holds
    assert measured("report run --background group=control") == first
    again = measured("report run --background group=patient")
    assert again[:2] == (True, "group=patient")
    assert measured("evaluate run")[:2] == (False, None)
    for wrong, text in (("group=contrl", "did you mean 'control'"), ("m0=1", "'m0' is a column of x")):
        assert run(f"evaluate run --background {wrong}") == 2
        assert text in capsys.readouterr().err


def test_what_was_read_is_told_in_a_line(here, capsys):
    rows = [f"{0 if i % 2 else i},{i % 7},{i % 5},{i % 3 == 0},{'ab'[i % 2]},{i % 50}" for i in range(60)]
    Path("t.csv").write_text("\n".join(["low,m1,m2,flag,group,age", *rows]))
    options = " ".join(
        f"--data-option {o}" for o in ("scale=group=b", "factors=age,m2", "factors=m1", "units=age:years")
    )
    assert run(f"train contrastive t.csv --background flag=true --s 2 --z 2 --steps 2 --out run {options}") == 0
    out, err = capsys.readouterr()
    assert "x: low (1 column); factors: m1 (7 classes), m2 (5 classes), flag (False, True), group (a, b), " in out
    assert "note: low: constant in group=b, so scaled by the deviation of all rows" in err
    Path("t.csv").write_text(Path("t.csv").read_text().replace(",True,", ",,", 4))
    assert run(f"train contrastive t.csv --background flag=true {options} --s 2 --z 2 --steps 2 --out gaps") == 2
    options += " --data-option missing=mean"
    assert run(f"train contrastive t.csv --background flag=true {options} --s 2 --z 2 --steps 2 --out gaps") == 0
    assert "data: 60 rows, 12 held out: target 40, background 16, not known 4; x" in capsys.readouterr().out
    assert run("train vae photos --arch mlp --steps 2 --s 0 --z 2 --out flat") == 0
    assert "data: 12 rows, 2 held out; x: 3 x 33 x 40; factors: label (anna, bert)\n" in capsys.readouterr().out
    assert run("train contrastive grassy-digits --arch mlp --steps 2 --s 2 --z 2 --out grass") == 0
    assert "held out: target " in capsys.readouterr().out


def test_an_official_split_is_kept_to(here):
    from twofold.data import load

    parts = load("grassy-digits").split("official")
    train, test = source.parts(Settings(data="grassy-digits"))
    assert (train.hash, test.hash) == (parts[0].hash, parts[-1].hash)
    train, test = source.parts(Settings(data="digits", seed=3))
    assert (len(train), len(test)) == (1438, 359)
    assert train.hash != source.parts(Settings(data="digits", seed=4))[0].hash


def test_whole_classes_are_held_out(here, light, capsys):
    for i in range(10):
        for j in range(8):
            image = Image.fromarray(np.full((8, 8, 3), 20 * i + j, np.uint8))
            Path(f"faces/{i}").mkdir(parents=True, exist_ok=True)
            image.save(f"faces/{i}/{j}.png")
    Path("faces/nobody").mkdir()
    assert run("train ml-vae faces --hold-out label --arch mlp --s 2 --z 2 --steps 2 --out run") == 0
    out, err = capsys.readouterr()
    assert "data: 80 rows, 16 held out, all of label that is not trained on; x" in out
    assert err.splitlines()[0] == "note: nobody: no images there, so passed over"
    assert config("run")["about"]["settings"]["hold_out"] == "label"
    train, test = source.parts(Settings(data="faces", hold_out="label"))
    assert len(test.factors["label"].unique()) == 2
    assert not set(train.factors["label"].tolist()) & set(test.factors["label"].tolist())
    assert run("evaluate run") == 0
    out, err = capsys.readouterr()
    assert "never seen, identified by s" in " ".join(out.split())
    assert "has changed" not in err
    rows = ["a,b,site,who", *(f"{3 * i % 50},{i % 7},{i % 5},{'xy'[i % 2]}" for i in range(60))]
    Path("t.csv").write_text("\n".join(rows))
    told = Settings(data="t.csv", factor="who", background="who=x", hold_out="site")  # a column of numbers
    train, test = source.parts(told)
    assert (len(train), len(test), train.shape) == (48, 12, (2,))


def faces(folder: str, sizes: list[int]) -> None:
    for i, size in enumerate(sizes):
        Path(folder, str(i)).mkdir(parents=True)
        for j in range(size):
            Image.fromarray(np.full((8, 8, 3), 16 * i + j, np.uint8)).save(f"{folder}/{i}/{j}.png")


def test_of_few_classes_two_are_held_out(here, light, capsys):
    def notes() -> list[str]:
        return [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]

    for count in range(4, 15):
        folder = f"faces{count}"
        faces(folder, [2] * count)
        parts = source.parts(Settings(data=folder, hold_out="label"))
        held = [len(part.factors["label"].unique()) for part in parts]
        assert held == [count - max(2, round(count / 5)), max(2, round(count / 5))]
    who, site = np.arange(60) % 6, np.arange(60) // 6 % 5
    np.savez("two.npz", x=np.random.default_rng(0).random((60, 4)), who=who, site=site)
    for factor, count in (("who,site", 2), ("site", 2), ("who", 1)):  # two where a part of s is about it
        told = Settings(data="two.npz", factor=factor, hold_out="site", data_option=["factors=who"])
        assert len(source.parts(told)[1].factors["site"].unique()) == count
    faces("faces", [2] * 6)
    assert run("train ml-vae faces --hold-out label --arch mlp --s 2 --z 2 --steps 2 --out run") == 0
    assert notes() == [
        "note: 2 of 6 classes of label are held out, as one could be told from no other",
        "note: held out of label: 4 observations of 2 classes are too few to measure leakage, evidence; "
        "20 in all, 6 of each class, are enough",
    ]
    assert run("evaluate run --json") == 0
    out, _ = capsys.readouterr()
    found = json.loads(out)
    assert found["few_shot"]["s"]["ways"] == 2
    assert {"factor label", "evidence"} <= set(found["skipped"])
    assert found["consistency"]["label"]["real"]["chance"] == 0.5  # of the two that are tested
    faces("enough", [10] * 4)
    assert run("train ml-vae enough --hold-out label --arch mlp --s 2 --z 2 --steps 2 --out enough-run") == 0
    assert notes() == ["note: 2 of 4 classes of label are held out, as one could be told from no other"]
    assert run("evaluate enough-run --json") == 0
    found = json.loads(capsys.readouterr().out)
    assert "label" in found["factors"]
    assert list(found["few_shot"]) == ["s", "z"]
    assert list(found["evidence"])[:2] == ["s", "z"]
    told = "patients.csv --factor group --hold-out site"  # not what s is about: one will do
    assert run(f"train ml-vae {told} --arch mlp --s 2 --z 2 --steps 2 --out sites") == 0
    assert notes() == []
    assert run("evaluate sites --json") == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["consistency"]) == ["group"]  # no judge of the one site
    assert found["skipped"]["factor site"].startswith("it has one value only")


def test_config_files_hold_options_and_flags_win(here):
    Path("a.toml").write_text(
        'method = "ml-vae"\ndata = "toy"\nsteps = 9\nbatch_size = 32\n'
        'evidence = "mixture"\ns = 2\n[data-option]\nn = 300'
    )
    Path("b.json").write_text(json.dumps({"steps": 9, "batch-size": 32, "resume": False, "data_option": ["n=300"]}))
    assert run("train --config a.toml --steps 2 --out a") == 0
    assert run("train ml-vae toy --config b.json --steps 2 --out b --evidence mixture --s 2") == 0
    for name in "ab":
        assert (config(name)["plan"]["steps"], config(name)["plan"]["batch_size"]) == (2, 32)
        assert config(name)["facts"]["n"] == 240
    assert config("a")["config"] == config("b")["config"]
    assert config("a")["config"]["evidence"] == "mixture"


def test_resume_remembers_and_extends(here, capsys):
    assert run(f"train ml-vae ok.npz {QUICK} --steps 8 --batch-size 16 --beta 2 --out whole") == 0
    assert run(f"train ml-vae ok.npz {QUICK} --steps 4 --batch-size 16 --beta 2 --out part") == 0
    assert run("train --resume --out part --steps 8") == 0  # METHOD, DATA, options: from the run
    whole, part = (Path(name, "method.safetensors").read_bytes() for name in ("whole", "part"))
    assert whole == part
    assert run("train --resume --out part") == 0  # nothing is left to do
    capsys.readouterr()
    for line, says in (
        ("--steps 3", ["steps: 3", "8 already"]),
        ("--beta 3", ["beta", "2", "3"]),
        ("--seed 1", ["seed"]),
    ):
        assert run(f"train --resume --out part {line}") == 2
        err = capsys.readouterr().err
        assert [part for part in says if part not in err] == [], err
        assert err.count("\n") == 1
    assert run("train vae ok.npz --resume --out part") == 2
    assert "holds a training of ml-vae" in capsys.readouterr().err
    assert run(f"train ml-vae toy {QUICK} --resume --out part --steps 8") == 2
    assert "resume: " in capsys.readouterr().err
    assert run(f"train ml-vae ok.npz {QUICK} --steps 8 --batch-size 16 --beta 2 --out part") == 2
    assert "exists" in capsys.readouterr().err
    assert Path("part/method.safetensors").read_bytes() == whole
    assert (
        run(f"train ml-vae ok.npz {QUICK} --steps 8 --batch-size 16 --beta 2 --out new --resume") == 0
    )  # from nothing
    assert Path("new/method.safetensors").read_bytes() == whole


def test_killed_while_training_and_resumed_is_undisturbed(here):
    """SIGKILL, past a checkpoint and with rows logged after it."""
    line = f"train ml-vae ok.npz {QUICK} --batch-size 16"
    assert run(f"{line} --steps 60 --out whole") == 0
    assert run(f"{line} --steps 20 --out part") == 0
    words = [sys.executable, "-m", "twofold", "train", "--resume", "--out", "part", "--steps", "1000000"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    rows, end = 0, time.monotonic() + 120
    while rows < 25 and time.monotonic() < end:
        rows = Path("part/metrics.csv").read_text().count("\n")
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert run("train --resume --out part --steps 60") == 0
    assert Path("part/method.safetensors").read_bytes() == Path("whole/method.safetensors").read_bytes()
    steps = [row.split(",")[0] for row in Path("part/metrics.csv").read_text().splitlines()[1:]]
    assert steps == [str(step) for step in range(1, 61)]


def test_ctrl_c_keeps_the_step_that_it_falls_in(here, monkeypatch, capsys):
    from twofold.loop import Loop

    one, before = Loop.step, signal.getsignal(signal.SIGINT)  # of a job in the background it is ignored

    def step(self, number, norms=False):
        if number == 6:
            signal.raise_signal(signal.SIGINT)
        return one(self, number, norms)

    line = f"train ml-vae ok.npz {QUICK} --steps 200 --out"
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "step", step)
        assert run(f"{line} part") == 130
    err = capsys.readouterr().err
    assert "at step 7, which is kept; go on by: twofold train --resume --out part" in err
    assert run("train --resume --out part") == 0
    assert run(f"{line} whole") == 0
    assert Path("part/method.safetensors").read_bytes() == Path("whole/method.safetensors").read_bytes()
    assert signal.getsignal(signal.SIGINT) is before


def interrupted(monkeypatch, at: int, error: BaseException):
    """Makes a training stop with `error` at a step."""
    from twofold.progress import Progress

    def update(self, step, values=None):
        if step >= at:
            raise error

    monkeypatch.setattr(Progress, "update", update)


def test_an_interruption_tells_how_to_go_on(here, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        interrupted(patch, 3, KeyboardInterrupt())
        assert run(f"train ml-vae ok.npz {QUICK} --steps 6") == 130
    err = capsys.readouterr().err
    assert "twofold train --resume --out runs/ml-vae-ok-001" in err
    assert "Traceback" not in err
    assert run("train --resume --out runs/ml-vae-ok-001") == 0
    assert run(f"train ml-vae ok.npz {QUICK} --steps 6") == 0
    one, two = (Path(f"runs/ml-vae-ok-00{i}/method.safetensors").read_bytes() for i in (1, 2))
    assert one == two


def test_what_the_disk_refuses_is_one_line(here, monkeypatch, capsys):
    for number, says in ((errno.ENOSPC, "no space"), (errno.EACCES, "ermission denied"), (errno.EROFS, "ead-only")):
        with monkeypatch.context() as patch:
            interrupted(patch, 3, OSError(number, os.strerror(number), "somewhere"))
            assert run(f"train ml-vae ok.npz {QUICK} --steps 6 --out run{number}") == 2
        err = capsys.readouterr().err
        assert err.startswith("error: out: ")
        assert says in err
        assert f"run{number}" in err
        assert err.count("\n") == 1
    with monkeypatch.context() as patch:
        interrupted(patch, 3, MemoryError())
        assert run(f"train ml-vae ok.npz {QUICK} --steps 6 --out small") == 2
    assert "--batch-size" in capsys.readouterr().err


def test_a_loss_that_turns_nan_names_the_last_good_checkpoint(here, capsys):
    assert run(f"train vae ok.npz {QUICK} --steps 40 --lr 1e30 --out run") == 2
    err = capsys.readouterr().err.splitlines()[-1]
    assert err.startswith("error: loss: ")
    assert "run/checkpoint.safetensors" in err
    assert Path("run/checkpoint.safetensors").is_file()
    assert not Path("run/method.safetensors").exists()


@pytest.fixture
def light(monkeypatch):
    """The cheapest of the probes and of the pictures: what they find is tested elsewhere."""
    less = {"probes": ("knn",), "clustering": False, "train_points": 200, "test_points": 60, "images": 20}
    monkeypatch.setattr("twofold.evaluation.evaluate", partial(evaluation.evaluate, **less))
    monkeypatch.setattr("twofold.report.PICTURES", {k: p for k, p in report.PICTURES.items() if k == "losses"})


def test_evaluate_and_report(here, light, capsys):
    assert run(f"train ml-vae ok.npz {QUICK} --steps 4 --out run") == 0
    capsys.readouterr()
    assert run("evaluate run") == 0
    out = capsys.readouterr().out
    assert "What s and z tell" in out
    assert "chance" in out
    found = json.loads(Path("run/evaluation.json").read_text())
    assert found["factors"]["y"]["leakage"].keys() == {"s", "z"}
    assert [line for line in out.splitlines() if "not measured" in line] == [
        "not measured: evidence: 0 of 3 classes have 6 held-out observations, expected two"
    ]
    assert run("evaluate run --json") == 0
    assert json.loads(capsys.readouterr().out) == found
    stamp = Path("run/evaluation.json").stat().st_mtime_ns
    assert run("report run") == 0
    assert capsys.readouterr().out == f"{Path('run/report.html')}\n"
    assert "<html" in Path("run/report.html").read_text()
    assert Path("run/evaluation.json").stat().st_mtime_ns == stamp  # measured once
    assert run("train --resume --out run --steps 5") == 0
    assert run("report run") == 0
    assert Path("run/evaluation.json").stat().st_mtime_ns > stamp  # the weights are newer
    assert "note" not in capsys.readouterr().err
    assert sorted(path.name for path in Path("run").iterdir() if path.name.startswith(".")) == []


def test_evaluate_says_what_it_stands_on(here, light, capsys):
    assert run(f"train ml-vae ok.npz {QUICK} --steps 4 --out run") == 0
    Path("run/method.safetensors").unlink()
    capsys.readouterr()
    assert run("evaluate run") == 0  # from another folder, too
    assert "note: the training in run has not ended: this is its checkpoint, of step 4 of 4" in capsys.readouterr().err
    assert run("evaluate run --data-dir run") == 0
    told = json.loads(Path("run/config.json").read_text())
    for change, says in (
        (lambda: Path("ok.npz").unlink(), ""),
        (lambda: told["about"]["settings"].update(data="gone.npz"), "'gone.npz' does not exist"),
        (
            lambda: told["about"]["settings"].update(data="patients.csv", factor="site"),
            "made for observations of shape",
        ),
        (lambda: told["about"]["settings"].update(colour="red"), "another version"),
        (lambda: told.update(about={}), "from Python"),
        (lambda: told.pop("plan"), "not what a training writes"),
    ):
        change()
        Path("run/config.json").write_text(json.dumps(told))
        assert run("evaluate run") == (2 if says else 0)
        assert says in capsys.readouterr().err
    Path("run/config.json").write_text("{")
    assert run("evaluate run") == 2
    assert "damaged" in capsys.readouterr().err
    assert run(f"train ml-vae photos {QUICK} --steps 4 --out other") == 0
    whole = Path("other/method.safetensors").read_bytes()
    Path("other/method.safetensors").write_bytes(whole[:100])
    assert run("evaluate other") == 2
    assert "truncated" in capsys.readouterr().err


def test_evaluate_notes_that_the_data_have_changed(here, light, capsys):
    np.savez("mine.npz", x=np.random.default_rng(1).random((60, 5), np.float32), y=np.arange(60) % 3)
    assert run(f"train ml-vae mine.npz {QUICK} --steps 4 --out run") == 0
    np.savez("mine.npz", x=np.random.default_rng(2).random((60, 5), np.float32), y=np.arange(60) % 3)
    assert run("evaluate run") == 0
    assert "note: mine.npz has changed since it was trained on" in capsys.readouterr().err


def test_demo_trains_measures_and_shows(here, light, capsys):
    assert run("demo --steps 3") == 0
    out = capsys.readouterr().out
    for part in ("run: runs/demo-001", "What s and z tell", "digit", "report: runs/demo-001/report.html"):
        assert part in out
    assert Path("runs/demo-001/report.html").is_file()
    assert config("runs/demo-001")["method"] == "MLVAE"
    assert run("demo --steps 3 --seed 1 --out mine") == 0
    assert config("mine")["plan"]["seed"] == 1
