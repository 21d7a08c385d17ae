from __future__ import annotations

from decimal import Context, Decimal, localcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar.budget.money import NANO, NANOUSD_MAX, ceil_nanousd, format_usd, nanousd, usd

amounts = st.integers(min_value=0, max_value=NANOUSD_MAX // NANO * NANO)
roughly = st.decimals(min_value=0, max_value=10**6, allow_nan=False, allow_infinity=False)


@given(amounts)
def test_an_amount_comes_back_from_usd_unchanged(nano: int) -> None:
    assert nanousd(usd(nano)) == nano
    assert nanousd(str(usd(nano))) == nano


@given(amounts)
def test_a_callers_decimal_context_changes_no_amount(nano: int) -> None:
    with localcontext(Context(prec=2)):
        assert nanousd(usd(nano)) == nano


@pytest.mark.parametrize(
    ("written", "nano"),
    [("0", 0), ("0.000000001", 1), ("1.50", 1_500_000_000), (Decimal("1e-9"), 1), (3, 3_000_000_000), ("0E+99", 0)],
)
def test_an_amount_is_read_exactly_as_it_is_written(written: Any, nano: int) -> None:
    assert nanousd(written) == nano


@pytest.mark.parametrize("amount", [0.1, 1.0, True])
def test_a_float_is_refused_since_it_is_not_the_amount_that_was_written(amount: Any) -> None:
    with pytest.raises(TypeError, match=r"not (float|bool)"):
        nanousd(amount)


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        ("-0.01", "not be negative"),
        ("NaN", "finite"),
        ("sNaN", "finite"),
        ("Infinity", "finite"),
        ("-Infinity", "finite"),
        ("ten", "not an amount"),
        ("", "not an amount"),
        ("4611686019", "at most 4611686018"),
        ("1e999999", "at most"),
        ("0.0000000001", "finer"),
        ("1e-999999999", "finer"),
        ("1." + "0" * 70 + "1", "finer"),
    ],
)
def test_an_amount_that_the_ledger_cannot_hold_exactly_is_refused(amount: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected) as caught:
        nanousd(amount)
    assert amount in str(caught.value), "the refusal shows what was written"


@given(roughly)
def test_a_cost_is_rounded_up_to_the_next_nano_and_no_further(amount: Decimal) -> None:
    nano = ceil_nanousd(amount)
    with localcontext(Context(prec=200)):
        assert usd(nano) - amount >= 0
        assert usd(nano - 1) < amount


@given(amounts)
def test_an_amount_is_never_shown_smaller_than_it_is_nor_a_cent_larger(nano: int) -> None:
    shown = Decimal(format_usd(nano).removeprefix("$").replace(",", ""))
    assert usd(nano) <= shown < usd(nano) + Decimal("0.01")


@given(st.integers(min_value=1, max_value=NANOUSD_MAX))
def test_a_debt_is_shown_like_an_amount_with_a_sign(nano: int) -> None:
    assert format_usd(-nano) == f"-{format_usd(nano)}"


@pytest.mark.parametrize(
    ("nano", "shown"),
    [
        (0, "$0.00"),
        (1, "$0.000000001"),
        (500_000_000, "$0.50"),
        (213_000, "$0.000213"),
        (1_000_000_001, "$1.01"),
        (1_999_999_999, "$2.00"),
        (999_999_000_000, "$1,000.00"),
        (1_234_560_000_000, "$1,234.56"),
    ],
)
def test_people_see_cents_from_a_dollar_up_and_every_digit_below(nano: int, shown: str) -> None:
    assert format_usd(nano) == shown
