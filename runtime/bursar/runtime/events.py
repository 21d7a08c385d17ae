"""What a run tells while it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bursar.budget.amounts import Amounts
from bursar.runtime.runs.run import Run

__all__ = ["Event", "EventKind"]

EventKind = Literal[
    "started",  # the run was taken up
    "call",  # a model call was reserved and is being sent
    "token",  # a piece of text arrived
    "reply",  # a model call was settled
    "failed",  # an attempt at a model call failed
    "waiting",  # a call waits for others in flight to settle
    "pause",  # a call waits before its model is asked again
    "tool",  # a tool is about to run
    "result",  # a tool has run
    "limit",  # the ledger refused
    "away",  # the ledger cannot be used; the run waits, or goes on within its lease
    "back",  # the ledger can be used again
    "interrupt",  # a person is asked
    "graph",  # a part of LangGraph's own stream, in `data`: type, ns and data
    "ended",  # the run has ended, or waits
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened in a run."""

    kind: EventKind
    run_id: str
    agent: str = ""
    node: str = ""
    tier: str = ""
    model: str = ""
    text: str = ""
    """For people: a tool's name, a refusal's words, a piece of an answer."""

    posted: Amounts = field(default_factory=Amounts)
    """What this call was charged."""

    data: Mapping[str, Any] = field(default_factory=dict)
    run: Run | None = None
    """How the run stands, with `ended`."""
