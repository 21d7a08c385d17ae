"""The shapes of `--json`: plain values, money as decimal strings, times in RFC 3339."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from bursar.budget.amounts import DIMENSIONS, Amounts
from bursar.budget.money import usd
from bursar.budget.refusal import Refusal
from bursar.budget.windows import from_us
from bursar.runtime.runs.run import Interrupt, Run

if TYPE_CHECKING:
    from bursar.budget.budgets import BudgetLine, GrantLine
    from bursar.budget.pricing.prices import Price
    from bursar.budget.reports.report import Attempt, Outlook, RunBill, Stop
    from bursar.budget.reports.spend import Group, Selection, SpendLine

__all__ = [
    "amounts_json",
    "attempt_json",
    "bill_json",
    "budget_json",
    "grant_json",
    "limit_json",
    "money",
    "outlook_json",
    "price_json",
    "refusal_json",
    "report_json",
    "run_json",
    "stop_json",
    "time_json",
]


def money(nanousd: int) -> str:
    """An exact amount of USD as text, with all nine decimals."""
    return f"{usd(nanousd):f}"


def time_json(at: datetime | None) -> str | None:
    """A time as RFC 3339 writes it."""
    return at.isoformat() if at else None


def amounts_json(amounts: Amounts) -> dict[str, Any]:
    """`cost_usd`, `tokens`, `steps`, `tool_calls`."""
    return limit_json({name: getattr(amounts, name) for name in DIMENSIONS})


def limit_json(limit: Mapping[str, int | None]) -> dict[str, Any]:
    """Those of the same keys that the mapping has; None is no limit."""
    return {
        "cost_usd" if name == "nanousd" else name: money(value) if name == "nanousd" and value is not None else value
        for name, value in limit.items()
    }


def run_json(run: Run) -> dict[str, Any]:
    """A run as it stands."""
    return {
        "id": run.id,
        "tenant": run.tenant,
        "team": run.team,
        "user": run.user,
        "agent": run.agent,
        "status": run.status,
        "stop_reason": run.stop_reason,
        "output": run.output,
        **amounts_json(run.spent),
        "usage": run.usage.to_record(),
        "interrupts": [_interrupt_json(one) for one in run.interrupts],
        "created_at": time_json(run.created_at),
        "changed_at": time_json(run.changed_at),
        "forked_from": run.forked_from,
    }


def budget_json(line: BudgetLine) -> dict[str, Any]:
    """A budget in its present window."""
    return {
        "path": line.path,
        "kind": line.kind,
        "per": line.per,
        "zone": line.zone,
        "window": line.window,
        "resets_at": time_json(line.resets_at),
        "limit": limit_json(line.limit),
        "posted": amounts_json(line.posted),
        "held": amounts_json(line.held),
        "source": line.source,
        "mode": line.mode,
        "rollover_percent": line.rollover_percent,
        "overdraft_percent": line.overdraft_percent,
        "oversubscribed": line.oversubscribed,
        "alerts": [*line.alerts],
        "part_of": line.parent,
    }


def grant_json(line: GrantLine) -> dict[str, Any]:
    """A grant, and what was taken back of it."""
    return {
        "id": line.id,
        "path": line.path,
        "per": line.per,
        "window": line.window,
        "amount": amounts_json(line.amount),
        "taken_back": amounts_json(line.taken),
        "by": line.author,
        "reason": line.note,
        "granted_at": time_json(line.granted_at),
        "expires_at": time_json(line.expires_at),
        "ended_at": time_json(line.ended_at),
    }


def bill_json(bill: RunBill, run: Run | None) -> dict[str, Any]:
    """A run's bill; `sum` is over the attempts, `cost` what the ledger holds against the run.

    A run that no runtime made has neither status nor stop reason.
    """
    total = sum((attempt.posted for attempt in bill.attempts), Amounts())
    return {
        "run": bill.run_id,
        "tenant": bill.tenant,
        "agent": bill.path.split("/")[1],
        "status": run and run.status,
        "stop_reason": run and run.stop_reason,
        "limit": limit_json(bill.limit),
        "cost": amounts_json(bill.posted),
        "sum": amounts_json(total),
        "held": amounts_json(bill.held),
        "saved_by_caches_usd": money(bill.saved_nanousd),
        "refused": refusal_json(bill.stopped) if bill.stopped else None,
        "attempts": [attempt_json(attempt) for attempt in bill.attempts],
        "changes": [
            {"at": time_json(at), "kind": kind, "by": author, "note": note} for at, kind, author, note in bill.changes
        ],
    }


def stop_json(stop: Stop) -> dict[str, Any]:
    """A refusal that stopped a run."""
    return {
        "id": stop.id,
        "at": time_json(stop.at),
        "run": stop.run_path,
        "words": stop.words,
        "refused": refusal_json(stop.refusal),
    }


def report_json(
    by: tuple[Group, ...], selection: Selection, lines: Sequence[SpendLine], total: SpendLine | None
) -> dict[str, Any]:
    """Spending by groups; each part of the waste with its share of the line's cost."""
    return {
        "since": time_json(selection.since),
        "until": time_json(selection.until),
        "zone": selection.zone,
        "where": {_group(name): value for name, value in selection.where.items()},
        "lines": [_spend_json(by, line) for line in lines],
        "total": _spend_json((), total) if total else None,
    }


def outlook_json(outlook: Outlook) -> dict[str, Any]:
    """When a limit runs out; amounts are in the unit of the dimension, money as text."""
    line, ahead, is_money = outlook.budget, outlook.forecast, outlook.dimension == "nanousd"

    def shown(amount: int | None) -> str | int | None:
        return money(amount) if is_money and amount is not None else amount

    return {
        "path": line.path,
        "per": line.per,
        "window": line.window,
        "dimension": "cost_usd" if is_money else outlook.dimension,
        "limit": shown(line.limit[outlook.dimension]),
        "spent": shown(getattr(line.posted, outlook.dimension)),
        "resets_at": time_json(line.resets_at),
        "expected": shown(ahead.expected),
        "low": shown(ahead.low),
        "high": shown(ahead.high),
        "runs_out_at": time_json(ahead.runs_out_at),
        "runs_out_earliest": time_json(ahead.runs_out_earliest),
        "runs_out_latest": time_json(ahead.runs_out_latest),
        "stretches": ahead.stretches,
    }


def price_json(price: Price) -> dict[str, Any]:
    """A dated price row; prices are decimal strings."""
    return price.to_record()


def refusal_json(refusal: Refusal) -> dict[str, Any]:
    """Why a limit refused; amounts are in the unit of the dimension, money as text."""
    is_money = refusal.dimension == "nanousd"

    def shown(amount: int | None) -> str | int | None:
        return money(amount) if is_money and amount is not None else amount

    return {
        "cause": refusal.cause,
        "scope": refusal.path,
        "dimension": "cost_usd" if is_money else refusal.dimension,
        "limit": shown(refusal.limit),
        "spent": shown(refusal.posted),
        "held": shown(refusal.held),
        "needed": shown(refusal.needed),
        "remaining": shown(refusal.remaining),
        "resets_at": time_json(from_us(refusal.resets_us)) if refusal.resets_us is not None else None,
        "words": refusal.words(),
        "next": refusal.next_step,
    }


def _spend_json(by: tuple[Group, ...], line: SpendLine) -> dict[str, Any]:
    cost = line.posted.nanousd
    parts = {
        name: {
            "calls": part.calls,
            "cost_usd": money(part.nanousd),
            "share": round(part.nanousd / cost, 6) if cost else None,
        }
        for name, part in line.waste.parts()
    }
    groups = {_group(group): value for group, value in zip(by, line.key, strict=True)}
    posted = line.posted
    amounts = {"calls": posted.steps, "tokens": posted.tokens, "tool_calls": posted.tool_calls, "cost_usd": money(cost)}
    return {**groups, **amounts, "waste": parts}


def _group(name: Group) -> str:
    return "run" if name == "run_id" else name


def attempt_json(attempt: Attempt) -> dict[str, Any]:
    """One attempt at a call, from reservation to posting."""
    return {
        "id": attempt.id,
        "kind": attempt.kind,
        "agent": attempt.agent,
        "node": attempt.node,
        "attempt": attempt.attempt,
        "tier": attempt.tier,
        "model": attempt.model,
        "reason": attempt.reason,
        "state": attempt.state,
        "outcome": attempt.outcome,
        "max_output_tokens": attempt.max_output_tokens,
        "capped": attempt.capped,
        "usage": attempt.usage.to_record() if attempt.usage else None,
        "price": price_json(attempt.price) if attempt.price else None,
        "reserved": amounts_json(attempt.held),
        "posted": amounts_json(attempt.posted),
        "note": attempt.note,
        "reserved_at": time_json(attempt.reserved_at),
        "closed_at": time_json(attempt.closed_at),
    }


def _interrupt_json(interrupt: Interrupt) -> dict[str, Any]:
    payload = dict(interrupt.payload)
    if interrupt.reason == "budget":
        payload["refusal"] = refusal_json(Refusal.from_record(payload["refusal"]))
    return {
        "id": interrupt.id,
        "reason": interrupt.reason,
        "words": interrupt.words,
        "payload": payload,
        "allowed": [*interrupt.allowed],
    }
