"""Streams that end before their end, of a model that is charged for what it streamed; and streams that must end."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

import pytest

from bursar.budget import Limits, Scope
from bursar.budget.reports.bill import Attempt
from bursar.runtime import Runtime, streaming
from bursar.runtime.ask import Ask
from bursar.runtime.context import RunContext
from bursar.runtime.models import health
from bursar.runtime.models.sim import SimProvider
from bursar.runtime.stop import LimitReached, ModelCallFailed
from tests.acceptance.support import INPUT_USD_PER_MTOK, OUTPUT_USD_PER_MTOK, model_of, opened, write_config
from tests.support.bill import Bill
from tests.support.provider import Answer, Behaviour, Fault, TrueProvider

BOUND = 4_000
ANSWER = 400
TOKEN_S = 0.004
"""A fast model: 250 tokens per second."""

SLACK_NANOUSD = int(3 * streaming.UNHEARD_S / TOKEN_S) * 100_000
"""What may have been written unheard, where the pace is taken for twice as fast as it is and the machine is busy."""

STREAMS, AT_ONCE = 60, 20

SCOPE = Scope(tenant="acme", agents=("support",), run_id="run_1")


class Listener:
    """Hears an answer, and goes away after so many tokens."""

    def __init__(self, until: int | None = None) -> None:
        self.heard = 0
        self._until = until
        self._task = asyncio.current_task()

    def __call__(self, delta: Mapping[str, Any]) -> None:
        self.heard += bool(delta.get("content"))
        if self.heard == self._until and self._task is not None:
            self._task.cancel()


async def streamed(run: RunContext, name: str, until: int | None = None) -> None:
    """Stream the answer to a question of its own; whatever becomes of it."""
    ask = Ask(tier="small", node="model", messages=_question(name), max_output_tokens=BOUND)
    with suppress(asyncio.CancelledError, ModelCallFailed):
        await asyncio.create_task(_make(run, ask, name, until))


async def _make(run: RunContext, ask: Ask, name: str, until: int | None) -> None:
    await run.calls.make(run, ask, name, Listener(until))


def _question(name: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"{name}: where is my order? " + "It has not come. " * 20}]


@asynccontextmanager
async def standing(folder: Path, provider: TrueProvider, **model: Any) -> AsyncIterator[tuple[Runtime, RunContext]]:
    """A runtime, and a run in which any call may be made."""
    house = model_of(provider, **{"aborted_stream": "charge_streamed", "retries": 0, **model})
    config = write_config(folder, {"house": house}, tenants={"acme": {"budgets": [{"usd": "1000"}]}})
    async with opened(config) as runtime:
        runtime.ledger.gates.open(SCOPE, Limits.unlimited())
        yield runtime, runtime.standing(SCOPE, tiers=None)


def truth_of(bill: Bill, name: str) -> int:
    """What the provider charges for the answer to a question."""
    digest = hashlib.sha256(json.dumps(_question(name), sort_keys=True).encode()).hexdigest()
    return sum(one.nanousd(INPUT_USD_PER_MTOK, OUTPUT_USD_PER_MTOK) for one in bill.entries if one.digest == digest)


def attempt_at(runtime: Runtime, name: str) -> Attempt:
    """The only attempt at a call."""
    [attempt] = [one for one in runtime.ledger.reports.bill(SCOPE.run_id).attempts if one.call == name]
    return attempt


async def test_a_stream_that_was_cut_anywhere_is_never_charged_less_than_its_bill_and_little_more(
    true_provider: TrueProvider,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At most twice its bill, and the second of writing that nobody heard."""
    monkeypatch.setattr(health, "FAILURES_MAX", STREAMS)  # a model is asked again, however often it breaks off
    rng = random.Random(7)
    broken = {f"call {number}": rng.randrange(1, ANSWER) for number in range(0, STREAMS, 3)}
    true_provider.behaviour = Behaviour(
        script=[Answer(output_tokens=None, text=" token" * ANSWER)],
        chunk_s=TOKEN_S,
        faults=lambda body, _: _broken(broken, body),
    )
    enough = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> None:
        async with enough:
            await streamed(run, f"call {number}", rng.randrange(1, ANSWER))

    async with standing(tmp_path, true_provider) as (runtime, run):
        await asyncio.gather(*map(one, range(STREAMS)))
        await asyncio.to_thread(true_provider.bill.wait_until, lambda bill: bill.in_flight == 0)
        await runtime.ledger_thread.do(runtime.ledger.reap)  # behind what was broken off
        billed = charged = reserved = 0
        for number in range(STREAMS):
            attempt, truth = attempt_at(runtime, f"call {number}"), truth_of(true_provider.bill, f"call {number}")
            assert attempt.outcome == "unknown"
            assert truth <= attempt.posted.nanousd <= 2 * truth + SLACK_NANOUSD
            billed, charged = billed + truth, charged + attempt.posted.nanousd
            reserved += attempt.held.nanousd
    print(f"charged {charged / billed:.2f} times the bill, {reserved / billed:.2f} where all that was held is charged")
    assert charged < reserved / 5


def _broken(broken: Mapping[str, int], body: Mapping[str, Any]) -> Fault | None:
    name = body["messages"][0]["content"].partition(":")[0]
    return Fault("broken_stream", after_tokens=broken[name]) if name in broken else None


async def test_a_simulated_stream_that_breaks_off_is_not_charged_less_than_its_whole_answer(tmp_path: Path) -> None:
    """A `sim` bills an answer when it begins it, and streams half of it without a pause."""
    scenario = {"answers": [{"text": "It has not come. " * 100}], "faults": [{"kind": "broken_stream"}]}
    (tmp_path / "late.yaml").write_text(json.dumps(scenario))
    price = {"input_usd_per_mtok": INPUT_USD_PER_MTOK, "output_usd_per_mtok": OUTPUT_USD_PER_MTOK}
    models = {"late": {"provider": "sim", "scenario": "late.yaml", "price": price, "max_output_tokens": BOUND}}
    async with opened(write_config(tmp_path, models)) as runtime:
        runtime.ledger.gates.open(SCOPE, Limits.unlimited())
        await streamed(runtime.standing(SCOPE, tiers=None), "call 1")
        provider = cast("SimProvider", runtime.catalog.model("late").provider)
        await runtime.ledger_thread.do(runtime.ledger.reap)  # behind what was broken off
        attempt = attempt_at(runtime, "call 1")
    assert attempt.outcome == "unknown"
    assert provider.bill.output_tokens > 500
    assert provider.bill.input_tokens + provider.bill.output_tokens <= attempt.posted.tokens <= attempt.held.tokens


async def test_the_provider_hears_within_a_second_that_nobody_listens_any_more(
    true_provider: TrueProvider, tmp_path: Path
) -> None:
    true_provider.behaviour = Behaviour(output_tokens=5_000, chunk_s=0.01)
    async with standing(tmp_path, true_provider) as (_, run):
        await streamed(run, "call 1", until=5)
        await asyncio.to_thread(true_provider.bill.wait_until, lambda bill: bill.in_flight == 0, 1)
    assert true_provider.bill.output_tokens < 150


async def test_calls_that_take_too_long_leave_no_connection_open(
    true_provider: TrueProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "FAILURES_MAX", STREAMS)
    true_provider.behaviour = Behaviour(output_tokens=50, faults=lambda _body, _before: Fault("billed_timeout"))
    async with standing(tmp_path, true_provider, timeout_s=0.5) as (_, run):
        await asyncio.gather(*(streamed(run, f"call {number}") for number in range(STREAMS)))
        await asyncio.to_thread(true_provider.bill.wait_until, lambda bill: bill.in_flight == 0, 2)


@pytest.mark.parametrize("aborted", ["charge_streamed", "charge_reserved"])
@pytest.mark.parametrize("why", ["limit", "cancelled"])
async def test_a_stream_is_cut_where_its_limit_is_lowered_or_its_run_is_cancelled(
    why: str, aborted: str, true_provider: TrueProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "SHRINK_AFTER_S", 0.05)
    monkeypatch.setattr(streaming, "CHECK_S", 0.1)
    true_provider.behaviour = Behaviour(output_tokens=5_000, chunk_s=0.01)
    async with standing(tmp_path, true_provider, aborted_stream=aborted) as (runtime, run):
        task = asyncio.create_task(_make(run, _an_ask(), "call 1", None))
        await asyncio.to_thread(true_provider.bill.wait_until, lambda bill: bill.output_tokens >= 10)
        if why == "limit":
            runtime.ledger.budgets.set("acme", limit={"nanousd": 1_000}, author="dana")
        else:
            runtime.ledger.gates.cancel(SCOPE.run_path, author="dana")
        with pytest.raises(LimitReached, match="cut off") as stopped:
            await asyncio.wait_for(task, 2)
        assert stopped.value.refusal.cause == why
        await asyncio.to_thread(true_provider.bill.wait_until, lambda bill: bill.in_flight == 0, 1)
        attempt = attempt_at(runtime, "call 1")
    assert (attempt.state, attempt.outcome) == ("settled", "unknown")
    assert truth_of(true_provider.bill, "call 1") <= attempt.posted.nanousd
    assert (attempt.posted == attempt.held) == (aborted == "charge_reserved")


def _an_ask() -> Ask:
    return Ask(tier="small", node="model", messages=_question("call 1"), max_output_tokens=BOUND)
