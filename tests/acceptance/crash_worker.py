"""Runs that are killed at every boundary, each in a process of its own, and then finished by a worker in another.

    python -m tests.acceptance.crash_worker CONFIG TRIALS

A run's tenant is where it was killed, such as `settled`; its label also says which work it was, and the trial's number.
"""

from __future__ import annotations

import asyncio
import functools
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from bursar.budget.errors import ConflictError
from bursar.runtime import Runtime
from bursar.runtime.escalations.records import Escalation
from tests.acceptance.crash_boundaries import BOUNDARIES, Boundary, killed_at
from tests.acceptance.crash_works import WORKS, effects
from tests.acceptance.forks import in_child, ready_to_fork

__all__ = ["GRANTED", "TIME_S", "WARM_UP", "cases"]

WARM_UP = "warm-up"
"""The tenant of the runs that nobody kills."""

GRANTED = 7
"""So many steps a person gives to whoever asks for more."""

TIME_S = 1_200
"""The longest that one worker needs to finish them all."""


def cases(trials: int) -> dict[str, tuple[str, Boundary, int]]:
    """All that is killed, by its label: the work, where, and at which occasion."""
    found = {}
    for place, (name, boundary) in enumerate(BOUNDARIES.items()):
        for trial in range(trials):
            work, occasion = boundary.case(trial + place)
            found[f"{name}/{trial}/{work}"] = work, boundary, occasion
    return found


async def _run(config: Path, label: str, work: str, boundary: Boundary | None = None, occasion: int = 1) -> None:
    """One run to its end, with a person who decides what it asks; the boundary is deadly."""
    one = WORKS[work]
    async with Runtime.open(config) as runtime:
        deadly_later = one.asks and (boundary is None or boundary.when != "begun")
        if boundary is not None and not deadly_later:
            killed_at(boundary, occasion)
        run = await runtime.run(one.source, one.given(label), tenant=label.split("/")[0])
        if boundary is not None and deadly_later:
            killed_at(boundary, occasion)
        if run.interrupts:
            await _decided(runtime)  # it goes on by itself; a worker would take over from the dead, and be killed at it


async def _finish(config: Path) -> None:
    """Take over what the dead have left."""
    async with Runtime.open(config) as runtime:
        worker = asyncio.create_task(runtime.work(sources=[work.source for work in WORKS.values()]))
        try:
            await _decided(runtime)
        finally:
            worker.cancel()
            with suppress(asyncio.CancelledError):
                await worker


async def _decided(runtime: Runtime) -> None:
    """Decide what people are asked, until nothing is left to do."""
    async with asyncio.timeout(TIME_S):
        while await runtime.ledger_thread.do(runtime._records.unfinished):
            for asked in await runtime.escalations.ls(limit=1_000):
                with suppress(ConflictError):  # its run was decided on in a process that was killed then
                    await runtime.escalations.decide(asked.id, _decision(asked), by="dana")
            await asyncio.sleep(0.02)


def _decision(asked: Escalation) -> dict[str, Any]:
    """What somebody says who approves of everything, is generous, and looks whether a thing was done."""
    if asked.reason == "budget":
        return {"type": "grant", "steps": GRANTED}
    if asked.reason == "in_doubt" and any(one.key == asked.payload["idempotency_key"] for one in effects()):
        return {"type": "respond", "message": "written"}
    return {"type": "approve"}


def main(config: Path, trials: int) -> None:
    """Kill each run; then let a worker finish them."""
    for name in WORKS:
        asyncio.run(_run(config, f"{WARM_UP}/0/{name}", name))  # imports and caches, so that no child has to
    ready_to_fork()
    for label, (work, boundary, occasion) in cases(trials).items():
        ended_by = in_child(functools.partial(_run, config, label, work, boundary, occasion))
        if ended_by != signal.SIGKILL:
            raise SystemExit(f"{label} was not killed")
    in_child(functools.partial(_finish, config))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
