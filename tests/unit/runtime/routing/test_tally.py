"""A cascade is used only where the expected cost is lower, and left and taken up again on what was seen."""

from __future__ import annotations

from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar.budget import Store
from bursar.budget.stores.migrate import migrate
from bursar.runtime.routing.tally import RECENT_MAX, TRIES_MIN, Tally, worth_trying
from bursar.runtime.runs.cascades import Cascades, Which
from bursar.runtime.runs.records import MIGRATIONS

WHICH = Which(tenant="acme", agent="clerk", node="model", first="small", then="frontier", verifier="tools")


def tally(accepted: int, of: int = 100, *, cheap: int = 10, strong: int = 100) -> Tally:
    """So many answers of so many tries accepted, at these costs each."""
    return Tally(
        tried=of,
        accepted=accepted,
        recent_tried=of,
        recent_accepted=accepted,
        first_nanousd=cheap * of,
        then_nanousd=strong * (of - accepted),
        instead_nanousd=strong * accepted,
    )


def tries(seen: Tally, calls: int = 2_000) -> int:
    return sum(worth_trying(seen, "small", "frontier", f"call {n}")[0] for n in range(calls))


def test_the_cheap_tier_is_tried_until_the_tally_can_say_something() -> None:
    assert tries(tally(0, TRIES_MIN - 1)) == 2_000
    assert tries(tally(0, TRIES_MIN)) < 200


def test_a_cascade_is_used_exactly_where_a_refused_answer_costs_less_than_an_accepted_one_saves() -> None:
    """At a tenth of the price, a tenth of the answers have to be accepted."""
    assert tries(tally(10)) == 2_000  # (10 + 1) * 100 > (100 + 2) * 10
    assert tries(tally(9)) < 200
    used, why = worth_trying(tally(9), "small", "frontier", "call 1")
    assert (used, why) == (
        False,
        "cascade: straight, 9 of 100 accepted: small first $0.000000101, frontier $0.0000001",
    )


def test_a_cascade_that_does_not_pay_is_tried_now_and_then_and_always_by_the_same_calls() -> None:
    assert 60 <= tries(tally(0)) <= 140  # one in twenty of 2,000
    assert tries(tally(0)) == tries(tally(0))


@given(st.integers(TRIES_MIN, 500), st.data())
def test_more_accepted_answers_never_make_a_cascade_be_left(of: int, data: st.DataObject) -> None:
    accepted = data.draw(st.integers(0, of - 1))
    fewer, more = (worth_trying(tally(n, of), "small", "frontier", "call 1")[0] for n in (accepted, accepted + 1))
    assert more or not fewer


def test_the_share_that_is_accepted_is_said_with_its_interval() -> None:
    assert Tally().accepted_percent is None
    low, high = tally(90).accepted_percent or (0.0, 0.0)
    assert (round(low, 1), round(high, 1)) == (82.6, 94.5)
    assert tally(100).accepted_percent == pytest.approx((96.3, 100), abs=0.1)


def test_what_was_saved_counts_every_try_and_every_verification() -> None:
    seen = Tally(tried=3, accepted=1, first_nanousd=30, verify_nanousd=6, then_nanousd=200, instead_nanousd=100)
    assert seen.saved_nanousd == 100 - 30 - 6


def test_a_tally_sums_up_in_each_kind_of_store_and_older_tries_fade(store_url: str) -> None:
    with closing(Store(store_url)) as store:
        migrate(store, scripts=MIGRATIONS, version_table="bursar_runs_version")
        cascades = Cascades(store)
        assert cascades.standing(WHICH, "run_1", ["a"]) == (Tally(), frozenset())
        cascades.count(WHICH, tally(30, RECENT_MAX - 1))
        for _ in range(2):
            cascades.count(WHICH, Tally(tried=1, recent_tried=1, first_nanousd=5, then_nanousd=7))
        found, _ = cascades.standing(WHICH, "run_1", ["a"])
        assert (found.tried, found.first_nanousd) == (RECENT_MAX + 1, 10 * (RECENT_MAX - 1) + 10)
        assert (found.recent_tried, found.recent_accepted) == (RECENT_MAX // 2 + 1, 15)
        assert cascades.ls("rival") == {}
        assert cascades.ls() == {WHICH: found}
