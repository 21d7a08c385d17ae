"""What the command prints: nothing steers the terminal, no amount is made larger than it is, time is local."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar.budget.amounts import Amounts
from bursar.budget.money import NANO, nanousd
from bursar.runtime.cli.shapes import amounts_json, limit_json, money
from bursar.runtime.cli.words import parted, plain, rate_text, short, shown, shown_left, shown_time


@given(st.text(st.characters(codec=None)))
def test_no_control_character_and_no_reordering_mark_survives(text: str) -> None:
    left = [character for character in plain(text) if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")]
    assert set(left) <= {"\n", "\t"}
    assert not any(unicodedata.bidirectional(character) in BIDI for character in plain(text))


BIDI = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs", "M"])))
def test_ordinary_text_in_any_script_is_shown_as_it_is(text: str) -> None:
    assert plain(text) == text


def test_what_is_taken_out_is_written_out() -> None:
    assert plain("a\x1b[31mb\r\x00\u202ec\x85") == r"a\x1b[31mb\r\x00\u202ec\x85"


@given(st.integers(0, 10**18))
def test_money_in_json_is_exact_and_never_in_powers_of_ten(amount: int) -> None:
    assert nanousd(money(amount)) == amount
    assert "E" not in money(amount)


def test_amounts_in_json_name_dollars_and_counts() -> None:
    assert amounts_json(Amounts(1_500_000_000, 2, 3, 4)) == {
        "cost_usd": "1.500000000",
        "tokens": 2,
        "steps": 3,
        "tool_calls": 4,
    }
    assert limit_json({"nanousd": None, "steps": 1}) == {"cost_usd": None, "steps": 1}


@given(limit=st.integers(0, 10**15), posted=st.integers(0, 10**15))
def test_what_is_left_is_never_shown_as_more_than_it_is(limit: int, posted: int) -> None:
    said = Decimal(shown_left("nanousd", limit, posted).removeprefix("$").replace(",", ""))
    assert 0 <= said * NANO <= max(0, limit - posted)
    assert max(0, limit - posted) - said * NANO < NANO / 100


def test_amounts_are_shown_with_their_unit() -> None:
    assert shown("steps", 1) == "1 step"
    assert shown("tool_calls", 1200) == "1,200 tool calls"
    assert shown("nanousd", None) == shown_left("nanousd", None, 5) == "-"


@pytest.mark.parametrize(("price", "text"), [("15", "15.00"), ("0.4", "0.40"), ("0.075", "0.075"), ("0", "0.00")])
def test_a_rate_has_two_decimals_or_as_many_as_it_needs(price: str, text: str) -> None:
    assert rate_text(Decimal(price)) == text


def test_a_time_of_today_is_a_clock_and_another_a_day() -> None:
    now = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
    assert shown_time(now, now=now) == now.astimezone().strftime("%H:%M:%S")
    assert shown_time(now - timedelta(days=40), now=now) == (now - timedelta(days=40)).astimezone().strftime("%d %b %Y")


def test_a_refusal_is_parted_into_what_it_says_and_what_to_do() -> None:
    said = "refused: tenant acme has $1 left. Nothing was sent."
    words = f"{said} -> bursar budget grant acme --usd 50  |  resets 2026-12-01"
    assert parted(words) == (
        f"{said} It resets 2026-12-01.",
        "bursar budget grant acme --usd 50",
    )
    assert parted("all is well") == ("all is well", "")
    assert short(words) == "refused: tenant acme has $1 left"
