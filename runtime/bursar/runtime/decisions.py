"""What people decide on a run's interrupts: checked before anything happens, then carried out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from bursar.agents.agent import Agent
from bursar.budget.amounts import Amounts
from bursar.budget.errors import ConflictError, UsageError
from bursar.budget.ledger import Ledger
from bursar.budget.limits import SECONDS_MAX
from bursar.budget.money import nanousd
from bursar.budget.windows import Period
from bursar.runtime.runs.run import Interrupt
from bursar.tools.arguments import ToolArgumentsError
from bursar.tools.tool import Tool

__all__ = ["Decision", "amounts_of", "checked", "grant", "in_words"]

Decision = Any
"""`{"type": "approve"}`, `edit` with `args`, `reject` or `respond` with `message`, `grant` with amounts, `stop`; or,
for an interrupt of a graph's own, whatever its node expects."""

_GRANTED = ("cost_usd", "tokens", "steps", "tool_calls", "seconds")


def checked(
    pending: Sequence[Interrupt], decisions: Mapping[str, Decision], agents: Sequence[Agent]
) -> dict[str, Decision]:
    """The decisions, each fit for its interrupt.

    Raises ConflictError for an interrupt that is not pending, UsageError for a decision that does not fit.
    """
    by_id = {interrupt.id: interrupt for interrupt in pending}
    for key, decision in decisions.items():
        if key not in by_id:
            waiting = ", ".join(by_id) or "none"
            raise ConflictError(f"the run does not wait on interrupt {key} (it waits on: {waiting})")
        _check(by_id[key], decision, agents)
    return dict(decisions)


def grant(
    ledger: Ledger,
    path: str,
    run_path: str,
    given: Mapping[str, Any],
    *,
    by: str,
    note: str,
    per: Period | None = None,
    key: str | None = None,
) -> None:
    """Give a scope what a decision grants, and let the run try again; without amounts it only tries again.

    `per` and `key` are as in `Budgets.grant`.
    """
    amount, seconds = amounts_of(given), seconds_of(given)
    if amount:
        ledger.budgets.grant(path, amount, author=by, note=note, per=per, key=key)
    if seconds:
        ledger.gates.extend(run_path, seconds, author=by)
    ledger.gates.reopen(run_path, author=by)


def in_words(decision: Decision) -> str:
    """A decision as the run's history keeps it: `reject (message: it was delivered)`."""
    if not isinstance(decision, Mapping) or "type" not in decision:
        return json.dumps(decision, default=str)
    details = ", ".join(
        f"{key}: {value if isinstance(value, str) else json.dumps(value, default=str)}"
        for key, value in decision.items()
        if key != "type"
    )
    return f"{decision['type']} ({details})" if details else str(decision["type"])


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
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise UsageError(f"grant {key} {value!r}: expected a whole number above 0")
        counts[key] = value
    cost: str | int | Decimal = given.get("cost_usd") or 0
    try:
        return Amounts(nanousd=nanousd(cost), **counts)
    except (TypeError, ValueError) as error:
        raise UsageError(f"grant cost_usd: {error}") from None


def _check(interrupt: Interrupt, decision: Decision, agents: Sequence[Agent]) -> None:
    if not interrupt.allowed:
        return
    kind = decision.get("type") if isinstance(decision, Mapping) else None
    if kind not in interrupt.allowed:
        raise UsageError(
            f"interrupt {interrupt.id}: {decision!r} is no decision on it",
            next_step=f'{{"type": one of {", ".join(interrupt.allowed)}}}',
        )
    if kind == "edit":
        _check_edit(interrupt, decision, agents)
    if kind == "grant":
        amounts_of(decision), seconds_of(decision)


def _check_edit(interrupt: Interrupt, decision: Mapping[str, Any], agents: Sequence[Agent]) -> None:
    name = interrupt.payload["tool"]
    tool = next((found for agent in agents if isinstance(found := agent.tool(name), Tool)), None)
    if tool is None or not isinstance(decision.get("args"), Mapping):
        raise UsageError(f"edit of {name}: expected its arguments", next_step='{"type": "edit", "args": {...}}')
    try:
        tool.check(decision["args"])
    except ToolArgumentsError as error:
        raise UsageError(f"edit of {name}: {error}") from None
