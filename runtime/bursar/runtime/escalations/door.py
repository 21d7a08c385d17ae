"""Escalations for coroutines: `runtime.escalations`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

from bursar.runtime.escalations.claims import CLAIM_S
from bursar.runtime.escalations.escalations import Escalations
from bursar.runtime.escalations.records import Decision, Escalation, EscalationEvent, Reason, Status
from bursar.runtime.ledger_thread import LedgerThread
from bursar.runtime.runs.records import Records

__all__ = ["EscalationsDoor"]

LOOK_S = 0.5
"""How often the clock looks for what others have opened meanwhile; what it knows of is done on time."""


class EscalationsDoor:
    """Each call as `Escalations` has it, awaited; a run that was decided on is gone on with at once, if known here."""

    def __init__(
        self,
        room: Escalations,
        records: Records,
        ledger: LedgerThread,
        wake: Callable[[], None],
        clock: Callable[[], datetime],
    ) -> None:
        self._room = room
        self._records = records
        self._ledger = ledger
        self._wake = wake
        self._clock = clock

    async def ls(
        self,
        tenant: str | None = None,
        status: Status | None = "open",
        run_id: str | None = None,
        reason: Reason | None = None,
        assignee: str | None = None,
        limit: int = 50,
    ) -> list[Escalation]:
        """The most urgent first."""
        return await self._ledger.do(self._room.ls, tenant, status, run_id, reason, assignee, limit)

    async def get(self, id: int, tenant: str | None = None) -> Escalation:
        """One escalation; raises NotFoundError."""
        return await self._ledger.do(self._room.get, id, tenant)

    async def history(self, id: int, tenant: str | None = None) -> list[EscalationEvent]:
        """What happened to it, in order; raises NotFoundError."""
        return await self._ledger.do(self._room.history, id, tenant)

    async def claim(self, id: int, by: str, seconds: int = CLAIM_S, *, tenant: str | None = None) -> Escalation:
        """Keep it for yourself for a while; raises NotFoundError, ConflictError and NotAllowedError."""
        return await self._ledger.do(self._room.claim, id, by, seconds, tenant=tenant)

    async def release(self, id: int, by: str, *, tenant: str | None = None) -> Escalation:
        """Give your claim back; raises NotFoundError and ConflictError."""
        return await self._ledger.do(self._room.release, id, by, tenant=tenant)

    async def assign(self, id: int, to: str, by: str, *, tenant: str | None = None) -> Escalation:
        """Ask one person to decide; raises NotFoundError, ConflictError and NotAllowedError."""
        return await self._ledger.do(self._room.assign, id, to, by, tenant=tenant)

    async def comment(self, id: int, text: str, by: str, *, tenant: str | None = None) -> Escalation:
        """Say something about it; raises NotFoundError."""
        return await self._ledger.do(self._room.comment, id, text, by, tenant=tenant)

    async def decide(
        self,
        id: int,
        decision: Decision,
        by: str,
        note: str = "",
        digest: str | None = None,
        *,
        tenant: str | None = None,
    ) -> Escalation:
        """Decide, once; raises NotFoundError, ConflictError, NotAllowedError and UsageError."""
        decided = await self._ledger.do(self._room.decide, id, decision, by, note, digest, tenant=tenant)
        self._wake()
        return decided

    async def keep_time(self) -> None:
        """Do what is due, with runs that had to end, too; then sleep until the next is due or others may have more."""
        await self._ledger.do(self._records.expire_due, self._clock(), also=self._room.withdraw)
        next_due = await self._ledger.do(self._room.act_on_due)
        left_s = LOOK_S if next_due is None else (next_due - self._clock()).total_seconds()
        await asyncio.sleep(min(max(left_s, 0.0), LOOK_S))
