"""Four runs of two tenants: one succeeds, one waits for a person, one is stopped by its limit, one is refused."""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from bursar.agents.load import load_agent
from bursar.runtime.events import Event
from bursar.runtime.runs.run import Run
from bursar.runtime.runtime import Runtime

__all__ = ["ACTS", "REVIEWER", "Act", "Weekend", "play", "prepare", "weekend"]

FILES = ("bursar.yaml", "agents.py", "script.yaml")

REVIEWER = "dana"

SECONDS_PER_CALL = 3
"""What a call of this size takes at a cloud provider; the script plays it in 30 ms."""

WEEKEND_HOURS = 62
"""From Friday 18:00 to Monday 8:00."""

Watch = Callable[[Runtime, str, AsyncGenerator[Event, None]], Awaitable[Run]]
"""Shows a tenant's run while it goes on, and returns it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One run of the demo."""

    title: str
    tenant: str
    agent: str
    text: str
    unlimited: bool = False
    """Whether to say what it would have cost without a limit."""


ACTS = (
    Act(
        title="globex asks its analyst, who lets a researcher find out.",
        tenant="globex",
        agent="analyst",
        text="How did our competitors change their prices this year?",
    ),
    Act(
        title="acme's desk settles a refund. Money leaves the house, so a person decides.",
        tenant="acme",
        agent="desk",
        text="Refund order 1001, it never came.",
    ),
    Act(
        title="acme's crawler runs away: it never has enough.",
        tenant="acme",
        agent="crawler",
        text="Find every supplier of left-handed screwdrivers.",
        unlimited=True,
    ),
    Act(
        title="globex asks again, with its budget gone.",
        tenant="globex",
        agent="analyst",
        text="And what will they do next year?",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weekend:
    """What a runaway would come to from Friday evening to Monday morning, at the mean cost of the calls it made."""

    calls: int
    cost_usd: Decimal
    call_usd: Decimal
    seconds_per_call: int = SECONDS_PER_CALL
    hours: int = WEEKEND_HOURS


def prepare(folder: Path) -> Path:
    """Write the demo's files into a folder; returns the configuration."""
    for name in FILES:
        shutil.copyfile(Path(__file__).parent / name, folder / name)
    return folder / FILES[0]


async def play(runtime: Runtime, act: Act, folder: Path, watch: Watch) -> list[Run]:
    """The act's run as it stood when it ended or waited, and again after a person approved what it waited for."""
    target = f"{folder / 'agents.py'}:{act.agent}"
    agent = load_agent(target)
    stood = [await watch(runtime, act.tenant, runtime.stream(agent, act.text, tenant=act.tenant, target=target))]
    waits = {one.id: {"type": "approve"} for one in stood[0].interrupts}
    if waits:
        resumed = runtime.stream_resume(stood[0].id, waits, by=REVIEWER)
        stood.append(await watch(runtime, act.tenant, resumed))
    return stood


def weekend(run: Run) -> Weekend:
    """The bill of a runaway that nothing stops. Each of its calls is longer than the last, so this is the least."""
    calls = WEEKEND_HOURS * 3600 // SECONDS_PER_CALL
    call_usd = run.cost_usd / run.steps
    return Weekend(calls=calls, cost_usd=calls * call_usd, call_usd=call_usd)
