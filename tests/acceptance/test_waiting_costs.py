"""A run that waits for a person holds nothing but its rows."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from langgraph.graph import START, StateGraph
from langgraph.types import interrupt

from bursar.runtime import Runtime
from bursar.runtime.context import RunContext
from bursar.runtime.run_ledger import RunLedger
from bursar.runtime.runs.records import Record
from bursar.runtime.runs.run import Run
from bursar.runtime.work import Work
from tests.acceptance.support import Texts, opened, write_config
from tests.support.provider import TrueProvider

RUNS = 100


def asks() -> Any:
    """A graph that asks before it does anything."""

    async def ask(state: Texts) -> Texts:
        return {"texts": [str(interrupt("Which?"))]}

    graph: StateGraph[Texts, None, Texts, Texts] = StateGraph(Texts)
    graph.add_node("ask", ask)
    graph.add_edge(START, "ask")
    return graph.compile()


async def waiting(runtime: Runtime, source: Any, runs: int) -> None:
    """So many runs that wait."""
    for _ in range(runs):
        run = await runtime.run(source, {"question": "Which?"}, tenant="acme")
        assert run.status == "interrupted"


def alive() -> Counter[str]:
    """How many there are of what an execution is made of."""
    gc.collect()
    kinds = (RunContext, RunLedger, Work, Run, Record, asyncio.Task, threading.Thread, sqlite3.Connection)
    return Counter(type(one).__name__ for one in gc.get_objects() if isinstance(one, kinds))


async def test_runs_that_wait_hold_no_task_no_connection_and_no_memory(
    tmp_path: Path, true_provider: TrueProvider
) -> None:
    """This process remembers their ids, by which it goes on with them once somebody has decided; nothing else."""
    source = asks()
    async with opened(write_config(tmp_path, true_provider)) as runtime:
        await waiting(runtime, source, 10)  # what is kept for good is there
        before = alive()
        await waiting(runtime, source, RUNS)
        grown = alive() - before
        assert all(count < RUNS / 10 for count in grown.values()), grown
