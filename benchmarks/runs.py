"""Many runs, dead workers and waiting people: what a process holds, and how fast runs go on.

`python -m benchmarks.runs` prints the whole table, in about two minutes. Each part has processes of its own.
"""

from __future__ import annotations

import asyncio
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypedDict
from uuid import uuid4

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from rich.console import Console
from rich.table import Table
from sqlalchemy import func, select

from bursar.agents import Agent
from bursar.budget import Limits
from bursar.memory import open_checkpoints
from bursar.runtime import Runtime
from bursar.runtime.runs.schema import run_event
from bursar.tools import tool
from tests.support.processes import Child

__all__ = ["main"]

RUNS = 1_000
CALLS = 2
WAIT_MS = 50
TURNS = 200
RESULT = "x" * 2_048
DECISIONS = 40
LEASE_S = 10.0
DEAD_RUNS = 20

_CONFIG = """
database: sqlite:///bursar.db
models:
  demo:
    provider: sim
    scenario: {folder}/scenario.yaml
    price: {{input_usd_per_mtok: "1", output_usd_per_mtok: "2"}}
tiers: {{small: [demo]}}
tenants: {{acme: {{people: {{dana: {{}}}}}}}}
lease_s: {lease_s}
"""


@tool(effect="none")
async def look_up(query: str) -> str:
    """Look something up."""
    return RESULT


@tool(effect="irreversible", approval="always")
async def pay(to: str) -> str:
    """Pay somebody."""
    return "paid"


_LIMITS = Limits(steps=10_000, tokens=None, tool_calls=None, cost_usd="1000", seconds=None)
AGENT = Agent(name="bench", instructions="Look things up.", tools=[look_up], limits=_LIMITS)
CASHIER = Agent(name="cashier", instructions="Pay.", tools=[pay], limits=_LIMITS)


class _Messages(TypedDict):
    left: int
    messages: list[dict[str, str]]


def _config(folder: Path, scenario: dict[str, Any], *, lease_s: float = LEASE_S) -> Path:
    (folder / "scenario.yaml").write_text(json.dumps(scenario))
    file = folder / "bursar.yaml"
    file.write_text(_CONFIG.format(folder=folder, lease_s=lease_s))
    return file


def _looks(turns: int, **more: Any) -> dict[str, Any]:
    """A model that looks something up so often, and then answers."""
    looks = [{"tool_calls": [{"name": "look_up", "arguments": {"query": f"thing {turn}"}}]} for turn in range(turns)]
    return {"answers": [*looks, "done"], **more}


# --- Many runs at once ------------------------------------------------------------------------------------------------


async def _many(run: Callable[[], Awaitable[Any]]) -> dict[str, float]:
    """Runs a second, CPU ms a run, and KiB of memory that a run under way takes."""
    await run()
    before = resource.getrusage(resource.RUSAGE_SELF)
    begun = time.perf_counter()
    await asyncio.gather(*(run() for _ in range(RUNS)))
    wall_s = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    kib = (after.ru_maxrss - before.ru_maxrss) / RUNS
    return {"runs/s": RUNS / wall_s, "CPU ms a run": cpu_s * 1000 / RUNS, "KiB a run": kib}


async def _many_governed(folder: Path) -> dict[str, float]:
    wait = {"latency_ms": {"min": WAIT_MS, "max": WAIT_MS}}
    async with Runtime.open(_config(folder, _looks(CALLS - 1, **wait))) as runtime:

        async def run() -> None:
            ended = await runtime.run(AGENT, "Look it up.", tenant="acme")
            if ended.status != "succeeded":
                raise RuntimeError(ended.stop_reason)

        return await _many(run)


def _bare_graph() -> StateGraph[_Messages, None, _Messages, _Messages]:
    async def model(state: _Messages) -> dict[str, Any]:
        await asyncio.sleep(WAIT_MS / 1000)
        said = {"role": "assistant", "content": f"look up {state['left']}"}
        return {"left": state["left"] - 1, "messages": [*state["messages"], said]}

    async def act(state: _Messages) -> dict[str, Any]:
        return {"messages": [*state["messages"], {"role": "tool", "content": RESULT}]}

    graph = StateGraph(_Messages)
    graph.add_node("model", model)
    graph.add_node("act", act)
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", lambda state: "act" if state["left"] else END)
    graph.add_edge("act", "model")
    return graph


async def _bare(saver: Any, turns: int) -> None:
    given: Any = {"left": turns, "messages": [{"role": "user", "content": "Look it up."}]}
    config: Any = {"configurable": {"thread_id": uuid4().hex}, "recursion_limit": 10 * turns}
    await _bare_graph().compile(checkpointer=saver).ainvoke(given, config, durability="sync")


async def _many_bare(folder: Path) -> dict[str, float]:
    async with open_checkpoints(f"sqlite:///{folder}/bare.db") as saver:
        return await _many(lambda: _bare(saver, CALLS))


async def _many_langgraphs(folder: Path) -> dict[str, float]:
    async with AsyncSqliteSaver.from_conn_string(str(folder / "langgraph.db")) as saver:
        return await _many(lambda: _bare(saver, CALLS))


# --- The size of a long run -------------------------------------------------------------------------------------------


async def _sizes(folder: Path) -> dict[str, float]:
    """MiB of the checkpoints of one run of 200 turns with 2 KiB of result each."""
    async with Runtime.open(_config(folder, _looks(TURNS - 1))) as runtime:
        ended = await runtime.run(AGENT, "Look it up.", tenant="acme")
        if ended.status != "succeeded":
            raise RuntimeError(ended.stop_reason)
    ours = _mib(folder, "bursar.checkpoints.db*")
    async with AsyncSqliteSaver.from_conn_string(str(folder / "langgraph.db")) as saver:
        await _bare(saver, TURNS)
    return {"a run": ours, "LangGraph's": _mib(folder, "langgraph.db*")}


def _mib(folder: Path, files: str) -> float:
    return sum(file.stat().st_size for file in folder.glob(files)) / 2**20


# --- Going on after a decision ----------------------------------------------------------------------------------------


async def _decisions(folder: Path) -> dict[str, float]:
    """Ms from a decision to the end of its run: the tool's call, a model call, six checkpoints."""
    pays = {"answers": [{"tool_calls": [{"name": "pay", "arguments": {"to": "ann"}}]}, "done"]}
    async with Runtime.open(_config(folder, pays)) as runtime, _working(runtime):
        walls = []
        for _ in range(DECISIONS):
            run = await runtime.run(CASHIER, "Pay ann.", tenant="acme")
            (asked,) = await runtime.escalations.ls(run_id=run.id)
            begun = time.perf_counter()
            await runtime.escalations.decide(asked.id, {"type": "approve"}, by="dana")
            while (await runtime.get(run.id)).status != "succeeded":  # noqa: ASYNC110 - what is measured is the store
                await asyncio.sleep(0.002)
            walls.append((time.perf_counter() - begun) * 1000)
    return {"p50": statistics.median(walls), "p95": statistics.quantiles(walls, n=20)[-1]}


@asynccontextmanager
async def _working(runtime: Runtime) -> AsyncIterator[None]:
    worker = asyncio.create_task(runtime.work(sources=[AGENT, CASHIER]))
    try:
        yield
    finally:
        worker.cancel()
        with suppress(asyncio.CancelledError):
            await worker


# --- Taking over from the dead ----------------------------------------------------------------------------------------


async def _worker(folder: Path) -> None:
    """Work until killed."""
    async with Runtime.open(folder / "bursar.yaml") as runtime:
        await runtime.work(concurrency=2 * DEAD_RUNS, sources=[AGENT])


async def _take_over(folder: Path) -> dict[str, float]:
    """Leases' times from the SIGKILL of a worker until another has taken over the first and the last of its runs."""
    minute = {"latency_ms": {"min": 60_000, "max": 60_000}}
    async with Runtime.open(_config(folder, _looks(1, **minute))) as runtime:
        runs = {(await runtime.submit(AGENT, "Look it up.", tenant="acme")).id for _ in range(DEAD_RUNS)}
        with Child("-m", "benchmarks.runs", "worker", folder) as dying:
            await _until(lambda: _causes(runtime, runs, "taken up") == DEAD_RUNS)
            with Child("-m", "benchmarks.runs", "worker", folder):
                await asyncio.sleep(LEASE_S / 2)  # it is at work, and has seen signs of life
                dying.kill()
                begun = time.perf_counter()
                await _until(lambda: _causes(runtime, runs, "taken over") > 0)
                first = time.perf_counter() - begun
                await _until(lambda: _causes(runtime, runs, "taken over") == DEAD_RUNS)
    return {"first": first / LEASE_S, "last": (time.perf_counter() - begun) / LEASE_S}


def _causes(runtime: Runtime, runs: set[str], cause: str) -> int:
    """In how many of these runs this happened."""
    query = select(func.count(run_event.c.run_id.distinct())).where(run_event.c.cause.startswith(cause))
    with runtime.ledger.store.read() as connection:
        return int(connection.execute(query.where(run_event.c.run_id.in_(runs))).scalar_one())


async def _until(what: Callable[[], bool]) -> None:
    while not what():  # noqa: ASYNC110 - it happens in another process
        await asyncio.sleep(0.02)


PARTS: Mapping[str, Callable[[Path], Coroutine[Any, Any, Mapping[str, float]]]] = {
    "a run": _many_governed,
    "bare": _many_bare,
    "LangGraph's": _many_langgraphs,
    "sizes": _sizes,
    "decisions": _decisions,
    "take-over": _take_over,
}


def _measured(part: str) -> Mapping[str, float]:
    """What a part says, from a process of its own."""
    with Child("-m", "benchmarks.runs", part) as child:
        found: dict[str, float] = json.loads(child.line(timeout_s=300))
    return found


def main() -> None:
    """Measure and print."""
    console = Console()
    many = Table(f"{RUNS} runs of {CALLS} model calls that wait {WAIT_MS} ms", "runs/s", "CPU ms a run", "KiB a run")
    for name in ("a run", "bare", "LangGraph's"):
        found = _measured(name)
        many.add_row(name, *(f"{found[key]:.1f}" for key in ("runs/s", "CPU ms a run", "KiB a run")))
    console.print(many)
    sizes, decisions, takeover = (_measured(part) for part in ("sizes", "decisions", "take-over"))
    console.print(f"checkpoints of {TURNS} turns with {len(RESULT)} bytes of result each, in MiB: {_said(sizes)}")
    console.print(f"from a decision to the end of its run, in ms: {_said(decisions)}")
    console.print(f"from a worker's death until its runs are taken over, in leases of {LEASE_S:g} s: {_said(takeover)}")


def _said(found: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {figure:.2f}" for name, figure in found.items())


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            main()
        case ["worker", folder]:
            asyncio.run(_worker(Path(folder)))
        case [part]:
            with tempfile.TemporaryDirectory() as name:
                print(json.dumps(asyncio.run(PARTS[part](Path(name)))))
