"""`bursar inbox ls | show`: what waits for a person, and all that a decision needs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from bursar.runtime.cli.books import open_books
from bursar.runtime.cli.inbox_json import escalation_json, history_json
from bursar.runtime.cli.inbox_words import next_commands, print_escalation, print_list
from bursar.runtime.cli.options import CONFIG_FILE, AsJson, ConfigFile, Tenant, author, flag
from bursar.runtime.cli.output import console, print_json, print_next
from bursar.runtime.cli.shapes import run_json
from bursar.runtime.cli.words import plain
from bursar.runtime.escalations.records import Reason, Status

__all__ = ["Id", "ls", "show"]

Id = Annotated[int, Parameter(name="ID", help="An escalation's number, as `bursar inbox ls` shows it.")]


def ls(
    *,
    tenant: Tenant = None,
    reason: Annotated[Reason | None, Parameter(help="Only those for this reason.")] = None,
    assignee: Annotated[str | None, Parameter(help="Only those of this person.")] = None,
    mine: Annotated[bool, flag("--mine", "Only yours: those assigned to the user of this machine.")] = False,
    run: Annotated[str | None, Parameter(help="Only those of this run.")] = None,
    status: Annotated[Status, Parameter(help="Only those in this state.")] = "open",
    limit: Annotated[int, Parameter(help="At most so many.", validator=Number(gte=1, lte=10_000))] = 50,
    config: ConfigFile = CONFIG_FILE,
    as_json: AsJson = False,
) -> None:
    """List what waits for a person, the most urgent first."""
    whose = author(None) if mine else assignee
    with open_books(config) as books:
        found = books.escalations.ls(
            tenant=tenant, status=status, run_id=run, reason=reason, assignee=whose, limit=limit + 1
        )
    shown = found[:limit]
    if as_json:
        return print_json([escalation_json(one) for one in shown])
    if not shown:
        nothing = f"nothing waits for {whose or 'a person'}" if status == "open" else f"nothing is {status}"
        return console().print(plain(nothing))
    print_list(shown, datetime.now(UTC))
    if len(found) > limit:
        console().print(f"and more: --limit {min(limit * 4, 10_000)}", style="dim")
    return print_next([f"bursar inbox show {shown[0].id}"], config)


def show(id: Id, /, *, config: ConfigFile = CONFIG_FILE, as_json: AsJson = False) -> None:
    """Show all that a decision needs."""
    with open_books(config) as books:
        found = books.escalations.get(id)
        history = books.escalations.history(id)
        run = books.records.show(books.records.row(found.run_id))
    if as_json:
        return print_json({**escalation_json(found), "of": run_json(run), "history": history_json(history)})
    print_escalation(found, run, history, datetime.now(UTC))
    return print_next(next_commands(found), config)
