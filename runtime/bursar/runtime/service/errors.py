"""What the gateway itself refuses.

GatewayError
├── AgentFailed    502, the run of an agent failed or was cancelled
├── AgentStopped   402, a limit stopped the run of an agent before it had anything to say
├── Unauthorized   401, no key or none that is valid; it never says why
├── BadRequest     400, the body or a header is not what it has to be
├── UnknownModel   404, nothing of that name that this key may see
├── TooLarge       413, the body is larger than is read
├── KeyReused      422, the Idempotency-Key was used for another body
└── TooFast        429, more than the rate of the key or of its tenant
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from bursar.budget.errors import BursarError

__all__ = [
    "AgentFailed",
    "AgentStopped",
    "BadRequest",
    "GatewayError",
    "KeyReused",
    "TooFast",
    "TooLarge",
    "Unauthorized",
    "UnknownModel",
]


class GatewayError(BursarError):
    """The gateway cannot do what was asked."""

    status: ClassVar[int] = 400
    type: ClassVar[str] = "invalid_request_error"
    """OpenAI's word for the kind of error."""

    def __init__(
        self,
        message: str | None = None,
        *,
        next_step: str | None = None,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`code` and `param` are OpenAI's: a word for the mistake, and the path of the parameter."""
        self.code, self.param, self.headers = code, param, headers or {}
        super().__init__(message, next_step=next_step)


class AgentFailed(GatewayError):
    """The run of an agent failed."""

    status = 502
    type = "server_error"

    def __init__(self, name: str, run_id: str) -> None:
        super().__init__(
            f"agent {name} gave no answer",
            next_step=f"bursar runs show {run_id}",
            code="agent_failed",
            headers={"x-should-retry": "false", "x-bursar-run": run_id},
        )


class AgentStopped(GatewayError):
    """A limit stopped the run of an agent."""

    status = 402
    type = "insufficient_quota"

    def __init__(self, words: str, run_id: str) -> None:
        """`words` are the refusal's, which end in the next command."""
        super().__init__(words, code="budget_exceeded", headers={"x-should-retry": "false", "x-bursar-run": run_id})


class Unauthorized(GatewayError):
    """The key is missing or not valid."""

    status = 401
    type = "authentication_error"

    def __init__(self) -> None:
        super().__init__(
            next_step="Authorization: Bearer bsr_... with a key made by `bursar key create`",
            code="invalid_api_key",
            headers={"www-authenticate": "Bearer"},
        )


class BadRequest(GatewayError):
    """The request is not what it has to be."""


class UnknownModel(GatewayError):
    """There is no such model here."""

    status = 404

    def __init__(self, name: str, near: Sequence[str]) -> None:
        """`near` are names that the caller may use."""
        super().__init__(
            f"there is no model {name[:64]!r} that this key may use",
            next_step=f"use one of {', '.join(near)}" if near else "GET /v1/models lists what it may use",
            code="model_not_found",
            param="model",
        )


class TooLarge(GatewayError):
    """The request's body is too large."""

    status = 413

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"the body is larger than the {limit:,} bytes that are read",
            next_step="raise gateway.body_bytes_max",
            code="request_too_large",
        )


class KeyReused(GatewayError):
    """This Idempotency-Key was used for another body."""

    status = 422

    def __init__(self) -> None:
        super().__init__(next_step="use a new key for each new request", code="idempotency_key_reused")


class TooFast(GatewayError):
    """The rate of the key or of its tenant is used up for the moment."""

    status = 429
    type = "rate_limit_error"

    def __init__(self, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(next_step=f"ask again in {retry_after_s:.1f} s", code="rate_limit_exceeded")
