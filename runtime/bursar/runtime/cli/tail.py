"""`bursar runs tail`: a run as the store tells of it, in whichever process it goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Container, Iterator
from datetime import datetime
from operator import itemgetter
from typing import TYPE_CHECKING, Annotated

from rich.text import Text

from bursar.runtime.cli.books import Books, open_books
from bursar.runtime.cli.exits import exit_of
from bursar.runtime.cli.options import CONFIG_FILE, AsJson, ConfigFile, RunId, flag
from bursar.runtime.cli.output import console, print_next
from bursar.runtime.cli.shapes import money, time_json
from bursar.runtime.cli.telling import next_commands, summary
from bursar.runtime.cli.words import plain
from bursar.runtime.runs.run import ENDED, RunStatus

if TYPE_CHECKING:
    from bursar.budget.reports.report import Attempt

__all__ = ["follow", "tail"]

POLL_S = 0.5

Told = dict[str, str | int | None]
"""One thing that happened: `at`, `kind`, and what belongs to the kind."""


def tail(
    run: RunId,
    /,
    *,
    waits: Annotated[bool, flag("--follow", "Also while it waits for a person, until it has ended.")] = False,
    config: ConfigFile = CONFIG_FILE,
    as_json: AsJson = False,
) -> int:
    """Follow a run, in whichever process it goes on, until it ends or waits for a person."""
    until = ENDED if waits else (*ENDED, "interrupted")
    with open_books(config) as books:
        books.records.row(run)
        for told in follow(books, run, until=until):
            console().out(json.dumps(told)) if as_json else console().print(_line(told), soft_wrap=True)
        found = books.records.show(books.records.row(run))
    if not as_json:
        console().print(summary(found), soft_wrap=True)
        print_next(next_commands(found), config)
    return exit_of(found.status)


def follow(
    books: Books,
    run_id: str,
    *,
    until: Container[RunStatus] = (*ENDED, "interrupted"),
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Told]:
    """What has happened in a run, then what happens, until it is in one of these states."""
    seen, closed = 0, set[int]()
    while True:
        status = books.records.row(run_id)["status"]  # read first: what happened before it is then told below
        happened: list[tuple[datetime, Told]] = []
        for one in books.records.events(run_id, seen):
            seen = one.number
            happened.append((one.at, {"kind": "status", "status": one.status, "text": one.cause, "by": one.by or None}))
        for attempt in books.ledger.reports.bill(run_id).attempts:
            if attempt.closed_at is not None and attempt.id not in closed:
                closed.add(attempt.id)
                happened.append((attempt.closed_at, _attempt(attempt)))
        for at, told in sorted(happened, key=itemgetter(0)):
            yield {"at": time_json(at), **told}
        if status in until:
            return
        sleep(POLL_S)


def _attempt(attempt: Attempt) -> Told:
    return {
        "kind": attempt.kind,
        "node": attempt.node,
        "model": attempt.model,
        "text": attempt.note or attempt.outcome or attempt.state,
        "cost_usd": money(attempt.posted.nanousd),
        "tokens": attempt.posted.tokens,
    }


def _line(told: Told) -> Text:
    clock = str(told["at"])[11:19]
    if told["kind"] == "status":
        return Text.assemble((clock, "dim"), f"  {told['status']}  ", plain(str(told["text"])))
    what = f"{told['kind']}  {told['model']}"
    cost = "" if told["kind"] == "tool" else f"  {told['tokens']:,} tokens  ${told['cost_usd']}"
    return Text.assemble((clock, "dim"), f"  {plain(what)}{cost}  ", (plain(str(told["text"])), "dim"))
