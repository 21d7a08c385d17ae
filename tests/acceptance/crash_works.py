"""What is killed: an agent with effects, a graph of one's own, an agent that asks people, and one that asks for more.

What a tool does is one line in a file, with the idempotency key of the call: so it is counted from outside.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

from bursar.agents import Agent
from bursar.budget import Limits
from bursar.runtime import chat_model
from bursar.tools import idempotency_key, tool
from tests.support.provider import Answer

__all__ = ["EFFECTS", "WORKS", "Effect", "Script", "Work", "effects"]

EFFECTS = "BURSAR_TEST_EFFECTS"
"""The environment variable that names the file to which the tools write."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What a tool did once."""

    line: str
    key: str


def effects() -> Sequence[Effect]:
    """All that was done until now, by whichever process."""
    return [Effect(*line.split()) for line in Path(os.environ[EFFECTS]).read_text().splitlines()]


def act(line: str) -> str:
    """One `write` to a file opened for appending: it is there whole, or not at all."""
    file = os.open(os.environ[EFFECTS], os.O_WRONLY | os.O_APPEND)
    os.write(file, f"{line} {idempotency_key()}\n".encode())
    os.close(file)
    return "written"


def _was_done(key: str) -> str | None:
    return "written" if any(effect.key == key for effect in effects()) else None


@tool(effect="irreversible", approval="never")
def note(line: str) -> str:
    """Write a line down for good; in doubt, a person says whether it was."""
    return act(line)


@tool(effect="irreversible", approval="always", check=_was_done)
def sign(line: str) -> str:
    """Sign a line, once a person has seen it; in doubt, it looks for itself."""
    return act(line)


class Script:
    """Answers by the conversation alone, and remembers for which run each answer was."""

    def __init__(self) -> None:
        self.labels: list[str] = []

    def __call__(self, body: dict[str, Any], _: int) -> Answer:
        said = next(message["content"] for message in body["messages"] if message["role"] == "user")
        label = said.split()[0]
        self.labels.append(label)
        if not body.get("tools"):
            return Answer(text=f"<{said}>")
        turn = sum(message["role"] == "assistant" for message in body["messages"])
        lines: Sequence[Sequence[str]] = [("a", "b"), ("c",), ()]
        tool = body["tools"][0 if turn == 0 else -1]["function"]["name"]
        calls = [(tool, {"line": f"{label}/{line}"}) for line in lines[turn]]
        return Answer(tool_calls=calls) if calls else Answer(text=f"{label} is written down.")


class Texts(TypedDict, total=False):
    """The state of the graph."""

    question: str
    texts: Annotated[list[str], lambda before, after: sorted({*before, *after})]
    messages: list[Any]


def _outline(state: Texts) -> Texts:
    asked = [f"{state['question']} {part}" for part in ("first", "second")]
    return {"texts": [str(chat_model().invoke(question).text) for question in asked]}


def _parts(state: Texts) -> list[Send]:
    return [Send("part", {"question": f"{state['question']} after {text}"}) for text in state["texts"]]


async def _part(state: Texts) -> Texts:
    chunks = [str(chunk.text) async for chunk in chat_model().astream(state["question"])]
    return {"texts": ["".join(chunks)]}


async def _whole(state: Texts) -> Texts:
    return {"messages": [await chat_model().ainvoke(f"{state['question']} all of {', '.join(state['texts'])}")]}


def _graph() -> Any:
    graph = StateGraph(Texts)
    graph.add_node("outline", _outline)
    graph.add_node("part", _part)
    graph.add_node("whole", _whole)
    graph.add_edge(START, "outline")
    graph.add_conditional_edges("outline", _parts, ["part"])
    graph.add_edge("part", "whole")
    graph.add_edge("whole", END)
    return graph.compile(name="graph")


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is run, and what must have come of it."""

    source: Any
    given: Callable[[str], Any] = str
    """The input for a label."""

    model_calls: int = 3
    in_flight_max: int = 1
    tool_calls: int = 3
    asks: bool = False
    """Whether its first stop is at a person."""


WORKS = {
    "agent": Work(source=Agent(name="agent", instructions="Write everything down.", tools=[note])),
    "graph": Work(
        source=_graph(),
        given=lambda label: {"question": label},
        model_calls=5,
        in_flight_max=2,
        tool_calls=0,
    ),
    "signer": Work(source=Agent(name="signer", instructions="Sign what is important.", tools=[sign, note]), asks=True),
    "poor": Work(
        source=Agent(
            name="poor",
            instructions="Write everything down.",
            tools=[note],
            limits=Limits(steps=1, cost_usd="100"),
            on_limit="escalate",
        ),
        asks=True,
    ),
}
