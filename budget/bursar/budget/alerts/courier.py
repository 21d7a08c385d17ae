"""Tells endpoints and the log of alerts: whoever is not told yet, at least once, under an id that stays the same."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from sqlalchemy import select

from bursar.budget.alerts import delivery as rows
from bursar.budget.alerts.delivery import Claim
from bursar.budget.alerts.endpoints import NOTICES, Endpoint, Reader
from bursar.budget.alerts.mailboxes import Mailbox
from bursar.budget.alerts.outbox import Alert, tell
from bursar.budget.alerts.webhooks import Answer, delay_us, send
from bursar.budget.schema import alert
from bursar.budget.stores.store import Store
from bursar.budget.windows import to_us

if TYPE_CHECKING:
    import httpx

__all__ = ["LOG", "Address", "Courier", "Delivered", "Via"]

LOG = "log"
"""What deliveries to the log are known by: one line of JSON for each alert, by the logger `bursar.alerts`."""

PER_PASS_MAX = 100
"""How many alerts one pass sends to one endpoint; the next goes on."""

_log = logging.getLogger("bursar.alerts")

Address = Endpoint | Mailbox
"""Where alerts are sent."""

R = TypeVar("R")


class Via(Protocol):
    """Carries a blocking operation out elsewhere, as `asyncio.to_thread` does."""

    def __call__(self, operation: Callable[..., R], /, *args: Any, **kwargs: Any) -> Awaitable[R]:
        """Await the operation's result."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """What came of one pass."""

    delivered: int
    failed: int
    """Attempts that failed; they are made again, but for those that were the last."""


class Courier:
    """Delivers from one store; any number of processes may, each with its own."""

    def __init__(self, store: Store, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock

    def due(self, endpoint: Address) -> int:
        """How many alerts a pass would send to an endpoint."""
        now = to_us(self._clock())
        with self._store.read() as connection:
            if rows.is_shut(connection, endpoint.url):
                return 0
            return len(rows.unoffered(connection, endpoint.reader, now)) + rows.waiting(
                connection, endpoint.reader, now
            )

    async def deliver(self, endpoints: Sequence[Address], *, rng: random.Random, via: Via) -> Delivered:
        """One pass; see `bursar.budget.alerts.alerts.Alerts.adeliver`."""
        await via(self._write_log)
        tenants = await via(self._recent) if endpoints else ()
        recent = [one for one in endpoints if one.tenant in tenants]
        first = [(one, claimed) for one in recent if (claimed := await via(self._claim, one)) is not None]
        if not first:
            return Delivered(0, 0)
        async with _client() as client:
            told = await asyncio.gather(*(self._tell_all(client, *one, rng, via) for one in first))
        return Delivered(sum(one.delivered for one in told), sum(one.failed for one in told))

    async def test(self, endpoint: Address) -> Answer:
        """Send an endpoint an alert of kind `test`, once."""
        claimed = self._claim_test(endpoint)
        if claimed is None:
            return Answer(note="another process tests this endpoint right now")
        async with _client() as client:
            answer = await self._send(client, endpoint, claimed)
        self._mark(claimed, answer, None)
        return answer

    async def _tell_all(
        self, client: httpx.AsyncClient, endpoint: Address, claimed: Claim | None, rng: random.Random, via: Via
    ) -> Delivered:
        """One endpoint's share of a pass; after its first failure it waits for the next one."""
        delivered = 0
        while claimed is not None:
            answer = await self._send(client, endpoint, claimed)
            wait_us = None if answer.gone else delay_us(claimed.attempt, rng, retry_after_s=answer.retry_after_s)
            await via(self._mark, claimed, answer, wait_us)
            if not answer.delivered:
                if wait_us is None:
                    _log.error("alert %s was given up: %s", claimed.message_id, answer.note)
                return Delivered(delivered, 1)
            delivered += 1
            claimed = await via(self._claim, endpoint) if delivered < PER_PASS_MAX else None
        return Delivered(delivered, 0)

    async def _send(self, client: httpx.AsyncClient, endpoint: Address, claimed: Claim) -> Answer:
        if isinstance(endpoint, Endpoint):
            return await send(client, endpoint, claimed.message_id, claimed.payload, self._clock())
        from bursar.budget.alerts import mail  # with smtplib, where somebody is told by e-mail

        return await mail.send(endpoint, claimed.message_id, claimed.payload, self._clock())

    def _recent(self) -> set[str]:
        with self._store.read() as connection:
            return rows.recent(connection, to_us(self._clock()))

    def _claim(self, endpoint: Address) -> Claim | None:
        with self._store.read() as connection:
            if rows.is_shut(connection, endpoint.url):
                return None
        return self._take(endpoint.reader)

    def _claim_test(self, endpoint: Address) -> Claim | None:
        now = to_us(self._clock())
        message = f"this is a test of the alerts of {endpoint.tenant}"
        key = f"test:{endpoint.tenant}:{endpoint.url}:{now}"
        one = Alert(key=key, kind="test", tenant=endpoint.tenant, path=endpoint.tenant, message=message, data={})
        with self._store.write() as connection:
            tell(connection, [one], now)
            alert_id = connection.scalars(select(alert.c.id).where(alert.c.key == key)).one()
            rows.offer(connection, endpoint.url, [alert_id], now)
            return rows.claim(connection, endpoint.reader, now, alert_id=alert_id)

    def _take(self, reader: Reader) -> Claim | None:
        now = to_us(self._clock())
        with self._store.read() as connection:  # nearly always there is nothing to do, and nobody has to wait for that
            new = rows.unoffered(connection, reader, now)
            if not new and not rows.waiting(connection, reader, now):
                return None
        with self._store.write() as connection:
            rows.offer(connection, reader.name, new, now)
            return rows.claim(connection, reader, now)

    def _mark(self, claimed: Claim, answer: Answer, wait_us: int | None) -> None:
        now = to_us(self._clock())
        next_us = None if wait_us is None else now + wait_us
        with self._store.write() as connection:
            rows.mark(connection, claimed, note=answer.note, now=now, next_us=next_us, delivered=answer.delivered)

    def _write_log(self) -> None:
        """The log is one more reader of the outbox, so that of several processes one writes the line."""
        for _ in range(PER_PASS_MAX):
            claimed = self._take(Reader(name=LOG))
            if claimed is None:
                return
            _log.log(logging.INFO if claimed.kind in NOTICES else logging.WARNING, "%s", claimed.payload)
            self._mark(claimed, Answer(delivered=True, note="logged"), None)


def _client() -> httpx.AsyncClient:
    import httpx

    # `send` bounds each attempt as a whole; nobody waits for a connection that a slow receiver holds.
    return httpx.AsyncClient(timeout=None, limits=httpx.Limits(max_connections=None))  # noqa: S113 - see above
