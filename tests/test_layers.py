"""Data flows one way: a module imports only from the layers before its own, and importing does nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import twofold

HERE = Path(twofold.__file__).parent
LAYERS = [  # a name stands for a module or for a package with all its modules
    ("errors", "progress", "optimisers"),
    ("arrays",),
    ("supervision",),
    ("data",),
    ("divergences",),
    ("distributions",),
    ("networks",),
    ("discriminators",),
    ("method",),
    ("methods",),
    ("runs",),
    ("loop",),
    ("training",),
    ("operations", "metrics"),
    ("findings",),
    ("judging", "accumulation", "contrasting"),
    ("probing", "verdict"),
    ("evaluation", "figures"),
    ("curves", "subject", "summary"),
    ("pictures",),
    ("report", "tables"),
    ("cli",),
    ("__main__",),
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
MODULES = sorted(path.relative_to(HERE) for path in HERE.rglob("*.py"))


def part(dotted: str) -> str:
    """`methods` for twofold.methods.vae; "" for twofold itself."""
    return [*dotted.split("."), ""][1]


def imports(tree: ast.AST, package: list[str]):
    """Names of twofold's modules that a module imports, anywhere but under `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "twofold")
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            if source == "twofold":  # from twofold import networks: the module; __version__: twofold itself
                yield from (f"twofold.{a.name}" if a.name in LEVEL else home(a.name) for a in node.names)
            elif source.split(".")[0] == "twofold":
                yield source
        else:
            yield from imports(node, package)


def home(name: str) -> str:
    """Where the lazy twofold/__init__ finds a name."""
    return twofold._HOME.get(name, "twofold")


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_module_imports_only_from_the_layers_before_it(path):
    package = ["twofold", *path.parent.parts]
    own = path.parts[0].removesuffix(".py")
    if own == "__init__":
        assert list(imports(ast.parse((HERE / path).read_text()), package)) == []
        return
    assert own in LEVEL, f"{own} has no place in LAYERS yet"
    for name in imports(ast.parse((HERE / path).read_text()), package):
        other = part(name)
        allowed = other in ("", own) or LEVEL[other] < LEVEL[own]
        assert allowed, f"{path} imports {name}, which is not of a layer before it"


def test_imports_are_found():
    tree = ast.parse(
        "from typing import TYPE_CHECKING\nimport torch, twofold.errors\nfrom . import vae\n"
        "from ..method import Code\nfrom twofold import fit, networks, __version__\n"
        "if TYPE_CHECKING:\n    from twofold.report import x\ndef f():\n    from twofold.metrics.probe import probe\n"
    )
    assert list(imports(tree, ["twofold", "methods"])) == [
        "twofold.errors",
        "twofold.methods",
        "twofold.method",
        "twofold.training",
        "twofold.networks",
        "twofold",
        "twofold.metrics.probe",
    ]


def test_torch_waits_until_it_is_used():
    light = "import sys, twofold, twofold.errors, twofold.progress; twofold.__version__; dir(twofold)"
    code = f"{light}; heavy = {{'torch', 'numpy', 'rich', 'sklearn'}} & set(sys.modules); assert not heavy, heavy"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_public_names_are_where_they_are_said_to_be():
    for name in twofold._HOME:
        assert getattr(twofold, name).__name__ == name
    with pytest.raises(AttributeError, match=r"no attribute 'swop'"):
        _ = twofold.swop
    assert set(twofold.__all__) <= set(dir(twofold))


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_loading_runs_no_code(path):
    """No pickle, no torch.load without weights_only=True, no np.load with allow_pickle=True, no eval."""
    for node in ast.walk(ast.parse((HERE / path).read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", None) or "", *(a.name for a in node.names)]
            assert not {"pickle", "dill", "shelve", "marshal", "cloudpickle"} & set(names)
        if isinstance(node, ast.Call):
            called, options = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
            assert called not in ("eval", "exec", "joblib.load")
            assert options.get("allow_pickle", "False") == "False"
            assert called != "torch.load" or options.get("weights_only") == "True"
            assert called not in ("np.load", "numpy.load") or "allow_pickle" in options
