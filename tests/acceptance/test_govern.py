"""A LangGraph graph runs as a Bursar run unchanged but for its model, to the same end, and pays for each call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelFallbackMiddleware, ModelRetryMiddleware
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_openai import ChatOpenAI
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import CachePolicy, Command, interrupt
from pydantic import BaseModel, SecretStr

from bursar.agents.load import load_agent
from bursar.budget import Limits
from bursar.budget.errors import UsageError
from bursar.runtime import Runtime, chat_model, govern
from bursar.runtime.audit import UngovernedModel
from tests.acceptance.patterns import MIDDLEWARE, PATTERNS, Pattern, look_up, react, retried, with_context
from tests.acceptance.support import QUESTION, Texts, charged, opened, write_config
from tests.support.provider import Answer, Behaviour, TrueProvider

ASKED: Any = {"messages": [("user", QUESTION)]}


class Size(BaseModel):
    letter: str


def plays(body: dict[str, Any], _: int) -> Answer:
    """Calls the first tool that it is offered, once; what it says otherwise depends on what it was told last."""
    last = body["messages"][-1]
    offered = [one["function"] for one in body.get("tools") or ()]
    tool = next((one for one in offered if one["name"] != "write_todos"), None)
    if tool is not None and last["role"] == "user":
        wanted = tool["parameters"]["properties"]
        return Answer(tool_calls=[(tool["name"], {key: of.get("enum", ["1001"])[0] for key, of in wanted.items()})])
    return Answer(text=f"So much for: {last['content']}")


@pytest.fixture
async def runtime(tmp_path: Path, true_provider: TrueProvider) -> AsyncIterator[Runtime]:
    true_provider.behaviour = Behaviour(script=plays)
    async with opened(write_config(tmp_path, true_provider)) as one:
        yield one


async def bare(pattern: Pattern, provider: TrueProvider) -> Any:
    """What LangGraph alone comes to, on the same provider."""
    async with httpx.AsyncClient(trust_env=False) as http:
        with httpx.Client(trust_env=False) as blocking:
            model = raw_model(provider, http_async_client=http, http_client=blocking)
            graph = pattern.graph(model).copy({"checkpointer": InMemorySaver()})
            config: Any = {"configurable": {"thread_id": "bare"}}
            ended = await graph.ainvoke(pattern.given, config, context=pattern.context, version="v2")
            for answer in pattern.answers:
                assert ended.interrupts
                ended = await graph.ainvoke(Command(resume=answer), config, context=pattern.context, version="v2")
            return ended.value


def raw_model(provider: TrueProvider, **clients: Any) -> BaseChatModel:
    return ChatOpenAI(model="house-7b", base_url=provider.api_base, api_key=SecretStr("its-own"), **clients)


def plain(value: Any) -> Any:
    """A state without what differs from run to run: ids, usage, and who answered."""
    if isinstance(value, BaseMessage):
        calls = [(call["name"], call["args"]) for call in getattr(value, "tool_calls", ())]
        return (value.type, value.text, calls)
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    return sorted(map(plain, value), key=repr) if isinstance(value, list) else value


@pytest.mark.parametrize("name", [*PATTERNS, *MIDDLEWARE])
async def test_a_pattern(name: str, runtime: Runtime, true_provider: TrueProvider) -> None:
    """A public pattern comes to what LangGraph alone comes to, and the ledger to what the provider billed."""
    pattern = {**PATTERNS, **MIDDLEWARE}[name]
    expected = await bare(pattern, true_provider)
    true_provider.reset(true_provider.behaviour)
    graph = govern(pattern.graph(chat_model("small")), name="pattern", limits=Limits(cost_usd="5"))
    run = await runtime.run(graph, pattern.given, tenant="acme", context=pattern.context)
    for answer in pattern.answers:
        assert run.status == "interrupted", run.stop_reason
        run = await runtime.resume(run.id, {run.interrupts[0].id: answer})
    assert run.status == "succeeded", run.stop_reason
    assert plain(run.value) == plain(expected)
    assert (run.steps, run.spent.nanousd) == (true_provider.bill.calls, charged(true_provider.bill))
    assert runtime.ledger.reports.bill(run.id).held.steps == 0


async def test_a_node_that_is_run_again(runtime: Runtime, true_provider: TrueProvider) -> None:
    """LangGraph's retry of a node is given the reply that was paid for."""
    run = await runtime.run(govern(retried(chat_model("small"))), ASKED, tenant="acme")
    assert (run.status, run.steps, true_provider.bill.calls) == ("succeeded", 1, 1)


async def test_langgraphs_own_stream(runtime: Runtime) -> None:
    """Beside our events come LangGraph's own, of the modes that were asked for, of graphs within too."""
    graph = govern(react(chat_model("small")))
    events = [one async for one in runtime.stream(graph, ASKED, tenant="acme", mode=["updates", "messages"])]
    parts = [one.data for one in events if one.kind == "graph"]
    assert {part["type"] for part in parts} == {"updates", "messages"}
    assert [key for part in parts if part["type"] == "updates" for key in part["data"]] == ["model", "tools", "model"]
    told = [part["data"][0] for part in parts if part["type"] == "messages"]
    said = "".join(one.text for one in told if one.type != "tool")
    run = events[-1].run
    assert run is not None
    assert run.status == "succeeded"
    assert run.output is not None
    assert run.output in said
    assert sum(one.kind == "call" for one in events) == 2


async def test_the_stream_of_a_run_that_is_resumed(runtime: Runtime) -> None:
    """A run that is answered streams what comes after."""
    pattern = MIDDLEWARE["HumanInTheLoop"]
    run = await runtime.run(govern(pattern.graph(chat_model("small"))), pattern.given, tenant="acme")
    answer = {run.interrupts[0].id: pattern.answers[0]}
    events = [one async for one in runtime.stream_resume(run.id, answer, mode="updates")]
    assert "tools" in [key for one in events if one.kind == "graph" for key in one.data["data"]]


@pytest.mark.parametrize("mode", ["custom", "values"])
async def test_one_mode(mode: Any, runtime: Runtime) -> None:
    """A mode alone, also the one by which the run itself follows its graph."""
    graph = govern(retried(chat_model("small")))
    events = [one async for one in runtime.stream(graph, ASKED, tenant="acme", mode=mode)]
    assert {one.data["type"] for one in events if one.kind == "graph"} == {mode}


async def test_an_ungoverned_model(runtime: Runtime, true_provider: TrueProvider) -> None:
    """A model that no run pays is refused before it sends, whatever middleware there is; the run says who called it."""
    middleware: Any = [ModelRetryMiddleware(max_retries=5), ModelFallbackMiddleware(chat_model("small"))]
    graph = create_agent(raw_model(true_provider), [look_up], middleware=middleware)
    run = await runtime.run(govern(graph), ASKED, tenant="acme")
    assert run.status == "failed"
    assert "node model called ChatOpenAI (house-7b) around the ledger" in run.stop_reason
    assert "chat_model(...)" in run.stop_reason
    assert isinstance(run.error, UngovernedModel)
    assert true_provider.bill.requests == run.steps == 0


async def test_an_ungoverned_model_in_a_tool(runtime: Runtime, true_provider: TrueProvider) -> None:
    """Nor does it help to call it in synchronous code."""

    def node(state: MessagesState) -> dict[str, Any]:
        return {"messages": [raw_model(true_provider).invoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    run = await runtime.run(govern(graph), ASKED, tenant="acme")
    assert (run.status, true_provider.bill.requests) == ("failed", 0)


async def test_declared_limits(runtime: Runtime, true_provider: TrueProvider) -> None:
    """A run may tighten what was declared, and not widen it."""
    graph = govern(react(chat_model("small")), name="asker", limits=Limits(steps=1), on_limit="stop")
    wider = await runtime.run(graph, ASKED, tenant="acme", limits=Limits(steps=9))
    assert (wider.status, wider.agent, wider.steps) == ("stopped", "asker", 1)
    tighter = await runtime.run(graph, ASKED, tenant="acme", limits=Limits(steps=0))
    assert (tighter.status, tighter.steps, true_provider.bill.calls) == ("stopped", 0, 1)


async def test_an_answer_that_a_node_has_a_schema_for(runtime: Runtime) -> None:
    """An answer that does not fit what the node asked for is refused, and the run waits as before."""

    def ask(state: Texts) -> Texts:
        size: Size = interrupt("Which size?", response_schema=Size)
        return {"texts": [f"{size.letter}!"]}

    graph = StateGraph(Texts)
    graph.add_node("ask", ask)
    graph.add_edge(START, "ask")
    run = await runtime.run(govern(graph), {"question": QUESTION}, tenant="acme")
    (asked,) = run.interrupts
    with pytest.raises(UsageError):
        await runtime.resume(run.id, {asked.id: {"letter": 7}})
    assert (await runtime.get(run.id)).status == "interrupted"
    run = await runtime.resume(run.id, {asked.id: {"letter": "L"}})
    assert (run.status, run.value["texts"]) == ("succeeded", ["L!"])


async def test_a_cache_of_nodes(tmp_path: Path, true_provider: TrueProvider) -> None:
    """What a node came to is kept for its own tenant: another's run is not given it, and pays."""

    async def node(state: Texts) -> Texts:
        return {"texts": [str((await chat_model("small").ainvoke(state["question"])).text)]}

    graph = StateGraph(Texts)
    graph.add_node("node", node, cache_policy=CachePolicy())
    graph.add_edge(START, "node")
    governed = govern(graph.compile(cache=InMemoryCache()))
    async with opened(write_config(tmp_path, true_provider, tenants={"acme": {}, "globex": {}})) as runtime:
        runs = [
            await runtime.run(governed, {"question": QUESTION}, tenant=tenant)
            for tenant in ("acme", "acme", "globex", "globex")
        ]
    assert {run.status for run in runs} == {"succeeded"}
    assert ([run.steps for run in runs], true_provider.bill.calls) == ([1, 0, 1, 0], 2)


A_FILE = """
from bursar.budget import Limits
from bursar.runtime import chat_model, govern
from tests.acceptance.patterns import with_context

greeter = govern(with_context(chat_model("small")), name="greeter", limits=Limits(steps=2))
"""


async def test_another_process_finds_graph_and_context(tmp_path: Path, true_provider: TrueProvider) -> None:
    """A run goes on where only its target is known, in the context that it was begun with."""
    true_provider.behaviour = Behaviour(script=plays)
    config, target = write_config(tmp_path, true_provider), f"{tmp_path / 'greeters.py'}:greeter"
    (tmp_path / "greeters.py").write_text(A_FILE)
    async with opened(config) as runtime:
        graph = load_agent(target)
        run = await runtime.run(graph, ASKED, tenant="acme", target=target, context={"customer": "Ada"})
    async with opened(config) as runtime:
        run = await runtime.resume(run.id, {run.interrupts[0].id: "Yes"})
    assert run.output == "So much for: Yes, greet Ada"


@pytest.mark.parametrize(("context", "why"), [({}, "customer"), ({"customer": object()}, "customer")])
async def test_a_context_that_does_not_fit(context: Any, why: str, runtime: Runtime) -> None:
    """What the graph's context_schema does not take, or what cannot be kept, is refused before the run is."""
    with pytest.raises(UsageError, match=why):
        await runtime.run(govern(with_context(chat_model())), ASKED, tenant="acme", context=context)


async def test_no_context_is_declared(runtime: Runtime) -> None:
    with pytest.raises(UsageError, match="the graph declares none"):
        await runtime.run(govern(react(chat_model())), ASKED, tenant="acme", context={"customer": "Ada"})


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"name": "Not This"}, "expected 1 to 63 lower-case letters"),
        ({"limits": {"steps": 1}}, "expected Limits"),
        ({"on_limit": "explode"}, "expected one of finalize"),
        ({"max_output_tokens": 0}, "expected a whole number"),
        ({"version": 2}, "expected a text"),
        ({"migrate": {"1": dict}}, "no version"),
        ({"version": "1", "migrate": {"1": dict}}, "functions by earlier versions"),
    ],
)
def test_what_cannot_be_declared(wrong: dict[str, Any], why: str) -> None:
    """A setting that cannot be is refused where it is written, by its name and value."""
    with pytest.raises(UsageError, match=why):
        govern(react(chat_model()), **wrong)


def test_what_cannot_be_governed() -> None:
    with pytest.raises(UsageError, match="needs a LangGraph graph, not function"):
        govern(plays)  # type: ignore[arg-type]


@pytest.mark.parametrize("messages", [5, {"ann": ["hello"]}, {"hello"}, "hello", [5], []])
async def test_a_graphs_messages_may_be_anything(messages: Any, runtime: Runtime) -> None:
    """Only LangChain's messages have an answer in them; a state of another kind ends its run just as well."""
    builder: Any = StateGraph(dict)
    builder.add_node("node", lambda _: {"messages": messages})
    builder.add_edge(START, "node")
    run = await runtime.run(builder, {}, tenant="acme")
    assert (run.status, run.output) == ("succeeded", None)
    assert run.value["messages"] == messages
