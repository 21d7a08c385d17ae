"""The store goes away, is cut off in a commit, or is full: what is in memory is written once, and nothing is lost."""

from __future__ import annotations

import resource
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection

from bursar.budget import Amounts, Ledger, Replay, Reservation, Store
from bursar.budget.errors import LedgerUnavailable, ReservationError
from bursar.budget.slices import Slice
from bursar.budget.stores.prepared import driver_of
from bursar.budget.testing import NANO_PER_TOKEN, SUPPORT, Clock, a_call, a_quote, reserved, tokens
from tests.support.ledger import new_store

CALL = 100 * NANO_PER_TOKEN
"""What `a_quote` may cost at most."""


@pytest.fixture
def open_store(store_url: str) -> Callable[[], Store]:
    return partial(Store, store_url)


@pytest.fixture
def bounded(ledger: Ledger) -> Ledger:
    """acme may spend what ten calls may cost."""
    ledger.budgets.set("acme", limit={"nanousd": 10 * CALL}, author="dana")
    return ledger


@pytest.fixture
def held(bounded: Ledger) -> Slice:
    """A slice of three calls, taken while the store could be used."""
    taken = bounded.slices.open(SUPPORT, 0, Amounts(nanousd=3 * CALL), seconds=60, batch=100)
    assert isinstance(taken, Slice)
    return taken


Write = Callable[..., AbstractContextManager[Connection]]


@contextmanager
def away(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing can be written meanwhile."""

    def write(**_: bool) -> AbstractContextManager[Connection]:
        raise LedgerUnavailable("the ledger cannot be reached; nothing was reserved")

    with monkeypatch.context() as patch:
        patch.setattr(store, "write", write)
        yield


@contextmanager
def cut_off(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every commit is done, and nobody hears of it."""
    whole: Write = store.write

    @contextmanager
    def write(*, durable: bool = False) -> Iterator[Connection]:
        with whole(durable=durable) as connection:
            yield connection
        raise LedgerUnavailable("the ledger was cut off during a commit", in_doubt=True)

    with monkeypatch.context() as patch:
        patch.setattr(store, "write", write)
        yield


def admitted(one: Slice, name: str) -> Reservation:
    made = one.reserve(a_call(name), a_quote())
    assert isinstance(made, Reservation), made
    return made


def spent(one: Slice, name: str, count: int) -> None:
    one.settle(admitted(one, name), usage=tokens(count), outcome="exact", reply=name)


# --- A slice ----------------------------------------------------------------------------------------------------------


def test_a_slice_admits_and_settles_while_the_store_is_away_and_writes_when_it_is_back(
    bounded: Ledger, held: Slice, monkeypatch: pytest.MonkeyPatch
) -> None:
    with away(bounded.store, monkeypatch):
        with pytest.raises(LedgerUnavailable):
            bounded.reserve(a_call("asked"), a_quote())
        spent(held, "a", 10)
        spent(held, "b", 20)
        with pytest.raises(LedgerUnavailable):
            held.flush()
    assert held.flush() == 2
    assert bounded.budgets.ls("acme")[0].posted.nanousd == 30 * NANO_PER_TOKEN
    replay = bounded.reserve(a_call("b"), a_quote())
    assert isinstance(replay, Replay)
    assert replay.reply == "b"


def test_while_the_store_is_away_no_more_is_admitted_than_was_held_before(
    bounded: Ledger, held: Slice, monkeypatch: pytest.MonkeyPatch
) -> None:
    with away(bounded.store, monkeypatch):
        for name in ("a", "b", "c"):
            held.settle(admitted(held, name), usage=None, outcome="unknown")
        assert held.reserve(a_call("d"), a_quote()) is None
    held.close()
    [line] = bounded.budgets.ls("acme")
    assert (line.posted.nanousd, line.held.nanousd) == (3 * CALL, 0)


def test_a_batch_whose_commit_was_cut_off_is_written_once(
    bounded: Ledger, held: Slice, monkeypatch: pytest.MonkeyPatch
) -> None:
    spent(held, "a", 10)
    with cut_off(bounded.store, monkeypatch), pytest.raises(LedgerUnavailable):
        held.flush()
    with away(bounded.store, monkeypatch), pytest.raises(LedgerUnavailable):
        held.flush()
    spent(held, "b", 20)
    held.flush()
    assert bounded.budgets.ls("acme")[0].posted == Amounts(30 * NANO_PER_TOKEN, 30, 2, 0)


def test_a_slice_whose_end_was_cut_off_is_given_back_once(
    bounded: Ledger, held: Slice, monkeypatch: pytest.MonkeyPatch
) -> None:
    spent(held, "a", 10)
    held.flush()
    with cut_off(bounded.store, monkeypatch), pytest.raises(LedgerUnavailable):
        held.close()
    held.close()
    [line] = bounded.budgets.ls("acme")
    assert (line.posted.tokens, line.held.nanousd) == (10, 0)


def test_calls_go_on_while_a_batch_is_being_written(
    held: Slice, bounded: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    spent(held, "a", 10)
    begun, go_on = threading.Event(), threading.Event()
    whole: Write = bounded.store.write

    def slowly(**how: bool) -> AbstractContextManager[Connection]:
        begun.set()
        assert go_on.wait(10)
        return whole(**how)

    monkeypatch.setattr(bounded.store, "write", slowly)
    writer = threading.Thread(target=held.flush)
    writer.start()
    assert begun.wait(10)
    spent(held, "b", 20)
    go_on.set()
    writer.join()
    assert held.flush() == 1


def test_a_slice_is_renewed_until_it_is_given_up(bounded: Ledger, held: Slice, clock: Clock) -> None:
    clock.advance(seconds=50)
    assert held.renew(60)
    clock.advance(seconds=50)
    assert bounded.reap() == 0
    spent(held, "a", 10)
    clock.advance(seconds=20)
    assert bounded.reap() == 1
    assert not held.renew(60)
    assert held.reserve(a_call("b"), a_quote()) is None
    held.close()
    assert bounded.budgets.ls("acme")[0].posted.tokens == 10


def test_a_call_that_the_ledger_admitted_is_known_to_the_slice(bounded: Ledger, held: Slice) -> None:
    made = reserved(bounded, a_call("a"))
    held.learn(a_call("a"), made.attempt)
    assert admitted(held, "a").attempt == 1
    held.learn(a_call("b"), 0, "said")
    replay = held.reserve(a_call("b"), a_quote())
    assert isinstance(replay, Replay)
    assert replay.reply == "said"


def test_a_call_of_which_the_ledger_gave_no_answer_leaves_it_one_attempt(bounded: Ledger, held: Slice) -> None:
    late = reserved(bounded, a_call("a"))
    made = held.reserve(a_call("a"), a_quote(), skip=True)
    assert isinstance(made, Reservation)
    assert (late.attempt, made.attempt) == (0, 1)
    held.settle(made, usage=tokens(10), outcome="exact", reply="said")
    bounded.release(late, note="it came late")
    held.flush()
    assert isinstance(bounded.reserve(a_call("a"), a_quote()), Replay)


# --- A call -----------------------------------------------------------------------------------------------------------


def test_a_reservation_that_nobody_heard_of_is_forgotten_and_no_other(
    bounded: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, sent = reserved(bounded, a_call("a"), deadline_us=1), reserved(bounded, a_call("b"), deadline_us=2**60)
    bounded.dispatch(sent)
    with cut_off(bounded.store, monkeypatch), pytest.raises(LedgerUnavailable):
        bounded.reserve(a_call("a"), a_quote(), deadline_us=2)
    assert [bounded.forget(a_call(name), deadline_us=until) for name, until in (("a", 2), ("b", 2**60))] == [1, 0]
    assert bounded.budgets.ls("acme")[0].held.nanousd == 2 * CALL
    bounded.release(other, note="the test is over")
    bounded.settle(sent, usage=tokens(1), outcome="exact")


def test_a_settle_whose_commit_was_cut_off_is_done_again_without_effect(
    bounded: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = reserved(bounded, a_call())
    bounded.dispatch(made)
    with cut_off(bounded.store, monkeypatch), pytest.raises(LedgerUnavailable):
        bounded.settle(made, usage=tokens(10), outcome="exact", reply="said")
    bounded.settle(made, usage=tokens(10), outcome="exact", reply="said")
    assert bounded.budgets.ls("acme")[0].posted == Amounts(10 * NANO_PER_TOKEN, 10, 1, 0)


def test_what_was_dispatched_in_a_commit_that_was_cut_off_is_given_back_before_it_is_sent(
    bounded: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = reserved(bounded, a_call())
    with cut_off(bounded.store, monkeypatch), pytest.raises(LedgerUnavailable):
        bounded.dispatch(made)
    with pytest.raises(ReservationError, match="no longer held"):
        bounded.dispatch(made)
    bounded.release(made, note="it was never sent")
    assert not bounded.budgets.ls("acme")[0].held


# --- A full disk ------------------------------------------------------------------------------------------------------


class TestFullDisk:
    """SQLite alone: what a server does then is its own affair, and is said in its words."""

    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Callable[[], Store]:
        with closing(new_store(tmp_path)) as store:
            return partial(Store, store.url)

    @contextmanager
    def full(self, store: Store) -> Iterator[None]:
        """The file cannot grow, not by a page."""

        def bound(pages: int) -> None:
            with store.write() as connection:
                driver_of(connection).execute(f"PRAGMA max_page_count = {pages}", ())

        bound(1)  # SQLite makes that as many as there are
        yield
        bound(2**30)

    @contextmanager
    def no_larger_than(self, size: int) -> Iterator[None]:
        """No file of this process grows beyond so many bytes."""
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    @staticmethod
    def until_full(write: Callable[[int], object]) -> None:
        """Write again and again; the error says what to do."""
        with pytest.raises(LedgerUnavailable, match=r"-> (free some space|check the disk)"):
            _all(map(write, range(10_000)))

    def test_a_reserve_is_refused_in_words_and_made_when_there_is_space(self, ledger: Ledger) -> None:
        with self.full(ledger.store):
            self.until_full(lambda number: reserved(ledger, a_call(f"call_{number}" + "x" * 2_000)))
        before = ledger.budgets.ls("acme/support", runs=True)[-1].held.steps
        reserved(ledger, a_call("now"))
        assert ledger.budgets.ls("acme/support", runs=True)[-1].held.steps == before + 1

    def test_a_call_that_was_sent_stays_charged_and_is_settled_when_there_is_space(self, ledger: Ledger) -> None:
        made = [reserved(ledger, a_call(f"call_{number}")) for number in range(50)]
        for one in made:
            ledger.dispatch(one)
        settle = partial(ledger.settle, usage=tokens(10), outcome="exact", reply="x" * 4_000)
        with self.full(ledger.store):
            self.until_full(lambda number: settle(made[number]))
        for one in made:
            settle(one)
        line = ledger.budgets.ls("acme/support", runs=True)[-1]
        assert (line.posted.steps, line.held.steps) == (50, 0)

    def test_a_call_whose_dispatch_failed_for_want_of_space_is_not_sent_and_can_be_given_back(
        self, ledger: Ledger, tmp_path: Path
    ) -> None:
        made = [reserved(ledger, a_call(f"call_{number}")) for number in range(50)]
        with self.no_larger_than((tmp_path / "ledger.db-wal").stat().st_size):
            self.until_full(lambda number: ledger.dispatch(made[number]))
        for one in made:
            ledger.release(one, note="it was not sent")
        line = ledger.budgets.ls("acme/support", runs=True)[-1]
        assert not line.posted
        assert not line.held


def _all(made: Iterable[object]) -> None:
    for _ in made:
        pass
