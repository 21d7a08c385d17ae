"""Programs that never stop calling models by themselves: agents, LangChain's, and graphs of a user's own."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import ModelFallbackMiddleware, ModelRetryMiddleware, SummarizationMiddleware
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool as langchain_tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.types import RetryPolicy, Send, TimeoutPolicy, interrupt
from pydantic import BaseModel

from bursar.agents import Agent
from bursar.runtime import chat_model
from bursar.tools import tool

__all__ = ["AGENTS", "GRAPHS", "agent_with", "asking", "impatient"]

Graph = CompiledStateGraph[Any, Any, Any, Any]
Node = Callable[..., Any]
Update = dict[str, list[BaseMessage]]


@tool(effect="none")
def search(query: str) -> str:
    """Search the archive."""
    return f"nothing about {query}"


@tool(effect="none")
def summarize(text: str) -> str:
    """Summarize a text, with a model."""
    return str(chat_model().invoke(f"Summarize: {text}").text)


@tool(effect="none")
async def translate(text: str) -> str:
    """Translate a text, with a model."""
    return str((await chat_model().ainvoke(f"Translate: {text}")).text)


@langchain_tool
def judge(text: str) -> str:
    """Judge a text, with a model."""
    return str(chat_model().invoke(f"Judge: {text}").text)


judge.metadata = {"effect": "none"}


@langchain_tool
def look_up(query: str) -> str:
    """Look something up."""
    return f"nothing about {query}"


def agent_with(tools: str) -> Agent:
    """An agent with tools of `AGENTS`."""
    return Agent(name="worker", instructions="Find it.", tools=AGENTS[tools])


AGENTS: dict[str, Sequence[Any]] = {
    "a loop": [search],
    "a tool that calls a model": [summarize],
    "an async tool that calls a model": [translate],
    "a LangChain tool that calls a model": [judge],
    "an agent as a tool": [Agent(name="helper", instructions="Help.", tools=[search])],
    "an agent in an agent as a tool": [
        Agent(
            name="helper",
            instructions="Help.",
            tools=[Agent(name="expert", instructions="Know.", tools=[summarize, search])],
        )
    ],
}
"""The tools of agents that a model, which always calls the first of them, keeps busy for ever."""


def _loop(node: Node | Graph, **options: Any) -> Graph:
    """One node, again and again."""
    graph = StateGraph(MessagesState)
    graph.add_node("work", node, **options)
    graph.add_edge(START, "work")
    graph.add_edge("work", "work")
    return graph.compile()


def _sync_node() -> Graph:
    def work(state: MessagesState) -> Update:
        return {"messages": [chat_model().invoke(state["messages"])]}

    return _loop(work)


async def _ask(state: MessagesState) -> Update:
    return {"messages": [await chat_model().ainvoke(state["messages"])]}


def _send(node: Node) -> Graph:
    """A hundred branches at once, each with a question of its own."""

    def branches(state: MessagesState) -> list[Send]:
        return [Send("work", {"messages": [*state["messages"], HumanMessage(f"Part {part}?")]}) for part in range(100)]

    graph = StateGraph(MessagesState)
    graph.add_node("work", node)
    graph.add_conditional_edges(START, branches, ["work"])
    return graph.compile()


def _send_sync() -> Graph:
    def work(state: MessagesState) -> Update:
        return {"messages": [chat_model().invoke(state["messages"])]}

    return _send(work)


def _batch() -> Graph:
    def work(_: MessagesState) -> Update:
        return {"messages": list(chat_model().batch([f"Part {part}?" for part in range(10)]))}

    return _loop(work)


def _abatch() -> Graph:
    async def work(_: MessagesState) -> Update:
        return {"messages": list(await chat_model().abatch([f"Part {part}?" for part in range(10)]))}

    return _loop(work)


def _threads() -> Graph:
    def work(_: MessagesState) -> Update:
        with ThreadPoolExecutor(4) as pool:
            calls = [
                pool.submit(contextvars.copy_context().run, chat_model().invoke, f"Part {part}?") for part in range(10)
            ]
        return {"messages": [call.result() for call in calls]}

    return _loop(work)


def _stream() -> Graph:
    def work(state: MessagesState) -> Update:
        chunks = list(chat_model().stream(state["messages"]))
        return {"messages": [AIMessage("".join(str(chunk.text) for chunk in chunks))]}

    return _loop(work)


def _astream() -> Graph:
    async def work(state: MessagesState) -> Update:
        chunks = [chunk async for chunk in chat_model().astream(state["messages"])]
        return {"messages": [AIMessage("".join(str(chunk.text) for chunk in chunks))]}

    return _loop(work)


def _streamed_graph() -> Graph:
    inner = _loop(_ask)

    async def work(state: MessagesState) -> Update:
        parts: list[Any] = [part async for part in inner.astream(state, stream_mode=["messages", "values"])]
        return {"messages": parts[-1][1]["messages"]}

    return _loop(work)


def _retried_node() -> Graph:
    """A node that fails four times after its two calls, then goes on."""

    async def work(state: MessagesState, runtime: Runtime[None]) -> Update:
        first = await chat_model().ainvoke([*state["messages"], HumanMessage("First?")])
        second = await chat_model().ainvoke([*state["messages"], HumanMessage("Second?")])
        assert runtime.execution_info is not None
        if runtime.execution_info.node_attempt < 5:
            raise ConnectionError("the node fails after its calls")
        return {"messages": [first, second]}

    retry = RetryPolicy(max_attempts=5, initial_interval=0.001, jitter=False)
    return _loop(work, retry_policy=retry)


def _subgraph_as_node() -> Graph:
    return _loop(_loop(_ask))


def _subgraph_in_node() -> Graph:
    inner = _sync_node()

    def work(state: MessagesState) -> Update:
        return {"messages": inner.invoke(state)["messages"]}

    return _loop(work)


def _parallel_runnables() -> Graph:
    async def work(_: MessagesState) -> Update:
        ask: RunnableLambda[str, BaseMessage] = RunnableLambda(lambda question: chat_model().invoke(question))
        asked = {"left": ask, "right": RunnableLambda(lambda question: f"{question} On the right?") | ask}
        answers = await (RunnableLambda(lambda question: question) | asked).ainvoke("What is there?")
        return {"messages": list(answers.values())}

    return _loop(work)


class _Verdict(BaseModel):
    """A verdict."""

    text: str


def _structured() -> Graph:
    async def work(state: MessagesState) -> Update:
        verdict = await chat_model().with_structured_output(_Verdict, method="function_calling").ainvoke("Is it so?")
        return {"messages": [AIMessage(str(verdict))]}

    return _loop(work)


def _langchain(*middleware: Any, tools: Sequence[Any] = (look_up,)) -> Callable[[], Graph]:
    return lambda: create_agent(chat_model(), list(tools), middleware=middleware)


def _summarizing() -> SummarizationMiddleware:
    return SummarizationMiddleware(chat_model(), trigger=("messages", 2), keep=("messages", 1))


def _retrying() -> ModelRetryMiddleware:
    return ModelRetryMiddleware(max_retries=5, initial_delay=0, jitter=False)


def _falling_back() -> ModelFallbackMiddleware:
    return ModelFallbackMiddleware(chat_model(temperature=0.1), chat_model(temperature=0.2))


@langchain_tool
async def delegate(task: str) -> str:
    """Give a task to another agent."""
    inner = create_agent(chat_model(), [look_up])
    state = await inner.ainvoke({"messages": [HumanMessage(task)]})
    return str(state["messages"][-1].text)


GRAPHS: dict[str, Callable[[], Graph]] = {
    "a sync node": _sync_node,
    "an async node": lambda: _loop(_ask),
    "a fan-out of 100": lambda: _send(_ask),
    "a fan-out of 100 sync nodes": _send_sync,
    "batch": _batch,
    "abatch": _abatch,
    "threads": _threads,
    "stream": _stream,
    "astream": _astream,
    "a graph streamed in a node": _streamed_graph,
    "a node retried after its calls": _retried_node,
    "a subgraph as a node": _subgraph_as_node,
    "a subgraph called in a node": _subgraph_in_node,
    "runnables in parallel": _parallel_runnables,
    "structured output": _structured,
    "create_agent": _langchain(),
    "create_agent, summarizing": _langchain(_summarizing()),
    "create_agent, retrying": _langchain(_retrying()),
    "create_agent, falling back": _langchain(_falling_back()),
    "create_agent, all three": _langchain(_summarizing(), _retrying(), _falling_back()),
    "create_agent with a tool that calls a model": _langchain(tools=[judge]),
    "create_agent in create_agent": _langchain(tools=[delegate]),
}
"""Graphs that go on for ever, or for 100 calls."""


def impatient() -> Graph:
    """A node that is given up after a moment, and run again."""
    retry = RetryPolicy(max_attempts=10, initial_interval=0.001, jitter=False)
    return _loop(_ask, timeout=TimeoutPolicy(run_timeout=0.3), retry_policy=retry)


def asking(questions: int) -> Graph:
    """A node that calls a model and then asks so many questions, again and again."""

    async def work(state: MessagesState) -> Update:
        answer = await chat_model().ainvoke(state["messages"])
        replies = [str(interrupt(f"Question {number}?")) for number in range(questions)]
        return {"messages": [answer, HumanMessage(" ".join(replies))]}

    return _loop(work)
