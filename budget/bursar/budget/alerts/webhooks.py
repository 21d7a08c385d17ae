"""Signed webhooks after the Standard Webhooks specification, version 1.0.0: one attempt, and when to try again."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from bursar.budget.alerts.delivery import GONE
from bursar.budget.alerts.endpoints import Endpoint

if TYPE_CHECKING:
    import httpx

__all__ = ["ATTEMPTS_MAX", "TIMEOUT_S", "Answer", "delay_us", "send"]

TIMEOUT_S = 15.0
"""How long one attempt may take in all, however slowly the receiver answers."""

DELAYS_S = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""How long to wait after each failed attempt, before jitter: the schedule that the specification gives."""

ATTEMPTS_MAX = len(DELAYS_S) + 1

JITTER = 0.2
"""A delay is made longer by up to so much, so that what failed together is not tried again together."""

RETRY_AFTER_S_MAX = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of one attempt; of what a receiver says, nothing but the status and `Retry-After` is read."""

    delivered: bool = False
    gone: bool = False
    """It wants no more."""

    note: str
    retry_after_s: int = 0


async def send(client: httpx.AsyncClient, endpoint: Endpoint, message_id: str, payload: str, at: datetime) -> Answer:
    """Make one attempt. No redirect is followed, and no body is read; no failure of the receiver raises."""
    import httpx
    from standardwebhooks import Webhook

    headers = {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(endpoint.secret).sign(message_id, at, payload),
    }
    try:
        async with (
            asyncio.timeout(TIMEOUT_S),
            client.stream(
                "POST", endpoint.url, content=payload.encode(), headers=headers, follow_redirects=False
            ) as response,
        ):
            return _answer(response)
    except TimeoutError:
        return Answer(note=f"no answer within {TIMEOUT_S:g} s")
    except httpx.HTTPError as error:
        return Answer(note=type(error).__name__)


def delay_us(attempt: int, rng: random.Random, *, retry_after_s: int = 0) -> int | None:
    """How long to wait after a failed attempt (from 1), jitter included; None where it was the last."""
    if attempt >= ATTEMPTS_MAX:
        return None
    delay_s = max(DELAYS_S[attempt - 1], min(retry_after_s, RETRY_AFTER_S_MAX))
    return round(delay_s * (1 + rng.uniform(0, JITTER)) * 1_000_000)


def _answer(response: httpx.Response) -> Answer:
    status = response.status_code
    if response.is_success:
        return Answer(delivered=True, note=f"answered {status}")
    if status == 410:
        return Answer(gone=True, note=GONE)
    said = response.headers.get("retry-after", "")
    retry_after_s = int(said) if said.isascii() and said.isdigit() and len(said) < 10 else 0
    return Answer(note=f"answered {status}", retry_after_s=retry_after_s)
