"""A bar on stderr for what takes longer than two seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from bursar.runtime.cli.output import console

__all__ = ["patience"]

PATIENCE_S = 2.0
"""How long somebody waits before a sign of life is due."""


@contextmanager
def patience(what: str, *, clock: Callable[[], float] = time.monotonic) -> Iterator[Callable[[float], None]]:
    """Yields what is to be told the fraction that is done; the bar is gone at the end, and never shown in a pipe."""
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    bar = Progress(*columns, console=console(stderr=True), transient=True)
    task = bar.add_task(what, total=1.0)
    shown_from = clock() + PATIENCE_S

    def tell(done: float) -> None:
        bar.update(task, completed=done)
        if not bar.live.is_started and clock() >= shown_from and bar.console.is_terminal:
            bar.start()

    try:
        yield tell
    finally:
        if bar.live.is_started:  # else it would print an empty line into a pipe
            bar.stop()
