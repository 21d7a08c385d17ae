"""Another process that begins or resumes a run when it is told to.

    python -m tests.acceptance.other_process CONFIG run
    python -m tests.acceptance.other_process CONFIG resume RUN [given]

It prints `ready`, waits for SIGUSR1, prints `run RUN` once it executes it, and in the end the run's status or the
error's class. It approves whatever the run asks. With `given` it brings the run's agent itself.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from bursar.agents import Agent
from bursar.budget.errors import BursarError
from bursar.runtime import Runtime
from bursar.tools import tool

__all__ = ["DIARY", "TARGET", "clerk"]

DIARY = "BURSAR_TEST_DIARY"
"""The environment variable that names the file to which the tool writes a line each time."""

TARGET = f"{__file__}:clerk"
"""Where any process can load the agent from."""


@tool(effect="irreversible", approval="always")
def sign(line: str) -> str:
    """Sign a line for good."""
    with open(os.environ[DIARY], "a") as diary:
        diary.write(f"{line}\n")
    return "signed"


@tool(effect="none")
def look(where: str) -> str:
    """Look somewhere."""
    return f"nothing in {where}"


clerk = Agent(name="clerk", instructions="Sign.", tools=[sign, look])


async def main(config: Path, order: str, *arguments: str) -> None:
    """Carry the order out."""
    async with Runtime.open(config) as runtime:
        print("ready", flush=True)
        await asyncio.to_thread(signal.sigwait, {signal.SIGUSR1})
        if order == "run":
            events = runtime.stream(clerk, "Sign it.", tenant="acme", target=TARGET)
        else:
            run_id, *given = arguments
            asked = (await runtime.get(run_id)).interrupts
            decisions = {one.id: {"type": "approve"} for one in asked}
            events = runtime.stream_resume(run_id, decisions, source=clerk if given else None)
        try:
            async for event in events:
                if event.kind in ("started", "ended"):
                    print("run", event.run_id, event.run.status if event.run else "", flush=True)
        except BursarError as error:
            print(type(error).__name__, flush=True)


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})  # in every thread that will be
    asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))
