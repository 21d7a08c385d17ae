"""What the command prints: calm tables, JSON, one line for an error; nothing that others wrote steers the terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bursar.runtime.cli.options import CONFIG_FILE
from bursar.runtime.cli.words import configured, plain
from bursar.runtime.runs.run import RunStatus

__all__ = [
    "Column",
    "console",
    "indented",
    "opening",
    "print_error",
    "print_json",
    "print_next",
    "print_table",
    "print_words",
    "status_text",
]

_STYLES: Mapping[RunStatus, str] = {
    "queued": "magenta",
    "running": "blue",
    "succeeded": "green",
    "stopped": "yellow",
    "interrupted": "cyan",
    "failed": "red",
    "cancelled": "dim",
}

Column = str | tuple[str, Literal["whole", "right"]]
"""A heading; `whole` is never wrapped, so that it can be copied, `right` is for amounts."""


def console(*, stderr: bool = False) -> Console:
    """The terminal as it is now; text is never read as markup."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


@contextmanager
def opening() -> Iterator[None]:
    """A sign of life on a terminal while what executes runs is loaded; what a team's file prints goes to stderr."""
    with console(stderr=True).status("opening"), redirect_stdout(sys.stderr):
        yield


def status_text(status: RunStatus) -> Text:
    """A run's state in its colour."""
    return Text(status, style=_STYLES[status])


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str | Text]]) -> None:
    """A table without a frame; text in cells is made plain."""
    table = Table(box=SIMPLE_HEAD, header_style="dim", border_style="dim", show_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        heading, kind = column if isinstance(column, tuple) else (column, "")
        table.add_column(
            heading,
            justify="right" if kind == "right" else "left",
            overflow="ellipsis" if kind else "fold",  # what is cut says so: half an amount is another amount
            no_wrap=bool(kind),
        )
    for row in rows:
        table.add_row(*(plain(cell) if isinstance(cell, str) else cell for cell in row))
    console().print(table)


def print_json(value: Any) -> None:
    """One JSON value on stdout, pure ASCII."""
    console().out(json.dumps(value, indent=2))


def print_words(text: str) -> None:
    """Text of a model, an agent or a refusal; wrapped at words on a terminal, as it is elsewhere."""
    out = console()
    out.print(Text(plain(text)), soft_wrap=not out.is_terminal)


def print_next(commands: Iterable[str], config: Path = CONFIG_FILE) -> None:
    """The commands that go on from here, each on a line that can be copied."""
    for command in commands:
        console().print(Text(f"-> {plain(configured(command, config))}", style="dim"), soft_wrap=True)


def print_error(message: str, *, next_step: str | None = None) -> None:
    """One line on stderr: what is wrong, and the command or line that mends it."""
    text = Text.assemble(("error:", "red bold"), " ", plain(message))
    if next_step:
        text.append(f" -> {plain(next_step)}")
    console(stderr=True).print(text, soft_wrap=True)


def indented(content: RenderableType, by: int = 2) -> Padding:
    """The content, moved in from the left."""
    return Padding(content, (0, 0, 0, by), expand=False)
