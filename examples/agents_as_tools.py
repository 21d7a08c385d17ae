"""An agent that uses another agent as a tool: both spend from one run, and the bill tells them apart.

python examples/agents_as_tools.py
bursar run examples/agents_as_tools.py:analyst "Is tea healthy?" --tenant acme --config examples/bursar.yaml
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from bursar.agents import Agent
from bursar.budget import Limits
from bursar.runtime import Runtime

researcher = Agent(
    name="researcher",
    instructions="Compare sources on a question. Be brief.",
    tier="research",
    limits=Limits(steps=3, cost_usd="0.02"),
)

analyst = Agent(
    name="analyst",
    instructions="Answer with what your researcher finds.",
    tools=[researcher],
    tier="research",
    limits=Limits(steps=10, cost_usd="0.10"),
)


async def main() -> None:
    async with Runtime.open(Path(__file__).with_name("bursar.yaml")) as runtime:
        run = await runtime.run(analyst, "Is tea healthy?", tenant="acme")
        print(f"{run.status}: {run.output}")
        for attempt in runtime.ledger.reports.bill(run.id).attempts:
            print(f"{attempt.agent:10}  {attempt.kind:5}  {attempt.node:11}  {attempt.posted.nanousd:>9,} nano-USD")
        print(f"{run.steps} model calls, {run.spent.tool_calls} tool call, ${run.cost_usd}")


if __name__ == "__main__":
    asyncio.run(main())
