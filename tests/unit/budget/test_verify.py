"""`verify` passes on every honest history, and finds whatever was done to the store behind the ledger's back."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Table,
    and_,
    create_engine,
    delete,
    insert,
    literal_column,
    select,
    update,
)
from sqlalchemy.sql.expression import Executable

from bursar.budget import Ledger, Store
from bursar.budget.audit.account_check import rebuild
from bursar.budget.audit.verify import Audit, Head, verify
from bursar.budget.errors import UsageError
from bursar.budget.schema import account, chain, entry, grant, listed_price, policy, pot, price, reservation
from bursar.budget.testing import Clock, a_call, balances, reserved, tokens
from tests.support.history import make_history
from tests.support.ledger import new_store

SEEDS = (1, 2, 3)
OF_ACME = entry.c.chain == "acme"


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


@pytest.mark.parametrize("seed", SEEDS)
def test_an_honest_history_is_verified(seed: int) -> None:
    with a_store(seed) as store:
        audit = verify(store)
    assert problems(audit) == []
    assert audit.entries > 60
    assert [head.chain for head in audit.heads] == ["acme", "ledger/", "org:globex", "zeta"]


def test_an_honest_history_is_verified_on_each_kind_of_store(store_url: str) -> None:
    clock = Clock()
    with closing(Ledger(Store(store_url), clock=clock)) as ledger:
        make_history(ledger, clock, seed=4)
        assert problems(verify(ledger.store)) == []


# --- Tampering --------------------------------------------------------------------------------------------------------

# Not those of which the journal does not speak: numbers that the store gives, what a worker has in hand, words.
EDITED: dict[Table, Sequence[str]] = {
    entry: entry.c.keys(),
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
    listed_price: ["name", "effective", "record", "author", "note", "set_us"],
    policy: ["path", "unpriced", "ceiling", "set_by", "set_us"],
    chain: ["number", "hash"],
}


TAMPERED = [(table, name) for table, names in EDITED.items() for name in names]


@contextmanager
def tampering(seed: int) -> Iterator[Connection]:
    """A connection that does with a store what it likes; then the store is not verified."""
    with a_store(seed) as store:
        engine = create_engine(store.url)
        with engine.begin() as connection:
            yield connection
        engine.dispose()
        assert verify(store).findings


def rows_of(connection: Connection, table: Table) -> list[dict[str, Any]]:
    rows = connection.execute(select(table).order_by(*table.primary_key)).mappings()
    return [dict(row) for row in rows if table is not pot or row["kind"] != "run"]


def is_row(table: Table, row: Mapping[str, Any]) -> ColumnElement[bool]:
    return and_(*(key.is_not_distinct_from(row[key.name]) for key in table.primary_key))


def other(value: Any, column: Column[Any], data: st.DataObject) -> Any:
    """A value that the column may have and has not."""
    drawn = st.integers(0, 10**9) if column.type.python_type is int else st.text("abc[]01", max_size=5)
    return data.draw(drawn.filter(lambda one: one != value))


@pytest.mark.parametrize(("table", "name"), TAMPERED, ids=str)
@settings(max_examples=3)
@given(seed=st.sampled_from(SEEDS), data=st.data())
def test_whatever_is_edited_is_found(table: Table, name: str, seed: int, data: st.DataObject) -> None:
    with tampering(seed) as connection:
        row = data.draw(st.sampled_from(rows_of(connection, table)))
        value = other(row[name], table.c[name], data)
        if (table, name) == (entry, "number"):
            value += 10**6  # the store itself refuses a number that another entry of the chain has
        connection.execute(update(table).where(is_row(table, row)).values({name: value}))


NUMBERS = [(table, name) for table, name in TAMPERED if table.c[name].type.python_type is int]


@pytest.mark.parametrize(("table", "name"), NUMBERS, ids=str)
def test_a_word_in_place_of_a_number_is_found(table: Table, name: str) -> None:
    with tampering(2) as connection:
        row = rows_of(connection, table)[-1]
        connection.execute(update(table).where(is_row(table, row)).values({name: literal_column("'many'")}))


@pytest.mark.parametrize("table", EDITED, ids=str)
@settings(max_examples=8)
@given(seed=st.sampled_from(SEEDS), data=st.data())
def test_whatever_is_deleted_is_found(table: Table, seed: int, data: st.DataObject) -> None:
    with tampering(seed) as connection:
        row = data.draw(st.sampled_from(rows_of(connection, table)))
        connection.execute(delete(table).where(is_row(table, row)))


FORGED: dict[Table, dict[str, Any]] = {
    entry: {"number": 10**6},
    reservation: {"id": None, "call": "forged"},
    account: {"id": None, "window": "forged"},
    grant: {"id": None, "key": "forged"},
    price: {"id": "forged"},
    listed_price: {"effective": "2099-01-01"},
    policy: {"path": "forged"},
}


@pytest.mark.parametrize("table", FORGED, ids=str)
@settings(max_examples=8)
@given(seed=st.sampled_from(SEEDS), data=st.data())
def test_whatever_is_made_up_is_found(table: Table, seed: int, data: st.DataObject) -> None:
    with tampering(seed) as connection:
        row = data.draw(st.sampled_from(rows_of(connection, table)))
        connection.execute(insert(table).values(row | FORGED[table]))


@settings(max_examples=30)
@given(seed=st.sampled_from(SEEDS), data=st.data())
def test_two_entries_that_change_places_are_found(seed: int, data: st.DataObject) -> None:
    everything = tuple(entry.c.keys())
    said = tuple(name for name in everything if name not in ("number", "hash"))
    swapped = data.draw(st.sampled_from([("number",), ("hash",), ("number", "hash"), everything, said]))
    with tampering(seed) as connection:
        rows = [row for row in rows_of(connection, entry) if row["chain"] == "acme"]
        one, two = data.draw(
            st.lists(st.sampled_from(rows), min_size=2, max_size=2, unique_by=lambda row: row["number"])
        )
        connection.execute(update(entry).where(is_row(entry, one)).values(number=-1))
        connection.execute(update(entry).where(is_row(entry, two)).values({name: one[name] for name in swapped}))
        connection.execute(
            update(entry).where(is_row(entry, one)).values({**one, **{name: two[name] for name in swapped}})
        )


# --- What a finding says ----------------------------------------------------------------------------------------------


def found(seed: int, statement: Executable) -> list[str]:
    with a_store(seed) as store:
        engine = create_engine(store.url)
        with engine.begin() as connection:
            connection.execute(statement)
        engine.dispose()
        return problems(verify(store))


def test_a_finding_names_the_chain_the_number_and_what_is_wrong() -> None:
    changed = found(1, update(entry).where(OF_ACME, entry.c.number == 5).values(note="nothing happened"))
    assert changed == ["acme entry 5: was changed: its hash does not follow from what it says"]
    missing = found(1, delete(entry).where(OF_ACME, entry.c.number == 5))
    assert missing[0] == "acme entry 6: entry 5 is missing before it"


def test_a_tail_that_is_missing_is_found_by_where_the_chain_should_end() -> None:
    with a_store(1) as store:
        (end, *_) = verify(store).heads
    missing = found(1, delete(entry).where(OF_ACME, entry.c.number > end.number - 2))
    assert f"acme end: entries {end.number - 1} to {end.number} are missing" in missing


# --- Heads and rebuilding ---------------------------------------------------------------------------------------------


def test_a_head_that_was_kept_shows_that_nothing_before_it_was_changed(ledger: Ledger) -> None:
    ledger.budgets.set("acme", limit={"steps": 9}, author="dana")
    heads = verify(ledger.store).heads
    ledger.settle(reserved(ledger, a_call()), usage=tokens(1), outcome="exact", reply="")
    assert verify(ledger.store, heads=heads).findings == ()
    assert [Head.parse(str(head)) for head in heads] == list(heads)
    other = heads[0]._replace(hash="0" * 64)
    assert "has another hash" in problems(verify(ledger.store, heads=[other]))[0]
    later = heads[0]._replace(number=99)
    assert problems(verify(ledger.store, heads=[later])) == ["acme head 99: there is no such entry"]


@pytest.mark.parametrize("text", ["", "acme", "acme:1", "acme:x:" + "0" * 64, "acme:1:short", ":1:" + "0" * 64])
def test_a_head_that_verify_did_not_print_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected CHAIN:NUMBER:HASH"):
        Head.parse(text)


@settings(max_examples=20)
@given(seed=st.sampled_from(SEEDS), data=st.data())
def test_balances_are_made_anew_from_the_entries(seed: int, data: st.DataObject) -> None:
    amounts = [column.name for column in account.c if column.name.startswith(("limit_", "posted_", "held_"))]
    with a_store(seed) as store:
        with store.write() as connection:
            before = rows_of(connection, account)
            for row in before:
                changed = data.draw(st.dictionaries(st.sampled_from(amounts), st.integers(0, 10**9), max_size=3))
                connection.execute(update(account).where(is_row(account, row)).values(changed or {"alert_steps": None}))
        wrong = verify(store).wrong
        assert rebuild(store, wrong, author="ada", now=0) == len(wrong)
        assert verify(store).findings == ()
        with store.read() as connection:
            assert [_amounts(row, amounts) for row in rows_of(connection, account)] == [
                _amounts(row, amounts) for row in before
            ]


def _amounts(row: Mapping[str, Any], names: Sequence[str]) -> list[Any]:
    return [row[name] for name in names]


def test_what_calls_moved_in_the_meantime_stays_moved_when_balances_are_made_anew(ledger: Ledger) -> None:
    ledger.budgets.set("acme", limit={"steps": 9}, author="dana")
    with ledger.store.write() as connection:
        connection.execute(update(account).values(posted_steps=5))
    wrong = verify(ledger.store).wrong
    ledger.settle(reserved(ledger, a_call()), usage=tokens(1), outcome="exact", reply="")
    rebuild(ledger.store, wrong, author="ada", now=0)
    assert [row["posted_steps"] for row in balances(ledger.store).values()] == [1, 1]
