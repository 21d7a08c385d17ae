"""Runs that wait, as one version of Bursar leaves them behind: what every later version must be able to go on with.

    python -m tests.support.kept_runs tests/golden/runs-0.1.0

Writes the store and the checkpoints, compressed, and which runs they hold. Made anew only while nothing is released:
afterwards a version gets a folder of its own, and the older ones stay as they are.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

from bursar.agents import Agent
from bursar.budget import Limits
from bursar.runtime import Runtime
from bursar.runtime.models.provider import ModelRequest
from bursar.tools import tool

__all__ = ["FILES", "INDEX", "SOURCES", "answers", "paid", "runs_of", "unpacked", "write_config"]

FILES = ("bursar.db", "bursar.checkpoints.db")
INDEX = "runs.json"
LEASE_S = 0.3

paid: list[str] = []
"""To whom was paid in this process."""


@tool(effect="irreversible", approval="always")
async def pay(to: str) -> str:
    """Pay somebody, once a person has approved."""
    paid.append(to)
    return f"paid {to}"


@tool(effect="irreversible", approval="never")
async def send(to: str) -> str:
    """Send a letter; its first process is killed while it does."""
    if os.environ.get("BURSAR_TEST_DIES"):
        os.kill(os.getpid(), signal.SIGKILL)
    paid.append(to)
    return f"sent {to}"


@tool(effect="none")
async def find(to: str) -> str:
    """Find somebody."""
    return f"found {to}"


class Plan(TypedDict, total=False):
    """The state of the graph."""

    question: str
    answer: str


def _ask(state: Plan) -> Plan:
    return {"answer": interrupt({"question": state["question"]})}


def _graph() -> Any:
    graph = StateGraph(Plan)
    graph.add_node("ask", _ask)
    graph.add_edge(START, "ask")
    graph.add_edge("ask", END)
    return graph.compile(name="planner")


SOURCES: dict[str, Any] = {
    "approval": Agent(name="cashier", instructions="Pay.", tools=[pay]),
    "question": _graph(),
    "in doubt": Agent(name="clerk", instructions="Send.", tools=[send]),
    "stopped": Agent(name="poor", instructions="Find.", tools=[find], limits=Limits(steps=1), on_limit="stop"),
}
"""What the runs execute, by what they wait for."""

_GIVEN = {"question": {"question": "How many?"}}


def answers(request: ModelRequest) -> dict[str, Any]:
    """Calls the tool once, and says what came of it."""
    last = request.messages[-1]
    if last["role"] == "tool" or not request.tools:
        return {"text": f"Done: {last['content']}."}
    return {"tool_calls": [{"name": request.tools[0]["function"]["name"], "arguments": {"to": "ann"}}]}


def write_config(folder: Path) -> Path:
    """A configuration for the kept runs."""
    scenario, file = folder / "scenario.yaml", folder / "bursar.yaml"
    scenario.write_text(f"function: {__spec__.name}:answers\n")
    sections = {
        "database": "sqlite:///bursar.db",
        "models": {
            "demo": {
                "provider": "sim",
                "scenario": str(scenario),
                "price": {"input_usd_per_mtok": "1", "output_usd_per_mtok": "100"},
            }
        },
        "tiers": {"small": ["demo"]},
        "tenants": {"acme": {"people": {"dana": {}}}},
        "lease_s": LEASE_S,
    }
    file.write_text(json.dumps(sections))
    return file


def unpacked(kept: Path, folder: Path) -> None:
    """Unpack a version's files into a folder."""
    for name in FILES:
        (folder / name).write_bytes(gzip.decompress((kept / f"{name}.gz").read_bytes()))


def runs_of(kept: Path) -> dict[str, str]:
    """The ids of a version's runs, by what they wait for."""
    found: dict[str, str] = json.loads((kept / INDEX).read_text())
    return found


async def _begin(config: Path) -> dict[str, str]:
    runs = {}
    async with Runtime.open(config) as runtime:
        for name, source in SOURCES.items():
            if name != "in doubt":
                runs[name] = (await runtime.run(source, _GIVEN.get(name, "Do it."), tenant="acme")).id
    return runs


async def _die(config: Path) -> None:
    async with Runtime.open(config) as runtime:
        await runtime.run(SOURCES["in doubt"], "Do it.", tenant="acme")


async def _take_over(config: Path) -> str:
    """A worker finds the run whose process has died, and asks whether its letter was sent."""
    async with Runtime.open(config) as runtime:
        worker = asyncio.create_task(runtime.work(sources=list(SOURCES.values())))
        while not (asked := await runtime.escalations.ls(reason="in_doubt")):  # noqa: ASYNC110 - a worker asks it
            await asyncio.sleep(0.05)
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
    return asked[0].run_id


def main(kept: Path) -> None:
    """Make them anew."""
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = write_config(folder)
        runs = asyncio.run(_begin(config))
        if (child := os.fork()) == 0:
            os.environ["BURSAR_TEST_DIES"] = "yes"
            asyncio.run(_die(config))
            os._exit(1)
        os.waitpid(child, 0)
        runs["in doubt"] = asyncio.run(_take_over(config))
        for file in FILES:
            with closing(sqlite3.connect(folder / file, isolation_level=None)) as connection:
                connection.execute("PRAGMA journal_mode=DELETE")
                connection.execute("VACUUM")
            (kept / f"{file}.gz").write_bytes(gzip.compress((folder / file).read_bytes(), 9, mtime=0))
        (kept / INDEX).write_text(json.dumps(runs, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
