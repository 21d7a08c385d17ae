"""What an HTTP client raised, as the provider error for it: "surely not billed" only where the evidence says so.

A client library's own classes are no evidence: litellm calls a web page that mentions a rate limit a 429, and a refused
connection a 500. What counts is the HTTP status that came, or the step at which the connection failed.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from bursar.runtime.models.provider import (
    AuthFailed,
    BadReply,
    BrokenStream,
    CallTimeout,
    ProviderError,
    RateLimited,
    RequestRefused,
    Unavailable,
)

if TYPE_CHECKING:
    import httpx

__all__ = ["excerpt", "provider_error"]

EXCERPT_CHARACTERS = 200
CAUSES_MAX = 20

_GATEWAY_TIMEOUTS = frozenset({504, 524})
"""A gateway gave up waiting for a model that may well be writing, so the call may be billed."""


def provider_error(
    error: Exception,
    *,
    who: str,
    secret: str | None = None,
    until: BaseException | None = None,
    started: bool = False,
) -> ProviderError:
    """The error of the tree that `error` is, in a message that begins with `who` and never holds `secret`.

    `until` is what was being handled when the call began: whatever led to that says nothing about this call.
    `started` says that a part of the answer had come: whatever happened then, it may have been billed.
    """
    failure = _by_evidence(error, who, secret, until)
    if failure is None:
        timed_out = isinstance(error, TimeoutError)
        kind = CallTimeout if timed_out else BrokenStream if started else BadReply
        reason = "no answer in time" if timed_out else str(error) or type(error).__name__
        failure = kind(f"{who}: {excerpt(reason, secret)}")
    if started and failure.billed == "no":
        return BrokenStream(failure.message, status=failure.status)
    return failure


def excerpt(text: str, secret: str | None = None) -> str:
    """The beginning of a text for people: one line, printable, without the secret."""
    if secret:
        text = text.replace(secret, "[key]")
    # litellm puts whole tracebacks into its messages.
    head = text.partition("Traceback (most recent call last)")[0][: 4 * EXCERPT_CHARACTERS]
    line = " ".join("".join(char if char.isprintable() else " " for char in head).split())
    return line if len(line) <= EXCERPT_CHARACTERS else f"{line[:EXCERPT_CHARACTERS]}..."


def _by_evidence(error: Exception, who: str, secret: str | None, until: BaseException | None) -> ProviderError | None:
    import httpx

    for cause in _causes(error, until):
        if isinstance(cause, ProviderError):
            return type(cause)(f"{who}: {excerpt(cause.message, secret)}")
        if isinstance(cause, httpx.HTTPStatusError):
            return _refusal(cause.response, who, secret)
        if isinstance(cause, httpx.RequestError):
            reason = f"{type(cause).__name__}: {cause}" if str(cause) else type(cause).__name__
            return _of_connection(cause)(f"{who}: {excerpt(reason, secret)}")
    return None


def _causes(error: BaseException, until: BaseException | None) -> Iterator[BaseException]:
    cause: BaseException | None = error
    for _ in range(CAUSES_MAX):
        if cause is None or cause is until:
            return
        yield cause
        cause = cause.__cause__ or cause.__context__


def _refusal(response: httpx.Response, who: str, secret: str | None) -> ProviderError:
    status = response.status_code
    detail = excerpt(_detail(response), secret)
    message = f"{who} answered HTTP {status}" + (f": {detail}" if detail else "")
    return _of_status(status)(message, status=status, retry_after_s=_retry_after_s(response.headers))


def _of_status(status: int) -> type[ProviderError]:
    if status == 429:
        return RateLimited
    if status in (401, 403):
        return AuthFailed
    if status in _GATEWAY_TIMEOUTS:
        return CallTimeout
    if status == 408 or status >= 500:
        return Unavailable
    return RequestRefused


def _of_connection(error: httpx.RequestError) -> type[ProviderError]:
    import httpx

    not_sent = (
        httpx.ConnectError,
        httpx.ConnectTimeout,
        httpx.PoolTimeout,
        httpx.ProxyError,
        httpx.UnsupportedProtocol,
    )
    if isinstance(error, not_sent) and not _reset_after_sending(error):
        return Unavailable
    if isinstance(error, httpx.TimeoutException):
        return CallTimeout
    return BadReply if isinstance(error, httpx.DecodingError) else BrokenStream


def _reset_after_sending(error: httpx.RequestError) -> bool:
    """Whether litellm's transport calls a connection that was reset after the request one that was never made."""
    if (aiohttp := sys.modules.get("aiohttp")) is None:
        return False
    cause = error.__cause__
    return isinstance(cause, aiohttp.ClientOSError) and not isinstance(cause, aiohttp.ClientConnectorError)


def _detail(response: httpx.Response) -> str:
    """What the server says is wrong: OpenAI's and Anthropic's `error.message`, else the body, or where it points to."""
    import httpx

    try:
        text = response.text
    except httpx.ResponseNotRead:
        return ""
    if response.is_redirect:
        return f"it points to {response.headers.get('location')}; set api_base to the final address"
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return text


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from `retry-after-ms` or `retry-after` as seconds or as a date; None where there is neither."""
    if milliseconds := _seconds(headers.get("retry-after-ms")):
        return milliseconds / 1000
    asked = headers.get("retry-after")
    if (seconds := _seconds(asked)) is not None:
        return seconds
    if (then := _date(asked)) is None:
        return None
    now = _date(headers.get("date")) or datetime.now(UTC)
    return max(0.0, (then - now).total_seconds())


def _seconds(value: str | None) -> float | None:
    try:
        seconds = float(value or "")
    except ValueError:
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _date(value: str | None) -> datetime | None:
    try:
        date = parsedate_to_datetime(value or "")
    except (ValueError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
