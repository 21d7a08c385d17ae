"""What is rolled up changes no balance, no bill and no proof; what may be needed again is kept."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, delete, event, func, select, update

from bursar.budget import Amounts, Ledger, Limits, Refusal, Replay, Reservation, Scope, Store
from bursar.budget.audit import retention
from bursar.budget.audit.changes import changes
from bursar.budget.audit.retention import Compacted, compact
from bursar.budget.audit.verify import verify
from bursar.budget.errors import LedgerError, LedgerUnavailable, UsageError
from bursar.budget.reports.report import GROUPS, SpendLine
from bursar.budget.schema import entry, reservation, rollup, summary
from bursar.budget.slices import Slice
from bursar.budget.stores.prepared import driver_of
from bursar.budget.testing import SUPPORT, Clock, a_call, a_quote, balances, reserved, tokens
from tests.support.compactor import KEY
from tests.support.history import RUNS, make_history
from tests.support.processes import Child
from tests.unit.budget.test_verify import a_store, problems


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short history is rolled up in several transactions."""
    monkeypatch.setattr(retention, "BATCH", 20)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(store_url: str, clock: Clock) -> Iterator[Ledger]:
    """A ledger with a past, on each kind of store."""
    with closing(Ledger(Store(store_url), clock=clock)) as ledger:
        make_history(ledger, clock, seed=5, calls=40)
        yield ledger


def roll_up(ledger: Ledger, clock: Clock, *, days: float = 0, **how: Any) -> Compacted:
    how = {"key": KEY, "author": "ada", **how}
    return compact(ledger.store, before=clock.now - timedelta(days=days), clock=clock, **how)


def reported(ledger: Ledger) -> list[SpendLine]:
    """All that a report can tell apart, but for the single run."""
    return list(ledger.reports.spend(*(group for group in GROUPS if group != "run_id")))


def count(ledger: Ledger, table: Any) -> int:
    with ledger.store.read() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def test_balances_and_reports_stay_what_they_were_to_the_nano_usd(ledger: Ledger, clock: Clock) -> None:
    before, spent, told = balances(ledger.store), reported(ledger), changes(ledger.store)
    clock.advance(days=1)
    done = roll_up(ledger, clock)
    assert done.entries > 80
    assert done.summaries >= 4
    assert {key: dict(row) for key, row in balances(ledger.store).items()} == {k: dict(r) for k, r in before.items()}
    assert reported(ledger) == spent
    assert [one for one in changes(ledger.store) if one.kind != "compact"] == told


def test_the_ledger_is_verified_after_each_of_several_compactions(ledger: Ledger, clock: Clock) -> None:
    for seed in (6, 7):
        clock.advance(days=1)
        roll_up(ledger, clock)
        assert problems(verify(ledger.store, key=KEY)) == []
        for scope in RUNS:
            again = Scope(
                tenant=scope.tenant,
                organisation=scope.organisation,
                agents=scope.agents,
                run_id=f"again_{seed}_{scope.run_id}",
            )
            ledger.gates.open(again, Limits.unlimited())
            ledger.settle(reserved(ledger, a_call(scope=again)), usage=tokens(3, 3), outcome="exact", reply="hello")
    clock.advance(days=1)
    assert roll_up(ledger, clock).reservations > 0
    assert problems(verify(ledger.store, key=KEY)) == []


def test_nothing_that_is_younger_than_the_cutoff_is_rolled_up(ledger: Ledger, clock: Clock) -> None:
    assert roll_up(ledger, clock, days=1000) == Compacted()
    roll_up(ledger, clock, days=5)
    with ledger.store.read() as connection:
        (oldest,) = connection.execute(select(func.min(entry.c.at_us)))
        assert connection.execute(select(func.count()).select_from(summary)).scalar_one() > 0
    assert oldest is not None


def test_a_head_that_was_kept_is_still_found_where_a_summary_ends(ledger: Ledger, clock: Clock) -> None:
    heads = verify(ledger.store).heads
    clock.advance(days=1)
    roll_up(ledger, clock)
    assert problems(verify(ledger.store, key=KEY, heads=heads)) == []
    within = heads[0]._replace(number=heads[0].number - 1)
    (problem,) = problems(verify(ledger.store, key=KEY, heads=[within]))
    assert f"entry {within.number} was rolled up: keep the head {heads[0]}" in problem


# --- What is kept -----------------------------------------------------------------------------------------------------


@pytest.fixture
def one_run(store_url: str, clock: Clock) -> Iterator[Ledger]:
    """A ledger with one run in which one call was settled."""
    with closing(Ledger(Store(store_url), clock=clock)) as ledger:
        ledger.gates.open(SUPPORT, Limits.unlimited())
        ledger.settle(reserved(ledger, a_call("settled")), usage=tokens(3, 3), outcome="exact", reply="hello")
        yield ledger


def replay(ledger: Ledger) -> object:
    return ledger.reserve(a_call("settled"), a_quote())


def test_a_run_that_was_touched_since_keeps_its_replies(one_run: Ledger, clock: Clock) -> None:
    clock.advance(days=2)
    reserved(one_run, a_call("later"))
    roll_up(one_run, clock, days=1)
    assert isinstance(replay(one_run), Replay)
    assert problems(verify(one_run.store, key=KEY)) == []


def test_a_run_that_may_be_resumed_keeps_its_replies(one_run: Ledger, clock: Clock) -> None:
    clock.advance(days=2)
    roll_up(one_run, clock, keep={SUPPORT.run_id})
    assert isinstance(replay(one_run), Replay)


def test_a_run_that_was_granted_more_since_keeps_its_replies(one_run: Ledger, clock: Clock) -> None:
    clock.advance(days=2)
    one_run.budgets.grant(SUPPORT.run_path, Amounts(steps=1), author="dana", note="go on")
    roll_up(one_run, clock, days=1)
    assert isinstance(replay(one_run), Replay)


def test_a_run_that_somebody_executes_keeps_its_replies(one_run: Ledger, clock: Clock) -> None:
    one_run.gates.hold(SUPPORT.run_path, "worker", lease_s=10 * 86_400)
    clock.advance(days=2)
    roll_up(one_run, clock)
    assert count(one_run, reservation) == 1


@pytest.mark.parametrize("left", ["reserved", "dispatched", "unknown"])
def test_a_call_that_is_not_known_to_be_over_keeps_its_run(one_run: Ledger, clock: Clock, left: str) -> None:
    made = reserved(one_run, a_call("open"))
    if left != "reserved":
        one_run.dispatch(made)
    if left == "unknown":
        one_run.settle(made, usage=None, outcome="unknown")
    clock.advance(days=2)
    roll_up(one_run, clock)
    assert isinstance(replay(one_run), Replay)
    one_run.settle(made, usage=tokens(5, 5), outcome="exact", reply="the truth came late")
    assert problems(verify(one_run.store, key=KEY)) == []
    clock.advance(days=2)
    assert roll_up(one_run, clock).reservations == 2
    assert problems(verify(one_run.store, key=KEY)) == []


def test_a_run_whose_replies_are_gone_never_pays_for_them_again(one_run: Ledger, clock: Clock) -> None:
    clock.advance(days=2)
    assert roll_up(one_run, clock).runs == 1
    refused = replay(one_run)
    assert isinstance(refused, Refusal)
    assert refused.cause == "cancelled"


def test_of_retries_it_stays_known_that_they_were(one_run: Ledger, clock: Clock) -> None:
    for outcome in ("estimated", "exact"):
        made = reserved(one_run, a_call("tried"))
        reply = "hello" if outcome == "exact" else None
        one_run.settle(made, usage=tokens(5, 5), outcome=outcome, reply=reply)
    before = reported(one_run)
    clock.advance(days=2)
    roll_up(one_run, clock)
    assert count(one_run, reservation) == 0
    assert reported(one_run) == before


@pytest.mark.parametrize("end", ["closed", "given up", "given up, then written"])
def test_a_slice_and_its_calls_are_verified_and_rolled_up_together(one_run: Ledger, clock: Clock, end: str) -> None:
    hold = one_run.gates.hold(SUPPORT.run_path, "worker", 60)
    part = one_run.slices.open(SUPPORT, hold.epoch, Amounts(nanousd=10**6, tokens=1_000, steps=10), seconds=60, batch=2)
    assert isinstance(part, Slice)
    for number in range(3):
        made = part.reserve(a_call(f"part {number}", epoch=hold.epoch), a_quote())
        assert isinstance(made, Reservation)
        part.settle(made, usage=tokens(3, number), outcome="exact", reply="hello")
    if end != "closed":
        clock.advance(days=1)
        assert one_run.reap() == 1
    if end != "given up":
        part.close()
    assert problems(verify(one_run.store)) == []
    spent = reported(one_run)
    clock.advance(days=2)
    gone = roll_up(one_run, clock).reservations
    assert gone == (5 if end != "given up" else 0), "a slice, its calls, and the one before"
    assert reported(one_run) == spent
    assert problems(verify(one_run.store, key=KEY)) == []


# --- Tampering, crashes and others ------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, b"", b"short"])
def test_a_missing_or_short_key_is_refused(one_run: Ledger, clock: Clock, key: bytes | None) -> None:
    with pytest.raises(UsageError, match="BURSAR_SIGNING_KEY"):
        roll_up(one_run, clock, key=key)


def test_a_cutoff_that_is_not_past_is_refused(one_run: Ledger, clock: Clock) -> None:
    with pytest.raises(UsageError, match="not past"):
        roll_up(one_run, clock, days=-1)


def test_a_broken_chain_is_not_rolled_up(one_run: Ledger, clock: Clock) -> None:
    clock.advance(days=1)
    with one_run.store.write() as connection:
        connection.execute(update(entry).where(entry.c.number == 2).values(posted_nanousd=1))
    with pytest.raises(LedgerError, match="broken at entry 2"):
        roll_up(one_run, clock)


EDITED = [(summary, column.name) for column in summary.c if column.name != "id"] + [
    (rollup, column.name) for column in rollup.c if column.name != "id"
]


@lru_cache
def _rolled_up() -> bytes:
    """A store whose entries were all rolled up."""
    with a_store(2) as store:
        late = Clock(Clock().now + timedelta(days=99))
        compact(store, before=late.now, clock=late, key=KEY, author="ada")
        store.close()
        return Path(store.name).read_bytes()


@contextmanager
def tampering() -> Iterator[tuple[Store, Connection]]:
    """A store whose entries were rolled up, and a connection that does with it what it likes."""
    with a_store(2) as store:
        Path(store.name).write_bytes(_rolled_up())
        engine = create_engine(store.url)
        with engine.begin() as connection:
            yield store, connection
        engine.dispose()
        assert verify(store, key=KEY).findings


@pytest.mark.parametrize(("table", "column"), EDITED, ids=lambda of: getattr(of, "name", of))
def test_a_summary_that_was_changed_is_found(table: Any, column: str) -> None:
    with tampering() as (_, connection):
        first = connection.execute(select(func.min(table.c.id))).scalar_one()
        value: Any = "{}" if table.c[column].type.python_type is str else 12345
        connection.execute(update(table).where(table.c.id == first).values({column: value}))


@pytest.mark.parametrize("table", [summary, rollup], ids=lambda table: str(table.name))
def test_a_summary_that_is_missing_is_found(table: Any) -> None:
    with tampering() as (_, connection):
        last = select(func.max(table.c.id)).scalar_subquery()
        connection.execute(delete(table).where(table.c.id == last))


def test_summaries_are_not_verified_without_the_key_that_signed_them(one_run: Ledger, clock: Clock) -> None:
    clock.advance(days=1)
    roll_up(one_run, clock)
    with pytest.raises(UsageError, match="BURSAR_SIGNING_KEY"):
        verify(one_run.store)
    assert "another key" in problems(verify(one_run.store, key=KEY[::-1]))[0]


def test_a_full_disk_undoes_one_batch_and_no_more(clock: Clock) -> None:
    with a_store(1) as store:
        late = Clock(clock.now + timedelta(days=99))
        with store.write() as connection:
            driver = driver_of(connection)
            ((pages,),) = driver.execute("PRAGMA page_count").fetchall()
            driver.execute(f"PRAGMA max_page_count={pages}")
        with pytest.raises(LedgerUnavailable, match="disk is full"):
            compact(store, before=late.now, clock=late, key=KEY, author="ada")
        assert problems(verify(store, key=KEY)) == []
        driver.execute("PRAGMA max_page_count=100000")
        assert compact(store, before=late.now, clock=late, key=KEY, author="ada").entries > 0
        assert problems(verify(store, key=KEY)) == []


def test_wherever_it_breaks_off_nothing_is_lost_and_it_can_be_gone_on_with(clock: Clock) -> None:
    late = Clock(clock.now + timedelta(days=99))
    with a_store(3) as store:
        spent = reported(Ledger(store))
        for statement in itertools.count(1):
            with breaking_off_at(store, statement) as broken:
                compact(store, before=late.now, clock=late, key=KEY, author="ada")
            assert problems(verify(store, key=KEY)) == []
            assert reported(Ledger(store)) == spent
            if not broken:
                return


class BrokenOff(Exception):
    """What a crash is in this test."""


@contextmanager
def breaking_off_at(store: Store, statement: int) -> Iterator[list[int]]:
    """Raise in place of the so-manyth statement; yields a list that is not empty where it came to that."""
    left, broken = itertools.count(statement, -1), []

    def count(connection: Connection, *_: object) -> None:
        if next(left) == 1:
            broken.append(statement)
            raise BrokenOff

    with store.write() as connection:
        engine = connection.engine
    event.listen(engine, "before_cursor_execute", count)
    try:
        with suppress(BrokenOff):
            yield broken
    finally:
        event.remove(engine, "before_cursor_execute", count)


@pytest.mark.parametrize("batches", [1, 3, 6])
def test_a_process_that_is_killed_leaves_a_ledger_that_is_verified(batches: int, clock: Clock) -> None:
    with a_store(2) as store:
        spent = reported(Ledger(store))
        with Child("-m", "tests.support.compactor", store.url) as child:
            for _ in range(batches):
                child.line()
            child.kill()
        assert problems(verify(store, key=KEY)) == []
        assert reported(Ledger(store)) == spent
        late = Clock(clock.now + timedelta(days=99))
        assert compact(store, before=late.now, clock=late, key=KEY, author="ada").entries > 0
        assert problems(verify(store, key=KEY)) == []


def test_two_at_once_roll_up_everything_once(ledger: Ledger, clock: Clock) -> None:
    clock.advance(days=1)
    old, spent = count(ledger, entry), reported(ledger)

    def work(_: int) -> Compacted:
        with closing(Store(ledger.store.url)) as store:
            return compact(store, before=clock.now, clock=clock, key=KEY, author="ada")

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(work, range(2))
    assert (one + other).entries == old
    assert problems(verify(ledger.store, key=KEY)) == []
    assert reported(ledger) == spent
