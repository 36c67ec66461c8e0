"""Progress of long work: a bar on a terminal, plain lines elsewhere, both on standard error."""

from __future__ import annotations

import sys
import time


class Progress:
    """Counts `total` steps of `what`; `update(at, values)` shows where it is, with the first few values."""

    def __init__(self, what: str, total: int, on: bool = True, seconds: float = 10.0):
        self.what, self.total, self.on, self.seconds = what, total, on, seconds
        self.bar = None

    def __enter__(self) -> Progress:
        self.start = self.shown = time.monotonic()
        if self.on and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = ("{task.description}", BarColumn(24), MofNCompleteColumn(), TextColumn("{task.fields[values]}"))
            self.bar = Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=False)
            self.bar.start()
            self.task = self.bar.add_task(self.what, total=self.total, values="")
        return self

    def update(self, at: int, values: dict[str, float] | None = None) -> None:
        if not self.on:
            return
        losses = {k: v for k, v in (values or {}).items() if k not in ("step", "seconds") and "norm" not in k}
        text = "  ".join(f"{name.split('/')[-1]} {value:.4g}" for name, value in list(losses.items())[:5])
        if self.bar is not None:
            self.bar.update(self.task, completed=at, values=text)
            return
        now = time.monotonic()
        if now - self.shown >= self.seconds or at == self.total:
            left = (now - self.start) / at * (self.total - at)
            print(f"{self.what} {at}/{self.total}  {text}  {left:.0f} s left", file=sys.stderr, flush=True)
            self.shown = now

    def __exit__(self, *error) -> None:
        if self.bar is not None:
            self.bar.stop()
