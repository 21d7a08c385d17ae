"""Escalations as callers see them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from bursar.budget.windows import from_us

if TYPE_CHECKING:
    from sqlalchemy import RowMapping

__all__ = [
    "Asked",
    "Decision",
    "Escalation",
    "EscalationEvent",
    "Kind",
    "Reason",
    "Status",
    "as_escalation",
    "as_event",
]

Reason = Literal[
    "approval",  # a tool's rule says that a person approves the call
    "budget",  # the run has reached a limit and asks for more
    "guard",  # a guard has its doubts about what is to be said or done
    "in_doubt",  # a call with an effect was cut off: nobody knows whether it happened
    "question",  # the agent, or a graph of one's own, asks something
    "failures",  # something failed again and again
    "doubt",  # a verifier is not confident
]

Kind = Literal[
    "bursar",  # by `ask_person`; answered by the decision itself
    "more",  # by the run at a limit, not by its graph; nothing is answered
    "batch",  # one action of LangChain's HITLRequest; answered once all of them are decided
    "call",  # LangChain's request to approve one tool call
    "plain",  # any other interrupt, such as AG-UI's; answered by the value that was decided
]

Status = Literal[
    "open",
    "decided",
    "expired",  # nobody decided in time; its rule did
    "withdrawn",  # the run does not ask any more
]

Decision = Any
"""`{"type": "approve"}`, `edit` with `args`, `reject` or `respond` with `message`, `grant` with amounts, `downgrade`,
`stop`; or, where no types are `allowed`, whatever the graph expects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One thing that a run asks of people, before anything is known of whom."""

    id: str
    """By which the run is resumed."""

    kind: Kind
    reason: Reason
    words: str
    payload: Mapping[str, Any]
    """All of it: for an action `tool` and `args`, for a budget `refusal`, for a graph's own question `value`."""

    allowed: Sequence[str] = ()
    """The types of decision that answer it; empty where any value does that fits the form."""

    form: Mapping[str, Any] | None = None
    """JSON Schema of edited arguments, or of an answer."""

    amount_nanousd: int | None = None
    """The money that the action is about, where that is known."""

    evidence: Sequence[Mapping[str, Any]] = ()
    node: str = "-"
    expires_us: int | None = None
    """Until when it can be answered, where who asks has said so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Escalation:
    """One thing that people have to decide."""

    id: int
    tenant: str
    run_id: str
    interrupt_id: str
    agent: str
    node: str
    reason: Reason
    words: str
    """The question, for people."""

    payload: Mapping[str, Any]
    digest: str
    """Of the exact action; 64 hexadecimal digits."""

    allowed: Sequence[str]
    form: Mapping[str, Any] | None
    amount_nanousd: int | None
    cost_nanousd: int
    """What the run had cost when it asked."""

    finish_nanousd: int | None
    """What it is expected to cost from there to its end; None = no estimate."""

    evidence: Sequence[Mapping[str, Any]]
    priority: int
    """Higher comes first."""

    requester: str | None
    """The run's user."""

    rule: Mapping[str, Any]
    """The tenant's rule as it was when this was made; see `bursar.runtime.escalations.rule`."""

    level: int
    assignee: str | None
    claimed_by: str | None
    claimed_until: datetime | None
    expires_at: datetime | None
    status: Status
    first_by: str | None
    """Of two people who must agree, the first."""

    decision: Decision | None
    decided_by: str | None
    decided_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class EscalationEvent:
    """One thing that happened to an escalation."""

    id: int
    escalation: int
    at: datetime
    kind: str
    """`opened | reminder | raised | assigned | claimed | released | comment | agreed | decided | expired |
    withdrawn`."""

    author: str
    detail: str


_JSON = ("payload", "allowed", "form", "evidence", "rule", "decision")
_TIMES = {"claimed_until": "claimed_until_us", "expires_at": "expires_us", "decided_at": "decided_us"}
_SAME = (
    *("id", "tenant", "run_id", "interrupt_id", "agent", "node", "reason", "words", "digest", "amount_nanousd"),
    *("cost_nanousd", "finish_nanousd", "priority", "requester", "level", "assignee", "claimed_by", "status"),
    *("first_by", "decided_by"),
)


def as_escalation(row: RowMapping) -> Escalation:
    """A row of the table `escalation`."""
    values: dict[str, Any] = {name: row[name] for name in _SAME}
    values |= {name: None if row[name] is None else json.loads(row[name]) for name in _JSON}
    values |= {name: None if row[column] is None else from_us(row[column]) for name, column in _TIMES.items()}
    return Escalation(**values, created_at=from_us(row["created_us"]))


def as_event(row: RowMapping) -> EscalationEvent:
    """A row of the table `escalation_event`."""
    return EscalationEvent(
        id=row["id"],
        escalation=row["escalation_id"],
        at=from_us(row["at_us"]),
        kind=row["kind"],
        author=row["author"] or "",
        detail=row["detail"] or "",
    )
