"""A run as its caller sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from bursar.budget.amounts import Amounts
from bursar.budget.money import usd
from bursar.budget.usage import Usage

__all__ = ["ENDED", "WAITING", "Change", "Interrupt", "Run", "RunStatus"]

RunStatus = Literal[
    "queued",  # it waits for a worker: it was just accepted, or what it waited for has come
    "running",  # some process executes it, or did when it died
    "interrupted",  # it waits for a person, or for its caller to resume it
    "succeeded",  # it came to its end
    "stopped",  # it reached a limit; what it had is its output
    "failed",  # an error ended it
    "cancelled",  # somebody cancelled it
]


WAITING: Sequence[RunStatus] = ("queued", "interrupted")
"""The states in which nobody executes a run, and somebody will."""

ENDED: Sequence[RunStatus] = ("succeeded", "stopped", "failed", "cancelled")
"""The states in which it is over, unless a person lets a stopped or failed one go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A run came into a state."""

    number: int
    """Rises with each change of any run; where to go on from."""

    at: datetime
    status: RunStatus
    cause: str
    by: str
    """Who brought it about; empty where nobody did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupt:
    """A question that a run waits on."""

    id: str
    reason: str
    """`approval`, `budget`, or `question` for an interrupt of a graph's own."""

    words: str
    """The question, for people."""

    payload: Mapping[str, Any]
    """All of it: for an approval `tool`, `args`, `digest`; for a budget `refusal`; for a question `value`."""

    allowed: Sequence[str]
    """The types of decision that answer it; empty where any value does."""

    escalation: int
    """Its number, as `runtime.escalations` and `bursar inbox` have it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How a run stands."""

    id: str
    tenant: str
    team: str | None
    user: str | None
    agent: str
    status: RunStatus
    stop_reason: str
    """Why it is in this state, for people; never empty once it has ended or waits."""

    output: str | None
    """What the agent said last; for a graph of one's own the last message's text, if its state has messages."""

    value: Any
    """The graph's state, where this process executed it; else None."""

    interrupts: Sequence[Interrupt]
    usage: Usage
    """Tokens of every settled call, as providers reported them; unknown calls have none."""

    spent: Amounts
    """What the ledger posted for the run: nano-USD, tokens, steps and tool calls."""

    created_at: datetime
    changed_at: datetime
    error: BaseException | None = None
    """What a failed run raised, where this process executed it."""

    forked_from: str | None = None
    """The run of which this is a fork."""

    @property
    def cost_usd(self) -> Decimal:
        """What the run was charged, exact."""
        return usd(self.spent.nanousd)

    @property
    def steps(self) -> int:
        """Model calls that were sent and may have been billed."""
        return self.spent.steps
