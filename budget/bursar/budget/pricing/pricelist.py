"""Prices that somebody imported or set, each from a day on; they go before the built-in book."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime

from sqlalchemy import delete, insert, select

from bursar.budget.errors import LedgerUnavailable
from bursar.budget.journal import NOBODYS, claim, journal
from bursar.budget.pricing.book import ModelFacts, PriceBook
from bursar.budget.pricing.prices import Price
from bursar.budget.schema import listed_price
from bursar.budget.stores.store import Store
from bursar.budget.windows import from_us, to_us, utc_now

__all__ = ["ListedPrice", "PriceList"]

REFRESH_S = 60
"""For how long prices that were read are believed, so that what another process imports is soon used here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedPrice:
    """One row of the list: the facts of a model from a day on, and who put them there."""

    name: str
    """`provider/model`."""

    facts: ModelFacts
    author: str
    note: str
    set_at: datetime


class PriceList:
    """The dated prices of a store, and behind them the built-in book."""

    def __init__(self, store: Store, clock: Callable[[], datetime] = utc_now, *, refresh_s: int = REFRESH_S) -> None:
        self._store, self._clock, self._refresh_s = store, clock, refresh_s
        self._rows: Mapping[str, list[ListedPrice]] = {}
        self._found: dict[tuple[str, date], ModelFacts | None] = {}
        self._read_at: datetime | None = None

    def add(self, listed: Mapping[str, ModelFacts], *, author: str, note: str = "") -> list[ListedPrice]:
        """List prices by `provider/model`, all of them or none; each holds from its own `effective` on.

        A price of the same model and day is replaced; postings keep the row that they were made with. Every price is
        journaled. Returns the rows as they were listed, under ids of their own.
        """
        now = self._clock()
        rows = [
            ListedPrice(name=name, facts=_identified(name, facts), author=author, note=note, set_at=now)
            for name, facts in sorted(listed.items())
        ]
        with self._store.write() as connection:
            claim(connection, [NOBODYS])  # two may list the same price at once
            for row in rows:
                price = row.facts.price
                key = {"name": row.name, "effective": price.effective.isoformat()}
                connection.execute(delete(listed_price).filter_by(**key))
                values = {**key, "record": _record(row.facts), "author": author, "note": note, "set_us": to_us(now)}
                connection.execute(insert(listed_price).values(values))
                path = f"price:{row.name}"
                journal(
                    connection,
                    kind="price",
                    at_us=to_us(now),
                    path=path,
                    author=author,
                    note=note,
                    detail=price.to_record(),
                )
        self._read_at = None
        return rows

    def lookup(self, provider: str, model: str, on: date | None = None) -> ModelFacts | None:
        """The facts of exactly this model at exactly this provider on a day, today where none is named.

        That is the latest listed price that is effective on that day, else the book's; None where neither knows it.
        Raises LedgerUnavailable where the list could never be read.
        """
        self._refresh()
        day = on or self._clock().astimezone(UTC).date()
        key = (PriceBook.name_of(provider, model), day)
        if key not in self._found:
            self._found[key] = self._look_up(*key) or PriceBook.builtin().lookup(provider, model, on)
        return self._found[key]

    def ls(self, containing: str = "") -> list[ListedPrice]:
        """Every row of a model whose `provider/model` contains a text (case does not matter), by name and day."""
        self._read_at = None
        self._refresh()
        wanted = containing.lower()
        return [row for name in sorted(self._rows) if wanted in name.lower() for row in self._rows[name]]

    def _look_up(self, name: str, day: date) -> ModelFacts | None:
        effective = [row.facts for row in self._rows.get(name, ()) if row.facts.price.effective <= day]
        return _with_sizes(name, effective[-1]) if effective else None

    def _refresh(self) -> None:
        now = self._clock()
        if self._read_at is not None and abs((now - self._read_at).total_seconds()) < self._refresh_s:
            return
        try:
            self._rows, self._found = self._read(), {}
        except LedgerUnavailable:
            if self._read_at is None:
                raise
        self._read_at = now

    def _read(self) -> Mapping[str, list[ListedPrice]]:
        rows: dict[str, list[ListedPrice]] = {}
        query = select(listed_price).order_by(listed_price.c.name, listed_price.c.effective)
        with self._store.read() as connection:
            for row in connection.execute(query).mappings():
                listed = ListedPrice(
                    name=row["name"],
                    facts=_facts(row["record"]),
                    author=row["author"],
                    note=row["note"],
                    set_at=from_us(row["set_us"]),
                )
                rows.setdefault(listed.name, []).append(listed)
        return rows


def _identified(name: str, facts: ModelFacts) -> ModelFacts:
    """The facts under an id that names their content: a changed price is another row, and old postings keep theirs."""
    record = {**facts.price.to_record(), "id": ""}
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:8]
    return replace(facts, price=replace(facts.price, id=f"list:{name}@{facts.price.effective}#{digest}"))


def _with_sizes(name: str, facts: ModelFacts) -> ModelFacts:
    """A price list seldom says how much a model can read and write; the book may know."""
    provider, _, model = name.partition("/")
    book = PriceBook.builtin().lookup(provider, model)
    if book is None:
        return facts
    return replace(
        facts,
        context_window=facts.context_window or book.context_window,
        max_output_tokens=facts.max_output_tokens or book.max_output_tokens,
    )


def _record(facts: ModelFacts) -> str:
    sizes = {"context_window": facts.context_window, "max_output_tokens": facts.max_output_tokens}
    return json.dumps({"price": facts.price.to_record(), **sizes})


def _facts(record: str) -> ModelFacts:
    kept = json.loads(record)
    return ModelFacts(
        price=Price.from_record(kept["price"]),
        context_window=kept["context_window"],
        max_output_tokens=kept["max_output_tokens"],
    )
