"""`bursar runs ls | show | cancel`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.text import Text

from bursar.budget.money import format_usd
from bursar.budget.windows import utc_now
from bursar.runtime.cli.books import open_books
from bursar.runtime.cli.budget_estimate import estimate_json, interrupted
from bursar.runtime.cli.effects import effects_json, print_effects
from bursar.runtime.cli.options import CONFIG_FILE, AsJson, By, ConfigFile, DryRun, RunId, Tenant, author
from bursar.runtime.cli.output import (
    Column,
    console,
    opening,
    print_json,
    print_next,
    print_table,
    print_words,
    status_text,
)
from bursar.runtime.cli.shapes import run_json, time_json
from bursar.runtime.cli.telling import next_commands, print_run
from bursar.runtime.cli.words import plain, short, shown_time
from bursar.runtime.runs.run import Run, RunStatus
from bursar.tools.journal import EffectJournal

__all__ = ["cancel", "ls", "show"]

_COLUMNS: Sequence[Column] = (("run", "whole"), "tenant/agent", "status", ("cost", "right"), ("began", "right"))


def ls(
    *,
    tenant: Tenant = None,
    status: Annotated[RunStatus | None, Parameter(help="Only those in this state.")] = None,
    limit: Annotated[int, Parameter(help="At most so many.", validator=Number(gte=1, lte=10_000))] = 20,
    config: ConfigFile = CONFIG_FILE,
    as_json: AsJson = False,
) -> None:
    """List runs, the newest first."""
    with open_books(config) as books:
        found = books.records.ls(tenant=tenant, status=status, limit=limit)
    if as_json:
        print_json([run_json(run) for run in found])
    elif not found:
        console().print("no runs")
        print_next(['bursar run agent.py "..." --tenant TENANT'], config)
    else:
        print_table(_COLUMNS, [_row(run) for run in found])


def show(run: RunId, /, *, config: ConfigFile = CONFIG_FILE, as_json: AsJson = False) -> None:
    """Show how a run stands, and how it came to that."""
    with open_books(config) as books:
        found = books.records.show(books.records.row(run))
        events = books.records.events(run)
        effects = EffectJournal(books.ledger.store, utc_now).ls(run)
        goes_on = found.status in ("running", "interrupted")
        to_come = (
            books.ledger.estimates.to_finish(run, unfinished=interrupted(books, found.tenant)) if goes_on else None
        )
    if as_json:
        history = [
            {"at": time_json(one.at), "status": one.status, "cause": one.cause, "by": one.by or None} for one in events
        ]
        to_finish = estimate_json(to_come) if to_come else None
        more = {"to_finish": to_finish, "effects": effects_json(effects), "history": history}
        return print_json({**run_json(found), **more})
    print_run(found)
    if to_come:
        print_words(f"to finish: {to_come.words()}")
    console().print()
    print_table(
        [("when", "whole"), ("status", "whole"), "why"],
        [
            (shown_time(one.at), status_text(one.status), short(one.cause) + (f" (by {one.by})" if one.by else ""))
            for one in events
        ],
    )
    print_effects(effects)
    return print_next(next_commands(found), config)


async def cancel(
    run: RunId,
    /,
    *,
    by: By = None,
    config: ConfigFile = CONFIG_FILE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Stop a run for good; nothing more is sent for it."""
    with opening():
        from bursar.runtime.runtime import Runtime

    async with Runtime.open(config) as runtime:
        before = await runtime.get(run)
        after = before if dry_run else await runtime.cancel(run, by=author(by))
    if as_json:
        return print_json({**run_json(after), "dry_run": dry_run})
    if dry_run:
        return console().print(f"would cancel {plain(before.id)} of {plain(before.tenant)}, which is {before.status}")
    return console().print(_cancelled(after), soft_wrap=True)


def _cancelled(run: Run) -> Text:
    text = Text.assemble(plain(run.id), " is ", status_text(run.status))
    if run.status == "running":
        text.append("; nothing more is sent for it, and the process that has it gives it up within seconds")
    return text


def _row(run: Run) -> tuple[str | Text, ...]:
    who, cost = f"{run.tenant}/{run.agent}", format_usd(run.spent.nanousd)
    return run.id, who, status_text(run.status), cost, shown_time(run.created_at)
