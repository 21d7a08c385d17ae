"""`bursar runs fork | checkpoints`: a run goes on from an earlier state, as another run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from bursar.runtime.cli.options import CONFIG_FILE, AsJson, By, ConfigFile, DryRun, OnLimit, RunId, author
from bursar.runtime.cli.output import console, opening, print_json, print_next, print_table
from bursar.runtime.cli.retune import NO_LIMITS, NewLimits
from bursar.runtime.cli.shapes import run_json, time_json
from bursar.runtime.cli.telling import next_commands
from bursar.runtime.cli.words import plain, shown_time

if TYPE_CHECKING:
    from bursar.runtime.fork import Checkpoint

__all__ = ["checkpoints", "fork"]


async def fork(
    run: RunId,
    /,
    *,
    checkpoint: Annotated[str | None, Parameter(help="Where it goes on; the newest where none is named.")] = None,
    tier: Annotated[str | None, Parameter(help="The tier that answers all of its calls.")] = None,
    limits: Annotated[NewLimits, Parameter(name="*")] = NO_LIMITS,
    on_limit: Annotated[OnLimit | None, Parameter(help="What becomes of it at a limit.")] = None,
    by: By = None,
    config: ConfigFile = CONFIG_FILE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Go on from a checkpoint of a run as a new run, which a worker executes."""
    with opening():
        from bursar.runtime.fork import chosen
        from bursar.runtime.runtime import Runtime

    async with Runtime.open(config) as runtime:
        if dry_run:
            found = await runtime.checkpoints(run)
            return _would(run, chosen(found, run, checkpoint), as_json=as_json)
        made = await runtime.fork(
            run, checkpoint=checkpoint, tier=tier, limits=limits.limits, on_limit=on_limit, by=author(by)
        )
    if as_json:
        return print_json(run_json(made))
    console().print(plain(f"{made.id} goes on from {run}; it waits for a worker"), soft_wrap=True)
    return print_next(next_commands(made), config)


async def checkpoints(run: RunId, /, *, config: ConfigFile = CONFIG_FILE, as_json: AsJson = False) -> None:
    """List the states of a run from which a fork can go on, the newest first."""
    with opening():
        from bursar.runtime.runtime import Runtime

    async with Runtime.open(config) as runtime:
        found = await runtime.checkpoints(run)
    if as_json:
        return print_json([_json(one) for one in found])
    if not found:
        return console().print("it has no checkpoint yet, so there is nothing to fork")
    rows = [(one.id, shown_time(one.at), str(one.step), ", ".join(one.next) or "its end") for one in found]
    print_table([("checkpoint", "whole"), ("when", "whole"), ("step", "right"), "what comes next"], rows)
    return print_next([f"bursar runs fork {run} --checkpoint ID"], config)


def _would(run: str, found: Checkpoint, *, as_json: bool) -> None:
    if as_json:
        return print_json({"dry_run": True, "run": run, "checkpoint": _json(found)})
    following = ", ".join(found.next) or "its end"
    return console().print(plain(f"would fork {run} at checkpoint {found.id}, before {following}"), soft_wrap=True)


def _json(one: Checkpoint) -> dict[str, object]:
    return {"id": one.id, "at": time_json(one.at), "step": one.step, "next": list(one.next)}
