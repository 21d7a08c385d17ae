"""Looks for alerts and delivers them, beside whatever else the process does."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager, suppress

from bursar.budget.alerts.alerts import Alerts
from bursar.budget.alerts.courier import Address
from bursar.budget.errors import LedgerError

__all__ = ["telling"]

PERIOD_S = 10.0
"""How long an alert lies at most before it is first sent."""

LAST_S_MAX = 5.0
"""How long closing may wait for a last delivery; what is not delivered then, another process delivers."""

_log = logging.getLogger("bursar.runtime")


@asynccontextmanager
async def telling(
    alerts: Alerts, endpoints: Sequence[Address], *, rng: random.Random, period_s: float = PERIOD_S
) -> AsyncIterator[None]:
    """Sweep and deliver every `period_s` while entered, and deliver once more at the end, for short runs."""
    task = asyncio.create_task(_keep_telling(alerts, endpoints, rng, period_s))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_S_MAX):
                await _tried(alerts.adeliver(endpoints, rng=rng))


async def _keep_telling(alerts: Alerts, endpoints: Sequence[Address], rng: random.Random, period_s: float) -> None:
    while True:
        await asyncio.sleep(period_s * rng.uniform(0.8, 1.2))  # so that processes do not all look at once
        await _tried(asyncio.to_thread(alerts.sweep))
        await _tried(alerts.adeliver(endpoints, rng=rng))


async def _tried(step: Awaitable[object]) -> None:
    try:
        await step
    except LedgerError as error:
        _log.warning("no alerts: %s", error)
    except Exception:  # whatever it is, runs go on, and the next round tries again
        _log.exception("no alerts")
