"""A durable step: what a run adds to LangGraph's own superstep, with the same saver and beside LangGraph's own.

    a run            Runtime.run: a row, a hold, fenced checkpoints, the run around every node
    bare             the same graph by ainvoke, with Bursar's saver
    LangGraph's      the same graph by ainvoke, with LangGraph's AsyncSqliteSaver

All write every checkpoint before the next step begins (`durability="sync"`), each to a file of its own.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict
from uuid import uuid4

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from rich.console import Console
from rich.table import Table

from benchmarks.measure import cpu_ms
from bursar.memory import open_checkpoints
from bursar.runtime import Runtime
from bursar.runtime.config import parse_config

__all__ = ["Figures", "main", "measure"]

MANY, FEW = 100, 20
"""Steps of the runs between which the slope is taken."""

_CONFIG = """
database: sqlite:///{folder}/bursar.db
models: {{demo: {{provider: sim, scenario: echo}}}}
tiers: {{small: [demo]}}
tenants: {{acme: {{}}}}
"""


class Count(TypedDict):
    """The state: as small as can be, so that the step itself is measured."""

    left: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """CPU ms of each variant."""

    per_step: Mapping[str, float]
    per_run: Mapping[str, float]
    """What a run costs beside its steps."""


async def measure() -> Figures:
    """CPU ms a step, and a run, of each variant."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ours = await stack.enter_async_context(open_checkpoints(f"sqlite:///{folder / 'bare.db'}"))
        theirs = await stack.enter_async_context(AsyncSqliteSaver.from_conn_string(str(folder / "langgraph.db")))
        config = parse_config(_CONFIG.format(folder=folder), file="bench.yaml")
        runtime = await stack.enter_async_context(Runtime.open(config))
        found = {}
        for steps in (MANY, FEW):
            variants = {
                "a run": _run(runtime, steps),
                "bare": _bare(ours, steps),
                "LangGraph's": _bare(theirs, steps),
            }
            found[steps] = await cpu_ms(variants)
    slope = {name: (found[MANY][name] - found[FEW][name]) / (MANY - FEW) for name in found[MANY]}
    per_run = {name: found[FEW][name] - slope[name] * FEW for name in slope}
    return Figures(per_step=slope, per_run=per_run)


def _graph() -> StateGraph[Count, None, Count, Count]:
    async def step(state: Count) -> Count:
        return {"left": state["left"] - 1}

    graph = StateGraph(Count)
    graph.add_node("step", step)
    graph.add_edge(START, "step")
    graph.add_conditional_edges("step", lambda state: "step" if state["left"] else END)
    return graph


def _run(runtime: Runtime, steps: int) -> Callable[[], Awaitable[None]]:
    graph = _graph()

    async def run() -> None:
        ended = await runtime.run(graph, {"left": steps}, tenant="acme")
        if ended.status != "succeeded":
            raise RuntimeError(ended.stop_reason)

    return run


def _bare(saver: BaseCheckpointSaver[Any], steps: int) -> Callable[[], Awaitable[None]]:
    graph = _graph().compile(checkpointer=saver)

    async def run() -> None:
        await graph.ainvoke({"left": steps}, {"configurable": {"thread_id": uuid4().hex}}, durability="sync")

    return run


def main() -> None:
    """Measure and print."""
    found = asyncio.run(measure())
    table = Table("a durable step", "CPU ms a step", "of bare", "CPU ms a run besides", title="Durable steps")
    for name, figure in found.per_step.items():
        ratio = figure / found.per_step["bare"]
        table.add_row(name, f"{figure:.3f}", f"{ratio:.2f}", f"{found.per_run[name]:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
