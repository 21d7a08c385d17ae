"""Signed webhooks after the Standard Webhooks specification, version 1.0.0: who is told, how, and when again."""

from __future__ import annotations

import asyncio
import base64
import binascii
import ipaddress
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from bursar.budget.delivery import GONE
from bursar.budget.errors import ConfigError
from bursar.budget.outbox import ALERT_KINDS, AlertKind

if TYPE_CHECKING:
    import httpx

__all__ = ["ATTEMPTS_MAX", "TIMEOUT_S", "Answer", "Endpoint", "check_url", "delay_us", "send"]

TIMEOUT_S = 15.0
"""How long one attempt may take in all, however slowly the receiver answers."""

DELAYS_S = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""How long to wait after each failed attempt, before jitter: the schedule that the specification gives."""

ATTEMPTS_MAX = len(DELAYS_S) + 1

JITTER = 0.2
"""A delay is made longer by up to so much, so that what failed together is not tried again together."""

RETRY_AFTER_S_MAX = 86_400

SECRET_BYTES = range(24, 65)
"""How long a secret may be, after the specification."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A URL that is told of a tenant's alerts; raises ConfigError for a URL or a secret that cannot be used."""

    url: str
    """`https://...`, or `http://` on this machine; also what deliveries to it are known by."""

    secret: str = field(repr=False)
    """`whsec_` and 24 to 64 random bytes in base64; never shown."""

    tenant: str
    """Whose alerts; for those about an organisation's budgets, its path: `org:globex`."""

    kinds: Sequence[AlertKind] | None = None
    """Which kinds of alert; None for all."""

    def __post_init__(self) -> None:
        check_url(self.url)
        _check_secret(self.secret)
        if unknown := sorted(set(self.kinds or ()) - set(ALERT_KINDS)):
            raise ConfigError(
                f"webhook kind {unknown[0]!r}: expected some of {', '.join(ALERT_KINDS)}", key="webhooks.kinds"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of one attempt; of what a receiver says, nothing but the status and `Retry-After` is read."""

    delivered: bool = False
    gone: bool = False
    """It wants no more."""

    note: str
    retry_after_s: int = 0


def check_url(url: str) -> None:
    """Raise ConfigError for a URL that alerts must not be sent to."""
    import httpx

    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError):
        raise _refused("expected a URL such as https://hooks.example.com/bursar") from None
    if parsed.userinfo or parsed.fragment:
        raise _refused("expected a URL without user, password or fragment; the signature says who sends")
    if not parsed.host or parsed.scheme not in ("http", "https"):
        raise _refused("expected a URL such as https://hooks.example.com/bursar")
    if parsed.scheme == "http" and not _is_this_machine(parsed.host):
        raise _refused("expected https: http:// is for this machine only (localhost, 127.0.0.1, [::1])")


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


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_secret(secret: str) -> None:
    try:
        size = len(base64.b64decode(secret.removeprefix("whsec_") + "==")) if secret.startswith("whsec_") else 0
    except binascii.Error:
        size = 0
    if size not in SECRET_BYTES:
        raise ConfigError(
            f"the secret of a webhook: expected whsec_ and {SECRET_BYTES[0]} to {SECRET_BYTES[-1]} bytes in base64",
            key="webhooks.secret_env",
            next_step='export NAME="whsec_$(openssl rand -base64 32)"',
        )


def _refused(expected: str) -> ConfigError:
    # The URL itself is not shown: many services put a token into it.
    return ConfigError(f"the URL of a webhook: {expected}", key="webhooks.url")
