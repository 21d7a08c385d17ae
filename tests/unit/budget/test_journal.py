from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from bursar.budget import Amounts, Ledger
from bursar.budget.journal import amounts_in, columns_of, move
from bursar.budget.schema import entry
from bursar.budget.testing import SUPPORT, a_call, balances, reserved

whole = st.integers(-(2**62), 2**62)


@given(st.builds(Amounts, whole, whole, whole, whole))
def test_amounts_come_back_from_columns_unchanged(amounts: Amounts) -> None:
    assert amounts_in("held", columns_of("held", amounts)) == amounts


@given(st.builds(Amounts, whole, whole, whole, whole), st.builds(Amounts, whole, whole, whole, whole))
def test_what_is_added_can_be_taken_away(one: Amounts, other: Amounts) -> None:
    assert (one + other) - other == one
    assert bool(one - one) is False


def test_a_move_changes_every_account_and_is_one_entry(ledger: Ledger) -> None:
    ledger.budgets.set("acme", limit={}, author="dana")
    made = reserved(ledger, a_call())
    with ledger.store.read() as connection:
        rows = connection.execute(select(entry).where(entry.c.reservation_id == made.id)).mappings().all()
    assert [(row["kind"], amounts_in("held", row), amounts_in("posted", row)) for row in rows] == [
        ("reserve", made.held, Amounts())
    ]
    assert len(json.loads(made.accounts)) == 2
    assert all(amounts_in("held", row) == made.held for row in balances(ledger.store).values())


def test_a_move_that_is_undone_leaves_no_entry(ledger: Ledger) -> None:
    made = reserved(ledger, a_call())
    before = balances(ledger.store)

    def fail() -> None:
        with ledger.store.write() as connection:
            posted = Amounts(steps=1)
            move(
                connection,
                chain="acme",
                kind="settle",
                at_us=0,
                reservation_id=made.id,
                accounts=made.accounts,
                posted=posted,
            )
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert balances(ledger.store) == before


def test_entries_are_numbered_in_order_and_no_number_comes_twice(ledger: Ledger) -> None:
    for number in range(3):
        ledger.release(reserved(ledger, a_call(str(number))), note="not needed")
    ledger.gates.cancel(SUPPORT.run_path, author="dana")
    with ledger.store.read() as connection:
        of_acme = select(entry.c.number, entry.c.kind).where(entry.c.chain == "acme")
        found = connection.execute(of_acme.order_by(entry.c.number)).all()
    assert [row.number for row in found] == list(range(1, 9))
    assert [row.kind for row in found] == ["open", *["reserve", "release"] * 3, "cancel"]
