"""`bursar runs tail`: a run as the store tells of it, in whichever process it goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from operator import itemgetter
from typing import TYPE_CHECKING

from rich.text import Text

from bursar.runtime.cli.books import Books, open_books
from bursar.runtime.cli.exits import exit_of
from bursar.runtime.cli.options import CONFIG_FILE, AsJson, ConfigFile, RunId
from bursar.runtime.cli.output import console, print_next
from bursar.runtime.cli.shapes import money, time_json
from bursar.runtime.cli.telling import next_commands, summary
from bursar.runtime.cli.words import plain

if TYPE_CHECKING:
    from bursar.budget.reports.report import Attempt

__all__ = ["follow", "tail"]

POLL_S = 0.5

Told = dict[str, str | int | None]
"""One thing that happened: `at`, `kind`, and what belongs to the kind."""


def tail(run: RunId, /, *, config: ConfigFile = CONFIG_FILE, as_json: AsJson = False) -> int:
    """Follow a run, in whichever process it goes on, until it ends."""
    with open_books(config) as books:
        books.records.row(run)
        for told in follow(books, run):
            console().out(json.dumps(told)) if as_json else console().print(_line(told), soft_wrap=True)
        found = books.records.show(books.records.row(run))
    if not as_json:
        console().print(summary(found), soft_wrap=True)
        print_next(next_commands(found), config)
    return exit_of(found.status)


def follow(books: Books, run_id: str, *, sleep: Callable[[float], None] = time.sleep) -> Iterator[Told]:
    """What has happened in a run, then what happens, until it is no longer running."""
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
        if status not in ("queued", "running"):
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
