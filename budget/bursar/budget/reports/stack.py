"""What a chart of spending shows: for each day, what each of a few groups cost."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from bursar.budget.reports.spend import SpendLine

__all__ = ["OTHERS", "Stack", "stacked"]

GROUPS_MAX = 5
"""So many groups are told apart; the rest are one."""

OTHERS = "others"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Nano-USD by day and group."""

    days: Sequence[str]
    """All days from the first to the last on which something was spent."""

    groups: Mapping[str, Sequence[int]]
    """The dearest group first, each with its cost on each day; OTHERS last, where there are more."""

    @property
    def totals(self) -> list[int]:
        """The cost of each day."""
        return [sum(costs) for costs in zip(*self.groups.values(), strict=True)]


def stacked(lines: Iterable[SpendLine]) -> Stack:
    """The chart of lines by day and one group."""
    costs: dict[str, Counter[str]] = defaultdict(Counter)
    total: Counter[str] = Counter()
    for line in lines:
        day, group = line.key
        costs[day][group] += line.posted.nanousd
        total[group] += line.posted.nanousd
    days = _without_gaps(sorted(costs))
    named = [group for group, _ in total.most_common(GROUPS_MAX)]
    groups = {group: [costs[day][group] for day in days] for group in named}
    if len(total) > GROUPS_MAX:
        groups[OTHERS] = [costs[day].total() - sum(costs[day][group] for group in named) for day in days]
    return Stack(days=days, groups=groups)


def _without_gaps(days: Sequence[str]) -> list[str]:
    if not days:
        return []
    first, last = date.fromisoformat(days[0]), date.fromisoformat(days[-1])
    return [f"{first + timedelta(days=place)}" for place in range((last - first).days + 1)]
