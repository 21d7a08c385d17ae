"""A run's ledger while the store is away: what it waits for, what its lease admits, and what is kept until written."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from bursar.budget import Amounts, Ledger, Limits, Replay, Reservation, ToolQuote, Wait
from bursar.budget.errors import LedgerUnavailable
from bursar.budget.stores.backend import StoreBusy
from bursar.budget.testing import NANO_PER_TOKEN, SUPPORT, Clock, a_call, a_quote, audit, tokens
from bursar.runtime.lease import Lease, Terms
from bursar.runtime.ledger_thread import LedgerThread, Reserved
from bursar.runtime.run_ledger import RunLedger
from tests.support.ledger import new_store

CALL = 100 * NANO_PER_TOKEN
"""What `a_quote` may cost at most."""


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def thread(tmp_path: Path, clock: Clock) -> Iterator[LedgerThread]:
    """The ledger of acme, which may spend what ten calls may cost; it is audited at the end."""
    ledger = Ledger(new_store(tmp_path), clock=clock)
    ledger.gates.open(SUPPORT, Limits.unlimited())
    ledger.budgets.set("acme", limit={"nanousd": 10 * CALL}, author="dana")
    thread = LedgerThread(ledger)
    yield thread
    thread.close()
    with closing(type(ledger.store)(ledger.store.url)) as store:
        audit(store)


@contextmanager
def away(thread: LedgerThread, *, after: bool = False) -> Iterator[None]:
    """Nothing can be written meanwhile; with `after`, every commit is done and nobody hears of it."""
    whole = thread.ledger.store.write
    back = threading.Event()

    @contextmanager
    def write(*, durable: bool = False) -> Iterator[Connection]:
        if not thread.ledger.store._may_wait():
            raise StoreBusy  # a server is always waited for
        if after or back.is_set():
            with whole(durable=durable) as connection:
                yield connection
        if not back.is_set():
            raise LedgerUnavailable("the ledger cannot be reached; nothing was reserved", in_doubt=after)

    thread.ledger.store.write = write  # type: ignore[method-assign]
    try:
        yield
    finally:
        back.set()
        thread.ledger.store.write = whole  # type: ignore[method-assign]


class Told(list[str]):
    """What a run was told."""

    def __call__(self, kind: str, _: str) -> None:
        self.append(kind)


def plain(thread: LedgerThread, told: Told | None = None, wait_s: float = 10) -> RunLedger:
    return RunLedger(thread, wait_s=wait_s, tell=told if told is not None else Told())


async def leased(thread: LedgerThread, clock: Clock, calls: int = 3, told: Told | None = None) -> RunLedger:
    terms = Terms(amounts=Amounts(nanousd=calls * CALL, tokens=1_000, steps=9, tool_calls=9), seconds=60)
    lease = Lease(thread.ledger.slices, SUPPORT, 0, terms, clock=clock)
    run = RunLedger(thread, wait_s=10, tell=told if told is not None else Told(), lease=lease)
    await run.begin()
    return run


async def reserved(run: RunLedger, name: str) -> Reservation:
    made = await asked(run, name)
    assert isinstance(made, Reservation), made
    return made


async def asked(run: RunLedger, name: str) -> Reserved:
    return await run.reserve(a_call(name), a_quote(), deadline_us=2**60, final=False, behind=None)


def posted(thread: LedgerThread) -> Amounts:
    return thread.ledger.budgets.ls("acme")[0].posted


def held(thread: LedgerThread) -> Amounts:
    return thread.ledger.budgets.ls("acme")[0].held


# --- Without a lease --------------------------------------------------------------------------------------------------


async def test_a_reserve_waits_until_the_ledger_is_back_and_the_run_is_told_of_both(thread: LedgerThread) -> None:
    told = Told()
    run = plain(thread, told)
    with away(thread):
        waiting = asyncio.create_task(reserved(run, "a"))
        await asyncio.sleep(0.2)
        assert not waiting.done()
    await run.release(await waiting, note="the test is over")
    assert told == ["away", "back"]


async def test_a_reserve_that_waits_for_too_long_raises_what_the_ledger_said(thread: LedgerThread) -> None:
    with away(thread), pytest.raises(LedgerUnavailable, match="cannot be reached"):
        await reserved(plain(thread, wait_s=0.2), "a")


async def test_what_was_reserved_in_the_moment_in_which_its_caller_goes_away_is_given_back(
    thread: LedgerThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the ledger's answer and the caller's next step there is a moment in which nobody holds it."""
    reserve = thread.reserve

    async def and_gone(*args: Any, **how: Any) -> Reserved:
        made = await reserve(*args, **how)
        asyncio.get_running_loop().call_soon(caller.cancel)
        return made

    monkeypatch.setattr(thread, "reserve", and_gone)
    caller = asyncio.create_task(asked(plain(thread), "a"))
    with pytest.raises(asyncio.CancelledError):
        await caller
    await thread.do(thread.ledger.reap)  # behind what was handed in
    assert held(thread) == posted(thread) == Amounts()


async def test_a_settle_is_kept_until_it_is_written_whether_anybody_waits_for_it_or_not(thread: LedgerThread) -> None:
    run = plain(thread, wait_s=0.1)
    first, second = await reserved(run, "a"), await reserved(run, "b")
    with away(thread):
        with pytest.raises(LedgerUnavailable, match="is written as soon as it can"):
            await run.settle(first, usage=tokens(10), outcome="exact", reply="said")
        run.break_off(second, note="its caller went away")
    await asyncio.to_thread(thread.close)
    assert posted(thread).tokens == 10 + 100


async def test_what_cannot_be_written_to_the_end_stays_charged_and_is_in_the_log(
    thread: LedgerThread, caplog: pytest.LogCaptureFixture
) -> None:
    run = plain(thread)
    made = await reserved(run, "a")
    with away(thread), caplog.at_level(logging.ERROR):
        run.break_off(made, note="its caller went away")
        await asyncio.to_thread(thread.close)
    assert "1 writes are lost, what they would settle stays charged in full" in caplog.text


async def test_a_reserve_and_a_dispatch_of_which_nobody_heard_leave_nothing_held(thread: LedgerThread) -> None:
    run = plain(thread)
    with away(thread, after=True):
        waiting = asyncio.create_task(reserved(run, "a"))
        await asyncio.sleep(0.3)
    made = await waiting
    await run.settle(made, usage=tokens(10), outcome="exact", reply="said")
    await asyncio.to_thread(thread.close)
    assert posted(thread) == Amounts(10 * NANO_PER_TOKEN, 10, 1, 0)


# --- With a lease -----------------------------------------------------------------------------------------------------


async def test_calls_are_admitted_out_of_the_lease_only_while_the_ledger_is_away(
    thread: LedgerThread, clock: Clock
) -> None:
    told = Told()
    run = await leased(thread, clock, told=told)
    before = await reserved(run, "before")
    with away(thread):
        during = await reserved(run, "during")
        await run.settle(during, usage=tokens(20), outcome="exact", reply="said")
        await run.settle(before, usage=tokens(10), outcome="exact", reply="said")
    await run.keep()
    after = await reserved(run, "after")
    await run.release(after, note="the test is over")
    await run.end()
    assert (before.id > 0, during.id > 0, after.id > 0) == (True, False, True)
    assert posted(thread) == Amounts(30 * NANO_PER_TOKEN, 30, 2, 0)
    assert not held(thread)
    assert told == ["away", "back"]


async def test_a_settled_call_is_replayed_while_the_ledger_is_away(thread: LedgerThread, clock: Clock) -> None:
    run = await leased(thread, clock)
    await run.settle(await reserved(run, "a"), usage=tokens(10), outcome="exact", reply="said")
    with away(thread):
        await run.settle(await reserved(run, "b"), usage=tokens(10), outcome="exact", reply="said, too")
        for name, reply in (("a", "said"), ("b", "said, too")):
            replay = await asked(run, name)
            assert isinstance(replay, Replay)
            assert replay.reply == reply
    await run.end()


async def test_a_tool_call_is_charged_once_whatever_its_commit_came_to(thread: LedgerThread, clock: Clock) -> None:
    run = await leased(thread, clock)
    with away(thread, after=True):
        charging = asyncio.create_task(run.charge(a_call("doubtful"), ToolQuote()))
        await asyncio.sleep(0.2)
    await charging
    with away(thread):
        await run.charge(a_call("leased"), ToolQuote())
    await run.end()
    assert posted(thread).tool_calls == 2


async def test_a_lease_is_admitted_from_before_it_stands_in_its_own_runs_way_and_then_given_back(
    thread: LedgerThread, clock: Clock
) -> None:
    run = await leased(thread, clock, calls=9)
    first, second = await reserved(run, "a"), await reserved(run, "b")
    assert (first.id > 0, second.id > 0) == (True, False)
    for made in (first, second):
        await run.settle(made, usage=None, outcome="unknown")
    for number in range(8):
        while isinstance(answer := await asked(run, f"{number}"), Wait):
            pass
        assert isinstance(answer, Reservation)
        await run.settle(answer, usage=None, outcome="unknown")
    await run.end()
    assert (posted(thread).nanousd, held(thread).nanousd) == (10 * CALL, 0)


async def test_a_lease_is_renewed_before_it_ends_and_whole_again_after_it_was_used(
    thread: LedgerThread, clock: Clock
) -> None:
    run = await leased(thread, clock, calls=1)
    for _ in range(3):
        clock.now += timedelta(seconds=40)
        await run.keep()
        assert await thread.do(thread.ledger.reap) == 0
    for name in ("a", "b"):
        with away(thread):
            await run.settle(await reserved(run, name), usage=None, outcome="unknown")
        await run.keep()
    await run.end()
    assert (posted(thread).nanousd, held(thread).nanousd) == (2 * CALL, 0)


async def test_a_run_whose_budget_has_no_room_for_a_lease_goes_without(thread: LedgerThread, clock: Clock) -> None:
    run = await leased(thread, clock, calls=11)
    made = await reserved(run, "a")
    assert held(thread).nanousd == CALL
    await run.release(made, note="the test is over")
    await run.end()
