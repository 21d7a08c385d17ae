"""What was passed on of an answer stands: no other is begun behind the back of whoever listens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from langgraph.graph import StateGraph

from bursar.agents import Agent
from bursar.runtime import chat_model
from bursar.runtime.models.provider import CallTimeout, ModelRequest, ProviderError, RateLimited
from bursar.runtime.models.sim import SimProvider
from tests.acceptance.support import QUESTION, Texts, fan_out, model_of, opened, write_config
from tests.support.provider import Answer, Behaviour, Fault, TrueProvider

ANSWERS = {
    "text": Answer(text="Your refund of 42 dollars was paid."),
    "a tool call": Answer(tool_calls=[("pay", {"amount": 5})]),
}
BROKEN = Fault("broken_stream", after_tokens=4)


async def at_once(_: float) -> None:
    """No pauses between attempts."""
    await asyncio.sleep(0)


def two_models(folder: Path, provider: TrueProvider) -> Path:
    return write_config(folder, {name: model_of(provider, model=name, retries=2) for name in ("first", "second")})


def listening(heard: list[Any]) -> StateGraph[Texts, None, Texts, Texts]:
    """A graph whose one node streams an answer."""

    async def node(state: Texts) -> Texts:
        async for chunk in chat_model().astream(state["question"]):
            heard.append(chunk)  # noqa: PERF401  # what came before a failure stays heard
        return {}

    return fan_out(1, node=node)


@pytest.mark.parametrize("answer", ANSWERS)
async def test_an_answer_of_which_a_part_was_passed_on_is_begun_anew_by_no_model(
    answer: str, tmp_path: Path, true_provider: TrueProvider
) -> None:
    heard: list[Any] = []
    true_provider.behaviour = Behaviour(script=[ANSWERS[answer]], faults=[BROKEN])
    async with opened(two_models(tmp_path, true_provider), sleep=at_once) as runtime:
        run = await runtime.run(listening(heard), {"question": QUESTION}, tenant="acme")
        [attempt] = runtime.ledger.reports.bill(run.id).attempts
    assert (run.status, true_provider.bill.requests) == ("failed", 1)
    assert "broke off after a part of it was passed on" in run.stop_reason
    assert heard
    assert (attempt.outcome, attempt.posted) == ("unknown", attempt.held)


async def test_an_answer_that_failed_before_its_first_part_is_tried_again(
    tmp_path: Path, true_provider: TrueProvider
) -> None:
    heard: list[Any] = []
    true_provider.behaviour = Behaviour(script=[ANSWERS["text"]], faults=[Fault("server_error"), Fault("html")])
    async with opened(two_models(tmp_path, true_provider), sleep=at_once) as runtime:
        run = await runtime.run(listening(heard), {"question": QUESTION}, tenant="acme")
    assert run.status == "succeeded"
    assert "".join(str(chunk.text) for chunk in heard) == "Your refund of 42 dollars was paid."


@pytest.mark.parametrize("error", [RateLimited, CallTimeout])
async def test_a_call_of_which_a_part_was_passed_on_stays_charged_whatever_its_provider_says(
    error: type[ProviderError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stream(_: SimProvider, __: ModelRequest) -> AsyncIterator[Mapping[str, Any]]:
        yield {"content": "Your refund of "}
        raise error("half of it")

    monkeypatch.setattr(SimProvider, "stream", stream)
    models = {"house": {"provider": "sim", "scenario": "echo"}}
    async with opened(write_config(tmp_path, models), sleep=at_once) as runtime:
        run = await runtime.run(listening([]), {"question": QUESTION}, tenant="acme")
        [attempt] = runtime.ledger.reports.bill(run.id).attempts
    assert (run.status, attempt.outcome, run.steps) == ("failed", "unknown", 1)


async def test_whoever_listens_to_an_agent_is_told_of_the_failure_before_the_next_answer_begins(
    tmp_path: Path, true_provider: TrueProvider
) -> None:
    true_provider.behaviour = Behaviour(script=[ANSWERS["text"]], faults=[BROKEN])
    async with opened(two_models(tmp_path, true_provider), sleep=at_once) as runtime:
        agent = Agent(name="clerk", instructions="Answer.")
        events = [event async for event in runtime.stream(agent, QUESTION, tenant="acme")]
    kinds = [event.kind for event in events]
    assert kinds.index("token") < kinds.index("failed")
    second = events[kinds.index("failed") :]
    assert "".join(event.text for event in second if event.kind == "token") == "Your refund of 42 dollars was paid."
    assert events[-1].run is not None
    assert events[-1].run.output == "Your refund of 42 dollars was paid."
