"""Keeps what processes know of models' health together, beside whatever else they do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from bursar.budget.errors import LedgerError
from bursar.runtime.ledger_thread import LedgerThread
from bursar.runtime.models.health import Health
from bursar.runtime.runs.model_health import HealthRecords

__all__ = ["sharing"]

PERIOD_S = 3.0
"""After how long the others know at most."""

_log = logging.getLogger("bursar.runtime")


@asynccontextmanager
async def sharing(health: Health, ledger: LedgerThread, *, period_s: float = PERIOD_S) -> AsyncIterator[None]:
    """Learn what others know on entering, exchange every `period_s`, and once more at the end, for short runs."""
    records = HealthRecords(ledger.ledger.store)

    async def share() -> None:
        try:
            await ledger.do(health.share, records.exchange)
        except LedgerError as error:
            _log.warning("what is known of models stays in this process: %s", error)

    async def keep_sharing() -> None:
        while True:
            await asyncio.sleep(period_s)
            await share()

    await share()
    task = asyncio.create_task(keep_sharing())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await share()
