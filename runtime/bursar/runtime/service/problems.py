"""Errors as the gateway tells them: RFC 9457's members and OpenAI's `error` in one body, and nothing that is secret."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.responses import Response

from bursar.budget.errors import (
    CallInFlight,
    ConfigError,
    LedgerError,
    LedgerUnavailable,
    PriceMissingError,
    UsageError,
)
from bursar.budget.money import usd
from bursar.budget.refusal import Refusal
from bursar.budget.windows import from_us
from bursar.runtime.models.causes import Cause, Failure
from bursar.runtime.service.errors import GatewayError, TooFast, Unauthorized
from bursar.runtime.stop import LimitReached, ModelCallFailed, NoRunError

__all__ = ["Problem", "problem_of", "refused"]

_log = logging.getLogger("bursar.gateway")

_TITLES = {
    400: "The request cannot be served as it is",
    401: "The key is missing or not valid",
    402: "A budget refused the call",
    404: "There is no such thing here",
    405: "This is not done here",
    409: "The same call is under way",
    413: "The body is too large",
    422: "The Idempotency-Key was used for another body",
    429: "Too many requests",
    500: "The gateway failed",
    502: "The provider failed",
    503: "Not available now",
    504: "The provider did not answer in time",
}

_NO_RETRY = {"x-should-retry": "false"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What went wrong, for programs and for people."""

    status: int
    code: str
    """A word for it: `budget_exceeded`, `invalid_api_key`, ..."""

    detail: str
    type: str = "invalid_request_error"
    """OpenAI's kind of error."""

    param: str | None = None
    members: Mapping[str, Any] = field(default_factory=dict)
    """More of RFC 9457's: `scope`, `limit`, `spent`, `held`, `needed`, `resets_at`, `next`."""

    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def error(self) -> dict[str, Any]:
        """OpenAI's `error`."""
        return {"message": self.detail, "type": self.type, "param": self.param, "code": self.code}

    def body(self) -> dict[str, Any]:
        """The whole body."""
        return {
            "type": f"urn:bursar:problem:{self.code}",
            "title": _TITLES.get(self.status, "The request failed"),
            "status": self.status,
            "detail": self.detail,
            **self.members,
            "error": self.error,
        }


def refused(problem: Problem) -> Response:
    """The response that tells a problem."""
    headers = {**problem.headers, "content-type": "application/problem+json"}
    return Response(orjson.dumps(problem.body()), problem.status, headers)


def problem_of(error: Exception) -> Problem:
    """The problem that an error is; of one that nobody foresaw it says nothing, and the log all."""
    match error:
        case Unauthorized() | NoRunError():
            return _known(error if isinstance(error, Unauthorized) else Unauthorized())
        case TooFast():
            headers = {"retry-after": str(math.ceil(error.retry_after_s))}
            return _known(error, headers=headers, retry_after_s=round(error.retry_after_s, 3))
        case GatewayError():
            return _known(error)
        case LimitReached():
            return _of_refusal(error.refusal)
        case ModelCallFailed():
            return _of_failures(error)
        case CallInFlight():
            detail = "the same Idempotency-Key is being answered by another process; ask again for its answer"
            return Problem(status=409, code="call_in_flight", detail=detail, headers={"retry-after": "1"})
        case LedgerUnavailable():
            detail = "the ledger cannot be used now; nothing is sent without it"
            return _of_server(503, "ledger_unavailable", detail, {"retry-after": "2"})
        case PriceMissingError():
            return _of_server(
                402, "unpriced_model", "the model has no price, and a limit in money is in force", _NO_RETRY
            )
        case UsageError():
            return Problem(status=400, code="invalid_request", detail=error.message)
        case ConfigError():
            _log.error("%s", error)
            return _of_server(502, "not_configured", "the model is not set up; the gateway's log says why", _NO_RETRY)
        case LedgerError():
            _log.error("%s", error)
            return _of_server(503, "ledger_failed", "the ledger refused its own record of the call", _NO_RETRY)
    _log.exception("a request failed", exc_info=error)
    return _of_server(500, "internal_error", "the gateway failed; its log says why", _NO_RETRY)


def _known(error: GatewayError, *, headers: Mapping[str, str] | None = None, **members: Any) -> Problem:
    if error.next_step:
        members["next"] = error.next_step
    return Problem(
        status=error.status,
        code=error.code or "invalid_request",
        detail=str(error),
        type=error.type,
        param=error.param,
        members=members,
        headers={**error.headers, **(headers or {})},
    )


def _of_server(status: int, code: str, detail: str, headers: Mapping[str, str]) -> Problem:
    return Problem(status=status, code=code, detail=detail, type="server_error", headers=headers)


def _of_refusal(refusal: Refusal) -> Problem:
    """A budget's refusal; that of a run which is over is a key that is no longer valid."""
    if refusal.cause in ("cancelled", "fenced"):
        return _known(Unauthorized())
    members = {
        "cause": refusal.cause,
        "scope": refusal.path,
        "unit": "usd" if refusal.dimension == "nanousd" else refusal.dimension,
        "limit": _amount(refusal, refusal.limit),
        "spent": _amount(refusal, refusal.posted),
        "held": _amount(refusal, refusal.held),
        "needed": _amount(refusal, refusal.needed),
        "resets_at": None if refusal.resets_us is None else from_us(refusal.resets_us).isoformat(),
        "next": refusal.next_step,
    }
    code = "unpriced_model" if refusal.cause == "unpriced" else "budget_exceeded"
    return Problem(
        status=402, code=code, detail=refusal.words(), type="insufficient_quota", members=members, headers=_NO_RETRY
    )


def _amount(refusal: Refusal, amount: int | None) -> str | int | None:
    return format(usd(amount), "f") if amount is not None and refusal.dimension == "nanousd" else amount


_WORDS: Mapping[str, str] = {
    "rate_limit": "its provider's rate limit is used up for now",
    "overloaded": "its provider has no room just now",
    "quota": "its provider's own budget is used up",
    "unavailable": "its provider cannot be reached",
    "timeout": "its provider did not answer in time",
    "broken_stream": "its answer broke off",
    "bad_reply": "its provider's answer cannot be understood",
    "auth": "its provider refused the gateway's key",
    "model_missing": "its provider does not know it",
    "not_sent": "the request cannot be sent to it as it is",
}
"""What a caller is told of a failure. What the provider said is told only where the request itself is wrong: else it
may hold a part of a key, or where the provider is."""

_ASK_AGAIN = frozenset({"rate_limit", "overloaded", "unavailable", "timeout"})


def _of_failures(error: ModelCallFailed) -> Problem:
    cause = error.cause
    if cause is None:
        return Problem(status=400, code="not_allowed", detail=error.message, headers=_NO_RETRY)
    detail = f"no model answered: {'; '.join(_told(failure) for failure in error.failures)}"
    again = cause.name in _ASK_AGAIN
    headers = {"x-should-retry": "true" if again else "false"}
    if again and error.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
    code = "context_length_exceeded" if cause.name == "context_too_long" else cause.name
    return Problem(status=cause.status, code=code, detail=detail, type=_kind(cause), headers=headers)


def _kind(cause: Cause) -> str:
    if cause.status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if cause.status < 500 else "server_error"


def _told(failure: Failure) -> str:
    said = _WORDS.get(failure.cause.name)
    if said is None:  # the message begins with who said it, which is nobody's business but the operator's
        said = failure.error.message.partition(": ")[2] or "the provider refused the request"
    return f"{failure.model}: {said}"
