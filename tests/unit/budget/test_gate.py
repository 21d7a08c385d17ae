from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from bursar.budget import Ledger, Limits, Refusal, Scope
from bursar.budget.errors import ConflictError, NotFoundError, UsageError
from bursar.budget.gate import Hold
from bursar.budget.limits import SECONDS_MAX
from bursar.budget.testing import NOON, SUPPORT, Clock, a_call, a_quote, reserved

RUN = SUPPORT.run_path
TIMED = Scope(tenant="acme", agents=("support",), run_id="timed")


@pytest.fixture
def timed(ledger: Ledger) -> str:
    """A run with a hundred seconds of working time."""
    ledger.gates.open(TIMED, Limits(seconds=100))
    return TIMED.run_path


def cause(ledger: Ledger, scope: Scope, epoch: int) -> str:
    refusal = ledger.reserve(a_call(scope=scope, epoch=epoch), a_quote())
    assert isinstance(refusal, Refusal)
    return refusal.cause


# --- Who executes a run -----------------------------------------------------------------------------------------------


def test_a_run_is_held_by_one_worker_while_it_shows_signs_of_life(ledger: Ledger, clock: Clock) -> None:
    ledger.gates.hold(RUN, "worker a", 10)
    clock.advance(seconds=9)
    ledger.gates.renew("worker a", 10)
    clock.advance(seconds=9)
    with pytest.raises(ConflictError, match="run_1 is being executed by worker a"):
        ledger.gates.hold(RUN, "worker b", 10)
    clock.advance(seconds=1)
    assert ledger.gates.hold(RUN, "worker b", 10).epoch == 2


def test_a_sign_of_life_after_a_take_over_brings_nothing_back(ledger: Ledger, clock: Clock) -> None:
    ledger.gates.hold(RUN, "worker a", 10)
    clock.advance(seconds=10)
    ledger.gates.hold(RUN, "worker b", 10)
    ledger.gates.renew("worker a", 10_000)
    clock.advance(seconds=10)
    ledger.gates.hold(RUN, "worker c", 10)


def test_a_sign_of_life_is_for_every_run_of_the_worker(ledger: Ledger, clock: Clock, timed: str) -> None:
    for path in (RUN, timed):
        ledger.gates.hold(path, "worker a", 10)
    clock.advance(seconds=9)
    ledger.gates.renew("worker a", 10)
    clock.advance(seconds=9)
    for path in (RUN, timed):
        with pytest.raises(ConflictError):
            ledger.gates.hold(path, "worker b", 10)


def test_a_worker_that_takes_its_own_run_again_fences_its_earlier_self(ledger: Ledger) -> None:
    first, second = (ledger.gates.hold(RUN, "worker a", 10).epoch for _ in range(2))
    assert cause(ledger, SUPPORT, first) == "fenced"
    reserved(ledger, a_call(epoch=second))


def test_a_run_that_was_let_go_may_be_taken_at_once(ledger: Ledger) -> None:
    hold = ledger.gates.hold(RUN, "worker a", 1000)
    assert ledger.gates.let_go(RUN, hold.epoch)
    ledger.gates.hold(RUN, "worker b", 1000)


def test_letting_go_of_a_run_that_was_taken_over_does_nothing(ledger: Ledger, clock: Clock) -> None:
    old = ledger.gates.hold(RUN, "worker a", 10)
    clock.advance(seconds=10)
    ledger.gates.hold(RUN, "worker b", 10)
    assert not ledger.gates.let_go(RUN, old.epoch)
    with pytest.raises(ConflictError):
        ledger.gates.hold(RUN, "worker c", 10)


# --- Working time -----------------------------------------------------------------------------------------------------


def test_a_hold_says_until_when_the_run_may_work(ledger: Ledger, timed: str) -> None:
    assert ledger.gates.hold(timed, "worker a", 10) == Hold(1, NOON + timedelta(seconds=100), 100)
    assert ledger.gates.hold(RUN, "worker a", 10) == Hold(1, None, None)


def test_waiting_for_people_takes_no_working_time(ledger: Ledger, clock: Clock, timed: str) -> None:
    hold = ledger.gates.hold(timed, "worker a", 1000)
    clock.advance(seconds=60)
    ledger.gates.let_go(timed, hold.epoch)
    clock.advance(days=30)
    assert ledger.gates.hold(timed, "worker a", 1000).deadline == clock.now + timedelta(seconds=40)


def test_a_worker_that_fell_silent_is_charged_for_the_time_it_was_believed_alive(
    ledger: Ledger, clock: Clock, timed: str
) -> None:
    ledger.gates.hold(timed, "worker a", 30)
    clock.advance(days=1)
    assert ledger.gates.hold(timed, "worker b", 30).deadline == clock.now + timedelta(seconds=70)


def test_a_worker_that_takes_its_own_run_again_is_charged_for_the_time_that_passed(
    ledger: Ledger, clock: Clock, timed: str
) -> None:
    ledger.gates.hold(timed, "worker a", 90)
    clock.advance(seconds=5)
    assert ledger.gates.hold(timed, "worker a", 90).deadline == NOON + timedelta(seconds=100)


def test_a_run_works_to_the_last_moment_of_its_time(ledger: Ledger, clock: Clock, timed: str) -> None:
    hold = ledger.gates.hold(timed, "worker a", 1000)
    clock.now = NOON + timedelta(seconds=100, microseconds=-1)
    reserved(ledger, a_call(scope=TIMED, epoch=hold.epoch))
    clock.now = NOON + timedelta(seconds=100)
    assert cause(ledger, TIMED, hold.epoch) == "deadline"


def test_more_time_counts_from_what_was_used_and_not_from_the_limit(ledger: Ledger, clock: Clock, timed: str) -> None:
    ledger.gates.hold(timed, "worker a", 1000)
    clock.advance(seconds=500)
    ledger.gates.extend(timed, 20, author="dana")
    assert ledger.gates.hold(timed, "worker a", 1000).deadline == clock.now + timedelta(seconds=20)


def test_more_time_before_the_old_is_used_up_is_added_to_it(ledger: Ledger, timed: str) -> None:
    ledger.gates.extend(timed, 20, author="dana")
    assert ledger.gates.hold(timed, "worker a", 1000).deadline == NOON + timedelta(seconds=120)


def test_more_time_gives_no_limit_to_a_run_that_has_none(ledger: Ledger) -> None:
    ledger.gates.extend(RUN, 20, author="dana")
    assert ledger.gates.hold(RUN, "worker a", 10).deadline is None


@pytest.mark.parametrize("seconds", [0, -1e6, math.nan, math.inf, True, "1h", None, SECONDS_MAX + 1])
def test_more_time_that_is_no_time_is_refused_and_changes_nothing(ledger: Ledger, timed: str, seconds: Any) -> None:
    with pytest.raises(UsageError) as caught:
        ledger.gates.extend(timed, seconds, author="dana")
    assert f"grant seconds {seconds!r}: expected a number above 0, at most {SECONDS_MAX}" in str(caught.value)
    assert ledger.gates.hold(timed, "worker a", 10).seconds == 100


def test_more_time_again_and_again_never_ends_beyond_the_last_date(ledger: Ledger, timed: str) -> None:
    with pytest.raises(UsageError, match=f"must not raise its time above {SECONDS_MAX} s"):
        ledger.gates.extend(timed, SECONDS_MAX, author="dana")


def test_an_agent_used_as_a_tool_works_on_its_runs_time(ledger: Ledger, clock: Clock, timed: str) -> None:
    helper = TIMED.child("researcher", "researcher.1")
    ledger.gates.open(helper, Limits(seconds=1))
    hold = ledger.gates.hold(timed, "worker a", 1000)
    clock.advance(seconds=99)
    reserved(ledger, a_call(scope=helper, epoch=hold.epoch))
    clock.advance(seconds=1)
    refusal = ledger.reserve(a_call("call_2", scope=helper, epoch=hold.epoch), a_quote())
    assert isinstance(refusal, Refusal)
    assert (refusal.cause, refusal.path) == ("deadline", timed)


# --- What is written down ---------------------------------------------------------------------------------------------


def test_everything_that_was_done_to_a_run_is_written_with_who_did_it(ledger: Ledger) -> None:
    refusal = Refusal(cause="limit", kind="run", path=RUN, dimension="steps", limit=1, posted=1, needed=1)
    ledger.gates.stop(RUN, refusal)
    ledger.gates.extend(RUN, 20, author="dana")
    ledger.gates.reopen(RUN, author="eve")
    ledger.gates.cancel(RUN, author="finn")
    assert ledger.reports.bill("run_1").changes == [
        (NOON, "stop", "", refusal.words()),
        (NOON, "extend", "dana", "20 s more working time"),
        (NOON, "reopen", "eve", ""),
        (NOON, "cancel", "finn", ""),
    ]


def test_a_stopped_run_remembers_why(ledger: Ledger) -> None:
    assert ledger.gates.stopped(RUN) is None
    refusal = Refusal(cause="limit", kind="tenant", path="acme", dimension="nanousd", limit=5, posted=4, needed=2)
    ledger.gates.stop(RUN, refusal)
    assert ledger.gates.stopped(RUN) == refusal


UNKNOWN: list[Callable[[Ledger, str], object]] = [
    lambda ledger, path: ledger.gates.hold(path, "worker", 10),
    lambda ledger, path: ledger.gates.let_go(path, 1),
    lambda ledger, path: ledger.gates.stop(path, Refusal(cause="limit", kind="tenant", path="acme")),
    lambda ledger, path: ledger.gates.stopped(path),
    lambda ledger, path: ledger.gates.reopen(path, author="dana"),
    lambda ledger, path: ledger.gates.extend(path, 1, author="dana"),
    lambda ledger, path: ledger.gates.cancel(path, author="dana"),
    lambda ledger, path: ledger.gates.is_cancelled(path),
]
NAMES = ["hold", "let_go", "stop", "stopped", "reopen", "extend", "cancel", "is_cancelled"]


@pytest.mark.parametrize("act", UNKNOWN, ids=NAMES)
def test_nothing_done_to_an_unknown_run_is_silently_lost(ledger: Ledger, act: Callable[[Ledger, str], object]) -> None:
    for path in ("acme/support/run_9", "acme"):
        with pytest.raises(NotFoundError, match="there is no run"):
            act(ledger, path)


def test_only_runs_in_this_workers_hands_are_told_as_cancelled(ledger: Ledger, timed: str) -> None:
    ledger.gates.hold(RUN, "worker a", 10)
    ledger.gates.hold(timed, "worker b", 10)
    for path in (RUN, timed):
        ledger.gates.cancel(path, author="dana")
    assert ledger.gates.cancelled("worker a") == {"run_1"}
    assert ledger.gates.cancelled("worker c") == set()


def test_a_run_is_known_as_cancelled_whoever_holds_it(ledger: Ledger, timed: str) -> None:
    ledger.gates.cancel(RUN, author="dana")
    assert ledger.gates.is_cancelled(RUN)
    assert not ledger.gates.is_cancelled(timed)
