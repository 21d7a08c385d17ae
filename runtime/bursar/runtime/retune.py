"""What a person changes of a run while it goes on: its limits, and whether it goes on at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, select, update

from bursar.budget.errors import ConflictError, UsageError
from bursar.budget.ledger import Ledger
from bursar.budget.limits import Limits
from bursar.budget.money import format_usd
from bursar.budget.retune import Retuned, pause, retune
from bursar.budget.windows import to_us
from bursar.runtime.runs.records import Record, Records, lock, row_in, run_path
from bursar.runtime.runs.schema import escalation, run

__all__ = ["Retuning", "RunChange", "in_words"]


class Event(NamedTuple):
    """What a run's history says of a change."""

    at_us: int
    cause: str
    author: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunChange:
    """What is wanted; raises UsageError where that is nothing, or both to go on and not to."""

    limits: Limits | None = None
    """Those that are written down take the place of the run's, and of what it was granted."""

    pause: bool = False
    resume: bool = False

    def __post_init__(self) -> None:
        if self.pause and self.resume:
            raise UsageError("pause and resume: expected one of them")
        if not (self.pause or self.resume or (self.limits is not None and self.limits.given)):
            raise UsageError("nothing to change", next_step="bursar runs retune --help")


class Retuning:
    """Changes runs, also such as another process executes. Blocking; raises LedgerUnavailable."""

    def __init__(self, ledger: Ledger, records: Records, clock: Callable[[], datetime]) -> None:
        self._store = ledger.store
        self._records = records
        self._clock = clock

    def retune(
        self,
        run_id: str,
        change: RunChange,
        *,
        by: str,
        note: str = "",
        tenant: str | None = None,
        dry_run: bool = False,
    ) -> Retuned | None:
        """Change a run, in one transaction; returns its limits before and after where they were to change.

        With `dry_run` all of it is taken back in the end.
        Raises NotFoundError, also for another tenant's run where `tenant` is given, and ConflictError for one that has
        ended for good.
        """
        now, retuned, said = to_us(self._clock()), None, list[str]()
        with suppress(_TakenBack), self._store.write(durable=True) as connection:
            lock(connection, run_id)
            row = row_in(connection, run_id, tenant=tenant)
            if row["status"] in ("succeeded", "cancelled"):
                raise ConflictError(f"run {run_id} has ended ({row['status']}): there is nothing to change")
            path, who = run_path(row), {"author": by, "note": note}
            if change.limits is not None:
                retuned = retune(connection, path, change.limits, now, **who)
                said += in_words(retuned)
            if change.pause and pause(connection, path, now, on=True, **who):
                said.append(f"paused by {by}")
            if change.resume and pause(connection, path, now, on=False, **who):
                said.append(f"let go on by {by}")
            if said:
                cause = "; ".join(said) + (f" ({note})" if note else "")
                self._written_down(connection, row, change, Event(now, cause, by))
            if dry_run:
                raise _TakenBack
        return retuned

    def _written_down(self, connection: Connection, row: Record, change: RunChange, event: Event) -> None:
        """A run that waits for a worker waits for a person instead, or the other way round; any other goes on so."""
        run_id, now, cause, by = row["id"], *event
        if change.pause and row["status"] == "queued":
            held = update(run).where(run.c.id == run_id).values(status="interrupted", stop_reason=cause, changed_us=now)
            connection.execute(held)
        elif change.resume and not connection.execute(_ASKS, {"of_run": run_id}).first():
            waited = self._records.queue(connection, run_id, now=now, cause=cause, author=by)
            if waited:
                return
        self._records.tell(connection, run_id, now=now, cause=cause, author=by)


class _TakenBack(Exception):
    """Nothing was to be changed."""


def in_words(retuned: Retuned) -> Iterator[str]:
    """The limits that changed: `steps 12 -> 20`."""
    for name, after in retuned.after.items():
        if (before := retuned.before[name]) != after:
            yield f"{_NAMES[name]} {_shown(name, before)} -> {_shown(name, after)}"


def _shown(name: str, amount: float | None) -> str:
    if amount is None:
        return "none"
    return format_usd(int(amount)) if name == "nanousd" else f"{amount:,g}" if name == "seconds" else f"{amount:,}"


_NAMES = {"nanousd": "cost", "tokens": "tokens", "steps": "steps", "tool_calls": "tool calls", "seconds": "seconds"}

_ASKS = (
    select(escalation.c.id).where(escalation.c.run_id == bindparam("of_run"), escalation.c.status == "open").limit(1)
)
