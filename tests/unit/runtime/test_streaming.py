"""What a stream is accounted for while it runs, against a ledger that answers as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar.budget import Amounts, Price, Refusal, Reservation, Usage
from bursar.budget.pricing.prices import Bounds, Schedule
from bursar.budget.testing import PRICE, a_call
from bursar.runtime import streaming
from bursar.runtime.models.catalog import Model
from bursar.runtime.models.provider import BrokenStream
from bursar.runtime.models.tokens import TokenCounter
from bursar.runtime.run_ledger import RunLedger
from bursar.runtime.streaming import StreamCut, StreamMeter

BOUND = 100
INPUT = 1_000
COUNTER = TokenCounter()
DEAR = replace(
    PRICE,
    id="test:dear",
    cache_write_usd_per_mtok=Decimal("1.25"),
    cache_write_1h_usd_per_mtok=Decimal(2),
    cache_read_usd_per_mtok=Decimal("0.1"),
    reasoning_usd_per_mtok=Decimal(3),
    priority=Schedule(input_usd_per_mtok=Decimal(2), output_usd_per_mtok=Decimal(4)),
    bounds=Bounds(service_tiers=["priority"], input=(), output=()),
)
CUT = Refusal(cause="cancelled", kind="run", path="acme/support/run_1", cut=True)


@dataclass
class FakeLedger:
    """Says nothing against a stream until it is given a refusal."""

    refusal: Refusal | None = None
    kept: Amounts | None = None
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def check(self, made: Reservation) -> Refusal | None:
        self.asked.set()
        return self.refusal

    async def shrink(self, made: Reservation, keep: Amounts) -> Reservation:
        self.kept = keep
        return made.holding(keep)


def metered(ledger: FakeLedger | None = None, *, price: Price = PRICE, aborted: Any = "charge_streamed") -> StreamMeter:
    """A stream that may read 1,000 tokens and write 100."""
    held = Amounts(price.worst_case(INPUT, BOUND), INPUT + BOUND, 1)
    made = Reservation(
        id=1,
        call=a_call(),
        attempt=0,
        held=held,
        accounts="[1]",
        price=price,
        max_output_tokens=BOUND,
        capped=False,
    )
    model = Model(
        name="house",
        provider=cast("Any", None),
        provider_name="vllm",
        provider_model="house",
        price=price,
        text_price=price,
        context_window=None,
        max_output_tokens=BOUND,
        timeout_s=60,
        retries=0,
        aborted_stream=aborted,
    )
    return StreamMeter(
        cast("RunLedger", ledger or FakeLedger()),
        made,
        model,
        input_tokens=INPUT,
        margin=lambda count: count + count // 10,
        counter=COUNTER,
    )


def text(tokens: int) -> dict[str, str]:
    return {"content": " token" * tokens}


async def test_a_stream_that_goes_far_past_its_bound_is_cut_and_charged_in_full() -> None:
    meter = metered()
    meter.add(text(200))
    with pytest.raises(BrokenStream, match="past the 100 tokens"):
        meter.add(text(200))
    assert meter.bound() is None


async def test_a_stream_at_its_bound_is_not_cut_where_our_count_is_somewhat_higher() -> None:
    meter = metered()
    for _ in range(14):
        meter.add(text(10))
    assert meter.bound() is not None


@pytest.mark.parametrize(
    "delta",
    [
        text(50),
        {"reasoning_content": " token" * 50},
        {"tool_calls": [{"index": 0, "function": {"name": "look", "arguments": " token" * 50}}]},
    ],
)
async def test_all_that_shows_of_an_answer_is_counted(
    delta: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "PACE_UNKNOWN", 0.0)
    monkeypatch.setattr(streaming, "UNHEARD_S", 0.0)
    meter = metered()
    meter.add(delta)
    bound = meter.bound()
    assert bound is not None
    assert bound.input_tokens == INPUT
    assert 55 <= bound.output_tokens <= 65


async def test_what_the_provider_says_that_it_wrote_is_charged_also_where_it_does_not_show(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streaming, "PACE_UNKNOWN", 0.0)
    monkeypatch.setattr(streaming, "UNHEARD_S", 0.0)
    meter = metered()
    for written in (1, 70):
        meter.add(text(1) | {"usage": {"prompt_tokens": 900, "completion_tokens": written}})
    bound = meter.bound()
    assert bound is not None
    assert (bound.input_tokens, bound.output_tokens) == (900, 71)


async def test_what_may_have_been_written_and_never_came_is_charged_at_the_fastest_pace_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streaming, "UNHEARD_S", 2.0)
    clock = Ticking()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", clock)
    meter = metered()
    for seconds in [0.5] + 32 * [0.05] + 32 * [0.5]:
        clock.now += seconds
        meter.add(text(1))
    bound = meter.bound()
    assert bound is not None
    assert bound.output_tokens == min(BOUND, 65 + 6 + round(2.0 * 20))


@dataclass
class Ticking:
    """A loop's clock that a test moves."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("aborted", "came"), [("charge_reserved", True), ("charge_streamed", False)])
async def test_all_that_was_held_stays_charged_where_nothing_came_or_the_model_may_write_out_of_sight(
    aborted: str, came: bool
) -> None:
    meter = metered(aborted=aborted)
    if came:
        meter.add(text(1))
    assert meter.bound() is None


parts = st.fixed_dictionaries(
    {
        "cache_read_tokens": st.integers(0, 400),
        "cache_write_tokens": st.integers(0, 300),
        "reasoning_tokens": st.integers(0, BOUND),
        "service_tier": st.sampled_from(["standard", "priority"]),
    }
)


@given(parts=parts, hour=st.integers(0, 100), price=st.sampled_from([PRICE, DEAR]))
def test_no_way_of_reading_and_writing_costs_more_than_the_bound_of_a_broken_stream(
    parts: dict[str, Any], hour: int, price: Price
) -> None:
    most = streaming._dearest(price, INPUT, BOUND)
    written = min(hour, parts["cache_write_tokens"])
    usage = Usage(input_tokens=INPUT, output_tokens=BOUND, cache_write_1h_tokens=written, **parts)
    assert price.cost(usage) <= price.cost(most)


@given(parts=parts, output=st.integers(0, BOUND), price=st.sampled_from([PRICE, DEAR]))
def test_a_hold_that_was_made_smaller_is_enough_for_whatever_is_written(
    parts: dict[str, Any], output: int, price: Price
) -> None:
    said = Usage(input_tokens=INPUT, output_tokens=0, **{**parts, "reasoning_tokens": 0, "service_tier": "standard"})
    keep = streaming._with_output(price, said, BOUND)
    usage = Usage(input_tokens=INPUT, output_tokens=output, **{**parts, "reasoning_tokens": min(output, 50)})
    assert price.cost(usage) <= keep


async def listened(meter: StreamMeter, said: Mapping[str, Any] | None, *, until: asyncio.Event) -> None:
    """Stream until something is so; the provider writes one piece, and is then silent."""
    async with meter.watched():
        meter.add(text(1) | ({"usage": said} if said else {}))
        await until.wait()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams are looked at often."""
    monkeypatch.setattr(streaming, "SHRINK_AFTER_S", 0.005)
    monkeypatch.setattr(streaming, "CHECK_S", 0.01)


@pytest.mark.usefixtures("hurried")
async def test_a_long_stream_holds_no_more_input_than_the_provider_said_early_that_it_read() -> None:
    ledger = FakeLedger()
    meter = metered(ledger)
    said = {"prompt_tokens": 200, "completion_tokens": 0, "total_tokens": 200}
    await listened(meter, said, until=ledger.asked)
    assert ledger.kept == Amounts(PRICE.worst_case(200, BOUND) + 1, 200 + BOUND)
    bound = meter.bound()
    assert bound is not None
    assert bound.input_tokens == 200


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("tokens", [None, 950, -1, 1_200])
async def test_a_hold_stays_as_it_is_where_little_would_come_free(tokens: int | None) -> None:
    ledger = FakeLedger()
    said = None if tokens is None else {"prompt_tokens": tokens, "completion_tokens": 0}
    await listened(metered(ledger), said, until=ledger.asked)
    assert ledger.kept is None


@pytest.mark.usefixtures("hurried")
async def test_a_stream_is_cut_once_the_ledger_says_so_also_while_the_provider_is_silent() -> None:
    with pytest.raises(StreamCut) as cut:
        await listened(metered(FakeLedger(refusal=CUT)), None, until=asyncio.Event())
    assert cut.value.refusal == CUT


async def test_a_short_stream_asks_nothing_of_the_ledger_and_leaves_no_task() -> None:
    before, ledger, at_once = asyncio.all_tasks(), FakeLedger(refusal=CUT), asyncio.Event()
    at_once.set()
    await listened(metered(ledger), None, until=at_once)
    assert asyncio.all_tasks() == before
    assert not ledger.asked.is_set()
