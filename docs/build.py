"""Run every example of the README and the pages, and draw their figures anew from the demo's training.

python docs/build.py [--figures-only]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).parent
SHOWN = ("swap", "map", "leakage")  # of the report's figures


def main() -> None:
    if "--figures-only" not in sys.argv:
        subprocess.run(
            [sys.executable, "-m", "pytest", str(DOCS.parent / "tests/test_docs.py"), "-k", "run"], check=True
        )
    from twofold import data, load, report
    from twofold.__main__ import main as twofold

    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "demo"
        if twofold(["demo", "--out", str(run)]):
            sys.exit("the demo failed")
        train, test = data.load("digits").split((0.8, 0.2), seed=0)
        drawn = Path(folder) / "figures"
        report.write(Path(folder) / "report.html", method=load(run), train=train, test=test, figures_dir=drawn)
        (DOCS / "figures").mkdir(exist_ok=True)
        for name in SHOWN:
            (drawn / f"{name}.png").replace(DOCS / "figures" / f"{name}.png")


if __name__ == "__main__":
    main()
