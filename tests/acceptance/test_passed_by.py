"""A model that cannot answer is passed by, in every process, and asked again as soon as that can help."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bursar.budget import Ledger
from bursar.budget.errors import LedgerUnavailable
from bursar.budget.stores.migrate import migrate
from bursar.budget.windows import utc_now
from bursar.runtime import Runtime, chat_model, embedding_model
from bursar.runtime.ask import Ask
from bursar.runtime.context import current_run
from bursar.runtime.ledger_thread import LedgerThread
from bursar.runtime.models.causes import cause_of
from bursar.runtime.models.health import FAILURES_MAX, Health
from bursar.runtime.models.provider import AuthFailed, QuotaExhausted, RateLimited
from bursar.runtime.runs.model_health import HealthRecords
from bursar.runtime.runs.records import MIGRATIONS
from bursar.runtime.sharing import sharing
from bursar.runtime.stop import ModelCallFailed
from tests.acceptance.support import QUESTION, Texts, fan_out, model_of, one_call, opened, write_config
from tests.support.provider import Behaviour, Fault, TrueProvider

GIVEN = {"question": QUESTION}


class Pauses:
    """Sleeps no time, and notes how long it should have been."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    async def __call__(self, pause_s: float) -> None:
        self.asked.append(pause_s)


@asynccontextmanager
async def two_models(folder: Path, provider: TrueProvider, pauses: Pauses) -> AsyncIterator[Runtime]:
    models = {name: model_of(provider, model=name, retries=0) for name in ("first", "second")}
    tiers = {"small": ["first", "second"], "lone": ["first"]}
    async with opened(write_config(folder, models, tiers=tiers), sleep=pauses) as runtime:
        yield runtime


async def asked(runtime: Runtime, tier: str = "small") -> tuple[str, Sequence[str | None]]:
    """How one call ended, and which models were asked."""
    run = await runtime.run(one_call(tier), GIVEN, tenant="acme")
    return run.status, [attempt.model for attempt in runtime.ledger.reports.bill(run.id).attempts]


@pytest.mark.parametrize("error", [AuthFailed("no key"), QuotaExhausted("no credit left")])
async def test_the_next_model_is_asked_at_once_and_the_reason_says_why(
    error: Any, tmp_path: Path, true_provider: TrueProvider
) -> None:
    async with two_models(tmp_path, true_provider, Pauses()) as runtime:
        runtime.health.failed("first", error, utc_now())
        run = await runtime.run(one_call(), GIVEN, tenant="acme")
        [attempt] = runtime.ledger.reports.bill(run.id).attempts
    assert attempt.model == "second"
    assert attempt.reason == f"first cools down ({cause_of(error).name}), next of tier small"


async def test_a_lone_model_that_is_ill_is_not_asked_again_and_again(
    tmp_path: Path, true_provider: TrueProvider
) -> None:
    """The call fails at once, and says when another try may help."""
    true_provider.behaviour = Behaviour(faults=lambda *_: Fault("server_error"))
    async with two_models(tmp_path, true_provider, Pauses()) as runtime:
        for _ in range(FAILURES_MAX):
            assert await asked(runtime, "lone") == ("failed", ["first"])
        assert await asked(runtime, "lone") == ("failed", [])
        run = await runtime.run(one_call("lone"), GIVEN, tenant="acme")
    assert true_provider.bill.requests == FAILURES_MAX
    assert "first: cools down until" in run.stop_reason
    assert isinstance(run.error, ModelCallFailed)
    assert 0 < (run.error.retry_after_s or 0) <= 5


@pytest.mark.parametrize("streamed", [False, True])
async def test_calls_whose_runs_time_is_over_say_nothing_of_their_model(
    streamed: bool, tmp_path: Path, true_provider: TrueProvider
) -> None:
    """Else whoever gives his runs a second keeps everybody from it."""
    true_provider.behaviour = Behaviour(faults=lambda *_: Fault("stalled"))
    on_delta = (lambda _: None) if streamed else None

    async def hasty(state: Texts) -> Texts:
        run = replace(current_run(), deadline=utc_now() + timedelta(seconds=0.3))
        messages = [{"role": "user", "content": QUESTION}]
        ask = Ask(tier="lone", node="hasty", messages=messages, max_output_tokens=100)
        calls = (run.calls.make(run, ask, f"call_{number}", on_delta) for number in range(FAILURES_MAX))
        failures = await asyncio.gather(*calls, return_exceptions=True)
        return {"texts": [type(failure).__name__ for failure in failures]}

    async with two_models(tmp_path, true_provider, Pauses()) as runtime:
        run = await runtime.run(fan_out(1, node=hasty), GIVEN, tenant="acme")
        assert run.value["texts"] == ["ModelCallFailed"] * FAILURES_MAX, run.stop_reason
        assert runtime.health.state("first") == "closed"


async def test_once_its_time_is_over_one_call_tries_it_and_an_answer_ends_it(
    tmp_path: Path, true_provider: TrueProvider
) -> None:
    async with two_models(tmp_path, true_provider, Pauses()) as runtime:
        runtime.health.failed("first", QuotaExhausted("", retry_after_s=0), utc_now())
        assert runtime.health.state("first") == "half_open"
        assert await asked(runtime) == ("succeeded", ["first"])
        assert runtime.health.state("first") == "closed"


async def test_a_pause_that_was_asked_for_is_waited_for_where_no_other_model_is_left(
    tmp_path: Path, true_provider: TrueProvider
) -> None:
    pauses = Pauses()
    async with two_models(tmp_path, true_provider, pauses) as runtime:
        runtime.health.failed("first", RateLimited("", retry_after_s=60), utc_now())
        assert await asked(runtime) == ("succeeded", ["second"])
        assert pauses.asked == []
        runtime.health.failed("second", RateLimited("", retry_after_s=30), utc_now())
        assert await asked(runtime) == ("succeeded", ["second"])
    [waited] = pauses.asked
    assert 29 < waited <= 30.5


async def test_a_pause_that_outlasts_the_runs_time_is_not_waited_for(
    tmp_path: Path, true_provider: TrueProvider
) -> None:
    pauses = Pauses()
    async with two_models(tmp_path, true_provider, pauses) as runtime:
        runtime.health.failed("first", RateLimited("", retry_after_s=7_200), utc_now())
        assert await asked(runtime, "lone") == ("failed", [])
    assert pauses.asked == []


async def test_a_process_knows_when_it_opens_what_others_found(tmp_path: Path, true_provider: TrueProvider) -> None:
    true_provider.behaviour = Behaviour(faults=[Fault("unauthorized")])
    async with two_models(tmp_path, true_provider, Pauses()) as runtime:
        assert await asked(runtime) == ("succeeded", ["first", "second"])
    async with two_models(tmp_path, true_provider, Pauses()) as runtime:
        assert await asked(runtime) == ("succeeded", ["second"])


@pytest.fixture
def thread(tmp_path: Path) -> LedgerThread:
    ledger = Ledger.open(f"sqlite:///{tmp_path}/bursar.db")
    migrate(ledger.store, scripts=MIGRATIONS, version_table="bursar_runs_version")
    return LedgerThread(ledger)


async def becomes(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - what is waited for is another task's
            await asyncio.sleep(0.01)


async def test_processes_tell_each_other_while_they_run_and_hear_what_is_cleared(thread: LedgerThread) -> None:
    here, there = Health(utc_now), Health(utc_now)
    async with sharing(here, thread, period_s=0.01), sharing(there, thread, period_s=0.01):
        here.failed("m", AuthFailed("no key"), utc_now())
        await becomes(lambda: there.state("m") == "open")
        await thread.do(HealthRecords(thread.ledger.store).clear, "m")
        await becomes(lambda: here.state("m") == there.state("m") == "closed")
    thread.close()


async def test_a_ledger_that_is_away_keeps_nobody_from_learning_by_himself(
    thread: LedgerThread, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise LedgerUnavailable("away")

    health = Health(utc_now)
    with monkeypatch.context() as patch:
        patch.setattr(HealthRecords, "exchange", away)
        async with sharing(health, thread, period_s=0.01):
            health.failed("m", AuthFailed("no key"), utc_now())
            await becomes(lambda: "away" in caplog.text)
    assert health.state("m") == "open"
    async with sharing(health, thread, period_s=0.01):
        await becomes(lambda: bool(HealthRecords(thread.ledger.store).ls()))
    thread.close()


async def test_whoever_listens_hears_how_long_a_call_waits(tmp_path: Path, true_provider: TrueProvider) -> None:
    async with two_models(tmp_path, true_provider, Pauses()) as runtime:
        runtime.health.failed("first", RateLimited("", retry_after_s=30), utc_now())
        told = [event async for event in runtime.stream(one_call("lone"), GIVEN, tenant="acme")]
    [pause] = [event for event in told if event.kind == "pause"]
    assert pause.model == "first"
    assert 29 < float(pause.text.removesuffix(" s")) <= 30.5


async def test_a_failed_call_also_says_who_was_passed_by_and_for_how_long(
    tmp_path: Path, true_provider: TrueProvider
) -> None:
    """Another try helps once the first may be asked again, whatever the second failed of."""
    true_provider.behaviour = Behaviour(faults=[Fault("unauthorized")])
    async with two_models(tmp_path, true_provider, Pauses()) as runtime:
        runtime.health.failed("first", RateLimited("", retry_after_s=60), utc_now())
        run = await runtime.run(one_call(), GIVEN, tenant="acme")
    assert isinstance(run.error, ModelCallFailed)
    assert [failure.model for failure in run.error.failures] == ["first", "second"]
    assert run.error.cause is not None
    assert run.error.cause.name == "rate_limit"
    assert 0 < (run.error.retry_after_s or 0) <= 60


@pytest.mark.parametrize("kind", ["chat", "embedding"])
async def test_an_answer_that_was_paid_for_is_replayed_also_while_its_model_is_passed_by(
    kind: str, tmp_path: Path, true_provider: TrueProvider
) -> None:
    tries = 0

    async def node(state: Texts) -> Texts:
        nonlocal tries
        if kind == "chat":
            said = str((await chat_model().ainvoke(state["question"])).text)
        else:
            said = str(await embedding_model("vectors").aembed_query(state["question"]))
        tries += 1
        if tries == 1:
            raise RuntimeError("after it was paid for")
        return {"texts": [said]}

    models = {"first": model_of(true_provider), "vectors": model_of(true_provider, kind="embedding")}
    async with opened(write_config(tmp_path, models, tiers={"small": ["first"]})) as runtime:
        failed = await runtime.run(fan_out(1, node=node), GIVEN, tenant="acme")
        assert (failed.status, true_provider.bill.requests) == ("failed", 1)
        for model in models:
            runtime.health.failed(model, QuotaExhausted("no credit left"), utc_now())
        run = await runtime.resume(failed.id)
    assert (run.status, true_provider.bill.requests) == ("succeeded", 1)
