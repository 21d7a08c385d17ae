"""Rows of the past, as a ledger leaves them: for reports, which only read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select

from bursar.budget import Price, Store, Usage
from bursar.budget.reports.report import Reports
from bursar.budget.schema import account, metadata, pot, price, reservation, rollup, summary
from bursar.budget.testing import NOON, PRICE
from bursar.budget.windows import to_us

__all__ = ["MIDNIGHT", "Past", "a_past"]

MIDNIGHT = datetime(2026, 11, 20, tzinfo=UTC)


class Past:
    """A store into which a test writes what has happened, and the reports on it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.reports = Reports(store)
        self._calls = 0
        self.price(PRICE)

    def price(self, row: Price) -> None:
        """Keep a price row, as a posting at it does."""
        self._write(price, id=row.id, record=json.dumps(row.to_record()))

    def attempt(
        self,
        *,
        at: datetime = NOON,
        usage: Usage | None = None,
        nanousd: int | None = None,
        held: int = 10**9,
        **values: Any,
    ) -> str:
        """One attempt at PRICE, settled with a reply unless told otherwise; returns its call's id."""
        self._calls += 1
        used = usage or Usage(input_tokens=40, output_tokens=10)
        row = {
            "call": f"{values.get('run_id', 'run_1')}:task:{self._calls}:0",
            "attempt": 0,
            "kind": "model",
            "state": "settled",
            "outcome": "exact",
            "tenant": "acme",
            "agent": "support",
            "run_id": "run_1",
            "epoch": 1,
            "node": "model",
            "tier": "small",
            "model": "small-1",
            "reason": "the tier's first",
            "price_id": PRICE.id,
            "accounts": "[]",
            "held_nanousd": held,
            "held_tokens": held // 1000,
            "held_steps": 1,
            "posted_nanousd": PRICE.cost(used) if nanousd is None else nanousd,
            "posted_tokens": used.total_tokens,
            "posted_steps": 1,
            "usage": json.dumps(used.to_record()),
            "reply": "hello",
            "reserved_us": to_us(at),
            "closed_us": to_us(at + timedelta(seconds=2)),
            "deadline_us": to_us(at + timedelta(minutes=5)),
            **values,
        }
        self._write(reservation, **row)
        return str(row["call"])

    def summed_up(self, day: datetime, *, calls: int, nanousd: int, **values: Any) -> None:
        """A row that retention leaves of a day's calls."""
        texts = dict.fromkeys(
            ("first_hash", "last_hash", "balances", "reservations", "changes", "author", "signature"), ""
        )
        self._calls += 1
        span = {"first_number": self._calls, "last_number": self._calls, "made_us": 0}
        row = {
            "summary_id": self._write(summary, chain="acme", **span, **texts),
            "day_us": to_us(day),
            "tenant": "acme",
            "agent": "support",
            "node": "model",
            "tier": "small",
            "model": "small-1",
            "kind": "model",
            "state": "settled",
            "outcome": "exact",
            "price_id": PRICE.id,
            "calls": calls,
            **{name: 0 for part in ("retries", "aborted", "overage") for name in (part, f"{part}_nanousd")},
            "posted_nanousd": nanousd,
            "posted_tokens": 50 * calls,
            "posted_steps": calls,
            **values,
        }
        self._write(rollup, **row)

    def budget(self, path: str, *, per: str = "month", kind: str = "tenant", **of_window: Any) -> int:
        """A pot with one window; returns the id of its account."""
        limits = {name: amount for name, amount in of_window.items() if name.startswith("limit_")}
        named = {"path": path, "kind": kind, "tenant": path.split("/")[0], "per": per}
        pot_id = self._write(pot, **named, **limits, source="command", set_by="dana", set_us=0)
        return self._window(pot_id, **of_window)

    def window(self, beside: int, **of_window: Any) -> int:
        """Another window of the pot that an account belongs to; returns the id of its account."""
        with self.store.read() as connection:
            pot_id = connection.execute(select(account.c.pot_id).where(account.c.id == beside)).scalar_one()
        return self._window(pot_id, **of_window)

    def _window(self, pot_id: int, *, window: str, starts: datetime, ends: datetime, **amounts: int) -> int:
        return self._write(
            account, pot_id=pot_id, window=window, starts_us=to_us(starts), ends_us=to_us(ends), **amounts
        )

    def _write(self, table: Any, **row: Any) -> int:
        with self.store.write() as connection:
            key = connection.execute(insert(table).values(row)).inserted_primary_key
        return key[0] if key else 0


@contextmanager
def a_past(folder: Path) -> Iterator[Past]:
    """A past in a new SQLite file of a folder."""
    store = Store(f"sqlite:///{folder / 'ledger.db'}")
    with store.write() as connection:
        metadata.create_all(connection)
    yield Past(store)
    store.close()
