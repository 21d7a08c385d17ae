"""Public patterns of LangGraph and LangChain: a graph over any chat model, what it is given, what people answer."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypedDict

from langchain.agents import create_agent
from langchain.agents.middleware import (
    ContextEditingMiddleware,
    HumanInTheLoopMiddleware,
    ModelCallLimitMiddleware,
    ModelFallbackMiddleware,
    ModelRetryMiddleware,
    PIIMiddleware,
    SummarizationMiddleware,
    TodoListMiddleware,
    ToolCallLimitMiddleware,
    ToolRetryMiddleware,
)
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langgraph.config import get_stream_writer
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.pregel import Pregel
from langgraph.runtime import Runtime
from langgraph.store.memory import InMemoryStore
from langgraph.types import Command, RetryPolicy, Send, interrupt
from pydantic import BaseModel

__all__ = ["MIDDLEWARE", "PATTERNS", "Pattern"]

Graph = Pregel[Any, Any, Any, Any]
ASKED = "Where is order 1001?"


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """A graph of some model, what it is begun with, and what people answer when it asks, in order."""

    graph: Callable[[BaseChatModel], Graph]
    given: Any = field(default_factory=lambda: {"messages": [("user", ASKED)]})
    answers: Sequence[Any] = ()
    context: Any = None


@tool
def look_up(order: str) -> str:
    """Look an order up."""
    return f"{order} is on its way"


@tool
def pay_back(order: str) -> str:
    """Pay an order back."""
    return f"{order} is paid back"


@tool
def fail(order: str) -> str:
    """Look an order up where nothing answers."""
    raise ConnectionError("nothing answers")


def react(model: BaseChatModel) -> Graph:
    return create_agent(model, [look_up])


class Route(BaseModel):
    """Who works next."""

    worker: Literal["researcher", "writer"]


def supervisor(model: BaseChatModel) -> Graph:
    """Every worker hands back by Command, and the supervisor says by structured output who works."""

    async def boss(state: MessagesState) -> Command[Any]:
        if len(state["messages"]) > 2:
            return Command(goto=END)
        route: Any = await model.with_structured_output(Route, method="function_calling").ainvoke("Who works next?")
        return Command(goto=route.worker)

    async def work(state: MessagesState) -> Command[Literal["boss"]]:
        return Command(goto="boss", update={"messages": [await model.ainvoke(state["messages"])]})

    graph = StateGraph(MessagesState)
    graph.add_node("boss", boss, destinations=("researcher", "writer", END))
    graph.add_node("researcher", work)
    graph.add_node("writer", work)
    graph.add_edge(START, "boss")
    return graph.compile()


class Parts(TypedDict, total=False):
    subjects: list[str]
    subject: str
    texts: Annotated[list[str], operator.add]
    best: str


def map_reduce(model: BaseChatModel) -> Graph:
    def each(state: Parts) -> list[Send]:
        return [Send("write", {"subject": subject}) for subject in state["subjects"]]

    def write(state: Parts) -> Parts:
        return {"texts": [str(model.invoke(f"Write of {state['subject']}").text)]}

    def choose(state: Parts) -> Parts:
        return {"best": str(model.invoke(f"The best of {len(state['texts'])}").text)}

    graph = StateGraph(Parts)
    graph.add_node("write", write)
    graph.add_node("choose", choose)
    graph.add_conditional_edges(START, each, ["write"])
    graph.add_edge("write", "choose")
    graph.add_edge("choose", END)
    return graph.compile()


def with_subgraph(model: BaseChatModel, checkpointer: bool | None) -> Graph:
    """A graph in a graph, which asks twice in one node where it keeps checkpoints."""

    async def ask(state: MessagesState) -> dict[str, Any]:
        said = await model.ainvoke(state["messages"])
        if checkpointer is False:
            return {"messages": [said]}
        first, second = interrupt({"question": "Which size?"}), interrupt("Which colour?")
        return {"messages": [said, HumanMessage(f"{first}, {second}")]}

    async def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    inner = StateGraph(MessagesState)
    inner.add_node("ask", ask)
    inner.add_edge(START, "ask")
    graph = StateGraph(MessagesState)
    graph.add_node("inner", inner.compile(checkpointer=checkpointer))
    graph.add_node("answer", answer)
    graph.add_edge(START, "inner")
    graph.add_edge("inner", "answer")
    return graph.compile()


def hand_over(model: BaseChatModel) -> Graph:
    """A node within a graph sends the graph around it on."""

    async def inside(state: MessagesState) -> Command[Any]:
        said = await model.ainvoke(state["messages"])
        return Command(graph=Command.PARENT, goto="end", update={"messages": [said]})

    async def end(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    inner = StateGraph(MessagesState)
    inner.add_node("inside", inside)
    inner.add_edge(START, "inside")
    graph = StateGraph(MessagesState)
    graph.add_node("inner", inner.compile())
    graph.add_node("end", end)
    graph.add_edge(START, "inner")
    return graph.compile()


def chat_with_a_store(model: BaseChatModel) -> Graph:
    """Several turns, each of which asks for the next, and remembers in a store what was said."""

    async def turn(state: MessagesState, runtime: Runtime[None]) -> Command[Any]:
        said = await model.ainvoke(state["messages"])
        assert runtime.store is not None
        await runtime.store.aput(("said",), str(len(state["messages"])), {"text": said.text})
        told = interrupt({"say": str(said.text)})
        known = await runtime.store.asearch(("said",))
        messages = [said, HumanMessage(f"{told} ({len(known)} known)")]
        return Command(goto=END if told == "bye" else "turn", update={"messages": messages})

    graph = StateGraph(MessagesState)
    graph.add_node("turn", turn, destinations=("turn", END))
    graph.add_edge(START, "turn")
    return graph.compile(store=InMemoryStore())


@dataclass
class Whose:
    customer: str


def with_context(model: BaseChatModel) -> Graph:
    async def greet(state: MessagesState, runtime: Runtime[Whose]) -> dict[str, Any]:
        told = interrupt("Greet?")
        return {"messages": [await model.ainvoke(f"{told}, greet {runtime.context.customer}")]}

    graph = StateGraph(MessagesState, context_schema=Whose)
    graph.add_node("greet", greet)
    graph.add_edge(START, "greet")
    return graph.compile()


def functional(model: BaseChatModel) -> Graph:
    """LangGraph's functional API: tasks at once, an interrupt between."""

    @task
    async def draft(subject: str) -> str:
        return str((await model.ainvoke(f"Draft of {subject}")).text)

    @entrypoint()
    async def write(subjects: list[str]) -> dict[str, Any]:
        drafts = [draft(subject) for subject in subjects]
        texts = [await one for one in drafts]
        return {"texts": texts, "review": interrupt("Well written?")}

    return write


def retried(model: BaseChatModel) -> Graph:
    """A node that fails once after its paid call; LangGraph runs it again, and the reply is replayed."""
    failed: list[bool] = []

    async def ask(state: MessagesState) -> dict[str, Any]:
        get_stream_writer()("asking")
        said = await model.ainvoke(state["messages"])
        if not failed:
            failed.append(True)
            raise ConnectionError("once")
        return {"messages": [said]}

    graph = StateGraph(MessagesState)
    graph.add_node("ask", ask, retry_policy=RetryPolicy(initial_interval=0.001, retry_on=ConnectionError))
    graph.add_edge(START, "ask")
    return graph.compile()


def agent(*tools: Any, **middleware: Any) -> Callable[[BaseChatModel], Graph]:
    """LangChain's agent with one middleware, made of the model where it is a function of it."""

    def made(model: BaseChatModel) -> Graph:
        made_of = [how(model) for how in middleware.values()]
        return create_agent(model, list(tools) or [look_up], middleware=made_of)

    return made


PATTERNS: Mapping[str, Pattern] = {
    "a react agent": Pattern(graph=react),
    "a supervisor": Pattern(graph=supervisor),
    "map and reduce by Send": Pattern(graph=map_reduce, given={"subjects": ["cats", "dogs", "birds"]}),
    "a subgraph that asks": Pattern(graph=lambda model: with_subgraph(model, None), answers=["large", "red"]),
    "a subgraph with a memory": Pattern(graph=lambda model: with_subgraph(model, True), answers=["large", "red"]),
    "a subgraph without": Pattern(graph=lambda model: with_subgraph(model, False)),
    "a Command to the parent": Pattern(graph=hand_over),
    "turns with a store": Pattern(graph=chat_with_a_store, answers=["And order 1002?", "bye"]),
    "a context": Pattern(graph=with_context, answers=["Yes"], context={"customer": "Ada"}),
    "the functional API": Pattern(graph=functional, given=["cats", "dogs"], answers=["yes"]),
}

MIDDLEWARE: Mapping[str, Pattern] = {
    "HumanInTheLoop": Pattern(
        graph=agent(pay_back, person=lambda _: HumanInTheLoopMiddleware({"pay_back": True})),
        answers=[{"decisions": [{"type": "approve"}]}],
    ),
    "Summarization": Pattern(
        graph=agent(shorter=lambda model: SummarizationMiddleware(model, trigger=("messages", 3), keep=("messages", 1)))
    ),
    "ModelCallLimit": Pattern(graph=agent(limit=lambda _: ModelCallLimitMiddleware(run_limit=1))),
    "ToolCallLimit": Pattern(graph=agent(limit=lambda _: ToolCallLimitMiddleware(run_limit=1))),
    "ToolRetry": Pattern(
        graph=agent(fail, again=lambda _: ToolRetryMiddleware(max_retries=2, initial_delay=0, jitter=False))
    ),
    "ModelRetry": Pattern(graph=agent(again=lambda _: ModelRetryMiddleware(max_retries=2))),
    "ModelFallback": Pattern(graph=agent(other=lambda model: ModelFallbackMiddleware(model))),
    "PII": Pattern(
        graph=agent(private=lambda _: PIIMiddleware("email", strategy="redact")),
        given={"messages": [("user", "Write to ada@example.com")]},
    ),
    "TodoList": Pattern(graph=agent(todo=lambda _: TodoListMiddleware())),
    "ContextEditing": Pattern(graph=agent(shorter=lambda _: ContextEditingMiddleware())),
}
