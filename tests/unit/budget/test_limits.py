"""A run's limits are safe unless lifted explicitly, exact in money, and refuse what is no limit."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar.budget.amounts import DIMENSIONS
from bursar.budget.errors import UsageError
from bursar.budget.limits import COUNT_MAX, Limits

_COUNTS = st.none() | st.integers(min_value=0, max_value=COUNT_MAX)
_USD = st.none() | st.integers(min_value=0, max_value=10**15).map(lambda nano: Decimal(nano).scaleb(-9))
_LIMITS = st.builds(
    Limits,
    steps=_COUNTS,
    tool_calls=_COUNTS,
    tokens=_COUNTS,
    cost_usd=_USD,
    seconds=st.none() | st.integers(1, 10**9) | st.floats(min_value=0.001, max_value=1e9),
)


def test_limits_left_out_are_safe() -> None:
    assert Limits() == Limits(steps=50, tool_calls=200, tokens=None, cost_usd="1", seconds=600)


def test_none_lifts_a_limit_and_only_that_one() -> None:
    assert Limits(cost_usd=None).cost_usd is None
    assert Limits(cost_usd=None).nanousd is None
    assert Limits(cost_usd=None).steps == 50


def test_unlimited_lifts_every_limit() -> None:
    assert set(Limits.unlimited().to_record().values()) == {None}


@pytest.mark.parametrize("written", ["0.25", Decimal("0.25")])
def test_money_is_kept_as_decimal_and_counted_in_nano_usd(written: str | Decimal) -> None:
    limits = Limits(cost_usd=written)
    assert isinstance(limits.cost_usd, Decimal)
    assert limits.nanousd == 250_000_000


def test_a_whole_number_of_dollars_is_money() -> None:
    assert Limits(cost_usd=3).nanousd == 3_000_000_000


def test_money_as_a_float_says_to_quote_it() -> None:
    with pytest.raises(TypeError, match=r'limits\.cost_usd: 0\.25 is a float.* quote it: cost_usd="0\.25"'):
        Limits(cost_usd=0.25)  # type: ignore[arg-type]  # the mistake under test


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("steps", -1, "a whole number from 0"),
        ("steps", 1.5, "a whole number from 0"),
        ("steps", True, "a whole number from 0"),
        ("steps", "50", "a whole number from 0"),
        ("tool_calls", 2**63, "a whole number from 0"),
        ("tokens", math.nan, "a whole number from 0"),
        ("cost_usd", "-0.01", "an amount of USD"),
        ("cost_usd", "NaN", "an amount of USD"),
        ("cost_usd", Decimal("Infinity"), "an amount of USD"),
        ("cost_usd", "a lot", "an amount of USD"),
        ("cost_usd", "0.0000000001", "an amount of USD"),
        ("cost_usd", True, "an amount of USD"),
        ("cost_usd", [1], "an amount of USD"),
        ("seconds", 0, "a number of seconds above 0"),
        ("seconds", -1.5, "a number of seconds above 0"),
        ("seconds", math.nan, "a number of seconds above 0"),
        ("seconds", math.inf, "a number of seconds above 0"),
        ("seconds", True, "a number of seconds above 0"),
        ("seconds", "60", "a number of seconds above 0"),
    ],
)
def test_what_is_no_limit_names_the_key_the_value_and_what_was_expected(key: str, value: Any, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        Limits(**{key: value})
    assert f"limits.{key}: " in str(caught.value)
    assert repr(value) in str(caught.value)
    assert f"expected {expected}" in str(caught.value)


def test_limits_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Limits().steps = 1_000  # type: ignore[misc]  # the mistake under test


def test_tightened_takes_the_smaller_limit_of_each_kind() -> None:
    assert Limits(steps=10, tokens=None, cost_usd="2").tightened(Limits(steps=20, tokens=5, cost_usd=None)) == Limits(
        steps=10, tokens=5, cost_usd="2"
    )


def test_a_limit_left_out_tightens_nothing() -> None:
    agents = Limits(steps=500, tool_calls=2000, seconds=7200, cost_usd="20", tokens=10**6)
    assert agents.tightened(Limits(cost_usd="10")) == replace(agents, cost_usd="10")
    assert Limits(cost_usd="10").tightened(agents) == replace(agents, cost_usd="10")
    assert agents.tightened(Limits()) == agents


def test_a_limit_that_was_lifted_explicitly_stays_lifted_and_one_that_nobody_gave_is_safe() -> None:
    lifted = Limits(seconds=None).tightened(Limits(steps=500))
    assert lifted == Limits(seconds=None, steps=500)
    assert lifted.tightened(Limits(cost_usd="10")) == Limits(seconds=None, steps=500, cost_usd="10")


def test_a_copy_remembers_what_was_left_out() -> None:
    agents = Limits(steps=500)
    assert copy.copy(agents).tightened(Limits(tool_calls=2000)) == Limits(steps=500, tool_calls=2000)
    assert agents.tightened(pickle.loads(pickle.dumps(Limits()))) == agents


@given(_LIMITS, _LIMITS)
def test_tightening_is_never_looser_than_either_and_does_not_depend_on_the_order(one: Limits, other: Limits) -> None:
    tight = one.tightened(other)
    assert tight == other.tightened(one) == tight.tightened(one)
    for key in tight.to_record():
        bounds = [getattr(limits, key) for limits in (one, other) if getattr(limits, key) is not None]
        assert getattr(tight, key) == (min(bounds) if bounds else None)


@given(_LIMITS)
def test_limits_survive_json(limits: Limits) -> None:
    assert Limits.from_record(json.loads(json.dumps(limits.to_record()))) == limits


def test_a_record_with_an_unknown_key_names_it_and_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"unknown key 'usd'; expected some of steps, tool_calls, tokens, cost_usd"):
        Limits.from_record({"usd": "1"})


def test_the_ledger_gets_one_limit_for_each_of_its_dimensions() -> None:
    limits = Limits(steps=3, tool_calls=None, tokens=40_000, cost_usd="0.25")
    assert tuple(limits.as_amounts_limit()) == DIMENSIONS
    assert limits.as_amounts_limit() == {"nanousd": 250_000_000, "tokens": 40_000, "steps": 3, "tool_calls": None}
