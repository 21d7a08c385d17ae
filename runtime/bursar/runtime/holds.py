"""Holds on runs: each way to take a run up, to give it back or to end it is one transaction on the run and its gate."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from bursar.budget.errors import ConflictError
from bursar.budget.gate import Hold, Sign, cancel, let_go, one_owner, open_run, take
from bursar.budget.ledger import Ledger
from bursar.budget.stores.text import storable
from bursar.budget.windows import to_us
from bursar.runtime.accepting import NewRun
from bursar.runtime.escalations.escalations import Escalations
from bursar.runtime.escalations.records import Decision
from bursar.runtime.execution import Ending
from bursar.runtime.retention import require_kept
from bursar.runtime.runs.records import Record, Records, row_in, run_path
from bursar.runtime.runs.run import WAITING, Run, RunStatus

__all__ = ["Holds"]

_OVER: Sequence[RunStatus] = ("succeeded", "cancelled")
"""It cannot go on."""

_AT_REST: Sequence[RunStatus] = (*WAITING, "stopped", "failed")
"""Nobody executes it, and it may go on."""


class Holds:
    """The holds of one process. Blocking; raises LedgerUnavailable."""

    def __init__(
        self,
        records: Records,
        escalations: Escalations,
        ledger: Ledger,
        holder: str,
        lease_s: float,
        clock: Callable[[], datetime],
    ) -> None:
        self._records = records
        self._escalations = escalations
        self._ledger = ledger
        self._holder = holder
        self._lease_s = lease_s
        self._clock = clock

    def submit(self, new: NewRun) -> Run:
        """Accept a run for whoever can execute it."""
        with one_owner(new.scope), self._records.creating(new.values, "queued") as connection:
            self._open(connection, new)
        return self._records.show(self._records.row(new.scope.run_id))

    def accept(self, new: NewRun) -> tuple[Record, Hold]:
        """Accept a run and hold it."""
        with one_owner(new.scope), self._records.creating(new.values, "running") as connection:
            self._open(connection, new)
            hold = take(connection, new.scope.run_path, self._holder, self._lease_s, self._now_us())
            return row_in(connection, new.scope.run_id), hold

    def claim(self, run_id: str, silent: Sign | None) -> tuple[Record, Hold]:
        """Take up a run that is queued or, with its holder's last sign of life, one that was left.

        Raises ConflictError where it is neither any more.
        """
        expected: Sequence[RunStatus] = ("queued",) if silent is None else ("running",)
        cause = "taken up" if silent is None else f"taken over from {silent.holder or 'a worker that let it go'}"
        changing = self._records.changing(run_id, "running", cause=cause, author=self._holder, expected=expected)
        with changing as connection:
            row = row_in(connection, run_id)
            self._escalations.take(connection, row)
            hold = take(connection, run_path(row), self._holder, self._lease_s, self._now_us(), silent=silent)
        if hold.epoch > 1:
            self._ledger.reap(run_id)
        return row, hold

    def take(self, run_id: str) -> tuple[Record, Hold]:
        """Hold a run as it stands, and close what earlier holders left open.

        Raises ConflictError while another holder is alive.
        """
        path = run_path(self._records.row(run_id))
        hold = self._ledger.gates.hold(path, self._holder, self._lease_s)
        if hold.epoch > 1:
            self._ledger.reap(run_id)
        return self._records.row(run_id), hold

    def decide(
        self, row: Record, decisions: Mapping[str, Decision], by: str, tools: Collection[str] | None
    ) -> tuple[Record, Hold]:
        """Decide on what a run waits on, that is held here; the run as it stands then, with all that it was granted.

        Raises what `Escalations.decide_for` does; nothing is decided then.
        """
        if decisions:
            self._escalations.decide_for(row["id"], decisions, by=by, tools=tools)
        elif row["status"] in ("stopped", "interrupted"):
            self._ledger.gates.reopen(run_path(row), author=by)  # its limits still hold
        hold = self._ledger.gates.hold(run_path(row), self._holder, self._lease_s)
        return self._records.row(row["id"]), hold

    def resume(self, row: Record, by: str) -> None:
        """Let a run that is held go on, with what was decided.

        Raises ConflictError where its checkpoints were deleted since it was looked at: it would begin anew.
        """
        cause = f"resumed: {row['stop_reason']}" if row["status"] == "queued" else "resumed"
        changing = self._records.changing(row["id"], "running", cause=cause, author=by, expected=[row["status"]])
        with changing as connection:
            require_kept(row_in(connection, row["id"]))
            self._escalations.take(connection, row)

    def let_go(self, row: Record, hold: Hold) -> None:
        """Leave a run as it stands."""
        self._ledger.gates.let_go(run_path(row), hold.epoch)

    def end(self, row: Record, hold: Hold, ending: Ending) -> Run:
        """Write down how the execution ended, unless another worker has the run now; once cancelled it is cancelled."""
        try:
            self._end(row, hold, ending)
        except _Cancelled:
            self._end(row, hold, replace(ending, status="cancelled", cause="somebody cancelled it"))
        except _Lost:
            pass
        return self._records.show(self._records.row(row["id"]), ending.value, ending.error)

    def _end(self, row: Record, hold: Hold, ending: Ending) -> None:
        values: dict[str, Any] = {}
        if ending.output is not None or ending.interrupts is not None:
            values = {"output": storable(ending.output)}
        asked = () if ending.status in _OVER else ending.interrupts
        refused = ending.status == "interrupted" and ending.error is not None
        also = self._escalations.opening(row, asked, refused=refused)
        changing = self._records.changing(row["id"], ending.status, cause=ending.cause, **values)
        with changing as connection:
            left = let_go(connection, run_path(row), hold.epoch, self._now_us())
            if left is None:
                raise _Lost
            if left["cancelled_us"] is not None and ending.status != "cancelled":
                raise _Cancelled
            also(connection, row_in(connection, row["id"]))
            if ending.is_paused and left["paused_us"] is None:  # it was let go on meanwhile
                self._records.queue(connection, row["id"], now=self._now_us(), cause="nobody holds it up any more")

    def cancel(self, run_id: str, by: str) -> bool:
        """Close a run's gate; returns whether that was its end, since nobody executes it."""
        row, cause = self._records.row(run_id), f"cancelled by {by}"
        withdraw = self._escalations.opening(row, ())
        with suppress(ConflictError):
            changing = self._records.changing(run_id, "cancelled", cause=cause, author=by, expected=_AT_REST)
            with changing as connection:
                cancel(connection, run_path(row), self._now_us(), author=by)
                withdraw(connection, row_in(connection, run_id))
            return True
        self._ledger.gates.cancel(run_path(row), author=by)
        return False

    def _open(self, connection: Connection, new: NewRun) -> None:
        open_run(connection, new.scope, new.limits, self._now_us(), nodes=new.nodes, until=new.until)

    def _now_us(self) -> int:
        return to_us(self._clock())


class _Lost(Exception):
    """Another worker has the run now."""


class _Cancelled(Exception):
    """Somebody cancelled the run before its end was written."""
