"""Resumes a run again and again, each time in a process of its own.

python -m tests.acceptance.resume_worker CONFIG RUN TIMES
"""

from __future__ import annotations

import asyncio
import functools
import sys
from pathlib import Path

from bursar.runtime import Runtime
from bursar.runtime.models.tokens import TokenCounter
from tests.acceptance.forks import in_child, ready_to_fork
from tests.acceptance.graphs import asking

__all__ = ["QUESTIONS"]

QUESTIONS = 4


async def _open(config: Path) -> None:
    """Import and cache, so that no child has to."""
    async with Runtime.open(config):
        TokenCounter().count_text("Yes.")


async def _resume(config: Path, run_id: str) -> None:
    async with Runtime.open(config) as runtime:
        waiting = await runtime.get(run_id)
        await runtime.resume(run_id, {waiting.interrupts[0].id: "Yes."}, source=asking(QUESTIONS))


def main(config: Path, run_id: str, times: int) -> None:
    """Answer so many questions."""
    asyncio.run(_open(config))
    ready_to_fork()
    for _ in range(times):
        in_child(functools.partial(_resume, config, run_id))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
