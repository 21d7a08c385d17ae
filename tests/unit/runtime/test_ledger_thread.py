"""The ledger for coroutines: what waits for the disk together waits once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest

from bursar.budget import Call, Ledger, Limits, Scope
from bursar.budget.admission import ModelQuote
from bursar.budget.errors import ReservationError
from bursar.budget.pricing.prices import Price
from bursar.budget.reservations import Reservation
from bursar.runtime.ledger_thread import LedgerThread

SCOPE = Scope(tenant="acme", agents=("clerk",), run_id="run_1")
QUOTE = ModelQuote(
    model="m",
    price=Price.free(id="m", source="tests", effective=date(2026, 1, 1)),
    input_tokens=10,
    max_output_tokens=10,
)
FAR_US = 2**52


class Slow(Ledger):
    """Remembers what is dispatched together, and lets the first wait until the others stand in line."""

    batches: list[int]
    refused: frozenset[str] = frozenset()
    go: threading.Event

    def dispatch_all(self, made: Sequence[Reservation]) -> list[ReservationError | None]:
        if not self.batches:
            assert self.go.wait(10)
        self.batches.append(len(made))
        said = super().dispatch_all(made)
        return [
            ReservationError("gone") if one.call.id in self.refused else of for one, of in zip(made, said, strict=True)
        ]


@pytest.fixture
def ledger(tmp_path: Path) -> Slow:
    ledger = Slow.open(f"sqlite:///{tmp_path}/bursar.db")
    ledger.gates.open(SCOPE, Limits.unlimited())
    ledger.batches, ledger.go = [], threading.Event()
    return ledger


async def reserved(thread: LedgerThread, number: int) -> object:
    call = Call(id=f"call {number}", scope=SCOPE, epoch=0, node="n", model="m")
    return await thread.reserve(call, QUOTE, deadline_us=FAR_US, final=False, behind=None)


async def test_calls_that_wait_to_be_dispatched_wait_for_the_disk_once(ledger: Slow) -> None:
    """And one that may not be sent keeps none of the others back."""
    ledger.refused = frozenset({"call 3"})
    with closing(LedgerThread(ledger)) as thread:
        calls = [asyncio.create_task(reserved(thread, number)) for number in range(6)]
        await asyncio.sleep(0.05)
        ledger.go.set()
        made = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(ledger.batches) == 6
    assert len(ledger.batches) < 6
    assert [isinstance(one, ReservationError) for one in made] == [number == 3 for number in range(6)]


async def test_a_caller_that_goes_away_keeps_no_other_call_back(ledger: Slow) -> None:
    """What was reserved for it is given back."""
    with closing(LedgerThread(ledger)) as thread:
        calls = [asyncio.create_task(reserved(thread, number)) for number in range(3)]
        await asyncio.sleep(0.05)
        calls[1].cancel()
        ledger.go.set()
        made = await asyncio.gather(*calls, return_exceptions=True)
        await thread.do(ledger.reap)  # behind whatever the thread still had to do
        assert isinstance(made[1], asyncio.CancelledError)
        assert all(isinstance(one, Reservation) for one in (made[0], made[2]))
        [line] = ledger.budgets.ls("acme/clerk/run_1", runs=True)
        assert line.held.steps == 2
