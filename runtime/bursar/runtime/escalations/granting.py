"""What a person grants a run that has reached a limit: money, tokens, steps, tool calls, working time."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection

from bursar.budget.amounts import Amounts
from bursar.budget.budgets import grant_more
from bursar.budget.errors import UsageError
from bursar.budget.gate import extend, try_again
from bursar.budget.limits import COUNT_MAX, SECONDS_MAX
from bursar.budget.money import nanousd
from bursar.budget.windows import Period

__all__ = ["amounts_of", "grant", "seconds_of"]

_GRANTED = ("cost_usd", "tokens", "steps", "tool_calls", "seconds")


def grant(
    connection: Connection,
    path: str,
    run_path: str,
    given: Mapping[str, Any],
    *,
    by: str,
    note: str,
    now: int,
    per: Period | None = None,
    key: str | None = None,
) -> None:
    """Give a scope what a decision grants, and let the run try again; without amounts it only tries again.

    A part of the caller's transaction. `per` and `key` are as in `Budgets.grant`. Raises UsageError as that does.
    """
    amount, seconds = amounts_of(given), seconds_of(given)
    if amount:
        grant_more(connection, path, amount, author=by, note=note, now=now, per=per, key=key)
    if seconds:
        extend(connection, run_path, seconds, now, author=by)
    try_again(connection, run_path, now, author=by)


def seconds_of(given: Mapping[str, Any]) -> float:
    """The working time that is granted; raises UsageError for what cannot be."""
    value = given.get("seconds") or 0
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= SECONDS_MAX:
        raise UsageError(f"grant seconds {value!r}: expected a number above 0, at most {SECONDS_MAX}")
    return value


def amounts_of(given: Mapping[str, Any]) -> Amounts:
    """`cost_usd`, `tokens`, `steps` and `tool_calls` as ledger amounts; raises UsageError for what cannot be."""
    unknown = sorted(set(given) - {"type", *_GRANTED})
    if unknown:
        raise UsageError(f"grant: unknown {', '.join(unknown)}; expected {', '.join(_GRANTED)}")
    counts = {}
    for key in ("tokens", "steps", "tool_calls"):
        value = given.get(key) or 0
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= COUNT_MAX:
            raise UsageError(f"grant {key} {value!r}: expected a whole number above 0, at most {COUNT_MAX}")
        counts[key] = value
    cost: str | int | Decimal = given.get("cost_usd") or 0
    try:
        return Amounts(nanousd=nanousd(cost), **counts)
    except (TypeError, ValueError) as error:
        raise UsageError(f"grant cost_usd: {error}") from None
