"""A stop cannot be swallowed into more spending, and a call without a run is never sent.

In each of these runs the first call asks for more than the run may use, and is refused. Every later one would fit, and
the program under test does all it can to make one.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    ModelFallbackMiddleware,
    ModelRequest,
    ModelResponse,
    ModelRetryMiddleware,
    ToolRetryMiddleware,
)
from langchain_core.runnables import Runnable
from langchain_core.tools import tool as langchain_tool
from langgraph.graph import END, START, StateGraph
from langgraph.types import RetryPolicy

from bursar.agents import Agent
from bursar.budget import Limits
from bursar.runtime import Runtime, chat_model
from bursar.runtime.runs.run import Run
from bursar.runtime.stop import NoRunError
from bursar.tools import tool
from tests.acceptance.support import QUESTION, Texts, opened, write_config
from tests.support.provider import Answer, Behaviour, TrueProvider

TOO_LONG = "Where is my order? " * 500
FITS = "Where is it?"
LIMITS = Limits(tokens=1_000)

Model = Runnable[Any, Any]


@pytest.fixture
async def runtime(true_provider: TrueProvider, tmp_path: Path) -> AsyncIterator[Runtime]:
    async with opened(write_config(tmp_path, true_provider)) as runtime:
        yield runtime


async def _ainvoke(model: Model, question: str) -> None:
    await model.ainvoke(question)


async def _invoke_in_a_thread(model: Model, question: str) -> None:
    await asyncio.to_thread(model.invoke, question)


async def _astream(model: Model, question: str) -> None:
    async for _ in model.astream(question):
        pass


async def _stream_in_a_thread(model: Model, question: str) -> None:
    await asyncio.to_thread(list, model.stream(question))


async def _abatch(model: Model, question: str) -> None:
    await model.abatch([question, question], return_exceptions=True)


async def _batch_in_a_thread(model: Model, question: str) -> None:
    await asyncio.to_thread(model.batch, [question, question], return_exceptions=True)


async def _pool_of_threads(model: Model, question: str) -> None:
    def ask() -> None:
        with contextlib.suppress(Exception):
            model.invoke(question)

    def pool() -> None:
        with ThreadPoolExecutor(4) as threads:
            for _ in range(8):
                threads.submit(contextvars.copy_context().run, ask)

    await asyncio.to_thread(pool)


async def _with_fallbacks(model: Model, question: str) -> None:
    await model.with_fallbacks([model, chat_model("small")]).ainvoke(question)


async def _with_retry(model: Model, question: str) -> None:
    await model.with_retry(stop_after_attempt=4, wait_exponential_jitter=False).ainvoke(question)


async def _another_model(model: Model, question: str) -> None:
    await chat_model("small", max_output_tokens=20).ainvoke(question)


WAYS = [
    _ainvoke,
    _invoke_in_a_thread,
    _astream,
    _stream_in_a_thread,
    _abatch,
    _batch_in_a_thread,
    _pool_of_threads,
    _with_fallbacks,
    _with_retry,
    _another_model,
]


@pytest.mark.parametrize("ask", WAYS, ids=lambda way: way.__name__.strip("_"))
async def test_a_program_that_swallows_the_stop_sends_nothing_more_and_its_run_ends_stopped(
    runtime: Runtime, true_provider: TrueProvider, ask: Callable[[Model, str], Awaitable[None]]
) -> None:
    async def stubborn(state: Texts) -> Texts:
        for question in (TOO_LONG, *(f"{number}. {FITS}" for number in range(5))):
            with contextlib.suppress(Exception):
                await ask(chat_model("small"), question)
        return {"texts": ["done regardless"]}

    run = await _run(runtime, _graph(stubborn))
    assert true_provider.bill.requests == 0
    assert run.status == "stopped"
    assert run.stop_reason.startswith(f"refused: run {run.id} has 1,000 tokens left of 1,000 tokens")
    assert run.value["texts"] == ["done regardless"]


async def test_a_node_that_langgraph_retries_is_not_run_again_at_a_stop(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    tries = []

    async def ask(state: Texts) -> Texts:
        tries.append(1)
        await chat_model("small").ainvoke(TOO_LONG if len(tries) == 1 else FITS)
        return {"texts": []}

    run = await _run(runtime, _graph(ask, retry_policy=RetryPolicy(max_attempts=5, retry_on=Exception, jitter=False)))
    assert (run.status, len(tries), true_provider.bill.requests) == ("stopped", 1, 0)


async def test_calls_that_wait_in_line_are_refused_once_their_run_is_stopped(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    """One call holds all that is left and five that would fit wait for it, when one that never fits is refused."""
    true_provider.behaviour = Behaviour(latency_s=1.0)
    in_line = asyncio.Semaphore(0)

    async def ask(question: str) -> None:
        with contextlib.suppress(Exception):
            await chat_model("small").ainvoke(question)

    async def node(state: Texts) -> Texts:
        calls = [asyncio.create_task(ask(f"{number}. {FITS}")) for number in range(6)]
        for _ in calls[1:]:
            await in_line.acquire()
        await asyncio.gather(ask(TOO_LONG), *calls)
        return {"texts": []}

    run = None
    async for event in runtime.stream(_graph(node), {"question": QUESTION}, tenant="acme", limits=LIMITS):
        if event.kind == "waiting":
            in_line.release()
        run = event.run
    assert run is not None
    assert (run.status, run.steps, true_provider.bill.requests) == ("stopped", 1, 1)


async def test_a_stopped_run_that_is_resumed_without_a_grant_is_stopped_again_and_sends_nothing(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    async def ask(state: Texts) -> Texts:
        return {"texts": [str((await chat_model("small").ainvoke(TOO_LONG)).text)]}

    graph = _graph(ask)
    run = await _run(runtime, graph)
    for _ in range(3):
        run = await runtime.resume(run.id, source=graph)
        assert (run.status, true_provider.bill.requests) == ("stopped", 0)
    await runtime.grant(run.id, by="dana", tokens=10_000)
    run = await runtime.resume(run.id, source=graph)
    assert (run.status, true_provider.bill.requests) == ("succeeded", 1)


class _CatchAll(AgentMiddleware[Any, Any]):
    """Asks again, with a question that would fit, whatever went wrong."""

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> Any:
        try:
            return await handler(request)
        except Exception:
            return await handler(request.override(messages=request.messages[:1]))


def _middlewares() -> list[AgentMiddleware[Any, Any]]:
    return [
        _CatchAll(),
        ModelRetryMiddleware(max_retries=3, initial_delay=0, jitter=False),
        ModelFallbackMiddleware(chat_model("small"), chat_model("small", max_output_tokens=20)),
        ToolRetryMiddleware(max_retries=3, initial_delay=0, jitter=False),
    ]


async def test_langchains_retry_and_fallback_middleware_send_nothing_after_a_stop(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    graph = create_agent(chat_model("small"), middleware=_middlewares())
    asked = {"messages": [("user", FITS), ("user", TOO_LONG)]}
    run = await runtime.run(graph, asked, tenant="acme", limits=LIMITS)
    assert (run.status, true_provider.bill.requests) == ("stopped", 0)


async def test_a_langchain_tool_that_meets_the_stop_is_not_retried_and_ends_the_run(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    true_provider.behaviour = Behaviour(script=(Answer(tool_calls=[("look_up", {"word": "order"})]),))
    calls = []

    @langchain_tool
    async def look_up(word: str) -> str:
        """Look a word up."""
        calls.append(word)
        return str((await chat_model("small").ainvoke(TOO_LONG if len(calls) == 1 else word)).text)

    graph = create_agent(chat_model("small"), [look_up], middleware=_middlewares())
    run = await runtime.run(graph, {"messages": [("user", FITS)]}, tenant="acme", limits=LIMITS)
    assert (run.status, calls, true_provider.bill.requests) == ("stopped", ["order"], 1)


@pytest.mark.parametrize(("on_limit", "requests"), [("stop", 1), ("finalize", 2)])
async def test_an_agents_tool_that_catches_everything_ends_its_run_with_at_most_the_last_answer(
    runtime: Runtime, true_provider: TrueProvider, on_limit: Any, requests: int
) -> None:
    true_provider.behaviour = Behaviour(script=(Answer(tool_calls=[("look_up", {"word": "order"})]), Answer()))

    @tool(effect="none")
    def look_up(word: str) -> str:
        """Look a word up."""
        for question in (TOO_LONG, word, word):
            with contextlib.suppress(Exception):
                chat_model("small").invoke(question)
        return "found"

    agent = Agent(name="clerk", instructions="Help.", tools=[look_up], final_output_tokens=100)
    run = await runtime.run(agent, QUESTION, tenant="acme", limits=LIMITS, on_limit=on_limit)
    assert (run.status, true_provider.bill.requests) == ("stopped", requests)


async def test_a_thread_with_the_runs_context_spends_from_the_run_and_one_without_is_refused(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    outcomes: list[str] = []

    def ask() -> None:
        try:
            chat_model("small").invoke(FITS)
            outcomes.append("answered")
        except NoRunError:
            outcomes.append("refused")

    @tool(effect="none")
    def look_up(word: str) -> str:
        """Look a word up."""
        _in_a_thread(ask)
        _in_a_thread(partial(contextvars.copy_context().run, ask))
        return "found"

    script = (Answer(tool_calls=[("look_up", {"word": "order"})]), Answer(text="thanks"))
    true_provider.behaviour = Behaviour(script=script)
    run = await runtime.run(Agent(name="clerk", instructions="Help.", tools=[look_up]), QUESTION, tenant="acme")
    assert outcomes == ["refused", "answered"]
    assert run.steps == true_provider.bill.requests == 3


async def test_a_thread_that_outlives_its_run_is_refused(runtime: Runtime, true_provider: TrueProvider) -> None:
    ended, outcomes = threading.Event(), list[str]()

    def ask() -> None:
        ended.wait(10)
        try:
            chat_model("small").invoke(FITS)
        except Exception as error:
            outcomes.append(str(error))

    threads = []

    async def node(state: Texts) -> Texts:
        threads.append(threading.Thread(target=contextvars.copy_context().run, args=(ask,)))
        threads[0].start()
        return {"texts": []}

    run = await runtime.run(_graph(node), {"question": QUESTION}, tenant="acme")
    ended.set()
    await asyncio.to_thread(threads[0].join)
    assert (run.status, true_provider.bill.requests) == ("succeeded", 0)
    assert run.id in outcomes[0]


def _raw_thread(model: Model) -> None:
    caught: list[BaseException] = []

    def ask() -> None:
        try:
            model.invoke(QUESTION)
        except BaseException as error:
            caught.append(error)

    _in_a_thread(ask)
    raise caught[0]


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda model: model.invoke(QUESTION), id="invoke"),
        pytest.param(lambda model: list(model.stream(QUESTION)), id="stream"),
        pytest.param(lambda model: model.batch([QUESTION]), id="batch"),
        pytest.param(lambda model: model.bind_tools([]).invoke(QUESTION), id="bind_tools"),
        pytest.param(_raw_thread, id="raw thread"),
        pytest.param(lambda model: asyncio.run(model.ainvoke(QUESTION)), id="ainvoke"),
        pytest.param(lambda model: asyncio.run(_astream(model, QUESTION)), id="astream"),
        pytest.param(lambda model: asyncio.run(model.abatch([QUESTION])), id="abatch"),
    ],
)
async def test_a_call_without_a_run_raises_no_run_error_and_sends_nothing(
    runtime: Runtime, true_provider: TrueProvider, ask: Callable[[Model], object]
) -> None:
    with pytest.raises(NoRunError, match="nothing was sent"):
        await asyncio.to_thread(contextvars.Context().run, ask, chat_model("small"))
    assert true_provider.bill.requests == 0


def _graph(node: Any, **options: Any) -> StateGraph[Texts, None, Texts, Texts]:
    graph = StateGraph(Texts)
    graph.add_node("node", node, **options)
    graph.add_edge(START, "node")
    graph.add_edge("node", END)
    return graph


async def _run(runtime: Runtime, graph: StateGraph[Texts, None, Texts, Texts]) -> Run:
    return await runtime.run(graph, {"question": QUESTION}, tenant="acme", limits=LIMITS)


def _in_a_thread(target: Callable[[], None]) -> None:
    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
