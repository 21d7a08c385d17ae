"""The seam to whatever answers a model call: one request, one reply, one error tree with a class for each cause.

ProviderError            the call gave no usable answer
├── RateLimited          429, surely not billed; waits as `retry_after_s` says
├── Overloaded           503 of an admission queue, 529: it is well, but full; surely not billed
├── QuotaExhausted       the provider's own budget or credit is used up, until `retry_after_s`; not billed
├── Unavailable          connection refused, or a 5xx before the first byte of an answer; surely not billed
├── NotSent              refused before any model had it, by the adapter or at the door; not billed, never repeated
├── RequestRefused       the provider refused the request itself (400, 413, 422); not billed, never repeated
│   ├── AuthFailed       401 or 403: the key is missing, wrong or not allowed
│   ├── ModelMissing     404: the provider does not know the model
│   └── ContextTooLong   the request does not fit the model's window
├── ContentFiltered      the provider's filter refused the request, or the answer; it may have been billed
├── CallTimeout          no answer in time, for us, the provider or a gateway (408, 504, 524); it may have been billed
├── BrokenStream         the answer broke off; it may have been billed
└── BadReply             an answer that is none: HTML, empty, no choices, impossible usage; it may have been billed

What the runtime does at each is one table: `bursar.runtime.models.causes`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from bursar.budget.errors import BursarError
from bursar.budget.usage import Usage

__all__ = [
    "AuthFailed",
    "BadReply",
    "BrokenStream",
    "CallTimeout",
    "ContentFiltered",
    "ContextTooLong",
    "CountsTokens",
    "EmbedReply",
    "EmbedRequest",
    "Embeds",
    "ModelMissing",
    "ModelReply",
    "ModelRequest",
    "NotSent",
    "Overloaded",
    "Provider",
    "ProviderError",
    "QuotaExhausted",
    "RateLimited",
    "RequestRefused",
    "RerankReply",
    "RerankRequest",
    "Reranks",
    "Unavailable",
]

Message = Mapping[str, Any]
"""A message in the shape of OpenAI's chat completions: `role`, `content`, `tool_calls`, `tool_call_id`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """One attempt at a model call, in the shape of OpenAI's chat completions."""

    model: str
    """The provider's own name of the model."""

    messages: Sequence[Message]
    max_output_tokens: int
    """The bound that the reservation was made for; a provider must pass it on."""

    timeout_s: float
    tools: Sequence[Mapping[str, Any]] = ()
    """`{"type": "function", "function": {"name", "description", "parameters"}}` each."""

    tool_choice: str | Mapping[str, Any] | None = None
    stop: Sequence[str] | None = None
    temperature: float | None = None
    response_format: Mapping[str, Any] | None = None
    reasoning_effort: str | None = None
    """`minimal | low | medium | high`, or the provider's own word; None leaves it to the provider."""

    max_reasoning_tokens: int | None = None
    """The most that the model may think with, a part of `max_output_tokens`; None = no cap of its own."""

    tenant: str | None = None
    """Whose call it is: keeps prefix caches apart where the provider can. Never sent as it stands."""

    extra: Mapping[str, Any] = field(default_factory=dict)
    """Any other parameter of the request body, passed through unchanged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReply:
    """A provider's answer."""

    message: Message
    """`{"role": "assistant", "content": str | None, "tool_calls": [...]}`.

    Each tool call is `{"id": str, "type": "function", "function": {"name": str, "arguments": str}}`, with
    `provider_specific_fields` where the provider signed it. What the model thought is in `reasoning_content: str` and
    `thinking_blocks: list`; both go back to it with the message.
    """

    usage: Usage | None
    """None when the provider did not say."""

    finish_reason: str
    """`stop | length | tool_calls | content_filter`, or the provider's own word."""

    response_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedRequest:
    """One attempt at embedding texts."""

    model: str
    inputs: Sequence[str]
    timeout_s: float
    dimensions: int | None = None
    tenant: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedReply:
    """One vector for each input, in their order."""

    vectors: Sequence[Sequence[float]]
    usage: Usage | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankRequest:
    """One attempt at ordering documents by what they say of a query."""

    model: str
    query: str
    documents: Sequence[str]
    timeout_s: float
    top_n: int | None = None
    tenant: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankReply:
    """Places of documents with their scores, the best first."""

    results: Sequence[tuple[int, float]]
    usage: Usage | None


class ProviderError(BursarError):
    """The provider gave no usable answer."""

    billed: ClassVar[Literal["no", "unknown"]] = "unknown"
    """`no`: surely not billed. `unknown`: it may have been billed, so it stays charged."""

    def __init__(self, message: str, *, status: int | None = None, retry_after_s: float | None = None) -> None:
        """`status` is the HTTP status, if there was one; `retry_after_s` what the provider asked to wait."""
        self.status, self.retry_after_s = status, retry_after_s
        super().__init__(message)


class RateLimited(ProviderError):
    """The provider answered 429."""

    billed = "no"


class Overloaded(ProviderError):
    """The provider is well, but has no room just now."""

    billed = "no"


class QuotaExhausted(ProviderError):
    """The provider's own budget for this key is used up."""

    billed = "no"


class Unavailable(ProviderError):
    """The provider could not be reached, or failed before the first byte of an answer."""

    billed = "no"


class NotSent(ProviderError):
    """The request cannot be sent as it is."""

    billed = "no"


class RequestRefused(ProviderError):
    """The provider refused the request itself."""

    billed = "no"


class AuthFailed(RequestRefused):
    """The provider refused the key."""


class ModelMissing(RequestRefused):
    """The provider does not know the model."""


class ContextTooLong(RequestRefused):
    """The request does not fit the model's context window."""


class ContentFiltered(ProviderError):
    """The provider's content filter refused the request, which it had read, or what the model wrote."""


class CallTimeout(ProviderError):
    """No answer came in time."""


class BrokenStream(ProviderError):
    """The answer broke off."""


class BadReply(ProviderError):
    """The provider's answer cannot be understood."""


class Provider(Protocol):
    """Whatever answers a model call. One object serves every model of its provider and must not retry by itself."""

    async def complete(self, request: ModelRequest) -> ModelReply:
        """Answer the request; raises ProviderError."""

    def stream(self, request: ModelRequest) -> AsyncIterator[Mapping[str, Any] | ModelReply]:
        """Yield deltas in the shape of OpenAI's chunks (`content`, `tool_calls`, and thoughts as in
        `ModelReply.message`), and the whole reply last.

        A delta has `usage`, as the provider said it, where it did before the end. Raises ProviderError. Where it is a
        generator it is closed as soon as nobody listens, which must close the connection.
        """

    async def aclose(self) -> None:
        """Close what is held open."""


@runtime_checkable
class CountsTokens(Protocol):
    """A provider that says beforehand how long a prompt is."""

    async def count_tokens(
        self, model: str, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()
    ) -> int:
        """The input tokens of a call with these messages and tools, as it will be billed; raises ProviderError."""


@runtime_checkable
class Embeds(Protocol):
    """A provider that has embeddings too."""

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        """Embed texts; raises ProviderError."""


@runtime_checkable
class Reranks(Protocol):
    """A provider that orders documents too."""

    async def rerank(self, request: RerankRequest) -> RerankReply:
        """Order documents; raises ProviderError."""
