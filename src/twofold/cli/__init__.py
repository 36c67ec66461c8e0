"""Behind the command line: what the words mean (`parse`), and what the commands do (`commands`, `runs`, `listing`).

Nothing here imports PyTorch before a command needs it: `twofold --help` does not wait for it.
"""

from twofold.cli.parse import run

__all__ = ["run"]
