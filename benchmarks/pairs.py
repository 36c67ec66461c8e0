"""One row of a table beside others, by paired t-tests over the seeds that both have.

    python benchmarks/pairs.py ruiz19 table-1 average "sRb-VAE, scale 0.05" "Rb-VAE, scale 0.05" "VAE, scale 0.05"

Prints the first row less each other one, with its 95 % interval, p, and p after Holm's correction for all of them.
Rows are named as in RESULTS.md; where a table has blocks, give --block. Trains nothing: reads results/*/*.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from twofold.tables.statistics import holm, paired


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("book", "table", "column", "row"):
        options.add_argument(name)
    options.add_argument("others", nargs="+")
    options.add_argument("--block", default="")
    options.add_argument("--scale", default="cpu")
    options.add_argument("--results", type=Path, default=Path("results"))
    args = options.parse_args()
    found = json.loads((args.results / args.book / f"{args.table}.{args.scale}.json").read_text())
    lines = {line["row"]: line["values"] for line in found["rows"] if line["block"] == args.block}

    def seeds(name: str) -> dict[int, float]:
        if name not in lines:
            options.error(f"row {name!r} is not there; choose from {', '.join(lines)}")
        if args.column not in lines[name]:
            options.error(f"{name!r} has no column {args.column!r}; it has {', '.join(lines[name])}")
        return {int(seed): value for seed, value in lines[name][args.column]["seeds"].items()}

    tests = {other: paired(seeds(args.row), seeds(other)) for other in args.others}
    done = {other: test for other, test in tests.items() if test is not None}
    for (other, test), corrected in zip(done.items(), holm([test.p for test in done.values()])):
        interval = f"{test.difference:+.4f} [{test.low:+.4f}, {test.high:+.4f}]"
        print(f"{interval}, p {test.p:.3f}, corrected {corrected:.3f}: {other}")
    for other in tests.keys() - done.keys():
        print(f"fewer than two seeds in common: {other}")


if __name__ == "__main__":
    main()
