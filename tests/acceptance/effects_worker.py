"""An agent whose tool dies with its process, before or after it has acted.

python -m tests.acceptance.effects_worker CONFIG before|after
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bursar.agents import Agent
from bursar.runtime import Runtime
from bursar.tools import idempotency_key, tool

__all__ = ["NOTES", "payer"]

NOTES = "BURSAR_TEST_NOTES"
"""The environment variable that names the file to which the tool writes its key each time that it acts."""


def payer(check: Callable[[str], Any] | None = None, *, dies: str | None = None) -> Agent:
    """The agent; its tool dies `before` or `after` it acts, where that is said."""

    @tool(effect="irreversible", approval="never", check=check)
    def pay(order_id: str) -> str:
        """Pay an order back."""
        if dies == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        with Path(os.environ[NOTES]).open("a") as notes:
            notes.write(f"{idempotency_key()}\n")
        if dies == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return f"paid {order_id}"

    return Agent(name="payer", instructions="Settle refunds.", tools=[pay])


async def main(config: Path, moment: str) -> None:
    """One run, which does not come to its end."""
    async with Runtime.open(config) as runtime:
        await runtime.run(payer(dies=moment), "Refund order 1001.", tenant="acme")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
