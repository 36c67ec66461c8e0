"""Run every example of the README and the pages, and draw their figures anew: of the demo's training, and of Mathieu16
and Zheng19 on digits (seed 0, held-out images).

python docs/build.py [--figures-only]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twofold.method import Method

DOCS = Path(__file__).parent
SHOWN = ("swap", "map", "leakage")  # of the demo's report
PAPERS = {  # method -> steps, and what its page shows
    "mathieu": (2_000, ("swap", "interpolation")),
    "label-relevant-vae": (3_000, ("generation", "class-walk-s", "inpainting")),
}


def main() -> None:
    if "--figures-only" not in sys.argv:
        subprocess.run(
            [sys.executable, "-m", "pytest", str(DOCS.parent / "tests/test_docs.py"), "-k", "run"], check=True
        )
    from twofold import data, fit, load, methods, report
    from twofold.__main__ import main as twofold

    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "demo"
        if twofold(["demo", "--out", str(run)]):
            sys.exit("the demo failed")
        train, test = data.load("digits").split((0.8, 0.2), seed=0)
        (DOCS / "figures").mkdir(exist_ok=True)

        def draw(method: Method, names: Sequence[str], prefix: str = "") -> None:
            drawn = Path(folder) / "figures"
            report.write(Path(folder) / "report.html", method=method, train=train, test=test, figures_dir=drawn)
            for name in names:
                (drawn / f"{name}.png").replace(DOCS / "figures" / f"{prefix}{name}.png")

        draw(load(run), SHOWN)
        for name, (steps, shown) in PAPERS.items():
            made = methods.get(name).build(train.shape)
            supervision = getattr(train, made.supervision.__name__.lower())()
            draw(fit(made, supervision, steps=steps).method, shown, f"{name}-")


if __name__ == "__main__":
    main()
