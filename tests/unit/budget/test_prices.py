from __future__ import annotations

import json
from datetime import date
from decimal import Context, Decimal, localcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar.budget.money import ceil_nanousd
from bursar.budget.prices import OUTPUT_TOKENS_UNBOUNDED, LongContext, Price
from bursar.budget.usage import Usage

ROW: dict[str, Any] = {"id": "test:row", "source": "a test", "effective": date(2026, 11, 20)}


def price(input_usd: str = "2", output_usd: str = "8", **more: Any) -> Price:
    return Price(**ROW, input_usd_per_mtok=Decimal(input_usd), output_usd_per_mtok=Decimal(output_usd), **more)


LONG = price(
    cache_read_usd_per_mtok=Decimal("0.5"),
    long_context=LongContext(
        above_input_tokens=200_000,
        input_usd_per_mtok=Decimal(4),
        output_usd_per_mtok=Decimal(12),
        cache_read_usd_per_mtok=Decimal(1),
    ),
)


@st.composite
def usages(draw: st.DrawFn, max_tokens: int = 500_000) -> Usage:
    input_tokens, output_tokens = draw(st.integers(0, max_tokens)), draw(st.integers(0, max_tokens))
    cache_read_tokens = draw(st.integers(0, input_tokens))
    return Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cache_read_tokens=cache_read_tokens,
        cache_write_tokens=draw(st.integers(0, input_tokens - cache_read_tokens)),
        reasoning_tokens=draw(st.integers(0, output_tokens)),
    )


usd_per_mtok = st.decimals(min_value=0, max_value=1000, places=9)
rates = st.fixed_dictionaries(
    {"input_usd_per_mtok": usd_per_mtok, "output_usd_per_mtok": usd_per_mtok},
    optional={
        "cache_read_usd_per_mtok": usd_per_mtok,
        "cache_write_usd_per_mtok": usd_per_mtok,
        "reasoning_usd_per_mtok": usd_per_mtok,
    },
)
long_contexts = st.builds(
    lambda above, prices: LongContext(above_input_tokens=above, **prices), st.integers(0, 400_000), rates
)
prices = st.builds(lambda prices, long: Price(**ROW, **prices, long_context=long), rates, st.none() | long_contexts)


# --- What a call costs ------------------------------------------------------------------------------------------------


def test_tokens_cost_their_price_per_million() -> None:
    assert price().cost(Usage(input_tokens=1_000_000, output_tokens=500_000)) == 6_000_000_000


def test_cached_input_has_its_own_price_and_is_not_charged_as_input_too() -> None:
    usage = Usage(input_tokens=1_000, output_tokens=0, cache_read_tokens=400)
    assert price(cache_read_usd_per_mtok=Decimal("0.5")).cost(usage) == 600 * 2_000 + 400 * 500


def test_input_written_to_the_cache_has_its_own_price() -> None:
    usage = Usage(input_tokens=1_000, output_tokens=0, cache_read_tokens=100, cache_write_tokens=300)
    assert price(cache_write_usd_per_mtok=Decimal("2.5")).cost(usage) == 600 * 2_000 + 100 * 2_000 + 300 * 2_500


def test_reasoning_has_its_own_price_and_is_not_charged_as_output_too() -> None:
    usage = Usage(input_tokens=0, output_tokens=1_000, reasoning_tokens=900)
    assert price(reasoning_usd_per_mtok=Decimal(3)).cost(usage) == 100 * 8_000 + 900 * 3_000


def test_a_kind_of_token_without_a_price_of_its_own_costs_the_plain_price() -> None:
    plain = Usage(input_tokens=900, output_tokens=90)
    parted = Usage(input_tokens=900, output_tokens=90, cache_read_tokens=1, cache_write_tokens=2, reasoning_tokens=3)
    assert price().cost(parted) == price().cost(plain)


def test_a_price_of_zero_for_cached_input_is_a_price_and_not_a_missing_one() -> None:
    usage = Usage(input_tokens=10, output_tokens=0, cache_read_tokens=10)
    assert price(cache_read_usd_per_mtok=Decimal(0)).cost(usage) == 0


def test_input_at_the_threshold_still_has_the_plain_prices() -> None:
    usage = Usage(input_tokens=200_000, output_tokens=100, cache_read_tokens=50_000)
    assert LONG.cost(usage) == 150_000 * 2_000 + 50_000 * 500 + 100 * 8_000


def test_one_token_over_the_threshold_all_tokens_have_the_long_prices() -> None:
    usage = Usage(input_tokens=200_001, output_tokens=100, cache_read_tokens=50_000)
    assert LONG.cost(usage) == 150_001 * 4_000 + 50_000 * 1_000 + 100 * 12_000


def test_a_cost_is_rounded_up_once_and_not_per_part() -> None:
    third = price("0.0003", "0.0003")
    assert third.cost(Usage(input_tokens=1, output_tokens=0)) == 1, "0.3 nano-USD is rounded up"
    assert third.cost(Usage(input_tokens=1, output_tokens=1)) == 1, "0.6 nano-USD, not twice 1"
    assert third.cost(Usage(input_tokens=2, output_tokens=2)) == 2, "1.2 nano-USD"


@given(prices, usages())
def test_the_lines_of_a_cost_add_up_to_it(price: Price, usage: Usage) -> None:
    lines = price.explain(usage)
    assert sum(line.tokens for line in lines) == usage.total_tokens
    with localcontext(Context(prec=60)):
        assert all(line.usd == line.tokens * line.usd_per_mtok / 1_000_000 for line in lines)
        assert ceil_nanousd(sum((line.usd for line in lines), Decimal(0))) == price.cost(usage)


def test_lines_name_the_kind_of_token_and_show_the_price_as_published() -> None:
    usage = Usage(input_tokens=300_000, output_tokens=10, cache_read_tokens=1)
    assert [line[:3] for line in LONG.explain(usage)] == [
        ("long-context input", 299_999, Decimal(4)),
        ("long-context cached input", 1, Decimal(1)),
        ("long-context output", 10, Decimal(12)),
    ]
    assert LONG.explain(Usage(input_tokens=0, output_tokens=0)) == []


# --- What a call may cost ---------------------------------------------------------------------------------------------


@given(prices, usages(), st.integers(0, 10**6), st.integers(0, 10**6))
def test_no_usage_within_the_bounds_costs_more_than_the_worst_case(
    price: Price, usage: Usage, more_input: int, more_output: int
) -> None:
    worst = price.worst_case(usage.input_tokens + more_input, usage.output_tokens + more_output)
    assert price.cost(usage) <= worst


def test_the_worst_case_takes_the_dearest_way_to_bill_a_token() -> None:
    dear = price(cache_write_usd_per_mtok=Decimal("2.5"), reasoning_usd_per_mtok=Decimal(9))
    assert dear.worst_case(1_000, 100) == 1_000 * 2_500 + 100 * 9_000


def test_the_worst_case_has_the_long_prices_only_above_the_threshold() -> None:
    assert LONG.worst_case(200_000, 1) == 200_000 * 2_000 + 8_000
    assert LONG.worst_case(200_001, 1) == 200_001 * 4_000 + 12_000


def test_a_long_context_that_is_cheaper_does_not_lower_the_worst_case() -> None:
    cheap = LongContext(above_input_tokens=10, input_usd_per_mtok=Decimal(1), output_usd_per_mtok=Decimal(1))
    bounded = price(long_context=cheap)
    assert bounded.worst_case(11, 5) == 11 * 2_000 + 5 * 8_000, "ten tokens may be all that is read"


@given(prices, st.integers(-(10**12), 10**12), st.integers(0, 500_000))
def test_the_output_that_fits_is_the_largest_that_does(price: Price, nanousd: int, input_tokens: int) -> None:
    fits = price.output_tokens_within(nanousd, input_tokens)
    if fits == -1:
        assert price.worst_case(input_tokens, 0) > nanousd
        return
    assert price.worst_case(input_tokens, fits) <= nanousd
    if fits != OUTPUT_TOKENS_UNBOUNDED:
        assert price.worst_case(input_tokens, fits + 1) > nanousd


def test_output_that_costs_nothing_is_not_bounded_by_money_once_the_input_fits() -> None:
    embedding = price("1", "0")
    assert embedding.output_tokens_within(1_000, 1) == OUTPUT_TOKENS_UNBOUNDED
    assert embedding.output_tokens_within(999, 1) == -1


# --- What a price is --------------------------------------------------------------------------------------------------


def test_free_is_said_aloud_and_costs_nothing() -> None:
    free = Price.free(**ROW)
    assert free.is_free
    assert free.cost(Usage(input_tokens=10**9, output_tokens=10**9)) == 0
    assert free.output_tokens_within(0, 10**9) == OUTPUT_TOKENS_UNBOUNDED


@pytest.mark.parametrize(
    "almost",
    [
        price("0", "0.000000001"),
        price("0", "0", cache_write_usd_per_mtok=Decimal(1)),
        price("0", "0", reasoning_usd_per_mtok=Decimal(1)),
        price(
            "0",
            "0",
            long_context=LongContext(
                above_input_tokens=1, input_usd_per_mtok=Decimal(1), output_usd_per_mtok=Decimal(0)
            ),
        ),
    ],
)
def test_a_price_under_which_any_call_costs_something_is_not_free(almost: Price) -> None:
    assert not almost.is_free


@pytest.mark.parametrize(
    "field",
    [
        "input_usd_per_mtok",
        "output_usd_per_mtok",
        "cache_read_usd_per_mtok",
        "cache_write_usd_per_mtok",
        "reasoning_usd_per_mtok",
    ],
)
@pytest.mark.parametrize("wrong", ["-1", "NaN", "Infinity", "0.0000000001", "1e30"])
def test_a_price_that_is_none_is_refused_by_field_value_and_expectation(field: str, wrong: str) -> None:
    fields: dict[str, Any] = {
        "input_usd_per_mtok": Decimal(1),
        "output_usd_per_mtok": Decimal(1),
        field: Decimal(wrong),
    }
    with pytest.raises(ValueError, match=f"^{field} must be USD per million tokens, 0 or more") as caught:
        Price(**ROW, **fields)
    assert repr(Decimal(wrong)) in str(caught.value)


@pytest.mark.parametrize("wrong", [0.4, 1, "1", None])
def test_a_price_is_a_decimal_and_never_a_float(wrong: Any) -> None:
    with pytest.raises(TypeError, match="input_usd_per_mtok must be a Decimal"):
        Price(**ROW, input_usd_per_mtok=wrong, output_usd_per_mtok=Decimal(1))


def test_a_negative_threshold_is_refused() -> None:
    with pytest.raises(ValueError, match="above_input_tokens must be 0 or more: -1"):
        LongContext(above_input_tokens=-1, input_usd_per_mtok=Decimal(1), output_usd_per_mtok=Decimal(1))


@given(prices)
def test_a_price_comes_back_from_its_record_in_json_unchanged(price: Price) -> None:
    assert Price.from_record(json.loads(json.dumps(price.to_record()))) == price


def test_a_record_writes_prices_as_published() -> None:
    assert price("0.40", "1.6").to_record() == {
        "id": "test:row",
        "source": "a test",
        "effective": "2026-11-20",
        "input_usd_per_mtok": "0.40",
        "output_usd_per_mtok": "1.6",
    }


@pytest.mark.parametrize(
    "change",
    [
        {"id": ...},
        {"input_usd_per_mtok": "cheap"},
        {"input_usd_per_mtok": "-1"},
        {"effective": "yesterday"},
        {"effective": None},
        {"long_context": {"above_input_tokens": 1}},
    ],
)
def test_what_is_no_price_record_is_refused(change: dict[str, Any]) -> None:
    record = {key: value for key, value in {**price().to_record(), **change}.items() if value is not ...}
    with pytest.raises(ValueError, match=r"price record|USD per million|isoformat"):
        Price.from_record(record)
