"""A run that waits for a person holds nothing but its rows."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from pathlib import Path
from typing import Any

from langgraph.graph import START, StateGraph
from langgraph.types import interrupt

from bursar.runtime import Runtime
from tests.acceptance.support import Texts, opened, write_config
from tests.support.provider import TrueProvider

RUNS = 100

BYTES_MAX = 4_000
"""Of memory for each: its id, and what caches of statements still grow by; a graph's state alone would be more."""


def asks() -> Any:
    """A graph that asks before it does anything."""

    async def ask(_: Texts) -> Texts:
        return {"texts": [str(interrupt("Which?"))]}

    graph = StateGraph(Texts)
    graph.add_node("ask", ask)
    graph.add_edge(START, "ask")
    return graph.compile()


async def waiting(runtime: Runtime, source: Any, runs: int) -> None:
    """So many runs that wait."""
    for _ in range(runs):
        run = await runtime.run(source, {"question": "Which?" * 1_000}, tenant="acme")
        assert run.status == "interrupted"


async def test_runs_that_wait_hold_no_task_and_no_memory(tmp_path: Path, true_provider: TrueProvider) -> None:
    config = write_config(tmp_path, true_provider)
    source = asks()
    async with opened(config) as runtime:
        await waiting(runtime, source, RUNS)  # what is cached for good is cached
        gc.collect()
        tasks = len(asyncio.all_tasks())
        tracemalloc.start()
        try:
            await waiting(runtime, source, RUNS)
            gc.collect()
            per_run = tracemalloc.get_traced_memory()[0] / RUNS
        finally:
            tracemalloc.stop()
        assert len(asyncio.all_tasks()) == tasks
        assert per_run < BYTES_MAX
