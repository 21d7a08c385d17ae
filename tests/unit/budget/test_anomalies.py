"""A run that loops, burns or grows dearer is named, once; what merely looks like that is not."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event, insert

from bursar.budget import Ledger, Limits, Scope, Store
from bursar.budget.alerts.anomalies import BURN_MIN, BUSY_MIN, REPEATS_MIN, Step, burn, growth, repetition
from bursar.budget.schema import reservation
from bursar.budget.testing import Clock
from bursar.budget.windows import to_us

SECOND_US = 1_000_000


def steps(*digests: str | None, takes_s: int = 1, each_s: int = 2, costs: Sequence[int] = ()) -> list[Step]:
    """One call after the other, each with a digest."""
    return [
        Step(
            call=f"call {place}",
            digest=digest,
            node="draft",
            model="small-1",
            reserved_us=place * each_s * SECOND_US,
            closed_us=(place * each_s + takes_s) * SECOND_US,
            nanousd=costs[place] if costs else 100,
        )
        for place, digest in enumerate(digests)
    ]


def dearer(*costs: int) -> list[Step]:
    return steps(*map(str, range(len(costs))), costs=costs)


# --- Loops ------------------------------------------------------------------------------------------------------------


def test_a_call_that_is_made_again_and_again_is_a_loop() -> None:
    found = repetition(steps("a", "b", "a", "b", "a", "c", "a", "d", "a"))
    assert found is not None
    assert (found[0].digest, found[1]) == ("a", REPEATS_MIN)
    assert repetition(steps(*["a"] * (REPEATS_MIN - 1))) is None


def test_calls_that_all_differ_or_that_nobody_took_a_digest_of_are_no_loop() -> None:
    assert repetition(steps(*map(str, range(50)))) is None
    assert repetition(steps(*[None] * 50)) is None
    assert repetition([]) is None


def test_samples_of_one_prompt_that_are_taken_side_by_side_are_no_loop() -> None:
    assert repetition(steps(*["a"] * 20, takes_s=100, each_s=1)) is None


def test_rounds_of_samples_are_a_loop_once_there_were_enough_rounds() -> None:
    """Each round begins when all calls of the one before have ended."""
    rounds = [
        Step(
            call=f"{turn}.{sample}",
            digest="a",
            node="draft",
            model=None,
            reserved_us=turn * 10 * SECOND_US + sample,
            closed_us=(turn * 10 + 5) * SECOND_US,
            nanousd=1,
        )
        for turn in range(REPEATS_MIN)
        for sample in range(3)
    ]
    assert repetition(rounds) == (rounds[-3], REPEATS_MIN)
    assert repetition(rounds[:-3]) is None


def test_the_attempts_of_one_call_are_no_loop() -> None:
    attempts = [
        Step(call="call", digest="a", node="n", model=None, reserved_us=place, closed_us=place, nanousd=1)
        for place in range(20)
    ]
    assert repetition(attempts) is None


# --- Growth -----------------------------------------------------------------------------------------------------------


def test_steps_that_grow_dearer_and_dearer_are_told_with_what_they_cost_at_first_and_now() -> None:
    found = growth(dearer(*range(1_000, 21_000, 1_000)))
    assert found is not None
    assert found[1:] == (3_000, 18_000)


@given(st.randoms(use_true_random=False), st.integers(1, 10**9))
def test_steps_whose_cost_merely_varies_by_a_fifth_do_not_grow(rng: random.Random, base: int) -> None:
    assert growth(dearer(*(base + rng.randint(0, base // 5) for _ in range(100)))) is None


def test_a_few_large_answers_are_no_growth() -> None:
    costs = [1_000] * 20
    costs[7] = costs[13] = costs[18] = costs[19] = 500_000
    assert growth(dearer(*costs)) is None


def test_a_long_prompt_to_which_little_is_added_is_no_growth() -> None:
    assert growth(dearer(*range(50_000, 70_000, 1_000))) is None


def test_a_dearer_model_is_no_growth() -> None:
    small, large = dearer(*[100] * 15), dearer(*[10_000] * 15)
    assert growth([*small, *(replace(one, model="large-1") for one in large)]) is None


# --- Burn rate --------------------------------------------------------------------------------------------------------


def test_a_run_burns_when_it_spends_many_times_what_is_usual() -> None:
    usual = [100] * BUSY_MIN
    assert burn(100 * BURN_MIN, usual) == 100
    assert burn(100 * BURN_MIN - 1, usual) is None


def test_nothing_is_unusual_where_too_little_is_known() -> None:
    assert burn(10**12, [1] * (BUSY_MIN - 1)) is None


def test_one_earlier_burst_does_not_change_what_is_usual() -> None:
    assert burn(1_000, [100] * BUSY_MIN + [10**9] * 3) == 100


# --- In the ledger ----------------------------------------------------------------------------------------------------


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(store_url: str, clock: Clock) -> Iterator[Ledger]:
    with closing(Ledger(Store(store_url), clock=clock)) as ledger:
        yield ledger


def opened(ledger: Ledger, run_id: str) -> None:
    ledger.gates.open(Scope(tenant="acme", agents=("support",), run_id=run_id), Limits.unlimited())


def spent(ledger: Ledger, clock: Clock, run_id: str, nanousd: int, *, digest: str | None = None) -> None:
    """A settled call of a run, as the ledger leaves it."""
    now = to_us(clock())
    names = {"tenant": "acme", "agent": "support", "node": "draft", "model": "small-1", "kind": "model"}
    row = {**names, "call": f"call at {now}", "attempt": 0, "state": "settled", "outcome": "exact", "run_id": run_id}
    times = {"reserved_us": now, "closed_us": now + 1, "deadline_us": now + 1}
    with ledger.store.write() as connection:
        all_of = {**row, **times, "epoch": 0, "accounts": "[]", "digest": digest, "posted_nanousd": nanousd}
        connection.execute(insert(reservation).values(all_of))


def told(ledger: Ledger) -> list[tuple[str, str | None]]:
    return [(one.kind, one.run_id) for one in reversed(ledger.alerts.ls())]


def test_a_sweep_names_the_run_that_loops_and_tells_it_once(ledger: Ledger, clock: Clock) -> None:
    for run_id in ("run_1", "run_2"):
        opened(ledger, run_id)
    for turn in range(20):
        clock.advance(seconds=10)
        spent(ledger, clock, "run_1", 1_000, digest="a")
        spent(ledger, clock, "run_2", 1_000, digest=f"turn {turn}")
        ledger.alerts.sweep()
    (one,) = ledger.alerts.ls()
    assert (one.kind, one.tenant, one.path, one.run_id) == ("run.loop", "acme", "acme/support/run_1", "run_1")
    assert dict(one.data) == {
        "scope": "acme/support/run_1",
        "run_id": "run_1",
        "message": "run run_1 made the same call of small-1 5 times",
        "node": "draft",
        "model": "small-1",
        "repeats": 5,
        "next": "bursar budget why run_1; bursar runs cancel run_1",
    }


def test_a_sweep_names_the_run_whose_steps_grow_dearer(ledger: Ledger, clock: Clock) -> None:
    opened(ledger, "run_1")
    for turn in range(30):
        clock.advance(seconds=10)
        spent(ledger, clock, "run_1", 1_000 * (turn + 1))
    assert ledger.alerts.sweep() == 1
    assert told(ledger) == [("run.cost_growth", "run_1")]
    assert ledger.alerts.sweep() == 0


def test_a_sweep_names_the_run_that_burns_and_not_the_others_of_its_agent(ledger: Ledger, clock: Clock) -> None:
    for number in range(20):
        clock.advance(minutes=10)
        opened(ledger, f"run_{number}")
        spent(ledger, clock, f"run_{number}", 1_000)
    clock.advance(minutes=10)
    for run_id, nanousd in (("run_calm", 1_500), ("run_wild", 9_000)):
        opened(ledger, run_id)
        spent(ledger, clock, run_id, nanousd)
    ledger.alerts.sweep()
    (one,) = [line for line in ledger.alerts.ls() if line.kind == "run.burn_rate"]
    assert one.run_id == "run_wild"
    assert (one.data["spent"], one.data["usual"], one.data["minutes"]) == ("0.000009000", "0.000001000", 5)


def test_two_processes_that_sweep_tell_it_once(ledger: Ledger, clock: Clock) -> None:
    opened(ledger, "run_1")
    for _ in range(6):
        clock.advance(seconds=10)
        spent(ledger, clock, "run_1", 1_000, digest="a")
    with closing(Ledger(Store(ledger.store.url), clock=clock)) as other:
        assert [ledger.alerts.sweep(), other.alerts.sweep()] == [1, 0]


def test_a_sweep_reads_no_run_that_was_not_active_since_the_last(ledger: Ledger, clock: Clock) -> None:
    for number in range(20):
        opened(ledger, f"run_{number}")
        spent(ledger, clock, f"run_{number}", 1_000)
        clock.advance(seconds=1)
    clock.advance(minutes=1)
    ledger.alerts.sweep()
    clock.advance(minutes=1)
    spent(ledger, clock, "run_3", 1_000)
    assert statements_of(ledger) <= 6


def statements_of(ledger: Ledger) -> int:
    """How many statements a sweep takes."""
    said: list[str] = []
    with ledger.store.read() as connection:
        engine = connection.engine

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        said.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    ledger.alerts.sweep()
    event.remove(engine, "before_cursor_execute", note)
    return len(said)
