"""Spending by day as bars in the terminal: a line for each day, a colour and a texture for each group."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from rich.text import Text

from bursar.budget.money import format_usd
from bursar.runtime.cli.output import console
from bursar.runtime.cli.words import plain

if TYPE_CHECKING:
    from bursar.budget.reports.stack import Stack

__all__ = ["print_bars"]

# Told apart without colours, too.
_INKS = (("█", "blue"), ("▓", "yellow"), ("▒", "green"), ("░", "magenta"), ("▚", "cyan"), ("·", "dim"))

BAR_MIN = 10


def print_bars(stack: Stack) -> None:
    """A bar for each day, as wide as the terminal allows, and a legend."""
    out = console()
    amounts = [format_usd(total) for total in stack.totals]
    margin = len("2026-11-20  ") + max(map(len, amounts), default=0) + 2
    width = max(BAR_MIN, out.width - margin)
    for place, (day, amount) in enumerate(zip(stack.days, amounts, strict=True)):
        costs = [of_group[place] for of_group in stack.groups.values()]
        bar = _bar(costs, max(stack.totals), width)
        out.print(Text.assemble((day, "dim"), "  ", bar, "  " if bar else "", amount), soft_wrap=True)
    out.print()
    out.print(Text("   ").join(_legend(stack)), soft_wrap=True)


def _bar(costs: list[int], most: int, width: int) -> Text:
    """Each group ends where the sum so far ends, so that rounding never makes a bar longer than its day."""
    ends = [round(so_far * width / most) if most else 0 for so_far in accumulate(costs)]
    inked = zip(pairwise([0, *ends]), _INKS, strict=False)
    return Text.assemble(*((ink * (end - start), colour) for (start, end), (ink, colour) in inked))


def _legend(stack: Stack) -> list[Text]:
    inked = zip(stack.groups, _INKS, strict=False)
    return [Text.assemble((ink, colour), " ", plain(group)) for group, (ink, colour) in inked]
