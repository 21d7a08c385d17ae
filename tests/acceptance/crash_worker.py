"""Runs that are killed at every boundary, each in a process of its own, and then go on in another.

    python -m tests.acceptance.crash_worker CONFIG

A run's tenant says what it was and where it was killed, such as `agent.after-settle`.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import itertools
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

from bursar.agents import Agent
from bursar.budget.ledger import Ledger
from bursar.memory import CheckpointSaver
from bursar.runtime import Runtime, chat_model
from bursar.runtime.config import load_config
from bursar.runtime.engine import Engine
from bursar.runtime.opening import open_ledger
from bursar.tools import tool
from tests.acceptance.forks import in_child, ready_to_fork

__all__ = ["NOTES", "WARM_UP", "WORKS", "Boundary", "Work"]

WARM_UP = "warm-up"
"""The tenant of the one run that nobody kills."""

NOTES = "BURSAR_TEST_NOTES"
"""The environment variable that names the file to which the tool writes a line for each time that it is executed."""


ROUNDS = 8 if os.environ.get("BURSAR_SCHEDULES") == "nightly" else 2
"""How often a run is killed at each occasion of each boundary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Boundary:
    """A moment in a run."""

    owner: type
    method: str
    moment: Literal["before", "after"]
    occasions: int = 3
    """How often a run is there; each trial takes the next."""

    @property
    def trials(self) -> int:
        """Half of them are resumed as they are, and half after the reaper: each occasion in both ways."""
        return self.occasions * ROUNDS


BOUNDARIES = {
    "before-reserve": Boundary(owner=Ledger, method="reserve", moment="before"),
    "after-reserve": Boundary(owner=Ledger, method="reserve", moment="after"),
    "after-dispatch": Boundary(owner=Ledger, method="dispatch_all", moment="after"),
    "after-the-reply": Boundary(owner=Ledger, method="settle", moment="before"),
    "after-settle": Boundary(owner=Ledger, method="settle", moment="after"),
    "after-checkpoint": Boundary(owner=CheckpointSaver, method="aput", moment="after"),
    "before-the-end": Boundary(owner=Engine, method="_end", moment="before", occasions=1),
}

BOUNDARIES_OF_A_RESUME = {
    **{name: replace(boundary, occasions=min(2, boundary.occasions)) for name, boundary in BOUNDARIES.items()},
    "after-the-decision": Boundary(owner=Engine, method="_carry_out", moment="after", occasions=1),
}


@tool(effect="irreversible", approval="never")
def note(line: str) -> str:
    """Write a line down for good."""
    with open(os.environ[NOTES], "a") as notes:
        notes.write(f"{line}\n")
    return "written"


@tool(effect="irreversible", approval="always")
def sign(line: str) -> str:
    """Sign a line, once a person has seen it."""
    return str(note(line))


agent = Agent(name="agent", instructions="Write everything down.", tools=[note])
signer = Agent(name="signer", instructions="Sign what is important.", tools=[sign, note])


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


graph = StateGraph(Texts)
graph.add_node("outline", _outline)
graph.add_node("part", _part)
graph.add_node("whole", _whole)
graph.add_edge(START, "outline")
graph.add_conditional_edges("outline", _parts, ["part"])
graph.add_edge("part", "whole")
graph.add_edge("whole", END)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is run, and where it is killed."""

    source: Any
    given: Callable[[str], Any]
    """The input for a label."""

    boundaries: Mapping[str, Boundary]
    resumed: bool = False
    """Whether it is killed only once what it asks was approved."""


WORKS = {
    "agent": Work(source=agent, given=str, boundaries=BOUNDARIES),
    "graph": Work(source=graph, given=lambda label: {"question": label}, boundaries=BOUNDARIES),
    "signer": Work(source=signer, given=str, boundaries=BOUNDARIES_OF_A_RESUME, resumed=True),
}


def killed_at(boundary: Boundary, occasion: int) -> None:
    """Let this process die when it is there for so many times from now on."""
    original = getattr(boundary.owner, boundary.method)
    times = itertools.count(1)

    def there(moment: str) -> None:
        if boundary.moment == moment and next(times) == occasion:
            os.kill(os.getpid(), signal.SIGKILL)

    @functools.wraps(original)
    def dying(*args: Any, **kwargs: Any) -> Any:
        there("before")
        result = original(*args, **kwargs)
        if not inspect.isawaitable(result):
            there("after")
            return result
        return finished(result)

    async def finished(result: Awaitable[Any]) -> Any:
        value = await result
        there("after")
        return value

    setattr(boundary.owner, boundary.method, dying)


async def _run(config: Path, name: str, label: str, boundary: Boundary | None = None, occasion: int = 1) -> None:
    """One run, approving what it asks for; the boundary is deadly."""
    work = WORKS[name]
    async with Runtime.open(config) as runtime:
        if boundary is not None and not work.resumed:
            killed_at(boundary, occasion)
        run = await runtime.run(work.source, work.given(label), tenant=label.split("/")[0])
        if boundary is not None:
            killed_at(boundary, occasion)
        if run.interrupts:
            await runtime.resume(run.id, {asked.id: {"type": "approve"} for asked in run.interrupts})


async def _resume(config: Path, name: str, tenant: str, trials: int) -> None:
    """Resume half of the runs as they are, and the others after the reaper has been."""
    ledger, records = open_ledger(load_config(config))
    left = [run.id for run in records.ls(tenant=tenant, status="running")]
    ledger.close()
    assert len(left) == trials, f"{tenant}: {len(left)} runs were left"
    async with Runtime.open(config) as runtime:
        for place, run_id in enumerate(left):
            if place == trials // 2:
                runtime.ledger.reap()
                held = [runtime.ledger.reports.bill(other).held for other in left]
                assert not any(held), f"{tenant}: {held} is held after the reaper"
            await runtime.resume(run_id, source=WORKS[name].source)


def main(config: Path) -> None:
    """Kill each run, then resume each."""
    for name in WORKS:
        asyncio.run(_run(config, name, WARM_UP))  # imports and caches, so that no child has to
    ready_to_fork()
    for name, work in WORKS.items():
        for kind, boundary in work.boundaries.items():
            for trial in range(boundary.trials):
                label, occasion = f"{name}.{kind}/{trial}", 1 + trial % boundary.occasions
                ended_by = in_child(functools.partial(_run, config, name, label, boundary, occasion))
                assert ended_by == signal.SIGKILL, f"{label} was not killed"
    time.sleep(load_config(config).lease_s)
    for name, work in WORKS.items():
        for kind, boundary in work.boundaries.items():
            in_child(functools.partial(_resume, config, name, f"{name}.{kind}", boundary.trials))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
