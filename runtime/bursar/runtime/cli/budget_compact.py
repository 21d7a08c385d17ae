"""`bursar budget compact`: roll up what is old, without changing a balance, a report or a proof."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from cyclopts import Parameter

from bursar.budget.errors import LedgerError
from bursar.runtime.cli.books import Books, open_books
from bursar.runtime.cli.budget_verify import audited, print_audit, signing_key
from bursar.runtime.cli.exits import Exit
from bursar.runtime.cli.moments import moment
from bursar.runtime.cli.options import CONFIG_FILE, AsJson, By, ConfigFile, DryRun, author
from bursar.runtime.cli.output import console, print_json
from bursar.runtime.cli.patience import patience
from bursar.runtime.cli.words import counted

__all__ = ["compact"]


def compact(
    *,
    older_than: Annotated[str, Parameter(help="An age such as 90d or 12w, or a day or time in UTC.")],
    by: By = None,
    config: ConfigFile = CONFIG_FILE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> int:
    """Roll old entries up into signed summaries, and old calls into sums for reports."""
    from bursar.budget.audit.retention import Compacted, old_entries  # with SQLAlchemy
    from bursar.budget.audit.retention import compact as roll_up
    from bursar.budget.audit.summaries import check_key

    before = moment(older_than, "UTC", datetime.now(UTC))
    key = check_key(signing_key())
    with open_books(config) as books:
        store = books.ledger.store
        old = old_entries(store, before)
        if dry_run:
            done = Compacted(entries=old)
        else:
            audit = audited(books.ledger)
            if audit.findings:
                print_audit(audit)
                raise LedgerError("the ledger is not as its journal says, so nothing was rolled up")
            with patience("rolling up") as tell:
                done = roll_up(
                    store,
                    before=before,
                    key=key,
                    author=author(by),
                    clock=lambda: datetime.now(UTC),
                    keep=_going_on(books),
                    progress=lambda done: tell(done.entries / max(old, 1)),
                )
    if as_json:
        amounts = {"entries": done.entries, "reservations": done.reservations, "runs_closed": done.runs}
        print_json({"before": before.isoformat(), "dry_run": dry_run, **amounts})
    elif dry_run:
        console().print(f"would roll up {_entries(done.entries)}; nothing was changed", soft_wrap=True)
    else:
        rolled_up = f"{_entries(done.entries)} rolled up, with {counted(done.reservations, 'call')}"
        console().print(f"{rolled_up}; {counted(done.runs, 'run')} closed", soft_wrap=True)
    return Exit.OK


def _entries(count: int) -> str:
    return "1 entry" if count == 1 else f"{count:,} entries"


def _going_on(books: Books) -> set[str]:
    """The ids of runs that may still spend: those that are not finished, and those of keys that may be used."""
    from bursar.runtime.service.keys import Keys  # with SQLAlchemy

    now = datetime.now(UTC)
    return books.records.unfinished() | {key.id for key in Keys(books.ledger, None).ls() if key.is_valid(now)}
