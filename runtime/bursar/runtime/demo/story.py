"""Four runs of two tenants: one succeeds, one waits for the right person, one is stopped by its limit, one refused."""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from bursar.agents.load import load_agent
from bursar.budget.errors import NotAllowedError
from bursar.runtime.escalations.records import Escalation
from bursar.runtime.events import Event
from bursar.runtime.runs.run import Run
from bursar.runtime.runtime import Runtime

__all__ = ["ACTS", "COLLEAGUE", "REVIEWER", "Act", "Played", "Weekend", "play", "prepare", "weekend"]

FILES = ("bursar.yaml", "agents.py", "script.yaml")

REVIEWER = "dana"

COLLEAGUE = "kim"
"""May not decide on so much."""

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
        title="acme's desk settles a refund. That takes a person, and the right one.",
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
class Played:
    """What came of an act."""

    begun: Run
    """As it stood when it ended, or waited."""

    asked: Escalation | None = None
    """What it waited for."""

    refused: str = ""
    """What somebody was told who may not decide on it."""

    decided: Run | None = None
    """As it ended after somebody had who may."""

    @property
    def run(self) -> Run:
        """As it stands in the end."""
        return self.decided or self.begun


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


async def play(runtime: Runtime, act: Act, folder: Path, watch: Watch) -> Played:
    """Let an act's run go to its end; where it waits for a person, one tries who may not, and one decides."""
    target = f"{folder / 'agents.py'}:{act.agent}"
    agent = load_agent(target)
    begun = await watch(runtime, act.tenant, runtime.stream(agent, act.text, tenant=act.tenant, target=target))
    if not begun.interrupts:
        return Played(begun=begun)
    asked = await runtime.escalations.get(begun.interrupts[0].escalation)
    approve, refused = {"type": "approve"}, ""
    try:
        await runtime.escalations.decide(asked.id, approve, by=COLLEAGUE, digest=asked.digest)
    except NotAllowedError as error:
        refused = error.message
    resumed = runtime.stream_resume(begun.id, {asked.interrupt_id: approve}, by=REVIEWER)
    return Played(begun=begun, asked=asked, refused=refused, decided=await watch(runtime, act.tenant, resumed))


def weekend(run: Run) -> Weekend:
    """The bill of a runaway that nothing stops. Each of its calls is longer than the last, so this is the least."""
    calls = WEEKEND_HOURS * 3600 // SECONDS_PER_CALL
    call_usd = run.cost_usd / run.steps
    return Weekend(calls=calls, cost_usd=calls * call_usd, call_usd=call_usd)
