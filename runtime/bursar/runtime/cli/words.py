"""Texts, amounts and times as people read them."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from bursar.budget.money import format_usd
from bursar.budget.plain_text import plain
from bursar.runtime.cli.options import CONFIG_FILE

if TYPE_CHECKING:
    from bursar.budget.pricing.prices import Price

__all__ = [
    "about",
    "bare",
    "configured",
    "counted",
    "parted",
    "plain",
    "rate_text",
    "rates_text",
    "short",
    "shown",
    "shown_left",
    "shown_time",
]


def counted(count: int, noun: str) -> str:
    """A number of things: `1 step`, `1,200 tokens`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def shown(dimension: str, amount: int | None) -> str:
    """An amount of one of the ledger's dimensions, for people; `-` for no limit."""
    if amount is None:
        return "-"
    if dimension == "nanousd":
        return format_usd(amount)
    return counted(amount, dimension.replace("_", " ").removesuffix("s"))


def about(dimension: str, amount: int) -> str:
    """An estimate, with three digits that count: no more of it can be known."""
    digits = len(str(abs(amount)))
    return shown(dimension, round(amount, min(0, 3 - digits)))


def bare(amount: str) -> str:
    """Without its unit, which stands beside it."""
    return amount.partition(" ")[0]


def shown_left(dimension: str, limit: int | None, posted: int) -> str:
    """What a limit leaves, never more than there is: cents of whole dollars are rounded down."""
    if limit is None:
        return "-"
    left = max(0, limit - posted)
    return format_usd(left, down=True) if dimension == "nanousd" else shown(dimension, left)


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


def parted(words: str) -> tuple[str, str]:
    """What an error or a refusal says, and the command after its arrow, or nothing; a reset is said with the former."""
    said, _, follows = words.partition(" -> ")
    command, _, resets = follows.partition("  |  ")
    return f"{said} It {resets}." if resets else said, command


def configured(command: str, config: Path) -> str:
    """A command as it must be called where another configuration than `bursar.yaml` is used."""
    return command if config == CONFIG_FILE else f"{command} --config {shlex.quote(str(config))}"
