"""The budget room: money, prices, limits and the ledger. It knows SQL only, and can be used alone."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bursar.budget.admission import ModelQuote, ToolQuote, Wait
    from bursar.budget.amounts import Amounts
    from bursar.budget.ledger import Ledger
    from bursar.budget.limits import Limits
    from bursar.budget.pricing.prices import Price
    from bursar.budget.refusal import Refusal
    from bursar.budget.reservations import Call, Replay, Reservation
    from bursar.budget.scope import Scope
    from bursar.budget.stores.store import Store
    from bursar.budget.usage import Usage

_HOMES = {
    "Amounts": "amounts",
    "Call": "reservations",
    "Ledger": "ledger",
    "Limits": "limits",
    "ModelQuote": "admission",
    "Price": "pricing.prices",
    "Refusal": "refusal",
    "Replay": "reservations",
    "Reservation": "reservations",
    "Scope": "scope",
    "Store": "stores.store",
    "ToolQuote": "admission",
    "Usage": "usage",
    "Wait": "admission",
}

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
    "Store",
    "ToolQuote",
    "Usage",
    "Wait",
]


def __getattr__(name: str) -> Any:
    # Loaded when first named: whoever needs only the errors or the money does not pay for SQLAlchemy.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"bursar.budget.{_HOMES[name]}"), name)
