"""Every provider that the `openai` SDK does not speak to, by litellm: anthropic, gemini, bedrock and the like."""

from __future__ import annotations

import asyncio
import functools
import importlib
import json
import logging
import os
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, NoReturn, TypeVar
from weakref import WeakSet

from bursar.runtime.models.dialect import dialect_of
from bursar.runtime.models.embeddings import embedding_body, ranking_of, rerank_body, vectors_of
from bursar.runtime.models.failures import provider_error
from bursar.runtime.models.provider import (
    AuthFailed,
    BadReply,
    EmbedReply,
    EmbedRequest,
    ModelReply,
    ModelRequest,
    NotSent,
    ProviderError,
    RequestRefused,
    RerankReply,
    RerankRequest,
)
from bursar.runtime.models.wire import StreamedAnswer, body_of, checked_key, encoded, reply_of, request_timeout

__all__ = ["LiteLLMProvider"]

T = TypeVar("T")

_RESERVED = frozenset(
    {"api_base", "api_key", "base_url", "client", "fallbacks", "max_retries", "mock_response", "num_retries", "timeout"}
)
"""Arguments by which litellm would send something else, or more, than what was reserved."""


_NUMBERS = frozenset({"openai", "azure"})
"""Providers that litellm asks for base64 if it is not told to ask for numbers, and then cannot read it."""


_SILENT = frozenset({"gemini"})
"""Providers that do not say what an embedding used; litellm then makes up a number, which may be too low."""


class LiteLLMProvider:
    """One of litellm's providers and one key. May be called from several event loops.

    litellm takes seconds to import, which happens at the first call or in `warm_up`.
    """

    _open: ClassVar[WeakSet[LiteLLMProvider]] = WeakSet()

    def __init__(
        self,
        provider: str,
        api_key: str | None = None,
        api_base: str | None = None,
        *,
        service_tier: str | None = None,
    ) -> None:
        """`provider` is litellm's name of it; without a key litellm looks for the provider's usual variables.

        Raises ConfigError for a broken key.
        """
        self._provider, self._key, self._base = provider, checked_key(api_key), api_base
        self._tier = service_tier
        self._open.add(self)

    def warm_up(self) -> None:
        """Import litellm in a thread of its own, so that the first call need not wait for it."""
        threading.Thread(target=_litellm, name="import-litellm", daemon=True).start()

    async def complete(self, request: ModelRequest) -> ModelReply:
        """Answer the request; raises ProviderError, such as NotSent for a request that cannot be sent as it is."""
        return await self._asked("acompletion", self._arguments(request), request.timeout_s, reply_of)

    async def stream(self, request: ModelRequest) -> AsyncIterator[Mapping[str, Any] | ModelReply]:
        """Yield what each chunk adds, then the whole reply; raises as `complete` does."""
        before, arguments, answer = sys.exception(), self._arguments(request), StreamedAnswer()
        arguments |= {"stream": True, "stream_options": {"include_usage": True}}
        try:
            async with aclosing(self._chunks(request, arguments)) as chunks:
                async for chunk in chunks:
                    if delta := answer.add(chunk):
                        yield delta
            reply = answer.reply()
        except Exception as error:
            raise self._failure(error, before, started=answer.started) from error
        yield reply

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        """Embed texts; raises ProviderError, such as NotSent for several at once where each would be a request."""
        if self._provider == "bedrock" and "titan" in request.model and len(request.inputs) > 1:
            raise NotSent("Titan embeds one text in a request, and only one request is reserved; ask for one at a time")
        body = embedding_body(request)
        del body["encoding_format"]
        if self._provider in _NUMBERS:
            body["encoding_format"] = "float"
        arguments = self._own_arguments(request, body)
        read = partial(vectors_of, inputs=len(request.inputs))
        reply = await self._asked("aembedding", arguments, request.timeout_s, read)
        return replace(reply, usage=None) if self._provider in _SILENT else reply

    async def rerank(self, request: RerankRequest) -> RerankReply:
        """Order documents; raises ProviderError."""
        arguments = self._own_arguments(request, {**rerank_body(request), "return_documents": False})
        read = partial(ranking_of, documents=len(request.documents))
        return await self._asked("arerank", arguments, request.timeout_s, read)

    async def aclose(self) -> None:
        """Close litellm's connections, once no other provider of this class is open: litellm keeps them for all."""
        self._open.discard(self)
        if not self._open and _litellm.cache_info().currsize:
            litellm = _litellm()
            await litellm.close_litellm_async_clients()
            litellm.in_memory_llm_clients_cache.flush_cache()
            vars(litellm).pop("module_level_aclient", None)  # made anew, and kept with the others, when it is needed

    async def _chunks(self, request: ModelRequest, arguments: Mapping[str, Any]) -> AsyncGenerator[object, None]:
        litellm = await _imported()
        deadline = asyncio.get_running_loop().time() + request.timeout_s
        async with asyncio.timeout_at(deadline):
            stream = await litellm.acompletion(**_understood(litellm, arguments))
        async with aclosing(stream):
            while True:
                async with asyncio.timeout_at(deadline):
                    chunk = await anext(stream, None)
                if chunk is None:
                    return
                yield _within_output(_said(chunk.model_dump(exclude_none=True), stream))

    async def _asked(
        self, operation: str, arguments: Mapping[str, Any], timeout_s: float, read: Callable[[Any], T]
    ) -> T:
        """What `read` finds in litellm's answer, as parsed JSON; raises ProviderError."""
        before = sys.exception()
        try:
            litellm = await _imported()
            async with asyncio.timeout(timeout_s):
                answer = await getattr(litellm, operation)(**_understood(litellm, arguments))
            return read(_within_output(answer.model_dump()))
        except Exception as error:
            raise self._failure(error, before) from error

    def _arguments(self, request: ModelRequest) -> dict[str, Any]:
        # Else litellm imports its proxy for every call with tools, to run MCP tools and further calls by itself.
        alone = {"_skip_mcp_handler": True}
        dialect = dialect_of(self._provider, request.model)
        body = body_of(request, "max_tokens", dialect, self._tier)
        own = json.loads(encoded(body))  # litellm rewrites what it is given
        return self._own_arguments(request, own) | alone

    def _own_arguments(
        self, request: ModelRequest | EmbedRequest | RerankRequest, body: Mapping[str, Any]
    ) -> dict[str, Any]:
        if taken := sorted(_RESERVED & request.extra.keys()):
            raise NotSent(f"extra: {', '.join(taken)} is litellm's, not a parameter of the model")
        return {
            **body,
            "model": f"{self._provider}/{request.model}",
            "api_key": self._key,
            "api_base": self._base,
            "timeout": request_timeout(request.timeout_s),
            "max_retries": 0,
            "num_retries": 0,
        }

    def _failure(self, error: Exception, before: BaseException | None, *, started: bool = False) -> ProviderError:
        failure = provider_error(error, who=self._provider, secret=self._key, until=before, started=started)
        local = isinstance(failure, BadReply) and _refused_by_litellm(error, before)
        return local(failure.message) if local else failure


def _refused_by_litellm(error: Exception, before: BaseException | None) -> type[RequestRefused] | None:
    """How litellm itself refused the call before anything was sent, as for a missing key or an unknown parameter."""
    litellm = _litellm()
    if isinstance(error, litellm.AuthenticationError):
        return AuthFailed
    unsent = error.__cause__ is None and error.__context__ in (None, before)
    return RequestRefused if unsent and isinstance(error, litellm.BadRequestError) else None


def _understood(litellm: Any, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments without a cap on thinking, where the model does not think at all: it is within any cap."""
    if "thinking" not in arguments or "thinking" in litellm.get_supported_openai_params(arguments["model"]):
        return arguments
    return {key: value for key, value in arguments.items() if key != "thinking"}


def _said(chunk: dict[str, Any], stream: Any) -> dict[str, Any]:
    """The chunk without what litellm makes up: a finish_reason for a stream that broke off, a usage nobody reported."""
    if not (stream.received_finish_reason or stream.intermittent_finish_reason):
        for choice in chunk["choices"]:
            choice.pop("finish_reason", None)
    if chunk.get("usage") and not any(getattr(known, "usage", None) for known in stream.chunks):
        del chunk["usage"]
    return chunk


def _within_output(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer with no more thinking than output: where Bedrock does not count it, litellm counts the text."""
    usage = answer.get("usage") or {}
    details, written = usage.get("completion_tokens_details"), usage.get("completion_tokens")
    if details and written is not None and (details.get("reasoning_tokens") or 0) > written:
        details["reasoning_tokens"] = written
    return answer


async def _imported() -> Any:
    return _litellm() if _litellm.cache_info().currsize else await asyncio.to_thread(_litellm)


@functools.cache
def _litellm() -> Any:
    """litellm, told to keep to itself: no downloads, no retries, no second guesses about a connection."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    os.environ["LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS"] = "True"
    litellm: Any = importlib.import_module("litellm")
    litellm.suppress_debug_info = True
    logging.getLogger("LiteLLM").setLevel(logging.CRITICAL)  # it logs the errors that it raises
    litellm.DEFAULT_MAX_RETRIES = 0  # it takes the 0 retries that it is told, for embeddings, as none told
    handler = importlib.import_module("litellm.llms.custom_httpx.http_handler").AsyncHTTPHandler
    handler.single_connection_post_request = _send_no_second_request
    return litellm


async def _send_no_second_request(*_: object, **__: object) -> NoReturn:
    """Stands where litellm repeats a request whose connection broke, which may have been billed already."""
    broken = sys.exception()
    raise broken if broken else RuntimeError("litellm repeats a request outside of an error")
