"""The shape of `--json` of the inbox: an escalation and what happened to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bursar.runtime.cli.shapes import money, time_json

if TYPE_CHECKING:
    from bursar.runtime.escalations.records import Escalation, EscalationEvent

__all__ = ["escalation_json", "history_json"]


def escalation_json(one: Escalation) -> dict[str, Any]:
    """All of an escalation; money as decimal strings, what is not known is null."""
    return {
        "id": one.id,
        "status": one.status,
        "tenant": one.tenant,
        "agent": one.agent,
        "run": one.run_id,
        "interrupt": one.interrupt_id,
        "node": one.node,
        "reason": one.reason,
        "words": one.words,
        "payload": one.payload,
        "digest": one.digest,
        "allowed": [*one.allowed],
        "form": one.form,
        "amount_usd": _money(one.amount_nanousd),
        "cost_usd": money(one.cost_nanousd),
        "finish_usd": _money(one.finish_nanousd),
        "evidence": [*one.evidence],
        "priority": one.priority,
        "requester": one.requester,
        "rule": _rule_json(one),
        "level": one.level,
        "assignee": one.assignee,
        "claimed_by": one.claimed_by,
        "claimed_until": time_json(one.claimed_until),
        "expires_at": time_json(one.expires_at),
        "first_by": one.first_by,
        "decision": one.decision,
        "decided_by": one.decided_by,
        "decided_at": time_json(one.decided_at),
        "created_at": time_json(one.created_at),
    }


def history_json(events: Sequence[EscalationEvent]) -> list[dict[str, Any]]:
    """What happened to an escalation, the oldest first."""
    return [{"at": time_json(one.at), "kind": one.kind, "by": one.author, "detail": one.detail} for one in events]


def _rule_json(one: Escalation) -> dict[str, Any]:
    from bursar.runtime.escalations.rule import Rule

    rule = Rule.from_record(one.rule)
    return {
        "name": rule.name,
        "may_decide": rule.may_decide(one.level),
        "ceilings_usd": {name: money(most) for name, most in rule.ceilings.items()},
        "two_people": rule.needs_two(one.amount_nanousd),
        "on_expiry": rule.on_expiry,
    }


def _money(nanousd: int | None) -> str | None:
    return None if nanousd is None else money(nanousd)
