"""Streams that are cut: what was billed is in the ledger, or the call is marked unknown and charged in full."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from langgraph.graph import StateGraph
from sqlalchemy import select

from bursar.budget import Ledger
from bursar.budget.reports.bill import Attempt
from bursar.budget.schema import reservation
from bursar.runtime import Runtime, chat_model
from tests.acceptance.support import QUESTION, Texts, charged, fan_out, opened, write_config
from tests.support.provider import Behaviour, Fault, TrueProvider

CUT_AFTER = [0, 1, 40, 400]
"""Tokens of an answer of 500."""

Streaming = StateGraph[Texts, None, Texts, Texts]
Cut = Callable[[Runtime, TrueProvider, int], Awaitable[None]]


def listening(until: Callable[[int], Awaitable[bool]]) -> Streaming:
    """A graph whose one node streams an answer until it is told to stop."""

    async def node(state: Texts) -> Texts:
        heard = 0
        stream = chat_model(max_output_tokens=1_000).astream(state["question"])
        async for chunk in stream:
            heard += bool(chunk.text)
            if await until(heard):
                break
        await stream.aclose()  # type: ignore[attr-defined]  # an async generator, whatever LangChain calls it
        return {}

    return fan_out(1, node=node)


async def cancelled(runtime: Runtime, provider: TrueProvider, tokens: int) -> None:
    """The whole run is cancelled by its caller."""
    enough = asyncio.Event()

    async def until(heard: int) -> bool:
        if heard >= tokens:
            enough.set()
            await asyncio.sleep(60)
        return False

    task = asyncio.create_task(runtime.run(listening(until), {"question": QUESTION}, tenant="acme"))
    await asyncio.to_thread(provider.bill.wait_until, lambda bill: bill.calls == 1)
    if tokens:
        await enough.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def closed(runtime: Runtime, _: TrueProvider, tokens: int) -> None:
    """The program reads no further."""

    async def until(heard: int) -> bool:
        return heard >= tokens

    assert (await runtime.run(listening(until), {"question": QUESTION}, tenant="acme")).status == "succeeded"


async def closed_in_a_thread(runtime: Runtime, _: TrueProvider, tokens: int) -> None:
    """Synchronous code reads no further."""

    def node(state: Texts) -> Texts:
        heard = 0
        stream = chat_model(max_output_tokens=1_000).stream(state["question"])
        for chunk in stream:
            heard += bool(chunk.text)
            if heard >= tokens:
                break
        stream.close()  # type: ignore[attr-defined]  # a generator, whatever LangChain calls it
        return {}

    assert (await runtime.run(fan_out(1, node=node), {"question": QUESTION}, tenant="acme")).status == "succeeded"


async def broken(runtime: Runtime, provider: TrueProvider, tokens: int) -> None:
    """The provider's connection breaks off."""
    provider.behaviour = Behaviour(output_tokens=500, faults=[Fault("broken_stream", after_tokens=tokens)])

    async def never(_: int) -> bool:
        return False

    await runtime.run(listening(never), {"question": QUESTION}, tenant="acme")


@pytest.mark.parametrize("tokens", CUT_AFTER)
@pytest.mark.parametrize("cut", [cancelled, closed, closed_in_a_thread, broken])
async def test_a_stream_that_was_cut_is_charged_in_full_as_unknown_and_never_given_back(
    cut: Cut, tokens: int, true_provider: TrueProvider, tmp_path: Path
) -> None:
    true_provider.behaviour = Behaviour(output_tokens=500, latency_s=0.05, chunk_s=0.001)
    async with opened(_config(tmp_path, true_provider), sleep=_at_once) as runtime:
        await cut(runtime, true_provider, tokens)
    attempts = _attempts(tmp_path)
    first, *others = attempts
    assert (first.state, first.outcome, first.posted) == ("settled", "unknown", first.held)
    assert all(one.outcome == "exact" for one in others)
    assert bool(others) == (cut is broken and tokens == 0)  # nothing of it was passed on, so it was begun anew
    assert charged(true_provider.bill) <= sum(one.posted.nanousd for one in attempts)


@pytest.mark.parametrize("fault", [None, Fault("no_usage")])
async def test_a_whole_stream_is_charged_to_the_token_or_without_usage_in_full(
    fault: Fault | None, true_provider: TrueProvider, tmp_path: Path
) -> None:
    true_provider.behaviour = Behaviour(output_tokens=500, faults=[fault])
    async with opened(_config(tmp_path, true_provider)) as runtime:
        await closed(runtime, true_provider, 10_000)
    [attempt] = _attempts(tmp_path)
    if fault is None:
        assert (attempt.outcome, attempt.posted.nanousd) == ("exact", charged(true_provider.bill))
    else:
        assert (attempt.outcome, attempt.posted) == ("unknown", attempt.held)


def _config(folder: Path, provider: TrueProvider) -> Path:
    return write_config(folder, provider, tenants={"acme": {"budgets": [{"usd": "1"}]}})


def _attempts(folder: Path) -> Sequence[Attempt]:
    """What is in the ledger of the only run, once the runtime has closed it."""
    with closing(Ledger.open(f"sqlite:///{folder / 'bursar.db'}")) as ledger:
        with ledger.store.read() as connection:
            run_id = connection.execute(select(reservation.c.run_id).distinct()).scalar_one()
        return ledger.reports.bill(run_id).attempts


async def _at_once(_: float) -> None:
    await asyncio.sleep(0)
