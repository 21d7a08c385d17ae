"""What the ledger reads and locks does not grow with what it has recorded."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import cast

from sqlalchemy import Connection, select

from bursar.budget import Ledger
from bursar.budget.accounts import current
from bursar.budget.reservations import silent
from bursar.budget.schema import reservation
from bursar.budget.stores.prepared import driver_of
from bursar.budget.testing import NOON, Clock, a_call, reserved, tokens
from bursar.budget.windows import to_us


def work(ledger: Ledger, read: Callable[[Connection], object]) -> int:
    """How many instructions SQLite executes to read something."""
    done = 0

    def count() -> None:
        nonlocal done
        done += 1

    with ledger.store.read() as connection:
        driver = cast("sqlite3.Connection", driver_of(connection))
        driver.set_progress_handler(count, 1)
        read(connection)
        driver.set_progress_handler(None, 1)
    return done


def test_the_reaper_reads_what_is_open_and_not_what_was_ever_settled(ledger: Ledger) -> None:
    def reap(connection: Connection) -> None:
        assert not silent(connection, to_us(NOON), None)

    reserved(ledger, a_call("open"))
    before = work(ledger, reap)
    for number in range(100):
        ledger.settle(reserved(ledger, a_call(str(number))), usage=tokens(1), outcome="exact", reply="")
    assert work(ledger, reap) == before


def test_a_reaper_that_finds_nothing_waits_for_nobody(ledger: Ledger, another: Callable[[], Ledger]) -> None:
    with another().store.write() as connection:
        connection.execute(select(reservation))
        assert ledger.reap() == 0


def test_a_reserve_reads_the_present_windows_and_not_those_of_the_past(ledger: Ledger, clock: Clock) -> None:
    def read(connection: Connection) -> None:
        assert len(current(connection, ("acme",), to_us(clock.now))) == 1

    ledger.budgets.set("acme", per="hour", limit={"steps": 1}, author="dana")
    before = work(ledger, read)
    for _ in range(100):
        clock.advance(hours=1)
        with ledger.store.write() as connection:
            read(connection)
    assert work(ledger, read) == before
