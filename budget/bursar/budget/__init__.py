"""The budget room: money, prices, limits and the ledger. It knows SQL only, and can be used alone."""

from __future__ import annotations

from bursar.budget.admission import ModelQuote, ToolQuote, Wait
from bursar.budget.amounts import Amounts
from bursar.budget.ledger import Ledger
from bursar.budget.limits import Limits
from bursar.budget.prices import Price
from bursar.budget.refusal import Refusal
from bursar.budget.reservations import Call, Replay, Reservation
from bursar.budget.scope import Scope
from bursar.budget.usage import Usage

__all__ = [
    "Amounts",
    "Call",
    "Ledger",
    "Limits",
    "ModelQuote",
    "Price",
    "Refusal",
    "Replay",
    "Reservation",
    "Scope",
    "ToolQuote",
    "Usage",
    "Wait",
]
