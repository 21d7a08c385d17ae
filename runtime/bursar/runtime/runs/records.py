"""Runs in the store: made, changed with their cause, and read."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, Select, func, insert, select, update
from sqlalchemy.engine import RowMapping

from bursar.budget.errors import ConflictError, NotFoundError
from bursar.budget.ledger import Ledger
from bursar.budget.windows import from_us, to_us
from bursar.runtime.runs.run import Interrupt, Run, RunStatus
from bursar.runtime.runs.schema import run, run_event

__all__ = ["MIGRATIONS", "Also", "Record", "Records", "interrupts_as_json", "new_run_id", "run_path"]

MIGRATIONS = Path(__file__).parent / "migrations"

Record = RowMapping
"""A row of the table `run`."""

Also = Callable[[Connection, Record], None]
"""What is done in the transaction that changes a run; it is given the run's row as it is then."""


def new_run_id(at: datetime, random_hex: Callable[[int], str] = secrets.token_hex) -> str:
    """A run's id: sorts by time, and cannot be guessed."""
    return f"run_{to_us(at) // 1000:011x}{random_hex(5)}"


class Records:
    """The runs of one store."""

    def __init__(self, ledger: Ledger, clock: Callable[[], datetime]) -> None:
        self._store = ledger.store
        self._ledger = ledger
        self._clock = clock

    def create(self, values: Mapping[str, Any], status: Literal["queued", "running"] = "running") -> None:
        """Admit a run: it is a row before it is anything else. One that is `running` is executed by who admits it."""
        now = to_us(self._clock())
        times = {"created_us": now, "changed_us": now, "queued_us": now if status == "queued" else None}
        with self._store.write(durable=True) as connection:
            connection.execute(insert(run).values(status=status, **times, **values))
            _tell(connection, values["id"], now, status, "accepted", None)

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
        """Change a run's state; raises ConflictError where it is in none of the `expected` states.

        `also` is done in the same transaction, after the change: both are, or neither.
        """
        now = to_us(self._clock())
        query = update(run).where(run.c.id == run_id)
        if expected is not None:
            query = query.where(run.c.status.in_(expected))
        values = {"queued_us": now if status == "queued" else None, **values}
        with self._store.write(durable=True) as connection:
            changed = connection.execute(query.values(status=status, stop_reason=cause, changed_us=now, **values))
            if not changed.rowcount:
                raise ConflictError(f"run {run_id} is no longer {' or '.join(expected or ())}")
            _tell(connection, run_id, now, status, cause, author)
            if also is not None:
                also(connection, connection.execute(select(run).where(run.c.id == run_id)).mappings().one())

    @staticmethod
    def queue(connection: Connection, run_id: str, *, now: int, cause: str, author: str | None = None) -> bool:
        """Let a run that waits be taken up by whoever can execute it; False where it does not wait.

        `now` is in microseconds. For what lets it go on, in its own transaction.
        """
        waits = update(run).where(run.c.id == run_id, run.c.status == "interrupted")
        changed = connection.execute(waits.values(status="queued", stop_reason=cause, queued_us=now, changed_us=now))
        if changed.rowcount:
            _tell(connection, run_id, now, "queued", cause, author)
        return bool(changed.rowcount)

    def claimable(self, fits: Callable[[Record], bool], limit: int) -> list[Record]:
        """Runs that wait for a worker and fit: `id`, `tenant`, `agent` and `target` of each, in fair order.

        A tenant that has few runs under way comes before one that has many; its own are taken in the order in which
        they were queued.
        """
        with self._store.read() as connection:
            rows = connection.execute(_CLAIMABLE).mappings()
            return list(islice(filter(fits, rows), limit))

    def row(self, run_id: str, *, tenant: str | None = None) -> Record:
        """A run's row; raises NotFoundError, also for another tenant's run."""
        query = select(run).where(run.c.id == run_id)
        if tenant is not None:
            query = query.where(run.c.tenant == tenant)
        with self._store.read() as connection:
            found = connection.execute(query).mappings().first()
        if found is None:
            raise NotFoundError(f"there is no run {run_id}", next_step="bursar runs ls")
        return found

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
            interrupts=[Interrupt(**one) for one in json.loads(row["interrupts"])],
            usage=self._ledger.reports.usage(row["id"]),
            spent=self._ledger.reports.spent(run_path(row)),
            created_at=from_us(row["created_us"]),
            changed_at=from_us(row["changed_us"]),
            error=error,
        )

    def events(self, run_id: str, after: int = 0) -> Iterator[tuple[int, datetime, RunStatus, str, str]]:
        """Changes of a run's state: number, time, status, cause and author."""
        query = select(run_event).where(run_event.c.run_id == run_id, run_event.c.id > after).order_by(run_event.c.id)
        with self._store.read() as connection:
            rows = connection.execute(query).mappings().all()
        for row in rows:
            yield row["id"], from_us(row["at_us"]), row["status"], row["cause"] or "", row["author"] or ""


def run_path(row: Record) -> str:
    """The path of a run's pot in the ledger."""
    return f"{row['tenant']}/{row['agent']}/{row['id']}"


def interrupts_as_json(interrupts: Sequence[Interrupt]) -> str:
    """Interrupts as they are kept in a run's row."""
    return json.dumps([asdict(one) for one in interrupts], default=str)


def _claimable() -> Select[Any]:
    under_way = select(run.c.tenant, func.count().label("runs")).where(run.c.status == "running")
    busy = under_way.group_by(run.c.tenant).subquery()
    place = func.row_number().over(partition_by=run.c.tenant, order_by=(run.c.queued_us, run.c.id))
    turn = place + func.coalesce(busy.c.runs, 0)
    return (
        select(run.c.id, run.c.tenant, run.c.agent, run.c.target)
        .select_from(run.outerjoin(busy, busy.c.tenant == run.c.tenant))
        .where(run.c.status == "queued")
        .order_by(turn, run.c.queued_us, run.c.id)
    )


_CLAIMABLE = _claimable()


def _tell(connection: Connection, run_id: str, now: int, status: str, cause: str | None, author: str | None) -> None:
    told = insert(run_event).values(run_id=run_id, at_us=now, status=status, cause=cause, author=author)
    connection.execute(told)
