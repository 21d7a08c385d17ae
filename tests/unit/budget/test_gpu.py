from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar.budget import Ledger, Reservation
from bursar.budget.pricing.gpu import GpuTime
from bursar.budget.pricing.measured import Measured, measure
from bursar.budget.testing import NOON, Clock, a_call, a_quote, tokens
from bursar.budget.usage import Usage

DAY = date(2026, 11, 20)
HOUR = timedelta(hours=1)


def measured(input_tokens: int, output_tokens: int, busy_s: str = "1800") -> Measured:
    counts = {"input_tokens": input_tokens, "output_tokens": output_tokens}
    return Measured(since=NOON - HOUR, until=NOON, calls=1, busy_s=Decimal(busy_s), **counts)


def test_a_busy_gpu_spreads_its_hour_over_its_throughput() -> None:
    price = GpuTime(usd_per_hour=Decimal("3.60"), gpus=2).at_throughput(
        Decimal(10_000), Decimal(1_000), id="config:llama@1", effective=DAY
    )
    # 2 x $3.60 an hour is $0.002 a second: for 10,000 input tokens, or for 1,000 output tokens.
    assert (price.input_usd_per_mtok, price.output_usd_per_mtok) == (Decimal("0.2"), Decimal(2))
    assert price.source == "GPU time: 2 x $3.60/h, 10000 input and 1000 output tokens per second"


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.decimals("0.01", 100, places=2), st.integers(1, 64))
def test_measured_tokens_pay_for_the_whole_time_and_hardly_more(
    input_tokens: int, output_tokens: int, usd_per_hour: Decimal, gpus: int
) -> None:
    if input_tokens + output_tokens < 1_000:
        return
    price = GpuTime(usd_per_hour=usd_per_hour, gpus=gpus).spread_over(
        measured(input_tokens, output_tokens), id="gpu:llama", effective=DAY
    )
    cost = price.cost(Usage(input_tokens=input_tokens, output_tokens=output_tokens))
    paid = int(usd_per_hour * gpus * 10**9)
    # A price is rounded up to 1e-9 USD per million tokens, and the cost to 1e-9 USD.
    assert paid <= cost <= paid + (input_tokens + output_tokens) // 10**6 + 2
    assert abs(price.output_usd_per_mtok - 4 * price.input_usd_per_mtok) <= Decimal("4e-9")


def test_idle_time_is_in_the_price_unless_it_is_left_in_nobodys_bill() -> None:
    gpus, half_busy = GpuTime(usd_per_hour=Decimal(2)), measured(1_000_000, 0)
    whole = gpus.spread_over(half_busy, id="gpu:llama", effective=DAY)
    busy = gpus.spread_over(half_busy, id="gpu:llama", effective=DAY, busy_only=True)
    assert (whole.input_usd_per_mtok, busy.input_usd_per_mtok) == (Decimal(2), Decimal(1))
    assert "1.00 h busy or idle until 2026-11-20, 1000000 input and 0 output tokens" in whole.source
    assert "0.50 h busy until" in busy.source


@pytest.mark.parametrize("usd_per_hour", ["-1", "NaN", "Infinity"])
def test_a_price_per_hour_that_is_none_is_refused(usd_per_hour: str) -> None:
    with pytest.raises(ValueError, match="usd_per_hour must be an amount of USD, 0 or more"):
        GpuTime(usd_per_hour=Decimal(usd_per_hour))


def test_nothing_measured_gives_no_price() -> None:
    gpus = GpuTime(usd_per_hour=Decimal(2))
    with pytest.raises(ValueError, match="no token was measured"):
        gpus.spread_over(measured(0, 0), id="gpu:llama", effective=DAY)
    with pytest.raises(ValueError, match="no token was measured"):
        gpus.spread_over(measured(1, 1, busy_s="0"), id="gpu:llama", effective=DAY, busy_only=True)
    with pytest.raises(ValueError, match="output_weight must be more than 0: 0"):
        gpus.spread_over(measured(1, 1), id="gpu:llama", effective=DAY, output_weight=Decimal(0))
    with pytest.raises(ValueError, match="a throughput must be more than 0"):
        gpus.at_throughput(Decimal(0), Decimal(1), id="gpu:llama", effective=DAY)
    with pytest.raises(ValueError, match="gpus must be 1 or more: 0"):
        GpuTime(usd_per_hour=Decimal(2), gpus=0)


def test_the_ledger_measures_a_models_tokens_and_the_time_in_which_calls_were_in_flight(
    ledger: Ledger, clock: Clock
) -> None:
    def begin(call: str, model: str = "small-1") -> Reservation:
        made = ledger.reserve(a_call(call, model=model), a_quote())
        assert isinstance(made, Reservation)
        ledger.dispatch(made)
        return made

    def end(made: Reservation, usage: Usage | None) -> None:
        ledger.settle(made, usage=usage, outcome="exact" if usage else "unknown", reply="{}")

    first = begin("a")
    clock.advance(seconds=10)
    second = begin("b")
    clock.advance(seconds=5)
    end(first, tokens(30, 7))
    clock.advance(seconds=5)
    end(second, tokens(20, 3))
    clock.advance(seconds=100)
    third = begin("c")
    clock.advance(seconds=1)
    end(third, None)
    end(begin("d", model="large-1"), tokens(1, 1))
    clock.advance(seconds=1)
    found = measure(ledger.store, "small-1", since=NOON, until=clock.now)
    assert (found.calls, found.input_tokens, found.output_tokens) == (3, 50, 10)
    assert found.busy_s == 21, "calls that overlap are busy once, and one of unknown outcome is busy too"
    assert found.span_s == 122
    assert measure(ledger.store, "small-1", since=NOON + HOUR, until=NOON + 2 * HOUR).calls == 0
