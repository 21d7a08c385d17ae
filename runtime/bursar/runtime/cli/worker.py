"""`bursar worker`: executes runs that were submitted, decided on, or left by a process that died."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.text import Text

from bursar.runtime.cli.options import CONFIG_FILE, AsJson, ConfigFile, flag
from bursar.runtime.cli.output import console, opening
from bursar.runtime.cli.shapes import run_json, time_json
from bursar.runtime.cli.telling import summary
from bursar.runtime.cli.words import plain

if TYPE_CHECKING:
    from bursar.runtime.events import Event

__all__ = ["worker"]


async def worker(
    *,
    concurrency: Annotated[int, Parameter(help="So many runs at once.", validator=Number(gte=1, lte=10_000))] = 16,
    once: Annotated[bool, flag("--once", "Return when no run waits that can be executed here.")] = False,
    config: ConfigFile = CONFIG_FILE,
    as_json: AsJson = False,
) -> None:
    """Execute runs that wait for a worker, until Ctrl-C."""
    with opening():
        from bursar.runtime.cli.alert_words import alerts_in_words
        from bursar.runtime.runtime import Runtime

    alerts_in_words()
    tell = _tell_json if as_json else _tell
    async with Runtime.open(config) as runtime:
        if not as_json:
            console().print(f"worker {plain(runtime.holder)}: {concurrency} runs at once; Ctrl-C ends it")
        await _until_signalled(runtime.work(concurrency=concurrency, once=once, listener=tell))


async def _until_signalled(work: Coroutine[None, None, None]) -> None:
    """Work until SIGINT or SIGTERM, which end it in order: what was being executed is let go for the next worker."""
    task, loop = asyncio.ensure_future(work), asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)
    for one in signals:
        loop.add_signal_handler(one, task.cancel)
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await task
    finally:
        for one in signals:
            loop.remove_signal_handler(one)


def _tell(event: Event) -> None:
    clock = f"{datetime.now().astimezone():%H:%M:%S}"
    if event.kind == "started":
        console().print(Text.assemble((clock, "dim"), f"  {plain(event.run_id)}  {plain(event.agent)}"))
    elif event.run is not None:
        cause = plain(event.run.stop_reason.partition(" -> ")[0])
        console().print(Text.assemble((clock, "dim"), "  ", summary(event.run), (f"  {cause}", "dim")), soft_wrap=True)


def _tell_json(event: Event) -> None:
    if event.kind == "started" or event.run is not None:
        run = run_json(event.run) if event.run else None
        told = {"at": time_json(datetime.now(UTC)), "kind": event.kind, "run_id": event.run_id, "run": run}
        console().out(json.dumps(told))
