"""Run every example of the README and the pages, and draw their figures anew: of the demo's training, of the papers'
methods on small data (seed 0, held-out images), and of the control group's page, whose example is trained ten times as
long.

python docs/build.py [--figures-only] [demo | METHOD | control-group ...]
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twofold.method import Method

DOCS = Path(__file__).resolve().parent
SHOWN = ("swap", "map")  # of the demo's report
PAPERS: dict[str, tuple[str, dict[str, Any], dict[str, Any], tuple[str, ...]]] = {
    # method -> data, options, training, and what its page shows
    "mathieu": ("digits", {}, {"steps": 2_000}, ("swap", "interpolation")),
    "label-relevant-vae": ("digits", {}, {"steps": 3_000}, ("generation", "class-walk-s", "inpainting")),
    "srb-vae": (
        "digit-style",
        {"s": 8, "z": 8, "arch": "mlp", "scale": 0.05},
        {"steps": 3_000, "optim": {"lr": 1e-3}},
        ("synthesis", "prior", "reconstruction"),
    ),
    "contrastive": ("grassy-digits", {"s": 8, "z": 16}, {"steps": 1_500}, ("reconstruction", "map")),
}
CONTROLS = DOCS / "control-group.md"


def main() -> None:
    if "--figures-only" not in sys.argv:
        subprocess.run(
            [sys.executable, "-m", "pytest", str(DOCS.parent / "tests/test_docs.py"), "-k", "run"], check=True
        )
    from twofold import data, fit, load, methods, report
    from twofold.__main__ import main as twofold

    asked = [word for word in sys.argv[1:] if not word.startswith("-")] or ["demo", *PAPERS, CONTROLS.stem]
    with tempfile.TemporaryDirectory() as folder:
        train, test = data.load("digits").split((0.8, 0.2), seed=0)
        (DOCS / "figures").mkdir(exist_ok=True)

        def draw(method: Method, names: Sequence[str], prefix: str = "") -> None:
            drawn = Path(folder) / "figures"
            report.write(Path(folder) / "report.html", method=method, train=train, test=test, figures_dir=drawn)
            for name in names:
                (drawn / f"{name}.png").replace(DOCS / "figures" / f"{prefix}{name}.png")

        if "demo" in asked:
            run = Path(folder) / "demo"
            if twofold(["demo", "--out", str(run)]):
                sys.exit("the demo failed")
            draw(load(run), SHOWN)
        for name in filter(PAPERS.__contains__, asked):
            source, options, training, shown = PAPERS[name]
            whole = data.load(source)
            train, *_, test = whole.split("official" if whole.background else (0.8, 0.2), seed=0)
            made = methods.get(name).build(train.shape, **options)
            supervision = getattr(train, made.supervision.__name__.lower())()
            draw(fit(made, supervision, **training).method, shown, f"{name}-")

        if CONTROLS.stem in asked:
            page = CONTROLS.read_text().partition("\n## Measure")[0]
            os.chdir(folder)
            exec(
                "".join(re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)).replace("steps=300", "steps=3_000"), {}
            )
            Path("map.png").replace(DOCS / "figures" / f"{CONTROLS.stem}-map.png")


if __name__ == "__main__":
    main()
