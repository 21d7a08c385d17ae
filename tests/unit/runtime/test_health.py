"""A breaker for each model: when it opens, for how long, who tries, and what processes tell each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar.budget import Ledger
from bursar.budget.errors import LedgerUnavailable
from bursar.budget.stores.migrate import migrate
from bursar.runtime.models.causes import CAUSES
from bursar.runtime.models.health import (
    ASKED_S_MAX,
    COOLED_S,
    COOLED_S_MAX,
    FAILURES_MAX,
    QUOTA_S,
    SETUP_S,
    Cooling,
    Health,
)
from bursar.runtime.models.provider import (
    AuthFailed,
    CallTimeout,
    ModelMissing,
    Overloaded,
    ProviderError,
    QuotaExhausted,
    RateLimited,
    RequestRefused,
    Unavailable,
)
from bursar.runtime.runs.model_health import HealthRecords
from bursar.runtime.runs.records import MIGRATIONS

START = datetime(2026, 11, 20, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def pass_s(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(clock)


def fail(health: Health, clock: Clock, error: ProviderError, times: int = 1) -> None:
    for _ in range(times):
        health.failed("m", error, clock.now)


def left_s(health: Health) -> float | None:
    """For how long a call passes the model by."""
    failure = health.cooling("m")
    return None if failure is None else failure.error.retry_after_s


class TestOpening:
    @pytest.mark.parametrize(
        ("error", "seconds"),
        [
            (RateLimited("", retry_after_s=7), 7),
            (RateLimited("", retry_after_s=1e12), ASKED_S_MAX),
            (QuotaExhausted(""), QUOTA_S),
            (QuotaExhausted("", retry_after_s=86_400), 86_400),
            (AuthFailed(""), SETUP_S),
            (ModelMissing(""), SETUP_S),
        ],
    )
    def test_one_failure_is_enough_where_the_next_call_would_fail_too(
        self, health: Health, clock: Clock, error: ProviderError, seconds: float
    ) -> None:
        fail(health, clock, error)
        assert (health.state("m"), left_s(health)) == ("open", seconds)

    @pytest.mark.parametrize("error", [Unavailable(""), CallTimeout(""), RateLimited("")])
    def test_of_what_may_be_a_hiccup_it_takes_some_in_a_row(
        self, health: Health, clock: Clock, error: ProviderError
    ) -> None:
        fail(health, clock, error, FAILURES_MAX - 1)
        assert health.state("m") == "closed"
        fail(health, clock, error)
        assert (health.state("m"), left_s(health)) == ("open", COOLED_S)

    def test_an_answer_between_failures_begins_the_row_anew(self, health: Health, clock: Clock) -> None:
        for _ in range(3):
            fail(health, clock, Unavailable(""), FAILURES_MAX - 1)
            health.answered("m", clock.now)
        assert health.state("m") == "closed"

    @pytest.mark.parametrize("error", [Overloaded("", retry_after_s=60), RequestRefused("")])
    def test_a_full_server_and_a_bad_request_say_nothing_of_the_models_health(
        self, health: Health, clock: Clock, error: ProviderError
    ) -> None:
        fail(health, clock, error, 100)
        assert health.state("m") == "closed"

    def test_the_longer_of_two_pauses_holds(self, health: Health, clock: Clock) -> None:
        fail(health, clock, RateLimited("", retry_after_s=60))
        fail(health, clock, RateLimited("", retry_after_s=2))
        assert left_s(health) == 60
        fail(health, clock, RateLimited("", retry_after_s=90))
        assert left_s(health) == 90

    def test_a_failure_says_why_and_until_when(self, health: Health, clock: Clock) -> None:
        fail(health, clock, QuotaExhausted("no credit left", retry_after_s=60))
        failure = health.cooling("m")
        assert failure is not None
        assert failure.words() == "m: cools down until 2026-11-20 00:01:00 UTC: no credit left"
        assert (failure.cause.name, failure.then, failure.attempts) == ("quota", "next", 0)


class TestHalfOpen:
    @pytest.fixture(autouse=True)
    def opened(self, health: Health, clock: Clock) -> None:
        fail(health, clock, Unavailable(""), FAILURES_MAX)

    def test_one_call_tries_the_model_while_others_pass_it_by(self, health: Health, clock: Clock) -> None:
        clock.pass_s(COOLED_S)
        assert health.state("m") == "half_open"
        assert health.admit("m", within_s=30) is None
        others = health.admit("m", within_s=30)
        assert others is not None
        assert others.error.retry_after_s == 30

    def test_an_answer_closes_it(self, health: Health, clock: Clock) -> None:
        clock.pass_s(COOLED_S)
        health.admit("m", within_s=30)
        health.answered("m", clock.now)
        assert (health.state("m"), health.cooling("m"), health.snapshot()) == ("closed", None, [])

    def test_each_failed_try_doubles_the_time_up_to_a_cap(self, health: Health, clock: Clock) -> None:
        waits = []
        for _ in range(9):
            clock.pass_s(left_s(health) or 0)
            assert health.admit("m", within_s=30) is None
            fail(health, clock, Unavailable(""))
            waits.append(left_s(health))
        assert waits == [min(COOLED_S * 2**n, COOLED_S_MAX) for n in range(1, 10)]

    def test_calls_that_were_under_way_when_it_opened_neither_close_nor_prolong_it(
        self, health: Health, clock: Clock
    ) -> None:
        earlier = clock.now - timedelta(seconds=1)
        clock.pass_s(COOLED_S + 1)
        health.failed("m", CallTimeout(""), earlier)
        health.answered("m", earlier)
        assert health.state("m") == "half_open"

    @pytest.mark.parametrize("how", ["cancelled", "overloaded", "silent"])
    def test_where_a_try_says_nothing_the_next_call_tries(self, health: Health, clock: Clock, how: str) -> None:
        clock.pass_s(COOLED_S)
        health.admit("m", within_s=30)
        if how == "cancelled":
            health.broken_off("m")
        elif how == "overloaded":
            fail(health, clock, Overloaded(""))
        else:
            clock.pass_s(30)
        assert health.admit("m", within_s=30) is None

    def test_a_pause_that_was_asked_for_ends_for_all_at_once(self, health: Health, clock: Clock) -> None:
        clock.pass_s(COOLED_S)
        health.answered("m", clock.now)
        fail(health, clock, RateLimited("", retry_after_s=5))
        clock.pass_s(5)
        assert [health.admit("m", within_s=30) for _ in range(3)] == [None] * 3


ERRORS = st.sampled_from([cause.error for cause in CAUSES])
STEPS = st.lists(
    st.tuples(st.just("fail"), ERRORS, st.none() | st.floats(0, 1e9)) | st.tuples(st.just("pass"), st.floats(0, 400)),
    max_size=60,
)


@given(STEPS)
def test_whatever_happens_a_model_is_tried_again_after_a_bounded_time(steps: list[tuple[object, ...]]) -> None:
    clock = Clock()
    health = Health(clock)
    for step in steps:
        if step[0] == "fail":
            health.failed("m", step[1]("", retry_after_s=step[2]), clock.now)  # type: ignore[operator]
        else:
            clock.pass_s(step[1])  # type: ignore[arg-type]
    left = left_s(health)
    assert left is None or 0 < left <= ASKED_S_MAX
    clock.pass_s(left or 0)
    assert health.admit("m", within_s=1) is None


class TestSharing:
    @pytest.fixture
    def records(self, tmp_path: Path, clock: Clock) -> Iterator[HealthRecords]:
        ledger = Ledger.open(f"sqlite:///{tmp_path}/bursar.db", clock=clock)
        migrate(ledger.store, scripts=MIGRATIONS, version_table="bursar_runs_version")
        yield HealthRecords(ledger.store)
        ledger.close()

    @pytest.fixture
    def processes(self, clock: Clock) -> list[Health]:
        return [Health(clock), Health(clock)]

    def test_others_pass_a_model_by_that_one_found_ill(
        self, records: HealthRecords, clock: Clock, processes: Sequence[Health]
    ) -> None:
        here, there = processes
        fail(here, clock, QuotaExhausted("no credit left"))
        for process in (here, there):
            process.share(records.exchange)
        assert there.snapshot() == here.snapshot() == records.ls()
        assert left_s(there) == QUOTA_S

    @pytest.mark.parametrize("how", ["answered", "cleared", "all cleared"])
    def test_what_ends_for_one_ends_for_all(
        self, records: HealthRecords, clock: Clock, processes: Sequence[Health], how: str
    ) -> None:
        here, there = processes
        fail(here, clock, AuthFailed(""))
        for process in (here, there):
            process.share(records.exchange)
        if how == "answered":
            clock.pass_s(SETUP_S)
            there.answered("m", clock.now)
            there.share(records.exchange)
        else:
            assert [one.model for one in records.clear(None if how == "all cleared" else "m")] == ["m"]
        for process in (here, there):
            process.share(records.exchange)
        assert [process.state("m") for process in processes] == ["closed", "closed"]
        assert records.ls() == []

    def test_what_another_found_later_stands(
        self, records: HealthRecords, clock: Clock, processes: Sequence[Health]
    ) -> None:
        here, there = processes
        fail(here, clock, AuthFailed("old"))
        for process in (here, there):
            process.share(records.exchange)
        clock.pass_s(SETUP_S)
        here.answered("m", clock.now)
        fail(there, clock, AuthFailed("new"))
        for process in (there, here):
            process.share(records.exchange)
        assert [one.detail for one in records.ls()] == ["new"]
        assert here.state("m") == "open"

    def test_clearing_another_model_clears_nothing(self, records: HealthRecords, clock: Clock, health: Health) -> None:
        fail(health, clock, AuthFailed(""))
        health.share(records.exchange)
        assert records.clear("other") == []
        health.share(records.exchange)
        assert health.state("m") == "open"

    def test_a_pause_that_ended_before_it_was_told_is_not_written(
        self, records: HealthRecords, clock: Clock, health: Health
    ) -> None:
        fail(health, clock, RateLimited("", retry_after_s=1))
        clock.pass_s(2)
        health.share(records.exchange)
        assert records.ls() == []

    def test_what_could_not_be_told_is_told_later(self, records: HealthRecords, clock: Clock, health: Health) -> None:
        def away(_: Sequence[Cooling], __: Sequence[Cooling]) -> Sequence[Cooling]:
            raise LedgerUnavailable

        fail(health, clock, AuthFailed(""))
        with pytest.raises(LedgerUnavailable):
            health.share(away)
        health.share(records.exchange)
        assert len(records.ls()) == 1
