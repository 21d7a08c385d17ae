"""What a model did in a span of time, as the ledger saw it: the tokens that the price of its GPUs is spread over."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import case, select

from bursar.budget.schema import reservation
from bursar.budget.stores.store import Store
from bursar.budget.windows import to_us

__all__ = ["Measured", "measure"]

_SECOND_US = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a model did in a span of time, as the ledger saw it."""

    since: datetime
    until: datetime
    calls: int
    input_tokens: int
    output_tokens: int
    busy_s: Decimal
    """Seconds in which at least one call was in flight."""

    @property
    def span_s(self) -> Decimal:
        """Seconds of the whole span, busy or not."""
        return Decimal(to_us(self.until) - to_us(self.since)) / _SECOND_US


def measure(store: Store, model: str, *, since: datetime, until: datetime) -> Measured:
    """What the ledger saw of a model, by its name in the ledger: calls that were sent and settled within the span.

    Calls whose provider gave no usage count as busy time, but for no tokens.
    """
    query = (
        select(
            reservation.c.dispatched_us,
            reservation.c.closed_us,
            case((reservation.c.outcome != "unknown", reservation.c.usage)),
        )
        .where(
            reservation.c.model == model,
            reservation.c.state == "settled",
            reservation.c.reserved_us >= to_us(since),
            reservation.c.closed_us < to_us(until),
            reservation.c.dispatched_us.is_not(None),
        )
        .order_by(reservation.c.dispatched_us)
    )
    with store.read() as connection:
        rows = connection.execute(query).all()
    usages = [json.loads(usage) for *_, usage in rows if usage]
    return Measured(
        since=since,
        until=until,
        calls=len(rows),
        input_tokens=sum(usage["input_tokens"] for usage in usages),
        output_tokens=sum(usage["output_tokens"] for usage in usages),
        busy_s=Decimal(_covered((begun, ended) for begun, ended, _ in rows)) / _SECOND_US,
    )


def _covered(spans: Iterable[tuple[int, int]]) -> int:
    """How much time the spans cover together; they come in the order in which they begin."""
    covered = reached = 0
    for begun, ended in spans:
        covered += max(ended - max(begun, reached), 0)
        reached = max(reached, ended)
    return covered
