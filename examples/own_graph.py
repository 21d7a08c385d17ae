"""A LangGraph graph of one's own, unchanged but for where its model comes from.

Its parallel branches, and whatever else it does, spend from one run: no branch can take more than is left.

python examples/own_graph.py
bursar run examples/own_graph.py:graph "Shall we build the export?" --tenant acme --config examples/bursar.yaml
"""

from __future__ import annotations

import asyncio
import operator
from pathlib import Path
from typing import Annotated, TypedDict

from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Send

from bursar.budget import Limits
from bursar.runtime import Runtime, chat_model

model = chat_model("panel", max_output_tokens=200)


class Panel(MessagesState):
    views: Annotated[list[str], operator.add]


class Seat(TypedDict):
    role: str
    question: str


def ask_everybody(state: Panel) -> list[Send]:
    question = state["messages"][-1].text
    return [Send("view", Seat(role=role, question=question)) for role in ("an engineer", "a customer", "a lawyer")]


async def view(state: Seat) -> dict[str, list[str]]:
    answer = await model.ainvoke(f"As {state['role']}: {state['question']}")
    return {"views": [answer.text]}


async def sum_up(state: Panel) -> MessagesState:
    return {"messages": [await model.ainvoke("Sum up:\n" + "\n".join(state["views"]))]}


graph = StateGraph(Panel)
graph.add_node(view)
graph.add_node(sum_up)
graph.add_conditional_edges(START, ask_everybody, ["view"])
graph.add_edge("view", "sum_up")
graph.add_edge("sum_up", END)


async def main() -> None:
    async with Runtime.open(Path(__file__).with_name("bursar.yaml")) as runtime:
        question = {"messages": [("user", "Shall we build the export?")]}
        run = await runtime.run(graph, question, tenant="acme", limits=Limits(cost_usd="0.10"), name="panel")
        print(f"{run.status}: {run.output}")
        print(f"{run.steps} model calls, {run.usage.total_tokens} tokens, ${run.cost_usd}")


if __name__ == "__main__":
    asyncio.run(main())
