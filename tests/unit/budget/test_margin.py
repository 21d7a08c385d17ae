from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from bursar.budget import Ledger, Usage
from bursar.budget.margin import Margins
from bursar.budget.schema import token_margin
from bursar.budget.stores.prepared import driver_of
from bursar.budget.testing import a_call, reserved
from tests.support.ledger import new_store

samples = st.tuples(st.integers(1, 10_000), st.floats(0.2, 3)).map(lambda pair: (pair[0], int(pair[0] * pair[1])))


def learn(ledger: Ledger, counted: int, billed: int, *, times: int = 1, model: str = "small-1") -> None:
    for _ in range(times):
        with ledger.store.write() as connection:
            ledger.margins.learn(connection, model, counted, billed)


def stored(ledger: Ledger) -> tuple[int, int]:
    with ledger.store.read() as connection:
        row = connection.execute(select(token_margin)).one()
    return row.samples, row.ratio_ppm


def test_a_model_that_was_never_called_is_bounded_well_above_our_count(ledger: Ledger) -> None:
    assert ledger.margins.bound("small-1", 1000) == 1171
    assert ledger.margins.bound("small-1", 0) == 1


def test_three_calls_are_trusted_and_fewer_are_not(ledger: Ledger) -> None:
    for expected in (1171, 1171, 1171, 1021):
        assert ledger.margins.bound("small-1", 1000) == expected
        learn(ledger, 1000, 1000)


def test_a_higher_count_is_believed_at_once(ledger: Ledger) -> None:
    learn(ledger, 1000, 1000, times=10)
    learn(ledger, 1000, 1300)
    assert ledger.margins.bound("small-1", 1000) == 1321


@settings(max_examples=30)
@given(st.lists(samples, min_size=5, max_size=20))
def test_the_bound_is_never_below_what_was_just_billed(calls: list[tuple[int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = new_store(Path(folder))
        margins = Margins(store)
        for counted, billed in calls:
            with store.write() as connection:
                margins.learn(connection, "small-1", counted, billed)
            assert margins.bound("small-1", counted) > billed
        store.close()


def test_a_constant_overhead_on_short_requests_is_added_to_a_long_one_and_not_multiplied(ledger: Ledger) -> None:
    learn(ledger, 14, 364, times=10)
    assert ledger.margins.bound("small-1", 14) > 364
    assert ledger.margins.bound("small-1", 20_000) == 23_400 + 350 + 1


def test_a_constant_is_forgotten_as_slowly_as_a_ratio(ledger: Ledger) -> None:
    learn(ledger, 14, 364)
    learn(ledger, 14, 14, times=50)
    assert 100 < ledger.margins.bound("small-1", 14) < 200


def test_a_constant_outlives_the_process_and_the_higher_one_is_kept(
    ledger: Ledger, another: Callable[[], Ledger]
) -> None:
    other = another()
    learn(other, 14, 114)
    learn(ledger, 14, 364)
    learn(other, 14, 164)
    assert another().margins.bound("small-1", 20_000) == 23_400 + 350 + 1


def test_a_short_request_says_nothing_about_the_ratio(ledger: Ledger) -> None:
    learn(ledger, 2_000, 2_000, times=3)
    learn(ledger, 999, 1_499)
    assert ledger.margins.bound("small-1", 100_000) == 102_000 + 500 + 1


def test_an_old_peak_is_slowly_forgotten(ledger: Ledger) -> None:
    learn(ledger, 1000, 1200, times=3)
    bounds = []
    for _ in range(5):
        bounds.append(ledger.margins.bound("small-1", 1000))
        learn(ledger, 1000, 1000, times=50)
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] == 1221
    assert bounds[1] > 1080
    assert bounds[-1] < 1030


def test_requests_of_which_not_all_was_billed_never_take_the_bound_below_our_count(ledger: Ledger) -> None:
    learn(ledger, 5_100, 1_100, times=200)
    assert ledger.margins.bound("small-1", 100_000) == 102_001


def test_each_model_has_its_own(ledger: Ledger) -> None:
    learn(ledger, 1000, 2000, times=3)
    assert ledger.margins.bound("other-1", 1000) == 1171


def test_what_was_learned_outlives_the_process(ledger: Ledger, another: Callable[[], Ledger]) -> None:
    learn(ledger, 1000, 1400, times=3)
    assert another().margins.bound("small-1", 1000) == 1421


def test_what_another_process_learned_higher_is_not_overwritten(ledger: Ledger, another: Callable[[], Ledger]) -> None:
    other = another()
    learn(ledger, 1000, 1000, times=2)
    learn(other, 1000, 1400, times=3)
    learn(ledger, 1000, 1000)
    assert stored(ledger) == (3, 1_400_000)
    assert ledger.margins.bound("small-1", 1000) == 1421


def changes(ledger: Ledger) -> int:
    with ledger.store.write() as connection:
        return cast("sqlite3.Connection", driver_of(connection)).total_changes


def test_steady_counts_are_not_written_again_and_again(ledger: Ledger) -> None:
    learn(ledger, 1000, 1000, times=3)
    before = changes(ledger)
    learn(ledger, 1000, 1003, times=100)
    learn(ledger, 1000, 999, times=100)
    learn(ledger, 100, 110, times=100)
    assert changes(ledger) == before


@pytest.mark.parametrize(("outcome", "learned"), [("exact", 1191), ("unknown", 1171)])
def test_a_settle_teaches_what_the_provider_counted(ledger: Ledger, outcome: str, learned: int) -> None:
    for number in range(3):
        usage = Usage(input_tokens=60, output_tokens=1) if outcome == "exact" else None
        ledger.settle(
            reserved(ledger, a_call(str(number))),
            usage=usage,
            outcome=outcome,  # type: ignore[arg-type]
            counted_input_tokens=40,
        )
    assert ledger.margins.bound("small-1", 1000) == learned
