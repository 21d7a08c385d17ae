"""The demo's agents. Change them, and run them again: bursar run agents.py:desk "..." --tenant acme"""

from __future__ import annotations

from bursar.agents import Agent
from bursar.budget import Limits
from bursar.tools import tool


@tool(effect="none")
def find_order(order_id: str) -> dict[str, str | float | bool]:
    """Look an order up by its number."""
    return {"order_id": order_id, "total_usd": 42.5, "delivered": False}


@tool(effect="irreversible", approval="always")
def refund(order_id: str, amount_usd: float) -> str:
    """Pay an order back to the customer's card."""
    return f"refunded ${amount_usd:.2f} for order {order_id}"


@tool(effect="none")
def search(query: str) -> str:
    """Search the web; gives ten pages."""
    return "\n".join(f"{n}. A page that mentions {query[:40]}, and says: see also the next ten." for n in range(1, 11))


desk = Agent(
    name="desk",
    instructions="Settle refund requests. Look the order up before you pay.",
    tools=[find_order, refund],
    limits=Limits(steps=8, cost_usd="0.10"),
)

crawler = Agent(
    name="crawler",
    instructions="Search until the answer is certain.",
    tools=[search],
    tier="frontier",
    limits=Limits(cost_usd="0.25"),
)

researcher = Agent(
    name="researcher",
    instructions="Find out what was asked, and name your sources.",
    tier="frontier",
    limits=Limits(steps=4, cost_usd="0.10"),
)

analyst = Agent(
    name="analyst",
    instructions="Answer questions about the market in one sentence. Let the researcher find out.",
    tools=[researcher],
    tier="frontier",
    limits=Limits(steps=8, cost_usd="0.10"),
)
