"""What an HTTP client raised, as the provider error for it: "surely not billed" only where the evidence says so.

A client library's own classes are no evidence: litellm calls a web page that mentions a rate limit a 429, and a refused
connection a 500. What counts is the HTTP status that came, or the step at which the connection failed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bursar.runtime.models.provider import (
    BadReply,
    BrokenStream,
    CallTimeout,
    ProviderError,
    Unavailable,
)
from bursar.runtime.models.refusals import read_refusal

if TYPE_CHECKING:
    import httpx

__all__ = ["excerpt", "provider_error"]

EXCERPT_CHARACTERS = 200
CAUSES_MAX = 20


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
            message = f"{who}: {excerpt(cause.message, secret)}"
            return type(cause)(message, status=cause.status, retry_after_s=cause.retry_after_s)
        if isinstance(cause, httpx.HTTPStatusError):
            return _refusal(cause.response, who, secret)
        if isinstance(cause, httpx.RequestError):
            reason = f"{type(cause).__name__}: {cause}" if str(cause) else type(cause).__name__
            return _of_connection(cause)(f"{who}: {excerpt(reason, secret)}")
        if (told := _told(cause)) is not None:
            return _in_stream(told, who, secret)
    return None


def _causes(error: BaseException, until: BaseException | None) -> Iterator[BaseException]:
    cause: BaseException | None = error
    for _ in range(CAUSES_MAX):
        if cause is None or cause is until:
            return
        yield cause
        cause = cause.__cause__ or cause.__context__


def _refusal(response: httpx.Response, who: str, secret: str | None) -> ProviderError:
    import httpx

    try:
        text = response.text
    except httpx.ResponseNotRead:
        text = ""
    status = response.status_code
    read = read_refusal(status, response.headers, text, datetime.now(UTC))
    detail = excerpt(read.detail, secret)
    if response.is_redirect:
        detail = f"it points to {response.headers.get('location')}; set api_base to the final address"
    message = f"{who} answered HTTP {status}" + (f": {detail}" if detail else "")
    return read.kind(message, status=status, retry_after_s=read.retry_after_s)


def _told(error: BaseException) -> Mapping[str, Any] | None:
    """The error that a server sent in place of the next piece of its stream, as the `openai` SDK hands it on."""
    openai = sys.modules.get("openai")
    if openai is None or not isinstance(error, openai.APIError) or isinstance(error, openai.APIStatusError):
        return None
    return error.body if isinstance(error.body, dict) else None


def _in_stream(told: Mapping[str, Any], who: str, secret: str | None) -> ProviderError:
    """A refusal that came under status 200: vLLM's and OpenRouter's `code` is the status that it would have had."""
    code = told.get("code")
    status = code if isinstance(code, int) and 400 <= code < 600 else 500
    read = read_refusal(status, {}, json.dumps({"error": told}), datetime.now(UTC))
    # A server that fails after it said 200 may have begun; one that says that it has no room has not.
    kind = BrokenStream if read.kind is Unavailable else read.kind
    message = f"{who} refused in its stream: {excerpt(read.detail, secret)}"
    return kind(message, status=status, retry_after_s=read.retry_after_s)


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
