"""Who is dead is judged by what was seen of them, on this process's own clock."""

from __future__ import annotations

from typing import Any

import pytest

from bursar.budget.gate import Sign
from bursar.runtime.runs.records import Held
from bursar.runtime.watch import Watch

LEASE_S = 10.0


class Monotonic:
    """A clock that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.now


@pytest.fixture
def clock() -> Monotonic:
    return Monotonic()


@pytest.fixture
def watch(clock: Monotonic) -> Watch:
    return Watch(LEASE_S, clock)


def held(
    run_id: str = "run_1", *, holder: str | None = "other", epoch: int = 1, lease_until_us: int | None = 1
) -> Held:
    row: Any = {"id": run_id}
    return Held(run=row, sign=Sign(holder, epoch, lease_until_us), is_cancelled=False)


def test_a_sign_that_does_not_change_for_a_leases_time_is_the_last(watch: Watch, clock: Monotonic) -> None:
    one = held()
    for clock.now in (0, 5, 9.9):
        assert watch.silent([one]) == []
    clock.now = 10
    assert watch.silent([one]) == [one]


@pytest.mark.parametrize("new", [held(lease_until_us=2), held(epoch=2), held(holder="third")])
def test_any_new_sign_is_one_of_life(watch: Watch, clock: Monotonic, new: Held) -> None:
    for clock.now in (0, 5):
        assert watch.silent([held()]) == []
    for clock.now in (9, 14, 18):
        assert watch.silent([new]) == []
    clock.now = 19
    assert watch.silent([new]) == [new]


@pytest.mark.parametrize("lease_until_us", [0, 10**18])
def test_what_the_holders_own_clock_says_counts_for_nothing(
    watch: Watch, clock: Monotonic, lease_until_us: int
) -> None:
    one = held(lease_until_us=lease_until_us)
    for clock.now in (0, LEASE_S / 2):
        assert watch.silent([one]) == []
    clock.now = LEASE_S
    assert watch.silent([one]) == [one]


def test_a_run_that_was_not_seen_meanwhile_is_watched_anew(watch: Watch, clock: Monotonic) -> None:
    """And is not kept in mind."""
    watch.silent([held()])
    clock.now = 5
    watch.silent([])
    clock.now = 12
    assert watch.silent([held()]) == []


def test_a_run_that_somebody_let_go_without_a_word_is_left_too(watch: Watch, clock: Monotonic) -> None:
    one = held(holder=None, lease_until_us=None)
    for clock.now in (0, LEASE_S / 2):
        watch.silent([one])
    clock.now = LEASE_S
    assert watch.silent([one, held("run_2")]) == [one]


def test_nobody_is_judged_by_a_time_in_which_nobody_could_look(watch: Watch, clock: Monotonic) -> None:
    """As when the store was away: nobody else could give a sign of life in it either."""
    one = held()
    watch.silent([one])
    clock.now = 100
    assert watch.silent([one]) == []
    clock.now = 105
    assert watch.silent([one]) == []
    clock.now = 110
    assert watch.silent([one]) == [one]
