from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from decimal import Context, Decimal, localcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar.budget.money import ceil_nanousd
from bursar.budget.pricing.prices import OUTPUT_TOKENS_UNBOUNDED, PRICE_FIELDS, Bounds, LongContext, Price, Schedule
from bursar.budget.usage import SERVICE_TIERS, Usage

ROW: dict[str, Any] = {"id": "test:row", "source": "a test", "effective": date(2026, 11, 20)}


def price(input_usd: str = "2", output_usd: str = "8", **more: Any) -> Price:
    return Price(**ROW, input_usd_per_mtok=Decimal(input_usd), output_usd_per_mtok=Decimal(output_usd), **more)


LONG = price(
    cache_read_usd_per_mtok=Decimal("0.5"),
    long_context=(
        LongContext(
            above_input_tokens=200_000,
            input_usd_per_mtok=Decimal(4),
            output_usd_per_mtok=Decimal(12),
            cache_read_usd_per_mtok=Decimal(1),
        ),
    ),
)


@st.composite
def usages(draw: st.DrawFn, max_tokens: int = 500_000) -> Usage:
    kinds = draw(st.lists(st.integers(0, max_tokens // 6), min_size=11, max_size=11))
    text, read, read_audio, written, hour, image, audio, output, reasoning, output_image, output_audio = kinds
    return Usage(
        input_tokens=text + read + read_audio + written + hour + image + audio,
        output_tokens=output + reasoning + output_image + output_audio,
        cache_read_tokens=read + read_audio,
        cache_write_tokens=written + hour,
        reasoning_tokens=reasoning,
        cache_write_1h_tokens=hour,
        input_image_tokens=image,
        input_audio_tokens=audio,
        cache_read_audio_tokens=read_audio,
        output_image_tokens=output_image,
        output_audio_tokens=output_audio,
        service_tier=draw(st.sampled_from(SERVICE_TIERS)),
    )


usd_per_mtok = st.decimals(min_value=0, max_value=1000, places=9)
PLAIN = ("input_usd_per_mtok", "output_usd_per_mtok")
rates = st.fixed_dictionaries(
    dict.fromkeys(PLAIN, usd_per_mtok),
    optional={name: usd_per_mtok for name in PRICE_FIELDS if name not in PLAIN},
)
long_contexts = st.lists(
    st.builds(lambda above, prices: LongContext(above_input_tokens=above, **prices), st.integers(0, 400_000), rates),
    max_size=3,
    unique_by=lambda step: step.above_input_tokens,
).map(tuple)
schedules = st.builds(lambda prices, long: Schedule(**prices, long_context=long), rates, long_contexts)
prices = st.builds(
    lambda prices, long, fee, *tiers: Price(
        **ROW,
        **prices,
        long_context=long,
        request_usd=fee,
        **dict(zip(("batch", "flex", "priority"), tiers, strict=True)),
    ),
    rates,
    long_contexts,
    st.sampled_from([Decimal(0), Decimal("0.005")]),
    *[st.none() | schedules] * 3,
)


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


def test_what_is_kept_for_an_hour_costs_its_own_price_and_not_that_of_a_write_too() -> None:
    usage = Usage(input_tokens=1_000, output_tokens=0, cache_write_tokens=500, cache_write_1h_tokens=200)
    dear = price(cache_write_usd_per_mtok=Decimal("2.5"), cache_write_1h_usd_per_mtok=Decimal(4))
    assert dear.cost(usage) == 500 * 2_000 + 300 * 2_500 + 200 * 4_000


def test_images_and_audio_have_prices_of_their_own_in_both_directions_and_in_the_cache() -> None:
    usage = Usage(
        input_tokens=100,
        output_tokens=100,
        cache_read_tokens=30,
        cache_read_audio_tokens=20,
        input_image_tokens=5,
        input_audio_tokens=7,
        reasoning_tokens=40,
        output_image_tokens=2,
        output_audio_tokens=9,
    )
    own: dict[str, Any] = {name: Decimal(2**place) for place, name in enumerate(PRICE_FIELDS)}
    rates = {name: int(own[f"{name}_usd_per_mtok"]) for name in usage.parts._fields}
    spent = (
        *((100 - 30 - 5 - 7) * rates["input"], 10 * rates["cache_read"], 20 * rates["cache_read_audio"]),
        *(5 * rates["input_image"], 7 * rates["input_audio"], 49 * rates["output"], 40 * rates["reasoning"]),
        *(2 * rates["output_image"], 9 * rates["output_audio"]),
    )
    assert Price(**ROW, **own).cost(usage) == sum(spent) * 1_000


def test_cached_audio_costs_what_audio_costs_where_nobody_says_it_is_cheaper() -> None:
    usage = Usage(input_tokens=10, output_tokens=0, cache_read_tokens=10, cache_read_audio_tokens=10)
    heard = price(input_audio_usd_per_mtok=Decimal(32), cache_read_usd_per_mtok=Decimal(1))
    assert heard.cost(usage) == 10 * 32_000


def test_each_step_of_input_length_has_its_own_prices_for_the_whole_call() -> None:
    steps = [
        LongContext(above_input_tokens=above, input_usd_per_mtok=Decimal(usd), output_usd_per_mtok=Decimal(10 * usd))
        for above, usd in ((128_000, 5), (32_000, 3))
    ]
    stepped = price("1", "10", long_context=tuple(steps))
    for tokens, usd in ((32_000, 1), (32_001, 3), (128_000, 3), (128_001, 5), (10**6, 5)):
        assert stepped.cost(Usage(input_tokens=tokens, output_tokens=7)) == (tokens + 70) * usd * 1_000, tokens


def test_two_steps_at_one_length_are_refused() -> None:
    step = LongContext(above_input_tokens=1, input_usd_per_mtok=Decimal(1), output_usd_per_mtok=Decimal(1))
    with pytest.raises(ValueError, match="two steps begin above the same input: 1, 1"):
        price(long_context=(step, step))


def test_a_call_costs_the_prices_of_the_tier_that_served_it_and_else_the_standard_ones() -> None:
    half = Schedule(input_usd_per_mtok=Decimal(1), output_usd_per_mtok=Decimal(4))
    tiered = price(batch=half)
    usage: dict[str, Any] = {"input_tokens": 1_000, "output_tokens": 10}
    assert tiered.cost(Usage(**usage)) == 1_000 * 2_000 + 10 * 8_000
    assert tiered.cost(Usage(**usage, service_tier="batch")) == 1_000 * 1_000 + 10 * 4_000
    assert tiered.cost(Usage(**usage, service_tier="priority")) == tiered.cost(Usage(**usage))
    assert [line.label for line in tiered.explain(Usage(**usage, service_tier="batch"))] == [
        "batch input",
        "batch output",
    ]


def test_a_fee_for_each_request_is_part_of_its_cost_and_of_its_worst_case() -> None:
    searched = price(request_usd=Decimal("0.005"))
    usage = Usage(input_tokens=1, output_tokens=0)
    assert searched.cost(usage) == searched.worst_case(1, 0) == 5_000_000 + 2_000
    assert searched.explain(usage)[-1] == ("request", 0, None, Decimal("0.005"))
    assert searched.output_tokens_within(5_002_000, 1) == 0
    assert searched.output_tokens_within(5_001_999, 1) == -1
    assert not price("0", "0", request_usd=Decimal("0.005")).is_free


@given(prices, usages())
def test_what_a_cache_saved_is_what_the_same_tokens_would_have_cost_without_it_less_what_they_cost(
    price: Price, usage: Usage
) -> None:
    without = replace(
        usage,
        input_audio_tokens=usage.input_audio_tokens + usage.cache_read_audio_tokens,
        cache_read_tokens=0,
        cache_write_tokens=0,
        cache_write_1h_tokens=0,
        cache_read_audio_tokens=0,
    )
    assert abs(price.cost(without) - price.cost(usage) - price.saved(usage)) <= 1  # each is rounded by itself


@given(prices, usages())
def test_the_lines_of_a_cost_add_up_to_it(price: Price, usage: Usage) -> None:
    lines = price.explain(usage)
    assert sum(line.tokens for line in lines) == usage.total_tokens
    with localcontext(Context(prec=60)):
        of_tokens = [line for line in lines if line.usd_per_mtok is not None]
        assert all(line.usd == line.tokens * (line.usd_per_mtok or 0) / 1_000_000 for line in of_tokens)
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
    bounded = price(long_context=(cheap,))
    assert bounded.worst_case(11, 5) == 11 * 2_000 + 5 * 8_000, "ten tokens may be all that is read"


@given(prices, usages(), st.sampled_from(SERVICE_TIERS), st.sampled_from(["text", "image", "audio"]))
def test_a_bounded_price_covers_every_call_within_its_bounds_and_costs_the_same(
    price: Price, usage: Usage, tier: Any, modality: Any
) -> None:
    bounded = price.bounded(Bounds(service_tiers=(tier,), input=(modality,), output=(modality,)))
    assert bounded == price
    assert bounded.cost(usage) == price.cost(usage)
    assert bounded.worst_case(usage.input_tokens, usage.output_tokens) <= price.worst_case(
        usage.input_tokens, usage.output_tokens
    )
    heard = (usage.input_audio_tokens, usage.cache_read_audio_tokens, usage.output_audio_tokens)
    seen = (usage.input_image_tokens, usage.output_image_tokens)
    within = (not any(heard) or modality == "audio") and (not any(seen) or modality == "image")
    if within and usage.service_tier in ("standard", tier):
        assert price.cost(usage) <= bounded.worst_case(usage.input_tokens, usage.output_tokens)


def test_a_call_that_sends_only_text_need_not_reserve_the_price_of_audio() -> None:
    heard = price(input_audio_usd_per_mtok=Decimal(32), output_audio_usd_per_mtok=Decimal(64))
    assert heard.worst_case(100, 10) == 100 * 32_000 + 10 * 64_000
    assert heard.bounded(Bounds(input=())).worst_case(100, 10) == 100 * 2_000 + 10 * 64_000
    assert heard.bounded(Bounds(input=(), output=())).worst_case(100, 10) == 100 * 2_000 + 10 * 8_000


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
            long_context=(
                LongContext(above_input_tokens=1, input_usd_per_mtok=Decimal(1), output_usd_per_mtok=Decimal(0)),
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


def test_a_record_of_the_time_when_there_was_one_step_and_five_prices_is_read() -> None:
    old = {
        "id": "book:x@2026-11-20",
        "source": "a book",
        "effective": "2026-11-20",
        "input_usd_per_mtok": "2",
        "output_usd_per_mtok": "8",
        "cache_read_usd_per_mtok": "0.5",
        "long_context": {
            "above_input_tokens": 200_000,
            "input_usd_per_mtok": "4",
            "output_usd_per_mtok": "12",
            "cache_read_usd_per_mtok": "1",
        },
    }
    usage = Usage(input_tokens=200_001, output_tokens=100, cache_read_tokens=50_000)
    assert Price.from_record(old).cost(usage) == LONG.cost(usage)


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
        {"long_context": 7},
        {"batch": {"input_usd_per_mtok": "1"}},
        {"batch": "half"},
        {"long_context": ["all"]},
        {"request_usd": "a lot"},
    ],
)
def test_what_is_no_price_record_is_refused(change: dict[str, Any]) -> None:
    record = {key: value for key, value in {**price().to_record(), **change}.items() if value is not ...}
    with pytest.raises(ValueError, match=r"price record|USD per million|isoformat"):
        Price.from_record(record)
