"""`verify` passes on every honest history, and finds whatever was done to the store behind the ledger's back."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, RowMapping, Table, delete, insert, select, text, update

from bursar.budget import Ledger, Limits, Store
from bursar.budget.account_check import rebuild
from bursar.budget.errors import UsageError
from bursar.budget.schema import account, chain, entry, grant, pot, price, reservation
from bursar.budget.verify import Audit, Head, verify
from tests.support.history import RUNS, make_history
from tests.support.ledger import SUPPORT, Clock, a_call, new_store, reserved, tokens

SEEDS = (1, 2, 3)


@lru_cache
def a_past(seed: int) -> bytes:
    """A store with a history."""
    with tempfile.TemporaryDirectory() as folder, closing(new_store(Path(folder))) as store:
        clock = Clock()
        make_history(Ledger(store, clock=clock), clock, seed)
        store.close()
        return (Path(folder) / "ledger.db").read_bytes()


@contextmanager
def a_store(seed: int) -> Iterator[Store]:
    """A store of its own with a history."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.db"
        path.write_bytes(a_past(seed))
        with closing(Store(f"sqlite:///{path}")) as store:
            yield store


def problems(audit: Audit) -> list[str]:
    return [f"{one.chain} {one.what}: {one.problem}" for one in audit.findings]


def rows_of(connection: Connection, table: Table) -> Sequence[RowMapping]:
    return connection.execute(select(table).order_by(next(iter(table.primary_key)))).mappings().all()


def replace(connection: Connection, table: Table, row: RowMapping, **values: Any) -> None:
    key = next(iter(table.primary_key))
    connection.execute(update(table).where(key == row[key.name]).values(**values))


@pytest.mark.parametrize("seed", SEEDS)
def test_an_honest_history_is_verified(seed: int) -> None:
    with a_store(seed) as store:
        audit = verify(store)
    assert problems(audit) == []
    assert audit.entries > 60
    assert [head.chain for head in audit.heads] == ["acme", "ledger", "org:globex", "zeta"]


def test_an_honest_history_is_verified_on_each_kind_of_store(store_url: str) -> None:
    clock = Clock()
    with closing(Ledger(Store(store_url), clock=clock)) as ledger:
        make_history(ledger, clock, seed=4)
        assert problems(verify(ledger.store)) == []


# --- Tampering --------------------------------------------------------------------------------------------------------

# What verify can know nothing of: numbers that the store gives, and what a worker has in hand.
WORKING = {
    "entry": {"seq"},
    "account": {"id", "pot_id", "window", "starts_us", "ends_us", "grants_end_us"}
    | {column.name for column in account.c if column.name.startswith("alert_")},
}
SETTLED = ("state", "tenant", "price_id", "slice_id", "accounts", "usage", "outcome")
EDITED: dict[Table, Sequence[str]] = {
    entry: [column.name for column in entry.c if column.name != "seq"],
    account: [column.name for column in account.c if column.name.startswith(("limit_", "posted_", "held_"))],
    reservation: [
        *("state", "tenant", "accounts"),
        *(column.name for column in reservation.c if column.name.startswith(("posted_", "held_"))),
    ],
    pot: [
        *("path", "per", "zone", "mode", "rollover_percent", "overdraft_percent", "oversubscribed", "alerts", "parent"),
        *("source", "set_by", "set_us", *(column.name for column in pot.c if column.name.startswith("limit_"))),
    ],
    grant: [column.name for column in grant.c if column.name != "id"],
    price: ["record"],
    chain: ["number", "hash"],
}


def other(value: Any, column: Any, data: st.DataObject) -> Any:
    """A value that the column may have and has not."""
    if column.type.python_type is int:
        return data.draw(st.integers(0, 10**9).filter(lambda drawn: drawn != value), label="number")
    return data.draw(st.text("abc[]01", max_size=5).filter(lambda drawn: drawn != value), label="text")


@given(st.sampled_from(SEEDS), st.sampled_from(sorted(EDITED, key=str)), st.data())
def test_whatever_is_edited_is_found(seed: int, table: Table, data: st.DataObject) -> None:
    with a_store(seed) as store:
        with store.write() as connection:
            connection.execute(text("PRAGMA defer_foreign_keys=ON"))
            rows = rows_of(connection, table)
            if table is pot:
                rows = [row for row in rows if row["kind"] != "run"]
            row = data.draw(st.sampled_from(rows))
            name = data.draw(st.sampled_from(EDITED[table]))
            replace(connection, table, row, **{name: other(row[name], table.c[name], data)})
            if table is grant and name == "account_id":
                return
        assert verify(store).findings


@given(st.sampled_from(SEEDS), st.sampled_from([entry, reservation, grant, chain]), st.data())
def test_whatever_is_deleted_is_found(seed: int, table: Table, data: st.DataObject) -> None:
    with a_store(seed) as store:
        with store.write() as connection:
            key = next(iter(table.primary_key))
            row = data.draw(st.sampled_from(rows_of(connection, table)))
            connection.execute(delete(table).where(key == row[key.name]))
        assert verify(store).findings


@given(st.sampled_from(SEEDS), st.data())
def test_two_entries_that_change_places_are_found(seed: int, data: st.DataObject) -> None:
    with a_store(seed) as store:
        with store.write() as connection:
            rows = [row for row in rows_of(connection, entry) if row["chain"] == "acme"]
            one, two = data.draw(
                st.lists(st.sampled_from(rows), min_size=2, max_size=2, unique_by=lambda row: row["seq"])
            )
            parts = data.draw(st.sampled_from([("number",), ("hash",), ("seq",), ("number", "hash"), ()]))
            kept = parts or tuple(column.name for column in entry.c if column.name not in ("seq", "number"))
            connection.execute(update(entry).where(entry.c.seq == one["seq"]).values(seq=-1, number=-1))
            connection.execute(
                update(entry).where(entry.c.seq == two["seq"]).values({**two, **{n: one[n] for n in kept}})
            )
            connection.execute(update(entry).where(entry.c.seq == -1).values({**one, **{n: two[n] for n in kept}}))
        assert verify(store).findings


@given(st.sampled_from(SEEDS), st.data())
def test_an_entry_that_is_made_up_is_found(seed: int, data: st.DataObject) -> None:
    with a_store(seed) as store:
        with store.write() as connection:
            row = data.draw(st.sampled_from(rows_of(connection, entry)))
            forged = {**row, "seq": None, "number": data.draw(st.integers(1, 10**6))}
            if connection.execute(
                select(entry).where(entry.c.chain == row["chain"], entry.c.number == forged["number"])
            ).first():
                return
            connection.execute(insert(entry).values(forged))
        assert verify(store).findings
