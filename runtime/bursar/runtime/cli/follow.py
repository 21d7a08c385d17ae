"""Executing a run for a command: shows its progress, then what came of it, and says how to go on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import traceback
from collections.abc import AsyncGenerator
from pathlib import Path

from bursar.runtime.cli.alert_words import alerts_in_words
from bursar.runtime.cli.exits import BrokenOff, Exit, exit_of
from bursar.runtime.cli.output import console, print_error, print_json, print_next
from bursar.runtime.cli.progress import Progress
from bursar.runtime.cli.shapes import run_json
from bursar.runtime.cli.telling import next_commands, print_run, summary
from bursar.runtime.cli.words import configured, parted, plain
from bursar.runtime.events import Event
from bursar.runtime.runs.run import Run
from bursar.runtime.runtime import Runtime

__all__ = ["conclude", "follow", "submitted"]


async def follow(runtime: Runtime, tenant: str, events: AsyncGenerator[Event, None], config: Path) -> Run:
    """Show what happens until the run ends or waits; raises BrokenOff on Ctrl-C, when the run is settled.

    What tools print goes to stderr meanwhile: stdout is for the answer.
    """
    alerts_in_words()
    run_id, ended = "", None
    try:
        async with contextlib.aclosing(events):
            with Progress(runtime.ledger, tenant) as progress, contextlib.redirect_stdout(sys.stderr):
                async for event in events:
                    run_id, ended = event.run_id, event.run
                    await progress.tell(event)
    except asyncio.CancelledError:
        if run_id:
            raise BrokenOff(run_id, configured(f"bursar runs resume {run_id}", config)) from None
        raise
    if ended is None:
        raise RuntimeError(f"run {run_id} told no end")
    return ended


def conclude(run: Run, config: Path, *, as_json: bool, debug: bool) -> Exit:
    """Print what came of a run that this process executed, and return its exit code."""
    if as_json:
        print_json(run_json(run))
    else:
        print_run(run)
        if run.status == "succeeded" and run.output is None and run.value is not None:
            console().print(plain(json.dumps(run.value, ensure_ascii=False, default=str)), soft_wrap=True)
        if run.status != "failed":
            print_next(next_commands(run), config)
    if run.status == "failed":
        if debug and run.error is not None:
            sys.stderr.write(plain("".join(traceback.format_exception(run.error))))
        said, mends = parted(run.stop_reason)
        print_error(said, next_step=mends or configured(f"bursar runs resume {run.id}", config))
    return exit_of(run.status)


def submitted(run: Run, config: Path, *, as_json: bool) -> Exit:
    """Print which run waits for a worker, and how to go on."""
    if as_json:
        print_json(run_json(run))
    else:
        console().print(summary(run), soft_wrap=True)
        print_next(next_commands(run), config)
    return Exit.OK
