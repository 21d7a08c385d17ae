"""A picture of spending: the days by group, and a budget's window against its limit with the forecast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bursar.budget.errors import UsageError
from bursar.budget.money import NANO, format_usd
from bursar.budget.reports.export import written_whole
from bursar.budget.whatif.forecast import Forecast

if TYPE_CHECKING:
    from bursar.budget.reports.stack import Stack

__all__ = ["Burn", "write_png"]

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#999999")
"""Okabe and Ito's, which colour-blind people can tell apart, and grey for the rest."""

DAYS_MIN = 14
"""There is room for so many days at least, so that a single one is a bar and no wall."""

INK = "#333333"
ALARM = "#d55e00"


@dataclass(frozen=True, slots=True, kw_only=True)
class Burn:
    """A budget in money: how much of its window's limit was spent by when, and what is expected."""

    name: str
    limit: int
    """In nano-USD."""

    spent: Sequence[tuple[datetime, int]]
    """Since the window began, in nano-USD, rising; the last is now."""

    ends_at: datetime | None
    forecast: Forecast


def write_png(file: Path, *, title: str, stack: Stack, burn: Burn | None) -> None:
    """Draw a PNG of the days, and of a budget where there is one.

    Raises UsageError where the file cannot be written or matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # without pyplot there is no window system and no state
    except ImportError:
        raise UsageError("a chart as PNG needs matplotlib", next_step="pip install 'bursar[reports]'") from None
    figure = Figure(figsize=(10, 8 if burn else 4.5), dpi=120, layout="constrained")
    figure.suptitle(title, color=INK, fontsize=13, x=0.01, ha="left", parse_math=False)
    axes = figure.subplots(2 if burn else 1, squeeze=False)[:, 0]
    if burn:
        _draw_burn(axes[0], burn)
    _draw_days(axes[-1], stack)
    with written_whole(file) as part:
        figure.savefig(part, format="png")


def _draw_days(axes: Any, stack: Stack) -> None:
    below = [0.0] * len(stack.days)
    paid = {group: costs for group, costs in stack.groups.items() if any(costs)}
    for (group, costs), colour in zip(paid.items(), COLOURS, strict=False):
        heights = [cost / NANO for cost in costs]
        axes.bar(range(len(heights)), heights, bottom=below, width=0.8, label=group, color=colour)
        below = [low + height for low, height in zip(below, heights, strict=True)]
    step = max(1, len(stack.days) // 10)
    axes.set_xticks(range(0, len(stack.days), step), [day[5:] for day in stack.days[::step]])
    axes.set_xlim(-0.6, max(len(stack.days), DAYS_MIN) - 0.4)
    axes.margins(y=0.1)
    axes.set_title("by day", loc="left", color=INK, fontsize=10)
    _dress(axes)


def _draw_burn(axes: Any, burn: Burn) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    times = [at for at, _ in burn.spent]
    axes.plot(times, [amount / NANO for _, amount in burn.spent], color=COLOURS[0], linewidth=2, label="spent")
    axes.axhline(burn.limit / NANO, color=ALARM, linewidth=1.2, label=f"limit {format_usd(burn.limit)}")
    _draw_forecast(axes, burn)
    axes.set_title(burn.name, loc="left", color=INK, fontsize=10, parse_math=False)
    axes.set_ylim(bottom=0)
    locator = AutoDateLocator(maxticks=10)  # type: ignore[no-untyped-call]  # matplotlib's own
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(
        ConciseDateFormatter(locator, show_offset=False)  # type: ignore[no-untyped-call]
    )
    _dress(axes)


def _draw_forecast(axes: Any, burn: Burn) -> None:
    ahead = burn.forecast
    now, spent = burn.spent[-1]
    if burn.ends_at is None or ahead.expected is None:
        return
    times, colour = [now, burn.ends_at], COLOURS[0]
    expected = [spent / NANO, ahead.expected / NANO]
    axes.plot(times, expected, color=colour, linestyle="--", linewidth=1.5, label="at this pace")
    if ahead.low is not None and ahead.high is not None:
        low, high = ([spent / NANO, end / NANO] for end in (ahead.low, ahead.high))
        axes.fill_between(times, low, high, color=colour, alpha=0.15, linewidth=0, label="in 4 of 5 cases")
    if ahead.runs_out_at is not None:
        axes.plot([ahead.runs_out_at], [burn.limit / NANO], "o", color=ALARM)
        words, where = f"runs out {ahead.runs_out_at:%d %b %H:%M} UTC", (ahead.runs_out_at, burn.limit / NANO)
        aside = {"xytext": (-6, 8), "textcoords": "offset points", "ha": "right"}
        axes.annotate(words, where, **aside, color=ALARM, fontsize=9)


def _dress(axes: Any) -> None:
    axes.yaxis.set_major_formatter(lambda dollars, _: format_usd(round(dollars * NANO)))
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK, labelsize=9)
    if axes.get_legend_handles_labels()[0]:
        beside_the_title = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0.2, "ncols": 6}
        legend = axes.legend(**beside_the_title, frameon=False, fontsize=9, labelcolor=INK)
        for text in legend.get_texts():  # a team's name is no formula
            text.set_parse_math(False)
