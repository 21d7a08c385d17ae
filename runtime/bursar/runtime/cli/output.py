"""What the command prints: plain words, calm tables, JSON. Nothing that others wrote can steer the terminal."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bursar.budget.money import NANO, format_usd
from bursar.runtime.runs.run import RunStatus

if TYPE_CHECKING:
    from bursar.budget.prices import Price

__all__ = [
    "Column",
    "console",
    "indented",
    "opening",
    "plain",
    "print_error",
    "print_json",
    "print_next",
    "print_table",
    "print_words",
    "rate_text",
    "rates_text",
    "short",
    "shown",
    "shown_left",
    "shown_time",
    "status_text",
]

_STEERS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and newline, DEL, C1
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks that reorder a line
    r"\u2028\u2029\ud800-\udfff]"  # separators, and halves of a surrogate pair
)

_STYLES: Mapping[RunStatus, str] = {
    "running": "blue",
    "succeeded": "green",
    "stopped": "yellow",
    "interrupted": "cyan",
    "failed": "red",
    "cancelled": "dim",
}

_CENT = NANO // 100

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


def plain(text: str) -> str:
    """The text with every character written out that could steer a terminal or reorder its line."""
    return _STEERS.sub(lambda found: ascii(found[0])[1:-1], text)


def status_text(status: RunStatus) -> Text:
    """A run's state in its colour."""
    return Text(status, style=_STYLES[status])


def shown(dimension: str, amount: int | None) -> str:
    """An amount of one of the ledger's dimensions, for people; `-` for no limit."""
    if amount is None:
        return "-"
    if dimension == "nanousd":
        return format_usd(amount)
    unit = dimension.replace("_", " ")
    return f"{amount:,} {unit.removesuffix('s') if amount == 1 else unit}"


def shown_left(dimension: str, limit: int | None, posted: int) -> str:
    """What a limit leaves, never more than there is: cents of whole dollars are rounded down."""
    if limit is None:
        return "-"
    left = max(0, limit - posted)
    return shown(dimension, left - left % _CENT if dimension == "nanousd" and left >= NANO else left)


def rate_text(usd_per_mtok: Decimal) -> str:
    """A price per million tokens: two decimals, or as many as it has."""
    return f"{usd_per_mtok:.2f}" if usd_per_mtok == round(usd_per_mtok, 2) else f"{usd_per_mtok.normalize():f}"


def rates_text(price: Price) -> str:
    """What a model costs, in one phrase."""
    if price.is_free:
        return "free"
    rates = price.input_usd_per_mtok, price.output_usd_per_mtok
    return "${} in, ${} out per million tokens".format(*map(rate_text, rates))


def shown_time(at: datetime, *, now: datetime | None = None) -> str:
    """A time in the zone of this machine: the clock for today, else the day."""
    local, today = at.astimezone(), (now or datetime.now(UTC)).astimezone().date()
    return f"{local:%H:%M:%S}" if local.date() == today else f"{local:%d %b %Y}"


def short(words: str) -> str:
    """A refusal without what follows from it, for lists."""
    return words.partition(". Nothing was sent.")[0]


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str | Text]]) -> None:
    """A table without a frame; text in cells is made plain."""
    table = Table(box=SIMPLE_HEAD, header_style="dim", border_style="dim", show_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        heading, kind = column if isinstance(column, tuple) else (column, "")
        table.add_column(heading, justify="right" if kind == "right" else "left", overflow="fold", no_wrap=bool(kind))
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


def print_next(*commands: str, lead: str = "->") -> None:
    """The commands that go on from here, each on a line that can be copied."""
    for command in commands:
        console().print(Text(f"{lead} {plain(command)}", style="dim"), soft_wrap=True)


def print_error(message: str, *, next_step: str | None = None) -> None:
    """One line on stderr: what is wrong, and the command or line that mends it."""
    text = Text.assemble(("error:", "red bold"), " ", plain(message))
    if next_step:
        text.append(f" -> {plain(next_step)}")
    console(stderr=True).print(text, soft_wrap=True)


def indented(content: RenderableType, by: int = 2) -> Padding:
    """The content, moved in from the left."""
    return Padding(content, (0, 0, 0, by), expand=False)
