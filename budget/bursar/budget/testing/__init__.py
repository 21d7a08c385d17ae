"""What a ledger is tested with, on any store; the rules themselves are in `bursar.budget.testing.contract`."""

from __future__ import annotations

from bursar.budget.testing.audit import audit, balances, excesses
from bursar.budget.testing.plain import (
    FREE,
    NANO_PER_TOKEN,
    NOON,
    PRICE,
    SUPPORT,
    Clock,
    a_call,
    a_quote,
    reserved,
    tokens,
)

__all__ = [
    "FREE",
    "NANO_PER_TOKEN",
    "NOON",
    "PRICE",
    "SUPPORT",
    "Clock",
    "a_call",
    "a_quote",
    "audit",
    "balances",
    "excesses",
    "reserved",
    "tokens",
]
