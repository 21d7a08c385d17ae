"""`bursar run`: an agent or a graph, for a tenant, inside its limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from bursar.budget.limits import Limits
from bursar.runtime.cli.options import CONFIG_FILE, AsJson, ConfigFile, Count, Debug, OnLimit, Seconds, Usd, flag
from bursar.runtime.cli.output import opening

if TYPE_CHECKING:
    from bursar.runtime.accepting import RunOptions

__all__ = ["run"]


async def run(
    target: Annotated[str, Parameter(name="TARGET", help="FILE.py:NAME, PACKAGE.MODULE:NAME, or a file of one agent.")],
    text: Annotated[str, Parameter(name="TEXT", help="What to do; a graph takes JSON, or a first message.")],
    /,
    *,
    tenant: Annotated[str, Parameter(help="Who pays.")],
    team: Annotated[str | None, Parameter(help="Whose budget pays too, inside the tenant's.")] = None,
    user: Annotated[str | None, Parameter(help="Whose budget pays too, of the tenant and of the team.")] = None,
    cost_limit: Annotated[Usd, Parameter(help="At most so many dollars; limits here only tighten an agent's.")] = None,
    steps: Annotated[Count, Parameter(help="At most so many model calls.")] = None,
    tool_calls: Annotated[Count, Parameter(help="At most so many tool executions.")] = None,
    tokens: Annotated[Count, Parameter(help="At most so many tokens, input and output together.")] = None,
    seconds: Annotated[Seconds, Parameter(help="At most so much working time; waiting does not count.")] = None,
    deadline: Annotated[str | None, Parameter(help="When it ends at the latest: 2h, or a time.")] = None,
    on_limit: Annotated[OnLimit | None, Parameter(help="What happens at a limit.")] = None,
    detach: Annotated[bool, flag("--detach", "Leave it to a worker, and print its id.")] = False,
    config: ConfigFile = CONFIG_FILE,
    as_json: AsJson = False,
    debug: Debug = False,
) -> int:
    """Run an agent or a graph for a tenant, inside its limits."""
    with opening():
        from bursar.agents import Agent
        from bursar.agents.load import load_agent
        from bursar.runtime.cli.follow import conclude, follow, submitted
        from bursar.runtime.cli.moments import ahead
        from bursar.runtime.runtime import Runtime

        source = load_agent(target)
    is_agent = isinstance(source, Agent)
    given = {"cost_usd": cost_limit, "steps": steps, "tool_calls": tool_calls, "tokens": tokens, "seconds": seconds}
    limits = Limits.from_record({name: limit for name, limit in given.items() if limit is not None})
    async with Runtime.open(config) as runtime:
        options: RunOptions = {
            "tenant": tenant,
            "team": team,
            "user": user,
            "limits": limits,
            "on_limit": on_limit,
            "deadline": ahead(deadline, "UTC") if deadline else None,
            "name": None if is_agent else target.rpartition(":")[2],
            "target": lasting(target),
        }
        asked = text if is_agent else graph_input(text)
        if detach:
            return submitted(await runtime.submit(source, asked, **options), config, as_json=as_json)
        events = runtime.stream(source, asked, **options)
        ended = await follow(runtime, tenant, events, config)
    return conclude(ended, config, as_json=as_json, debug=debug)


def graph_input(text: str) -> Any:
    """A JSON object is a graph's input as it stands; any other text becomes its first message."""
    try:
        given = json.loads(text)
    except ValueError:
        given = None
    return given if isinstance(given, dict) else {"messages": [{"role": "user", "content": text}]}


def lasting(target: str) -> str:
    """The target as it can be found from any folder, for whoever resumes the run."""
    place, colon, name = target.rpartition(":")
    path = Path(place if colon else target)
    return f"{path.resolve()}{colon}{name if colon else ''}" if path.suffix == ".py" else target
