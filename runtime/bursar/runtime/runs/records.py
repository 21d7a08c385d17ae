"""Runs in the store: made, changed with their cause, and read."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, Select, and_, bindparam, case, func, insert, or_, select, update
from sqlalchemy.engine import RowMapping

from bursar.budget.errors import ConflictError, NotFoundError
from bursar.budget.gate import Sign, overdue
from bursar.budget.ledger import Ledger
from bursar.budget.schema import pot
from bursar.budget.stores.text import storable
from bursar.budget.windows import from_us, to_us
from bursar.runtime.runs.run import WAITING, Change, Interrupt, Run, RunStatus
from bursar.runtime.runs.schema import escalation, run, run_event

__all__ = [
    "MIGRATIONS",
    "Also",
    "Held",
    "Record",
    "Records",
    "lock",
    "new_run_id",
    "row_in",
    "run_path",
]

MIGRATIONS = Path(__file__).parent / "migrations"

Record = RowMapping
"""A row of the table `run`."""

Also = Callable[[Connection, Record], None]
"""What is done in the transaction that changes a run; it is given the run's row as it is then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A run that another process executes, or did when it fell silent."""

    run: Record
    """Its `id`, `tenant`, `agent` and `target`."""

    sign: Sign
    is_cancelled: bool


def new_run_id(at: datetime, random_hex: Callable[[int], str] = secrets.token_hex) -> str:
    """A run's id: sorts by time, and cannot be guessed."""
    return f"run_{to_us(at) // 1000:011x}{random_hex(5)}"


class Records:
    """The runs of one store."""

    def __init__(self, ledger: Ledger, clock: Callable[[], datetime]) -> None:
        self._store = ledger.store
        self._ledger = ledger
        self._clock = clock

    @contextmanager
    def creating(self, values: Mapping[str, Any], status: Literal["queued", "running"]) -> Iterator[Connection]:
        """Admit a run, and do what is done within in the same transaction: it is a row before it is anything else.

        One that is `running` is executed by whoever admits it.
        """
        now = to_us(self._clock())
        state: dict[str, Any] = {"created_us": now, "changed_us": now}
        if status == "queued":
            state |= {"queued_us": now, "stop_reason": "accepted"}
        with self._store.write(durable=True) as connection:
            connection.execute(insert(run).values(status=status, **state, **values))
            _tell(connection, values["id"], now, status, "accepted", None)
            yield connection

    @contextmanager
    def changing(
        self,
        run_id: str,
        status: RunStatus,
        *,
        cause: str,
        author: str | None = None,
        expected: Sequence[RunStatus] | None = None,
        **values: Any,
    ) -> Iterator[Connection]:
        """Change a run's state, and do what is done within in the same transaction: both are done, or neither.

        Raises ConflictError where it is in none of the `expected` states.
        """
        now = to_us(self._clock())
        query = update(run).where(run.c.id == run_id)
        if expected is not None:
            query = query.where(run.c.status.in_(expected))
        values = {"queued_us": now if status == "queued" else None, **values}
        with self._store.write(durable=True) as connection:
            state = {"status": status, "stop_reason": storable(cause), "changed_us": now}
            changed = connection.execute(query.values(**state, **values))
            if not changed.rowcount:
                raise ConflictError(f"run {run_id} is no longer {' or '.join(expected or ())}")
            _tell(connection, run_id, now, status, cause, author)
            yield connection

    def change(
        self,
        run_id: str,
        status: RunStatus,
        *,
        cause: str,
        author: str | None = None,
        expected: Sequence[RunStatus] | None = None,
        also: Also | None = None,
        **values: Any,
    ) -> None:
        """`changing`; `also` is given the run's row as it is then."""
        how: dict[str, Any] = {"cause": cause, "author": author, "expected": expected, **values}
        with self.changing(run_id, status, **how) as connection:
            if also is not None:
                also(connection, row_in(connection, run_id))

    def note(self, run_id: str, cause: str, *, author: str | None = None) -> None:
        """Write down what happened to a run whose state it did not change."""
        with self._store.write() as connection:
            self.tell(connection, run_id, now=to_us(self._clock()), cause=cause, author=author)

    @staticmethod
    def tell(connection: Connection, run_id: str, *, now: int, cause: str, author: str | None = None) -> None:
        """`note` within a transaction; `now` is in microseconds."""
        _tell(connection, run_id, now, row_in(connection, run_id)["status"], cause, author)

    @staticmethod
    def queue(connection: Connection, run_id: str, *, now: int, cause: str, author: str | None = None) -> bool:
        """Let a run that waits be taken up by whoever can execute it; False where it does not wait.

        `now` is in microseconds. For what lets it go on, in its own transaction.
        """
        return _end_waiting(connection, run_id, "queued", now=now, cause=cause, author=author)

    @staticmethod
    def stop(connection: Connection, run_id: str, *, now: int, cause: str, author: str | None = None) -> bool:
        """Let a run that waits end with what it has; False where it does not wait. As `queue` else."""
        return _end_waiting(connection, run_id, "stopped", now=now, cause=cause, author=author)

    def claimable(self, fits: Callable[[Record], bool], limit: int, *, after: str = "") -> list[Record]:
        """Runs that wait for a worker and fit: `id`, `tenant`, `agent` and `target` of each, in fair order.

        A tenant that has few runs under way comes before one that has many, and of equal ones the next `after` the
        tenant that had the last turn. Its own are taken in the order in which they were queued.
        """
        with self._store.read() as connection:
            if connection.execute(_ANY_QUEUED).first() is None:  # as it is nearly always when somebody asks
                return []
            rows = connection.execute(_CLAIMABLE, {"after": after}).mappings()
            return list(islice(filter(fits, rows), limit))

    def held(self, but: str) -> list[Held]:
        """The runs that others than this holder execute, or did when they fell silent."""
        others = or_(pot.c.holder.is_(None), pot.c.holder != but)
        with self._store.read() as connection:
            rows = connection.execute(_HELD.where(others)).mappings().all()
        return [
            Held(
                run=row,
                sign=Sign(row["holder"], row["epoch"], row["lease_until_us"]),
                is_cancelled=row["cancelled_us"] is not None,
            )
            for row in rows
        ]

    def expire_due(self, now: datetime, *, also: Also | None = None) -> list[str]:
        """Stop the runs that wait and had to end by `now`; returns their ids. Those under way are cut off.

        `also` is done with each in the same transaction.
        """
        due = select(run).where(run.c.status.in_(WAITING), run.c.deadline_us <= to_us(now))
        with self._store.read() as connection:
            rows = connection.execute(due).mappings().all()
        stopped = []
        for row in rows:
            cause = overdue(run_path(row), from_us(row["deadline_us"])).words()
            with suppress(ConflictError):  # somebody took it up, or cancelled it
                self.change(row["id"], "stopped", cause=cause, expected=WAITING, also=also)
                stopped.append(row["id"])
        return stopped

    def taken_over(self, run_id: str, checkpoint: str) -> int:
        """Count a take-over at a checkpoint; returns how many there were at this one, one after the other."""
        again = case((run.c.taken_over_at == checkpoint, run.c.takeovers + 1), else_=1)
        with self._store.write() as connection:
            of_run = update(run).where(run.c.id == run_id)
            connection.execute(of_run.values(takeovers=again, taken_over_at=checkpoint))
            return int(row_in(connection, run_id)["takeovers"])

    def row(self, run_id: str, *, tenant: str | None = None) -> Record:
        """A run's row; raises NotFoundError, also for another tenant's run."""
        with self._store.read() as connection:
            return row_in(connection, run_id, tenant=tenant)

    def ls(self, *, tenant: str | None = None, status: RunStatus | None = None, limit: int = 50) -> list[Run]:
        """The newest runs first."""
        query = select(run).order_by(run.c.created_us.desc(), run.c.id.desc()).limit(limit)
        if tenant is not None:
            query = query.where(run.c.tenant == tenant)
        if status is not None:
            query = query.where(run.c.status == status)
        with self._store.read() as connection:
            rows = connection.execute(query).mappings().all()
        return [self.show(row) for row in rows]

    def _interrupts(self, run_id: str) -> list[Interrupt]:
        """What a run waits on: its open escalations."""
        asked = select(escalation).where(escalation.c.run_id == run_id, escalation.c.status == "open")
        with self._store.read() as connection:
            rows = connection.execute(asked.order_by(escalation.c.id)).mappings().all()
        return [
            Interrupt(
                id=row["interrupt_id"],
                reason=row["reason"],
                words=row["words"],
                payload=json.loads(row["payload"]),
                allowed=json.loads(row["allowed"]),
                escalation=row["id"],
            )
            for row in rows
        ]

    def unfinished(self) -> set[str]:
        """The ids of runs that some process executes, or that wait for a worker or for somebody."""
        query = select(run.c.id).where(run.c.status.in_(["queued", "running", "interrupted"]))
        with self._store.read() as connection:
            return set(connection.execute(query).scalars())

    def show(self, row: Record, value: Any = None, error: BaseException | None = None) -> Run:
        """A run as its caller sees it, with what it was charged until now."""
        return Run(
            id=row["id"],
            tenant=row["tenant"],
            team=row["team"],
            user=row["user"],
            agent=row["agent"],
            status=row["status"],
            stop_reason=row["stop_reason"] or "",
            output=row["output"],
            value=value,
            interrupts=self._interrupts(row["id"]),
            usage=self._ledger.reports.usage(row["id"]),
            spent=self._ledger.reports.spent(run_path(row)),
            created_at=from_us(row["created_us"]),
            changed_at=from_us(row["changed_us"]),
            error=error,
            forked_from=row["forked_from"],
        )

    def events(self, run_id: str, after: int = 0) -> list[Change]:
        """Changes of a run's state, in their order; only those behind the number `after`."""
        query = select(run_event).where(run_event.c.run_id == run_id, run_event.c.id > after).order_by(run_event.c.id)
        with self._store.read() as connection:
            rows = connection.execute(query).mappings().all()
        return [
            Change(
                number=row["id"],
                at=from_us(row["at_us"]),
                status=row["status"],
                cause=row["cause"] or "",
                by=row["author"] or "",
            )
            for row in rows
        ]


def row_in(connection: Connection, run_id: str, *, tenant: str | None = None) -> Record:
    """`Records.row` within a transaction."""
    query = select(run).where(run.c.id == run_id)
    if tenant is not None:
        query = query.where(run.c.tenant == tenant)
    found = connection.execute(query).mappings().first()
    if found is None:
        raise NotFoundError(f"there is no run {run_id}", next_step="bursar runs ls")
    return found


def run_path(row: Record) -> str:
    """The path of a run's pot in the ledger."""
    return f"{row['tenant']}/{row['agent']}/{row['id']}"


def _claimable() -> Select[Any]:
    under_way = select(run.c.tenant, func.count().label("runs")).where(run.c.status == "running")
    busy = under_way.group_by(run.c.tenant).subquery()
    place = func.row_number().over(partition_by=run.c.tenant, order_by=(run.c.queued_us, run.c.id))
    turn = place + func.coalesce(busy.c.runs, 0)
    return (
        select(run.c.id, run.c.tenant, run.c.agent, run.c.target)
        .select_from(run.outerjoin(busy, busy.c.tenant == run.c.tenant))
        .where(run.c.status == "queued")
        .order_by(turn, run.c.tenant <= bindparam("after"), run.c.tenant, run.c.queued_us, run.c.id)
    )


_CLAIMABLE = _claimable()

_ANY_QUEUED = select(run.c.id).where(run.c.status == "queued").limit(1)

_HELD = (
    select(
        *(run.c.id, run.c.tenant, run.c.agent, run.c.target),
        *(pot.c.holder, pot.c.epoch, pot.c.lease_until_us, pot.c.cancelled_us),
    )
    .join_from(run, pot, and_(pot.c.run_id == run.c.id, pot.c.epoch.is_not(None)))
    .where(run.c.status == "running")
)


def lock(connection: Connection, run_id: str) -> None:
    """Let nobody else change a run until the transaction ends.

    The first thing to do for whatever changes a run and more: the run goes before its tenant's chain in the ledger.
    """
    connection.execute(select(run.c.id).where(run.c.id == run_id).with_for_update())


def _end_waiting(
    connection: Connection, run_id: str, status: RunStatus, *, now: int, cause: str, author: str | None
) -> bool:
    waits = update(run).where(run.c.id == run_id, run.c.status == "interrupted")
    queued_us = now if status == "queued" else None
    changed = connection.execute(
        waits.values(status=status, stop_reason=storable(cause), queued_us=queued_us, changed_us=now)
    ).rowcount
    if changed:
        _tell(connection, run_id, now, status, cause, author)
    return bool(changed)


def _tell(connection: Connection, run_id: str, now: int, status: str, cause: str | None, author: str | None) -> None:
    told = {"run_id": run_id, "at_us": now, "status": status, "cause": storable(cause), "author": author}
    connection.execute(insert(run_event).values(**told))
