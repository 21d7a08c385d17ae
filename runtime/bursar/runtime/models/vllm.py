"""vLLM's OpenAI server: exact prompt counts, a prefix cache of each tenant's own, and a place in its queue."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

from bursar.runtime.models.failures import excerpt
from bursar.runtime.models.openai_sdk import OpenAIProvider
from bursar.runtime.models.provider import BadReply, Message, ModelRequest

__all__ = ["VLLMProvider"]

COUNT_TIMEOUT_S = 2.0
"""Counting takes a millisecond; a server that does not even do that is not worth waiting for."""


class VLLMProvider(OpenAIProvider):
    """One vLLM server. An adapter is named as the model, as the server lists it.

    Cached tokens are in `usage` only where the server runs with `--enable-prompt-tokens-details`. A cap on thinking
    needs a server with `--reasoning-parser`; any other refuses it.
    """

    # With usage in each chunk a stream that breaks off is charged by the server's own count.
    _stream_options: ClassVar[Mapping[str, bool]] = {"include_usage": True, "continuous_usage_stats": True}

    def __init__(
        self,
        api_key: str | None,
        api_base: str,
        *,
        priority: int | None = None,
        priorities: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """`priority` is for a server with `--scheduling-policy priority`, where lower goes first.

        `priorities` are those of single tenants.
        """
        super().__init__(api_key, api_base, output_bound="max_tokens")
        self._tokenize = f"{api_base.rstrip('/').removesuffix('/v1')}/tokenize"
        self._priority, self._priorities = priority, priorities

    async def count_tokens(
        self, model: str, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()
    ) -> int:
        """How many tokens the server reads for this prompt, by its own chat template; raises ProviderError."""
        body = {"model": model, "messages": [*messages], **({"tools": [*tools]} if tools else {})}
        return await self._asked(self._tokenize, body, COUNT_TIMEOUT_S, _count)

    def _body(self, request: ModelRequest) -> dict[str, Any]:
        cap = request.max_reasoning_tokens
        own = {
            "cache_salt": self._salt(request.tenant) if request.tenant is not None else None,
            "priority": self._priorities.get(request.tenant or "", self._priority),
            "thinking_token_budget": min(cap, request.max_output_tokens) if cap is not None else None,
        }
        body = super()._body(request) | own  # whatever the caller's `extra` says: it may not choose another's cache
        return {key: value for key, value in body.items() if value is not None}

    def _salt(self, tenant: str) -> str:
        """The same in every process that knows the server's key, and no name that others could read or guess."""
        return hmac.new((self._key or "").encode(), tenant.encode(), hashlib.sha256).hexdigest()


def _count(answer: Any) -> int:
    count = answer.get("count") if isinstance(answer, Mapping) else None
    if type(count) is not int or count < 0:
        raise BadReply(f"expected a count of tokens, not {excerpt(repr(answer))}")
    return count
