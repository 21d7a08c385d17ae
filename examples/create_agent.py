"""The agent that LangChain's create_agent returns, unchanged, in a loop that only a limit ends.

Needs LangChain, which Bursar itself does not: pip install langchain

python examples/create_agent.py
bursar run examples/create_agent.py:agent "Find the answer" --tenant acme --config examples/bursar.yaml --steps 5
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from langchain.agents import create_agent

from bursar.budget import Limits
from bursar.runtime import Runtime, chat_model


def search(query: str) -> str:
    """Search the web."""
    return f"nothing certain about {query}"


agent = create_agent(chat_model("search"), tools=[search])


async def main() -> None:
    async with Runtime.open(Path(__file__).with_name("bursar.yaml")) as runtime:
        question = {"messages": [("user", "Find the answer")]}
        run = await runtime.run(agent, question, tenant="acme", limits=Limits(steps=5), name="seeker")
        print(f"{run.status}: {run.stop_reason}")
        print(f"{run.steps} model calls, {run.usage.total_tokens} tokens, ${run.cost_usd}")


if __name__ == "__main__":
    asyncio.run(main())
