"""An answer of the gateway, whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bursar.budget.admission import MoneyLeft
from bursar.budget.amounts import Amounts
from bursar.budget.money import usd
from bursar.budget.usage import Usage
from bursar.runtime.models.provider import Message
from bursar.runtime.runs.run import RunStatus

__all__ = ["Answered", "Sent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """Who answers, and why; known as soon as the call is sent."""

    model: str
    tier: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A whole answer, and what it was charged."""

    id: str
    """The call's id in the ledger; the same for a replay."""

    sent: Sent
    message: Message
    finish_reason: str
    usage: Usage | None
    posted: Amounts
    """Nothing, for a replay."""

    money_left: MoneyLeft | None
    """Of the budget in money that is nearest to its end; None where none limits the call."""

    replayed: bool = False
    run: tuple[str, RunStatus] | None = None
    """The run of an agent that answered, and how it stands."""

    def came_to(self) -> dict[str, Any]:
        """What it came to, for the end of a stream: its headers went out before that was known."""
        told: dict[str, Any] = {"cost_usd": format(usd(self.posted.nanousd), "f"), "replayed": self.replayed}
        if self.money_left is not None:
            told["remaining_usd"] = format(usd(self.money_left.left_nanousd), "f")
        if self.run is not None:
            told["run"], told["status"] = self.run
        return told
