"""Alerts: what somebody has to be told, found, listed and delivered; at least once, under an id that stays the same."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from sqlalchemy import RowMapping, select

from bursar.budget import delivery as rows
from bursar.budget.anomalies import Anomalies
from bursar.budget.delivery import Claim
from bursar.budget.endpoints import AlertKind, Endpoint
from bursar.budget.errors import UsageError
from bursar.budget.outbox import Alert, known, tell
from bursar.budget.running_out import running_out
from bursar.budget.schema import alert, delivery
from bursar.budget.store import Store
from bursar.budget.webhooks import Answer, delay_us, send
from bursar.budget.windows import from_us, to_us

if TYPE_CHECKING:
    import httpx

__all__ = ["LOG", "AlertLine", "Alerts", "Delivered", "DeliveryLine"]

LOG = "log"
"""What deliveries to the log are known by: one line of JSON for each alert, by the logger `bursar.alerts`."""

PER_PASS_MAX = 100
"""How many alerts one pass sends to one endpoint; the next goes on."""

FORECAST_US = 3_600_000_000
"""How often it is looked whether limits run out."""

_log = logging.getLogger("bursar.alerts")

R = TypeVar("R")


class Via(Protocol):
    """Carries a blocking operation out elsewhere, as `asyncio.to_thread` does."""

    def __call__(self, operation: Callable[..., R], /, *args: Any, **kwargs: Any) -> Awaitable[R]:
        """Await the operation's result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryLine:
    """How far one endpoint was told of an alert."""

    endpoint: str
    """Its URL, or `log`."""

    state: str
    """`waiting | delivered | failed`."""

    attempts: int
    next_at: datetime | None
    """When it is tried again; None once it is delivered or given up."""

    note: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertLine:
    """One alert, for people and for JSON."""

    id: int
    at: datetime
    kind: AlertKind
    tenant: str
    path: str
    run_id: str | None
    data: Mapping[str, Any]
    """What the webhook carries: `message`, `limit`, `spent`, `next`, ...; money as decimal strings."""

    deliveries: Sequence[DeliveryLine]


@dataclass(frozen=True, slots=True)
class Delivered:
    """What came of one pass."""

    delivered: int
    failed: int
    """Attempts that failed; they are made again, but for those that were the last."""


class Alerts:
    """Finds, lists and delivers alerts. Those about limits are written where the limit is reached, by the ledger."""

    def __init__(self, store: Store, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock
        self._anomalies = Anomalies()
        self._forecast_us: int | None = None

    def ls(
        self,
        tenant: str | None = None,
        *,
        kind: AlertKind | None = None,
        run_id: str | None = None,
        since: datetime | None = None,
        limit: int = 100,
    ) -> list[AlertLine]:
        """The newest alerts, the newest first, with how far each endpoint was told."""
        given = {alert.c.tenant: tenant, alert.c.kind: kind, alert.c.run_id: run_id}
        wanted = [column == value for column, value in given.items() if value is not None]
        if since is not None:
            wanted.append(alert.c.at_us >= to_us(since))
        newest = select(alert).where(*wanted).order_by(alert.c.at_us.desc(), alert.c.id.desc()).limit(limit)
        with self._store.read() as connection:
            found = connection.execute(newest).mappings().all()
            sent = select(delivery).where(delivery.c.alert_id.in_([row["id"] for row in found]))
            lines = connection.execute(sent.order_by(delivery.c.id)).mappings().all()
        return [_as_line(row, [one for one in lines if one["alert_id"] == row["id"]]) for row in found]

    def sweep(self) -> int:
        """Look for runs that behave unlike others, and, once an hour, for limits that run out; returns what is new.

        The work is bounded by what was done since the last sweep. Any number of processes may sweep.
        """
        now = to_us(self._clock())
        with self._store.read() as connection:
            found = self._anomalies.look(connection, now)
            if self._forecast_us is None or now - self._forecast_us >= FORECAST_US:
                found += running_out(connection, now)
                self._forecast_us = now
            told = known(connection, [one.key for one in found])
        # In one order for all: processes that find the same must not lock each other out on a server.
        new = sorted((one for one in found if one.key not in told), key=lambda one: one.key)
        if not new:
            return 0
        with self._store.write() as connection:
            return tell(connection, new, now)

    def due(self, endpoint: Endpoint) -> int:
        """How many alerts a pass would send to an endpoint."""
        now = to_us(self._clock())
        whose = endpoint.tenant
        with self._store.read() as connection:
            if rows.is_shut(connection, endpoint.url):
                return 0
            new = rows.unoffered(connection, endpoint.url, tenant=whose, kinds=endpoint.kinds, now=now)
            return len(new) + rows.waiting(connection, endpoint.url, tenant=whose, now=now)

    def deliver(self, endpoints: Sequence[Endpoint] = (), *, rng: random.Random | None = None) -> Delivered:
        """One pass: log what was not logged, and send each endpoint what is due; see `adeliver`.

        Blocking; raises UsageError in a thread that runs an event loop.
        """
        return _run(self.adeliver(endpoints, rng=rng))

    async def adeliver(
        self,
        endpoints: Sequence[Endpoint] = (),
        *,
        rng: random.Random | None = None,
        via: Via = asyncio.to_thread,
    ) -> Delivered:
        """One pass: log what was not logged, and send each endpoint what is due, all endpoints at the same time.

        What fails is tried again after a while, and given up after the last attempt of the schedule; an endpoint that
        answered 410 is left alone until a `test` succeeds. Any number of processes may deliver. `via` is where the
        ledger's store is asked, `rng` spreads the retries.
        """
        rng = rng or random.Random()  # noqa: S311 - it spreads retries, and keeps no secret
        await via(self._write_log)
        tenants = await via(self._recent) if endpoints else ()
        recent = [one for one in endpoints if one.tenant in tenants]
        first = [(one, claimed) for one in recent if (claimed := await via(self._claim, one)) is not None]
        if not first:
            return Delivered(0, 0)
        async with _client() as client:
            told = await asyncio.gather(*(self._tell_all(client, *one, rng, via) for one in first))
        return Delivered(sum(one.delivered for one in told), sum(one.failed for one in told))

    def test(self, endpoint: Endpoint) -> Answer:
        """Send an endpoint a signed alert of kind `test`, once; a success opens one again that answered 410.

        Blocking, as `deliver` is.
        """
        now = to_us(self._clock())
        message = f"this is a test of the alerts of {endpoint.tenant}"
        key = f"test:{endpoint.tenant}:{endpoint.url}:{now}"
        one = Alert(key=key, kind="test", tenant=endpoint.tenant, path=endpoint.tenant, message=message, data={})
        with self._store.write() as connection:
            tell(connection, [one], now)
            alert_id = connection.scalars(select(alert.c.id).where(alert.c.key == key)).one()
            rows.offer(connection, endpoint.url, [alert_id], now)
            claimed = rows.claim(connection, endpoint.url, tenant=endpoint.tenant, now=now, alert_id=alert_id)
        if claimed is None:
            return Answer(note="another process tests this endpoint right now")
        answer = _run(self._test(endpoint, claimed))
        self._mark(claimed, answer, None)
        return answer

    async def _test(self, endpoint: Endpoint, claimed: Claim) -> Answer:
        async with _client() as client:
            return await self._send(client, endpoint, claimed)

    async def _tell_all(
        self, client: httpx.AsyncClient, endpoint: Endpoint, claimed: Claim | None, rng: random.Random, via: Via
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

    async def _send(self, client: httpx.AsyncClient, endpoint: Endpoint, claimed: Claim) -> Answer:
        return await send(client, endpoint, claimed.message_id, claimed.payload, self._clock())

    def _recent(self) -> set[str]:
        with self._store.read() as connection:
            return rows.recent(connection, to_us(self._clock()))

    def _claim(self, endpoint: Endpoint) -> Claim | None:
        with self._store.read() as connection:
            if rows.is_shut(connection, endpoint.url):
                return None
        return self._take(endpoint.url, tenant=endpoint.tenant, kinds=endpoint.kinds)

    def _take(self, endpoint: str, *, tenant: str | None, kinds: Sequence[AlertKind] | None) -> Claim | None:
        now = to_us(self._clock())
        with self._store.read() as connection:  # nearly always there is nothing to do, and nobody has to wait for that
            new = rows.unoffered(connection, endpoint, tenant=tenant, kinds=kinds, now=now)
            if not new and not rows.waiting(connection, endpoint, tenant=tenant, now=now):
                return None
        with self._store.write() as connection:
            rows.offer(connection, endpoint, new, now)
            return rows.claim(connection, endpoint, tenant=tenant, now=now)

    def _mark(self, claimed: Claim, answer: Answer, wait_us: int | None) -> None:
        now = to_us(self._clock())
        next_us = None if wait_us is None else now + wait_us
        with self._store.write() as connection:
            rows.mark(connection, claimed, note=answer.note, now=now, next_us=next_us, delivered=answer.delivered)

    def _write_log(self) -> None:
        """The log is one more reader of the outbox, so that of several processes one writes the line."""
        for _ in range(PER_PASS_MAX):
            claimed = self._take(LOG, tenant=None, kinds=None)
            if claimed is None:
                return
            _log.warning("%s", claimed.payload)
            self._mark(claimed, Answer(delivered=True, note="logged"), None)


def _run(work: Coroutine[Any, Any, R]) -> R:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    work.close()
    raise UsageError("alerts are delivered by await in a coroutine", next_step="await ledger.alerts.adeliver(...)")


def _client() -> httpx.AsyncClient:
    import httpx

    return httpx.AsyncClient(timeout=None)  # noqa: S113 - `send` bounds each attempt as a whole


def _as_line(row: RowMapping, lines: Sequence[RowMapping]) -> AlertLine:
    return AlertLine(
        id=row["id"],
        at=from_us(row["at_us"]),
        kind=row["kind"],
        tenant=row["tenant"],
        path=row["path"],
        run_id=row["run_id"],
        data=json.loads(row["payload"])["data"],
        deliveries=[
            DeliveryLine(
                endpoint=one["endpoint"],
                state=one["state"],
                attempts=one["attempts"],
                next_at=from_us(one["next_us"]) if one["state"] == "waiting" else None,
                note=one["note"],
            )
            for one in lines
        ],
    )
