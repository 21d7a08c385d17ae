"""Any OpenAI-compatible endpoint, by the `openai` SDK: openai, vllm, ollama and the like."""

from __future__ import annotations

import asyncio
import functools
import importlib
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from urllib.parse import urlsplit

from bursar.runtime.models.dialect import OPENAI, OPENAI_COMPATIBLE
from bursar.runtime.models.embeddings import embedding_body, ranking_of, rerank_body, vectors_of
from bursar.runtime.models.failures import provider_error
from bursar.runtime.models.provider import (
    EmbedReply,
    EmbedRequest,
    ModelReply,
    ModelRequest,
    RerankReply,
    RerankRequest,
)
from bursar.runtime.models.wire import (
    OutputBound,
    StreamedAnswer,
    body_of,
    checked_key,
    encoded,
    parsed,
    reply_of,
    request_timeout,
)

if TYPE_CHECKING:
    import httpx
    from openai import AsyncStream
    from openai._streaming import ServerSentEvent

__all__ = ["OPENAI_API_BASE", "OpenAIProvider"]

OPENAI_API_BASE = "https://api.openai.com/v1"

T = TypeVar("T")

_PATH = "/chat/completions"
_NO_KEY = "none"
"""The SDK wants a key, and would look for one in the environment."""

END_S_MAX = 0.5
"""How long the end of a response is waited for after its last event."""

IDLE_S_MAX = 4.0
"""How long a connection is kept for the next call. vLLM's server, and many others, close theirs after 5 s: a request
that meets the closing was never read, and would stay charged as unknown."""

_END = object()


class OpenAIProvider:
    """One endpoint and one key. May be called from several event loops.

    Requests go by httpx, and JSON stays as it came: the SDK's `chat.completions.create` takes four times the CPU.
    """

    _stream_options: ClassVar[Mapping[str, bool]] = {"include_usage": True}

    def __init__(
        self,
        api_key: str | None = None,
        api_base: str | None = None,
        *,
        output_bound: OutputBound = "max_completion_tokens",
        service_tier: str | None = None,
    ) -> None:
        """Without a key the word `none` is sent, whatever the environment holds; ConfigError for a broken key."""
        self._key, self._base, self._bound = checked_key(api_key), api_base or OPENAI_API_BASE, output_bound
        self._tier = service_tier
        self._who = urlsplit(self._base).netloc.rpartition("@")[2]
        self._clients: dict[asyncio.AbstractEventLoop, _Client] = {}

    def warm_up(self) -> None:
        """Import openai in a thread of its own, so that the first call need not hold its reservation that long."""
        threading.Thread(target=importlib.import_module, args=("openai",), name="import-openai", daemon=True).start()

    async def complete(self, request: ModelRequest) -> ModelReply:
        """Answer the request; raises ProviderError, such as NotSent for a request that cannot be sent as it is."""
        return await self._asked(_PATH, self._body(request), request.timeout_s, reply_of)

    async def stream(self, request: ModelRequest) -> AsyncIterator[Mapping[str, Any] | ModelReply]:
        """Yield what each chunk adds, then the whole reply; raises as `complete` does."""
        before, answer = sys.exception(), StreamedAnswer()
        streamed = {"stream": True, "stream_options": self._stream_options}
        content = encoded(self._body(request) | streamed)
        try:
            async with aclosing(self._chunks(request, content)) as chunks:
                async for chunk in chunks:
                    if delta := answer.add(chunk):
                        yield delta
            reply = answer.reply()
        except Exception as error:
            raise provider_error(
                error, who=self._who, secret=self._key, until=before, started=answer.started
            ) from error
        yield reply

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        """Embed texts; raises ProviderError."""
        read = functools.partial(vectors_of, inputs=len(request.inputs))
        return await self._asked("/embeddings", embedding_body(request), request.timeout_s, read)

    async def rerank(self, request: RerankRequest) -> RerankReply:
        """Order documents by a rerank endpoint in Cohere's shape, as vLLM has one; raises ProviderError."""
        read = functools.partial(ranking_of, documents=len(request.documents))
        return await self._asked("/rerank", rerank_body(request), request.timeout_s, read)

    async def aclose(self) -> None:
        """Close the connections of this event loop and of the others that still run."""
        clients, self._clients = self._clients, {}
        for loop, client in clients.items():
            if loop is asyncio.get_running_loop():
                await client.close()
            elif loop.is_running():
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(client.close(), loop))

    def _body(self, request: ModelRequest) -> dict[str, Any]:
        dialect = OPENAI if self._bound == "max_completion_tokens" else OPENAI_COMPATIBLE
        return body_of(request, self._bound, dialect, self._tier)

    async def _asked(self, path: str, body: Mapping[str, Any], timeout_s: float, read: Callable[[Any], T]) -> T:
        """What `read` finds in the answer to one POST, as parsed JSON; raises ProviderError."""
        before, content = sys.exception(), encoded(body)
        try:
            client = await self._client()
            async with asyncio.timeout(timeout_s):
                response = await client.http.send(client.post(self._url(path), content, timeout_s))
            response.raise_for_status()
            return read(parsed(response.content))
        except Exception as error:
            raise provider_error(error, who=self._who, secret=self._key, until=before) from error

    async def _chunks(self, request: ModelRequest, content: bytes) -> AsyncGenerator[object, None]:
        client = await self._client()
        deadline = asyncio.get_running_loop().time() + request.timeout_s
        async with asyncio.timeout_at(deadline):
            stream = await client.stream(self._url(_PATH), content, request.timeout_s)
        async with stream:
            while True:
                async with asyncio.timeout_at(deadline):
                    chunk = await anext(stream, _END)
                if chunk is _END:
                    return
                yield chunk

    def _url(self, path: str) -> str:
        return path if "://" in path else f"{self._base.rstrip('/')}{path}"

    async def _client(self) -> _Client:
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            await asyncio.to_thread(importlib.import_module, "openai")
            for ended in [known for known in self._clients if known.is_closed()]:
                del self._clients[ended]
            self._clients.setdefault(loop, _Client(self._key, self._base))
        return self._clients[loop]


class _Client:
    """The connections of one event loop. Requests are httpx's, and streams are read by the SDK."""

    def __init__(self, key: str | None, base: str) -> None:
        import httpx
        from openai import AsyncOpenAI

        limits = httpx.Limits(max_connections=1000, max_keepalive_connections=100, keepalive_expiry=IDLE_S_MAX)
        self.http = httpx.AsyncClient(limits=limits)  # it follows no redirect: to be sent twice is to be billed twice
        self._sdk = AsyncOpenAI(api_key=key or _NO_KEY, base_url=base, max_retries=0, http_client=self.http)
        self._headers = {"authorization": f"Bearer {key or _NO_KEY}", "content-type": "application/json"}

    def post(self, url: str, content: bytes, timeout_s: float) -> httpx.Request:
        """A request that is not sent yet."""
        return self.http.build_request(
            "POST", url, content=content, headers=self._headers, timeout=request_timeout(timeout_s)
        )

    async def stream(self, url: str, content: bytes, timeout_s: float) -> AsyncStream[object]:
        """The events of an answer; raises httpx.HTTPError."""
        response = await self.http.send(self.post(url, content, timeout_s), stream=True)
        if not response.is_success:
            await response.aread()
            response.raise_for_status()
        return _read_to_its_end()(cast_to=object, response=response, client=self._sdk)

    async def close(self) -> None:
        """Close the connections."""
        await self.http.aclose()


@functools.cache
def _read_to_its_end() -> type[AsyncStream[object]]:
    """The SDK's stream, but read beyond `[DONE]` to the end of the response.

    The SDK closes the connection there, so that each stream would begin with a new one.
    """
    from openai import AsyncStream

    class ReadToItsEnd(AsyncStream[object]):
        async def _iter_events(self) -> AsyncIterator[ServerSentEvent]:
            events = super()._iter_events()
            async for event in events:
                if event.data.startswith("[DONE]"):
                    with suppress(TimeoutError):
                        async with asyncio.timeout(END_S_MAX):
                            async for _ in events:
                                pass
                yield event

    return ReadToItsEnd
