"""`bursar budget verify`: compare the whole ledger with its journal, and make balances anew from it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from bursar.runtime.cli.books import open_books
from bursar.runtime.cli.exits import Exit
from bursar.runtime.cli.options import CONFIG_FILE, AsJson, By, ConfigFile, DryRun, author, flag
from bursar.runtime.cli.output import Column, console, print_error, print_json, print_next, print_table
from bursar.runtime.cli.patience import patience
from bursar.runtime.cli.words import counted

if TYPE_CHECKING:
    from bursar.budget.audit.verify import Audit
    from bursar.budget.ledger import Ledger

__all__ = ["audited", "print_audit", "signing_key", "verify"]

FINDINGS_SHOWN_MAX = 40
"""`--json` has more."""

_COLUMNS: Sequence[Column] = (("journal", "whole"), ("what", "whole"), "is wrong")


def verify(
    *,
    head: Annotated[
        list[str] | None, Parameter(help="CHAIN:NUMBER:HASH as printed earlier; it must still lie on its chain.")
    ] = None,
    rebuild: Annotated[bool, flag("--rebuild", "Write the balances that follow from the journal.")] = False,
    by: By = None,
    config: ConfigFile = CONFIG_FILE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> int:
    """Find whatever was changed, taken out, added or moved in the ledger."""
    from bursar.budget.audit.account_check import rebuild as write_balances  # with SQLAlchemy
    from bursar.budget.windows import to_us

    with open_books(config) as books:
        audit = audited(books.ledger, head or ())
        wrong = len(audit.wrong) if rebuild and audit.journal_holds else 0
        if wrong and not dry_run:
            write_balances(books.ledger.store, audit.wrong, author=author(by), now=to_us(datetime.now(UTC)))
            audit = audited(books.ledger, head or ())
    if as_json:
        print_json({**_as_json(audit), "rebuilt": 0 if dry_run else wrong})
    else:
        print_audit(audit)
        if wrong:
            verb = "would be" if dry_run else "were"
            console().print(f"{counted(wrong, 'balance')} {verb} made anew from the journal", soft_wrap=True)
        elif audit.wrong and audit.journal_holds:
            print_next(["bursar budget verify --rebuild"], config)
    if rebuild and not audit.journal_holds:
        print_error("the journal itself is broken: no balance follows from it", next_step="restore it from a backup")
    return Exit.ERROR if audit.findings else Exit.OK


def audited(ledger: Ledger, heads: Sequence[str] = ()) -> Audit:
    """What a look at the whole ledger came to, with a bar while it goes on; raises UsageError."""
    from bursar.budget.audit.verify import Head
    from bursar.budget.audit.verify import verify as look

    with patience("verifying") as tell:
        parsed = [Head.parse(text) for text in heads]
        return look(ledger.store, key=signing_key(), heads=parsed, progress=lambda done, of: tell(done / of))


def signing_key() -> bytes | None:
    """The secret that summaries are signed with, from the environment."""
    from bursar.budget.audit.summaries import SIGNING_KEY

    return os.environ.get(SIGNING_KEY, "").strip().encode() or None


def print_audit(audit: Audit) -> None:
    """What was found, and where each chain ends."""
    if audit.findings:
        shown = audit.findings[:FINDINGS_SHOWN_MAX]
        print_table(_COLUMNS, [(one.chain or "-", one.what, one.problem) for one in shown])
        if len(audit.findings) > len(shown):
            console().print(f"and {counted(len(audit.findings) - len(shown), 'more finding')}: --json", style="dim")
    rolled_up = f", signed summaries {audit.summaries:,}" if audit.summaries else ""
    said = f"{len(audit.findings):,} wrong" if audit.findings else "all as it was written"
    console().print(f"entries {audit.entries:,}{rolled_up}: {said}", soft_wrap=True)
    for head in audit.heads:
        console().print(f"head {head}", style="dim", soft_wrap=True)


def _as_json(audit: Audit) -> dict[str, object]:
    return {
        "entries": audit.entries,
        "summaries": audit.summaries,
        "findings": [{"chain": one.chain, "what": one.what, "problem": one.problem} for one in audit.findings],
        "heads": [str(head) for head in audit.heads],
        "journal_holds": audit.journal_holds,
    }
