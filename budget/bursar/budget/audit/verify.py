"""Finds any entry that was changed, taken out, added or moved, and any row that does not follow from the entries.

What it cannot find, nobody can within the store alone: that every chain was made anew from some point on by somebody
who also made every row fit, or that the store was put back to an earlier state. A head that was kept elsewhere shows
both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice

from sqlalchemy import Connection, RowMapping, exists, select

from bursar.budget.audit.account_check import Wrong, check_accounts
from bursar.budget.audit.links import Finding, Head, Links, entry_count, is_whole, pages
from bursar.budget.audit.reservation_check import Reservations
from bursar.budget.audit.settings_check import Settings
from bursar.budget.audit.summaries import Kept, check_key, is_signed, summaries
from bursar.budget.audit.tally import Tallies, Tally, tallied
from bursar.budget.schema import rollup, summary
from bursar.budget.stores.store import Store

__all__ = ["Audit", "Finding", "Head", "verify"]

FINDINGS_MAX = 1_000
"""How many findings are told: where there are more, the ledger is to be restored and not mended."""

Progress = Callable[[int, int], None]
"""Is told how many of how many entries were read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What a look at the whole ledger came to."""

    entries: int
    """How many entries were read; those that were rolled up are not among them."""

    summaries: int
    findings: tuple[Finding, ...]
    """At most `FINDINGS_MAX`; empty where all is as it was written."""

    heads: tuple[Head, ...]
    """Where each chain ends, to be kept elsewhere."""

    journal_holds: bool
    """Whether the entries themselves are whole, so that balances may be made anew from them."""

    wrong: Wrong
    """The accounts whose balance or limit is not what follows from the entries; see `rebuild`."""


def verify(
    store: Store, *, key: bytes | None = None, heads: Iterable[Head] = (), progress: Progress = lambda _done, _of: None
) -> Audit:
    """Read the whole ledger in one state and compare everything with its journal.

    `key` is the secret with which summaries were signed. `heads` are earlier ends of chains, which must still lie on
    them. Memory does not grow with the number of entries. Raises UsageError where there are summaries and no key.
    """
    with store.read() as connection, closing(_Reading(connection, Links(heads), progress)) as reading:
        broken = tuple(islice(reading.journal(key), FINDINGS_MAX))
        findings = (*broken, *islice(reading.rows(), FINDINGS_MAX - len(broken)))
    return Audit(
        entries=reading.entries,
        summaries=reading.summaries,
        findings=findings,
        heads=tuple(reading.links.heads()),
        journal_holds=not broken,
        wrong=reading.wrong,
    )


@dataclass(slots=True)
class _Reading:
    """One pass over the ledger."""

    connection: Connection
    links: Links
    progress: Progress
    entries: int = 0
    summaries: int = 0
    wrong: Wrong = field(default_factory=dict)
    _tallies: Tallies = field(default_factory=Tallies)
    _settings: Settings = field(default_factory=Settings)
    _kept: Kept = field(default_factory=Kept)

    def journal(self, key: bytes | None) -> Iterator[Finding]:
        """Follow every chain, and take in what its entries say."""
        for row in summaries(self.connection):
            yield from self._summary(row, check_key(key))
        if self.connection.execute(select(exists().where(rollup.c.summary_id.not_in(select(summary.c.id))))).scalar():
            yield Finding(what="rollup", problem="there are sums that belong to no summary")
        total = entry_count(self.connection)
        for page in pages(self.connection):
            for row in page:
                yield from self.links.follow(row)
            whole = [row for row in page if is_whole(row)]
            self._tallies.add(tallied(whole))
            self._settings.add(whole)
            self.entries += len(page)
            self.progress(self.entries, total)
        yield from self.links.end(self.connection)

    def rows(self) -> Iterator[Finding]:
        """Compare every row with what was taken in."""
        yield from self._settings.check(self.connection)
        yield from check_accounts(self.connection, self._tallies, self.wrong)
        yield from Reservations(self._kept.sums).check(self.connection)

    def close(self) -> None:
        self._tallies.close()

    def _summary(self, row: RowMapping, key: bytes) -> Iterator[Finding]:
        self.summaries += 1
        yield from self.links.skip(row)
        if not is_signed(self.connection, key, row):
            what = f"summary {row['first_number']} to {row['last_number']}"
            yield Finding(chain=row["chain"], what=what, problem="was changed, or was signed with another key")
            return
        balances = json.loads(row["balances"])
        self._tallies.add({int(key): Tally.of_record(record) for key, record in balances.items()})
        self._settings.add(json.loads(row["changes"]))
        self._kept.add(row["reservations"])
