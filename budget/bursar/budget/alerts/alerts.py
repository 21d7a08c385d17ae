"""Alerts: the door to what somebody has to be told."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import RowMapping, select

from bursar.budget.alerts.anomalies import Anomalies
from bursar.budget.alerts.courier import LOG, Address, Courier, Delivered, Via
from bursar.budget.alerts.endpoints import AlertKind
from bursar.budget.alerts.outbox import known, tell
from bursar.budget.alerts.running_out import running_out
from bursar.budget.alerts.webhooks import Answer
from bursar.budget.errors import UsageError
from bursar.budget.schema import alert, delivery
from bursar.budget.stores.store import Store
from bursar.budget.windows import from_us, to_us

__all__ = ["LOG", "AlertLine", "Alerts", "Delivered", "DeliveryLine"]

FORECAST_US = 3_600_000_000
"""How often it is looked whether limits run out."""

R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryLine:
    """How far one endpoint was told of an alert."""

    endpoint: str
    """Its URL, `mailto:` and an address, or `log`."""

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


class Alerts:
    """Finds, lists and delivers alerts. Those about limits are written where the limit is reached, by the ledger."""

    def __init__(self, store: Store, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock
        self._anomalies = Anomalies()
        self._courier = Courier(store, clock)
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

    def due(self, endpoint: Address) -> int:
        """How many alerts a pass would send to an endpoint."""
        return self._courier.due(endpoint)

    def deliver(self, endpoints: Sequence[Address] = (), *, rng: random.Random | None = None) -> Delivered:
        """One pass: log what was not logged, and send each endpoint what is due; see `adeliver`.

        Blocking; raises UsageError in a thread that runs an event loop.
        """
        return _run(self.adeliver(endpoints, rng=rng))

    async def adeliver(
        self, endpoints: Sequence[Address] = (), *, rng: random.Random | None = None, via: Via = asyncio.to_thread
    ) -> Delivered:
        """One pass: log what was not logged, and send each endpoint what is due, all endpoints at the same time.

        What fails is tried again after a while, and given up after the last attempt of the schedule; an endpoint that
        answered 410 is left alone until a `test` succeeds. Any number of processes may deliver. `via` is where the
        ledger's store is asked, `rng` spreads the retries.
        """
        rng = rng or random.Random()  # noqa: S311 - it spreads retries, and keeps no secret
        return await self._courier.deliver(endpoints, rng=rng, via=via)

    def test(self, endpoint: Address) -> Answer:
        """Send an endpoint a signed alert of kind `test`, once; a success opens one again that answered 410.

        Blocking, as `deliver` is.
        """
        return _run(self._courier.test(endpoint))


def _run(work: Coroutine[Any, Any, R]) -> R:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    work.close()
    raise UsageError("alerts are delivered by await in a coroutine", next_step="await ledger.alerts.adeliver(...)")


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
