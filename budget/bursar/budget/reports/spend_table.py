"""Lines of a report as rows of a table: one column for each group, amount and part of the waste."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING

from bursar.budget.money import usd
from bursar.budget.reports.spend import WASTE, Group, SpendLine

if TYPE_CHECKING:
    from bursar.budget.reports.export import Kind

__all__ = ["spend_columns", "spend_row"]


def spend_columns(by: tuple[Group, ...]) -> dict[str, Kind]:
    """The columns of a report by these groups, and their kinds."""
    groups: dict[str, Kind] = {_name(group): "text" for group in by}
    amounts: dict[str, Kind] = {"calls": "integer", "tokens": "integer", "tool_calls": "integer", "cost_usd": "decimal"}
    for part in WASTE:
        amounts |= {f"{part}_calls": "integer", f"{part}_usd": "decimal"}
    return groups | amounts


def spend_row(by: tuple[Group, ...], line: SpendLine) -> Mapping[str, str | int | Decimal]:
    """The values of a line in the columns of `spend_columns`."""
    row: dict[str, str | int | Decimal] = {_name(group): value for group, value in zip(by, line.key, strict=True)}
    posted = line.posted
    row |= {"calls": posted.steps, "tokens": posted.tokens, "tool_calls": posted.tool_calls}
    row["cost_usd"] = usd(posted.nanousd)
    for name, part in line.waste.parts():
        row |= {f"{name}_calls": part.calls, f"{name}_usd": usd(part.nanousd)}
    return row


def _name(group: Group) -> str:
    return "run" if group == "run_id" else group
