"""One chat completion over HTTP: decide its fate, put it on the bill, then answer it or not."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from tests.support.behaviour import UNBILLED, Behaviour, Fault, FaultKind
from tests.support.bill import Bill, Billed
from tests.support.completion import Completion, output_bound, output_deltas
from tests.support.tokens import compact, tokens_for

__all__ = ["Exchange"]

_REFUSALS: Mapping[FaultKind, tuple[int, str, str | None, str]] = {
    "rate_limit": (429, "requests", "rate_limit_exceeded", "Rate limit reached for this model."),
    "overloaded": (503, "server_error", "server_is_overloaded", "The engine is currently overloaded."),
    "quota": (429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota."),
    "unauthorized": (401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    "model_missing": (404, "invalid_request_error", "model_not_found", "The model does not exist."),
    "content_filter": (400, "invalid_request_error", "content_filter", "The prompt was filtered."),
    "bad_request": (400, "invalid_request_error", None, "This request cannot be served."),
    "context_length": (400, "invalid_request_error", "context_length_exceeded", "Maximum context length exceeded."),
}
"""Status, type, code and message."""

_SPOILED: Mapping[FaultKind, tuple[str, str]] = {
    "html": ("text/html", "<html><body><h1>Welcome to this network, please sign in</h1></body></html>"),
    "empty": ("application/json", ""),
    "bad_json": ("application/json", '{"id": "chatcmpl-0", "choices": [{"message": {"role": "assist'),
}
"""Media type and body of answers that are none."""

_CUT_OFF: frozenset[FaultKind] = frozenset({"billed_drop", "broken_stream", "stalled"})
"""Faults after which nothing more comes, in the middle of the body."""

_BILLED_AT_ONCE: frozenset[FaultKind] = frozenset({"billed_timeout", "billed_drop", *_SPOILED})
"""Faults that cost the whole answer also where it is streamed and so would be charged token by token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A request and the connection that it came by."""

    behaviour: Behaviour
    bill: Bill
    scope: Scope
    receive: Receive
    send: Send
    hang_up: Callable[[], None]
    """Closes the connection, once what was written is sent."""

    async def run(self) -> None:
        """Serve the request to its end, whatever that is."""
        with self.bill.request() as requests_before:
            request = Request(self.scope, self.receive)
            try:
                body = _parsed(await request.body())
            except ClientDisconnect:
                return
            if body is None:
                await self._refuse(Fault("bad_request"))
                return
            fault = self.behaviour.fault(body, requests_before)
            if fault is not None and fault.kind in UNBILLED:
                await self._refuse(fault)
            else:
                await self._generate(request.headers, body, fault)

    async def _refuse(self, fault: Fault) -> None:
        if fault.kind == "drop_before":
            await self._drop()
            return
        server_error = (fault.status, "server_error", None, "The server had an error.")
        status, kind, code, message = _REFUSALS.get(fault.kind, server_error)
        headers = {} if fault.retry_after_s is None else {"retry-after": f"{fault.retry_after_s:g}"}
        error = {"message": message, "type": kind, "param": None, "code": code}
        await self._respond(JSONResponse({"error": error}, status, headers))

    async def _generate(self, headers: Mapping[str, str], body: dict[str, Any], fault: Fault | None) -> None:
        calls_before = self.bill.calls
        completion = self._completion(body, calls_before)
        kind = fault.kind if fault else None
        streamed = bool(body.get("stream"))
        billed = _billed(completion, headers, body)
        # A provider charges from here on, whether or not anyone is there to hear the answer.
        self.bill.charge(replace(billed, output_tokens=0) if streamed and kind not in _BILLED_AT_ONCE else billed)
        if await self._client_leaves(self.behaviour.latency(calls_before)):
            return
        if kind == "billed_timeout":
            await self._client_leaves(None)
        elif kind is not None and kind in _SPOILED:
            await self._spoil(kind, streamed)
        elif streamed:
            await self._stream(completion, body, fault, billed)
        else:
            await self._reply(completion, kind)

    def _completion(self, body: dict[str, Any], calls_before: int) -> Completion:
        answer = self.behaviour.answer(body, calls_before)
        tokens = tokens_for(self.behaviour.counting)
        filler_tokens, call_id = self.behaviour.output_tokens, f"call_{calls_before}"
        deltas = output_deltas(answer, tokens, filler_tokens=filler_tokens, call_id=call_id)
        bound = output_bound(body)
        finished = "tool_calls" if answer.tool_calls else "stop"
        return Completion(
            id=f"chatcmpl-{calls_before}",
            model=body["model"],
            created=int(time.time()),
            choices=body.get("n") or 1,
            input_tokens=tokens.prompt(body),
            deltas=deltas[:bound],
            finish_reason=finished if len(deltas) <= bound else "length",
        )

    async def _spoil(self, kind: FaultKind, streamed: bool) -> None:
        media_type, text = _SPOILED[kind]
        if kind == "bad_json" and streamed:
            media_type, text = "text/event-stream", f"data: {text}\n\n"
        await self._respond(Response(text, media_type=media_type))

    async def _reply(self, completion: Completion, kind: FaultKind | None) -> None:
        response = JSONResponse(completion.body() | _usage(completion, kind))
        if kind not in _CUT_OFF:
            await self._respond(response)
            return
        await self.send({"type": "http.response.start", "status": 200, "headers": response.raw_headers})
        await self._write(bytes(response.body[: len(response.body) // 2]))
        await self._cut_off(kind)

    async def _stream(self, completion: Completion, body: dict[str, Any], fault: Fault | None, billed: Billed) -> None:
        kind, end = fault.kind if fault else None, len(completion.deltas)
        if fault and kind in _CUT_OFF:
            end = end // 2 if kind == "billed_drop" else fault.after_tokens
        headers = [(b"content-type", b"text/event-stream")]
        await self.send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._event(*completion.chunks_of({"role": "assistant", "content": ""}))
        for count, delta in enumerate(completion.deltas[:end], start=1):
            if await self._client_leaves(self.behaviour.chunk_s):
                return
            if kind not in _BILLED_AT_ONCE:
                self.bill.charge(replace(billed, output_tokens=count * completion.choices))
            if delta:
                await self._event(*completion.chunks_of(delta))
        if kind in _CUT_OFF:
            await self._cut_off(kind)
            return
        await self._event(*completion.chunks_of({}, completion.finish_reason))
        if (body.get("stream_options") or {}).get("include_usage") and kind != "no_usage":
            await self._event(completion.usage_chunk() | _usage(completion, kind))
        await self._write(b"data: [DONE]\n\n", more=False)

    async def _event(self, *payloads: dict[str, Any]) -> None:
        await self._write("".join(f"data: {compact(payload)}\n\n" for payload in payloads).encode())

    async def _write(self, data: bytes, *, more: bool = True) -> None:
        await self.send({"type": "http.response.body", "body": data, "more_body": more})

    async def _respond(self, response: Response) -> None:
        await response(self.scope, self.receive, self.send)

    async def _cut_off(self, kind: FaultKind | None) -> None:
        await (self._client_leaves(None) if kind == "stalled" else self._drop())

    async def _drop(self) -> None:
        self.hang_up()
        await self._client_leaves(None)

    async def _client_leaves(self, within_s: float | None) -> bool:
        """Wait for the end of the connection, at most `within_s`; return whether it came."""
        try:
            async with asyncio.timeout(within_s):
                while (await self.receive())["type"] != "http.disconnect":
                    pass
        except TimeoutError:
            return False
        return True


def _parsed(raw: bytes) -> dict[str, Any] | None:
    """The request, or None where a real server would not understand it."""
    try:
        body = json.loads(raw)
        messages = body["messages"]
        known = isinstance(body["model"], str) and isinstance(messages, list) and messages and output_bound(body) >= 1
    except (ValueError, TypeError, KeyError):
        return None
    return body if known else None


def _billed(completion: Completion, headers: Mapping[str, str], body: dict[str, Any]) -> Billed:
    kept = {
        name: value
        for name, value in headers.items()
        if name in ("user-agent", "idempotency-key") or name.startswith("x-")
    }
    return Billed(
        request_id=completion.id,
        model=completion.model,
        key=headers.get("authorization", "").removeprefix("Bearer "),
        input_tokens=completion.input_tokens,
        output_tokens=completion.output_tokens,
        at_ns=time.time_ns(),
        headers=kept,
        digest=hashlib.sha256(json.dumps(body["messages"], sort_keys=True).encode()).hexdigest(),
    )


def _usage(completion: Completion, kind: FaultKind | None) -> dict[str, Any]:
    if kind == "no_usage":
        return {}
    sign = -1 if kind == "negative_usage" else 1
    return {"usage": {name: sign * count for name, count in completion.usage.items()}}
