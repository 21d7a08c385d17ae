"""The escalations of one store: the room that the runtime, the command and the clock share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, func, select

from bursar.budget.errors import ConflictError, LedgerError, NotFoundError
from bursar.budget.ledger import Ledger
from bursar.budget.windows import from_us, to_us
from bursar.runtime.config import Config, TenantConfig
from bursar.runtime.escalations import claims, taking
from bursar.runtime.escalations.allowing import require_tool
from bursar.runtime.escalations.deciding import decide, locked, row_of
from bursar.runtime.escalations.due import act
from bursar.runtime.escalations.kinds import each_part
from bursar.runtime.escalations.opening import Costs, open_all
from bursar.runtime.escalations.records import (
    Asked,
    Decision,
    Escalation,
    EscalationEvent,
    Reason,
    Status,
    as_escalation,
    as_event,
)
from bursar.runtime.runs.records import Also, Record, run_path
from bursar.runtime.runs.schema import escalation, escalation_event

__all__ = ["Escalations"]

DUE_MAX = 20
"""How many escalations one look of the clock deals with, so that nobody waits long; the next follows at once."""


class Escalations:
    """Opens, shows and decides. Blocking, and safe to use from several threads and processes."""

    def __init__(self, ledger: Ledger, config: Config, clock: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._store = ledger.store
        self._config = config
        self._clock = clock

    def ls(
        self,
        tenant: str | None = None,
        status: Status | None = "open",
        run_id: str | None = None,
        reason: Reason | None = None,
        assignee: str | None = None,
        limit: int = 50,
    ) -> list[Escalation]:
        """The most urgent first: by priority, then by deadline. `status` None stands for all."""
        given = {"tenant": tenant, "status": status, "run_id": run_id, "reason": reason, "assignee": assignee}
        wanted = [escalation.c[name] == value for name, value in given.items() if value is not None]
        urgent = (escalation.c.priority.desc(), escalation.c.expires_us.nulls_last(), escalation.c.id)
        with self._store.read() as connection:
            rows = connection.execute(select(escalation).where(*wanted).order_by(*urgent).limit(limit)).mappings()
            return [as_escalation(row) for row in rows]

    def get(self, id: int, tenant: str | None = None) -> Escalation:
        """One escalation; raises NotFoundError, also for another tenant's where `tenant` is given."""
        with self._store.read() as connection:
            return as_escalation(_found(row_of(connection, id), id, tenant))

    def history(self, id: int, tenant: str | None = None) -> list[EscalationEvent]:
        """What happened to it, in order; raises NotFoundError as `get` does."""
        self.get(id, tenant)
        of_it = select(escalation_event).where(escalation_event.c.escalation_id == id).order_by(escalation_event.c.id)
        with self._store.read() as connection:
            return [as_event(row) for row in connection.execute(of_it).mappings()]

    def claim(self, id: int, by: str, seconds: int = claims.CLAIM_S, *, tenant: str | None = None) -> Escalation:
        """Keep it for yourself for a while; raises NotFoundError, ConflictError and NotAllowedError."""
        return self._change(id, tenant, lambda at, row, now: claims.claim(at, row, by=by, seconds=seconds, now=now))

    def release(self, id: int, by: str, *, tenant: str | None = None) -> Escalation:
        """Give your claim back; raises NotFoundError and ConflictError."""
        return self._change(id, tenant, lambda at, row, now: claims.release(at, row, by=by, now=now))

    def assign(self, id: int, to: str, by: str, *, tenant: str | None = None) -> Escalation:
        """Ask one person to decide, whoever claimed it; raises NotFoundError, ConflictError and NotAllowedError."""
        return self._change(id, tenant, lambda at, row, now: claims.assign(at, row, to=to, by=by, now=now))

    def comment(self, id: int, text: str, by: str, *, tenant: str | None = None) -> Escalation:
        """Say something about it to others who may decide; raises NotFoundError."""
        return self._change(id, tenant, lambda at, row, now: claims.comment(at, row, text, by=by, now=now))

    def decide(
        self,
        id: int,
        decision: Decision,
        by: str,
        note: str = "",
        digest: str | None = None,
        *,
        tenant: str | None = None,
    ) -> Escalation:
        """Decide, once: the first valid decision counts, and its run is queued in the same transaction.

        `digest` is that of the action as it was seen. Where two people must agree, it stays open after the first.
        Raises NotFoundError for what is unknown or another tenant's; ConflictError for what is decided (by whom, what,
        when), expired, withdrawn, claimed by another, or about another action; NotAllowedError for somebody who may
        not decide this; UsageError for a decision that does not fit.
        """

        def change(connection: Connection, row: RowMapping, now: int) -> None:
            decide(connection, row, decision, by=by, said=note, digest=digest, now=now)

        return self._change(id, tenant, change)

    def rehearse(self, id: int, decision: Decision, by: str, digest: str | None = None) -> None:
        """Raise what `decide` would raise now; nothing is changed."""
        with suppress(_Rehearsed), self._locked(id) as (connection, row):
            decide(connection, row, decision, by=by, said="", digest=digest, now=to_us(self._clock()))
            raise _Rehearsed

    def decide_for(
        self, run_id: str, decisions: Mapping[str, Decision], *, by: str, tools: Collection[str] | None = None
    ) -> None:
        """Decide on what a run waits on, by interrupt id: all of it, or nothing where one cannot be.

        LangChain's `{"decisions": [...]}` decides all that its interrupt asks.

        `tools` are those that the agent has now, where that is known. Raises ConflictError for an interrupt that it
        does not wait on, and for an action whose tool is gone; else as `decide` does.
        """
        now = to_us(self._clock())
        with self._store.write(durable=True) as connection:
            known = {row["interrupt_id"]: row["id"] for row in connection.execute(_of(run_id)).mappings()}
            for key, decision in each_part(decisions, list(known)):
                row = locked(connection, known[key]) if key in known else None
                if row is None or row["status"] == "withdrawn":
                    waiting = ", ".join(_open_in(connection, run_id)) or "none"
                    raise ConflictError(f"run {run_id} does not wait on interrupt {key} (it waits on: {waiting})")
                require_tool(row, decision, tools)
                decide(connection, row, decision, by=by, said="", digest=None, now=now)

    def opening(self, run_row: Record, asked: Sequence[Asked] | None, *, refused: bool = False) -> Also:
        """What is to be done in the transaction that lets a run wait or end; None where nobody looked what it asks.

        `refused` says that its graph did not take an answer, and asks again.
        Reads what the run has cost and may cost more, so it is not for use within a transaction.
        """
        if asked is None:
            return _nothing
        costs = self._costs(run_row) if asked else Costs(spent_nanousd=0, finish_nanousd=None)
        tenant = self._tenant(run_row)

        def also(connection: Connection, row: Record) -> None:
            open_all(connection, row, asked, tenant, costs, to_us(self._clock()), refused=refused)

        return also

    def answers(self, run_id: str, pending: Collection[str]) -> Mapping[str, Any]:
        """See `bursar.runtime.escalations.taking.answers`."""
        with self._store.read() as connection:
            return taking.answers(connection, run_id, pending)

    def take(self, connection: Connection, row: Record) -> None:
        """Mark what was decided as handed to a run, in the transaction that lets somebody execute it."""
        taking.take(connection, row["id"], to_us(self._clock()))

    def withdraw(self, connection: Connection, row: Record) -> None:
        """Let a run that ended while it waited ask nothing any more, in the transaction that ends it."""
        nothing = Costs(spent_nanousd=0, finish_nanousd=None)
        open_all(connection, row, (), self._tenant(row), nothing, to_us(self._clock()))

    def act_on_due(self) -> datetime | None:
        """Do what is due by now, and say when the next is; any number of processes may."""
        now = to_us(self._clock())
        due = select(escalation.c.id).where(escalation.c.status == "open", escalation.c.due_us <= now)
        with self._store.read() as connection:
            found = connection.execute(due.order_by(escalation.c.due_us).limit(DUE_MAX)).scalars().all()
        for one in found:
            with self._locked(one) as (connection, row):
                act(connection, row, now)
        next_due = select(func.min(escalation.c.due_us)).where(escalation.c.status == "open")
        with self._store.read() as connection:
            at = connection.execute(next_due).scalar()
        return None if at is None else from_us(at)

    def _change(self, id: int, tenant: str | None, change: Callable[[Connection, RowMapping, int], None]) -> Escalation:
        with self._locked(id, tenant) as (connection, row):
            change(connection, row, to_us(self._clock()))
            after = connection.execute(select(escalation).where(escalation.c.id == id)).mappings().one()
            return as_escalation(after)

    @contextmanager
    def _locked(self, id: int, tenant: str | None = None) -> Iterator[tuple[Connection, RowMapping]]:
        with self._store.write(durable=True) as connection:
            yield connection, _found(locked(connection, id), id, tenant)

    def _tenant(self, run_row: Record) -> TenantConfig:
        """The section of a run's tenant; one that is gone from the file, like its people, has no rules."""
        return self._config.tenants.get(run_row["tenant"]) or TenantConfig()

    def _costs(self, run_row: Record) -> Costs:
        spent = self._ledger.reports.spent(run_path(run_row)).nanousd
        try:
            finish = self._ledger.estimates.to_finish(run_row["id"]).nanousd.expected
        except (NotFoundError, LedgerError):
            finish = None  # nothing to go by is no reason not to ask
        return Costs(spent_nanousd=spent, finish_nanousd=finish)


def _of(run_id: str) -> Select[Any]:
    return select(escalation).where(escalation.c.run_id == run_id).order_by(escalation.c.id)


def _open_in(connection: Connection, run_id: str) -> list[str]:
    return [row["interrupt_id"] for row in connection.execute(_of(run_id)).mappings() if row["status"] == "open"]


def _found(row: RowMapping | None, id: int, tenant: str | None) -> RowMapping:
    if row is None or tenant not in (None, row["tenant"]):
        raise NotFoundError(f"there is no escalation {id}", next_step="bursar inbox ls")
    return row


class _Rehearsed(Exception):
    """Let the transaction be undone."""


def _nothing(connection: Connection, row: Record) -> None:
    """Nobody looked what the run asks, so what it asked before stands."""
