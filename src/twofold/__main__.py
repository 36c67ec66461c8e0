"""The command line: `twofold`, or `python -m twofold`. An error is one line on standard error and an exit status."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}  # threads that spin make a shared machine crawl


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (this process's, unless given) and return the exit status: 0, 1 where some cells of a
    table failed, 2 for what the user can put right, 130 for an interruption, 141 for a reader that went away."""
    if "OMP_WAIT_POLICY" not in os.environ:  # before torch loads
        os.environ.update({name: os.environ.get(name, value) for name, value in PASSIVE.items()})
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a sign must not end the program
    from twofold.cli import run
    from twofold.errors import TwofoldError

    try:
        run(sys.argv[1:] if argv is None else list(argv))
        sys.stdout.flush()
    except TwofoldError as error:
        return _failed(error, error.status)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the flush at exit finds a reader
        return 141
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _failed(f"{where}{error.strerror or error}")
    except MemoryError:
        return _failed("out of memory; try a smaller --batch-size, or a smaller --arch")
    except KeyboardInterrupt as interrupt:
        print(f"\ninterrupted{interrupt}", file=sys.stderr)
        return 130
    return 0


def _failed(what: object, status: int = 2) -> int:
    print("error:", " ".join(str(what).split()), file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
