"""A refund above $20 takes two people, none of them whoever asked for it; bursar.yaml says so, not this program.

python examples/two_reviewers.py
bursar run examples/two_reviewers.py:desk "Refund order 1001." --tenant shop --user kim --config examples/bursar.yaml
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from bursar.agents import Agent
from bursar.budget import Limits
from bursar.budget.errors import NotAllowedError
from bursar.runtime import Runtime
from bursar.tools import above, tool


@tool(effect="none")
def find_order(order_id: str) -> dict[str, Any]:
    """Look an order up by its number."""
    return {"order_id": order_id, "total_usd": 42.5, "delivered": False}


@tool(effect="irreversible", approval=above("amount_usd", "20"))
def refund(order_id: str, amount_usd: float) -> str:
    """Pay an order back to the customer's card."""
    return f"refunded {amount_usd} for {order_id}"


desk = Agent(
    name="desk",
    instructions="Settle refund requests.",
    tools=[find_order, refund],
    tier="small",
    limits=Limits(steps=12, cost_usd="0.25"),
)


async def main() -> None:
    async with Runtime.open(Path(__file__).with_name("bursar.yaml")) as runtime:
        run = await runtime.run(desk, "Refund order 1001, it never came.", tenant="shop", user="kim")
        asked = await runtime.escalations.get(run.interrupts[0].escalation)
        print(f"{asked.words}: {asked.payload['args']}")

        for person in ("kim", "dana", "lee"):
            try:
                after = await runtime.escalations.decide(asked.id, {"type": "approve"}, by=person, digest=asked.digest)
                print(f"{person} approves: it is {after.status}")
            except NotAllowedError as refusal:
                print(f"{person}: {refusal.message}")

        async for change in runtime.follow(run.id):  # begun here, it goes on here as soon as it is decided
            last = change
        print(f"{last.status}: {(await runtime.get(run.id)).output}")


if __name__ == "__main__":
    asyncio.run(main())
