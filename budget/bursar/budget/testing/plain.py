"""A clock to turn, and calls and prices that are easy to reckon with."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from bursar.budget import Call, Ledger, ModelQuote, Price, Reservation, Scope, ToolQuote, Usage
from bursar.budget.amounts import Amounts

__all__ = [
    "FREE",
    "NANO_PER_TOKEN",
    "NOON",
    "PRICE",
    "SUPPORT",
    "Clock",
    "a_call",
    "a_quote",
    "reserved",
    "tokens",
]

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)

NANO_PER_TOKEN = 1_000
"""What a token costs at PRICE, read or written."""

PRICE = Price(
    id="test:plain",
    source="a test",
    effective=date(2026, 11, 20),
    input_usd_per_mtok=Decimal(1),
    output_usd_per_mtok=Decimal(1),
)
FREE = Price.free(id="test:free", source="a test", effective=date(2026, 11, 20))

SUPPORT = Scope(tenant="acme", agents=("support",), run_id="run_1")


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self, now: datetime = NOON) -> None:
        self.now = now

    def __call__(self) -> datetime:
        """The time it shows."""
        return self.now

    def advance(self, **by: float) -> None:
        """Move on by a `timedelta`."""
        self.now += timedelta(**by)


def a_call(id: str = "call_1", *, scope: Scope = SUPPORT, epoch: int = 0, model: str = "small-1") -> Call:
    """A call of a run; the same id is the same call."""
    return Call(id=id, scope=scope, epoch=epoch, node="model", tier="small", model=model, reason="the tier's first")


def a_quote(
    input_tokens: int = 50,
    max_output_tokens: int = 50,
    *,
    price: Price | None = PRICE,
    min_output_tokens: int = 16,
    keep_back: Mapping[str, Amounts] | None = None,
) -> ModelQuote:
    """A call of at most 100 tokens, which cost 100,000 nano-USD."""
    return ModelQuote(
        model="small-1",
        price=price,
        input_tokens=input_tokens,
        max_output_tokens=max_output_tokens,
        min_output_tokens=min_output_tokens,
        keep_back=keep_back or {},
    )


def tokens(input_tokens: int, output_tokens: int = 0) -> Usage:
    """What a provider reports."""
    return Usage(input_tokens=input_tokens, output_tokens=output_tokens)


def reserved(ledger: Ledger, call: Call, quote: ModelQuote | ToolQuote | None = None, **how: Any) -> Reservation:
    """Reserve what must be admitted."""
    made = ledger.reserve(call, quote or a_quote(), **how)
    assert isinstance(made, Reservation), made
    return made
