"""A support agent that looks orders up by itself, and pays back only what a person has approved.

python examples/support.py
bursar run examples/support.py:support "Refund order 1001, it never came." --tenant acme --config examples/bursar.yaml
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from bursar.agents import Agent
from bursar.budget import Limits
from bursar.runtime import Runtime
from bursar.tools import tool


@tool(effect="none")
def find_order(order_id: str) -> dict[str, Any]:
    """Look an order up by its number."""
    return {"order_id": order_id, "total_usd": 42.5, "delivered": False}


@tool(effect="irreversible", approval="always")
def refund(order_id: str, amount_usd: float) -> str:
    """Pay an order back to the customer's card."""
    return f"refunded {amount_usd} for {order_id}"


support = Agent(
    name="support",
    instructions="Settle refund requests.",
    tools=[find_order, refund],
    tier="small",
    limits=Limits(steps=12, tokens=40_000, cost_usd="0.25", seconds=120),
)


async def main() -> None:
    async with Runtime.open(Path(__file__).with_name("bursar.yaml")) as runtime:
        run = await runtime.run(support, "Refund order 1001, it never came.", tenant="acme")
        print(f"{run.status}: {run.stop_reason} {run.interrupts[0].payload['args']}, ${run.cost_usd} so far")

        run = await runtime.resume(run.id, {run.interrupts[0].id: {"type": "approve"}}, by="dana")
        print(f"{run.status}: {run.output}")
        print(f"{run.steps} model calls, {run.usage.total_tokens} tokens, ${run.cost_usd}")


if __name__ == "__main__":
    asyncio.run(main())
