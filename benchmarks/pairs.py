"""One row of a table beside others, by paired t-tests over the seeds that both have.

    python benchmarks/pairs.py ruiz19 table-1 average "sRb-VAE, scale 0.05" "Rb-VAE, scale 0.05" "VAE, scale 0.05"

Prints the first row less each other one, with its 95 % interval, p, and p after Holm's correction for all of them.
"s probe - z probe" is one column less another. Rows are named as in RESULTS.md; where a table has blocks, give --block,
or --over-blocks for each seed's mean over the blocks that all of these rows have (but for those that --leave-out
names). With --also TABLE the rows of another table of the book join the same blocks, as "TABLE: ROW". Trains nothing:
reads results/*/*.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import fmean

from twofold.tables.statistics import holm, paired


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("book", "table", "column", "row"):
        options.add_argument(name)
    options.add_argument("others", nargs="+")
    options.add_argument("--block", default="")
    options.add_argument("--over-blocks", action="store_true")
    options.add_argument("--leave-out", action="append", default=[], metavar="BLOCK")
    options.add_argument("--also", metavar="TABLE")
    options.add_argument("--scale", default="cpu")
    options.add_argument("--results", type=Path, default=Path("results"))
    args = options.parse_args()
    named = [args.row, *args.others]
    by_block: dict[str, dict[str, dict]] = {}
    for table, prefix in ((args.table, ""), (args.also, f"{args.also}: ")):
        if table is not None:
            found = json.loads((args.results / args.book / f"{table}.{args.scale}.json").read_text())
            for line in found["rows"]:
                by_block.setdefault(line["block"], {})[prefix + line["row"]] = line["values"]
    if not args.over_blocks:
        by_block = {args.block: by_block.get(args.block, {})}
    for block in args.leave_out:
        if by_block.pop(block, None) is None:
            options.error(f"--leave-out: no block {block!r}; blocks: {', '.join(by_block)}")

    def seeds(lines: dict[str, dict], name: str) -> dict[int, float]:
        def of(column: str) -> dict[int, float]:
            return {int(seed): value for seed, value in lines[name].get(column, {}).get("seeds", {}).items()}

        column, less, other = args.column.partition(" - ")
        if not less or args.column in lines[name]:  # "s - leak" is a column
            return of(args.column)
        return {seed: value - of(other)[seed] for seed, value in of(column).items() if seed in of(other)}

    blocks = [lines for lines in by_block.values() if all(name in lines and seeds(lines, name) for name in named)]
    if not blocks:
        known = sorted({name for lines in by_block.values() for name in lines})
        options.error(f"no block has {args.column!r} of all these rows; rows: {', '.join(known)}")
    if args.over_blocks:
        print(f"means over {len(blocks)} blocks")

    def mean(name: str) -> dict[int, float]:
        values = [seeds(lines, name) for lines in blocks]
        return {seed: fmean(each[seed] for each in values) for seed in set.intersection(*map(set, values))}

    tests = {other: paired(mean(args.row), mean(other)) for other in args.others}
    done = {other: test for other, test in tests.items() if test is not None}
    for (other, test), corrected in zip(done.items(), holm([test.p for test in done.values()])):
        interval = f"{test.difference:+.4f} [{test.low:+.4f}, {test.high:+.4f}]"
        print(f"{interval}, p {test.p:.3f}, corrected {corrected:.3f}: {other}")
    for other in tests.keys() - done.keys():
        print(f"fewer than two seeds in common: {other}")


if __name__ == "__main__":
    main()
