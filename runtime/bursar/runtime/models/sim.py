"""A scripted, metered model for tests and the demo: real token counts, seeded latency and faults, its own true bill."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Self

from bursar.budget.usage import Usage
from bursar.runtime.models.provider import (
    AuthFailed,
    BadReply,
    BrokenStream,
    CallTimeout,
    ContentFiltered,
    ContextTooLong,
    ModelMissing,
    ModelReply,
    ModelRequest,
    Overloaded,
    ProviderError,
    QuotaExhausted,
    RateLimited,
    RequestRefused,
    Unavailable,
)
from bursar.runtime.models.scenario import Fault, FaultKind, Latency, Scenario, ToolCall
from bursar.runtime.models.script import AnswerLike, script_of, turn_of
from bursar.runtime.models.tokens import TokenCounter

__all__ = ["Bill", "SimProvider"]

CONVERSATIONS_MAX = 100_000
DELTAS_MAX = 16

_PADDING = " word"
"""One token, as often as it is repeated."""

_FAILURES: Mapping[FaultKind, tuple[type[ProviderError], str, int | None]] = {
    "rate_limit": (RateLimited, "the simulated provider is rate limited", 429),
    "overloaded": (Overloaded, "the simulated provider has no room", 503),
    "quota": (QuotaExhausted, "the simulated provider's budget is used up", 429),
    "unavailable": (Unavailable, "the simulated provider has failed", 500),
    "timeout": (CallTimeout, "the simulated provider did not answer in time", None),
    "stalled": (CallTimeout, "the simulated answer was not complete in time", None),
    "broken_stream": (BrokenStream, "the simulated answer broke off", None),
    "bad_reply": (BadReply, "the simulated answer is none", 200),
    "auth": (AuthFailed, "the simulated provider refused the key", 401),
    "model_missing": (ModelMissing, "the simulated provider does not know the model", 404),
    "context_too_long": (ContextTooLong, "the request does not fit the simulated window", 400),
    "content_filter": (ContentFiltered, "the simulated filter refused the request", 400),
    "bad_request": (RequestRefused, "the simulated provider refused the request", 400),
}

_HALF = frozenset({"stalled", "broken_stream"})
"""Faults after half of the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What a provider would charge for."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def plus(self, usage: Usage) -> Bill:
        """The bill with one more call on it."""
        return Bill(
            calls=self.calls + 1,
            input_tokens=self.input_tokens + usage.input_tokens,
            output_tokens=self.output_tokens + usage.output_tokens,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    latency_s: float
    deltas: Sequence[Mapping[str, Any]]
    """What is streamed before the outcome."""

    outcome: ModelReply | ProviderError

    def end(self) -> ModelReply:
        if isinstance(self.outcome, ProviderError):
            raise self.outcome
        return self.outcome


class SimProvider:
    """A model that follows a scenario. It may be shared by threads and event loops.

    The same conversation gets the same answer, and with the same seed the same latency and faults at each attempt.
    """

    def __init__(
        self, scenario: Scenario, *, seed: int = 0, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        """`sleep` takes seconds; raises ConfigError for a scenario whose function is not there."""
        self.bill = Bill()
        """Every call for which the model wrote something, whether or not it arrived."""

        self._scenario, self._seed, self._sleep = scenario, seed, sleep
        self._script = script_of(scenario)
        self._tokens = TokenCounter()
        self._lock = threading.Lock()
        self._attempts: Counter[str] = Counter()
        self._faults_met = [0] * len(scenario.faults)

    @classmethod
    def of(
        cls,
        answers: Sequence[AnswerLike] | Callable[[ModelRequest], AnswerLike],
        *,
        latency_ms: Latency | None = None,
        faults: Sequence[Fault] = (),
        seed: int = 0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> Self:
        """A model that gives these answers in turn and then the last one for ever, or those of a function."""
        source = {"function": answers} if callable(answers) else {"answers": answers}
        conditions = {"latency_ms": latency_ms or Latency(), "faults": faults}
        return cls(Scenario.model_validate({**source, **conditions}), seed=seed, sleep=sleep)

    async def complete(self, request: ModelRequest) -> ModelReply:
        """Answer the request; raises ProviderError as the scenario's faults say."""
        call = self._begin(request)
        await self._sleep(call.latency_s)
        return call.end()

    async def stream(self, request: ModelRequest) -> AsyncIterator[Mapping[str, Any] | ModelReply]:
        """Yield the answer in a few deltas, then whole; raises as `complete` does, a broken stream halfway."""
        call = self._begin(request)
        await self._sleep(call.latency_s)
        for delta in call.deltas:
            yield delta
        yield call.end()

    async def aclose(self) -> None:
        """Nothing is held open."""

    def _begin(self, request: ModelRequest) -> _Call:
        """Decide all about a call, and bill it: a provider writes and charges also when nobody waits any more."""
        digest = blake2b(json.dumps([*request.messages], default=str).encode(), digest_size=16)
        chance = self._chance(digest.hexdigest())
        spread = self._scenario.latency_ms
        latency_s = chance.uniform(spread.min, spread.max) / 1000
        fault = self._fault(turn_of(request.messages), chance)
        if fault is not None and (failure := _failure(fault)).billed == "no":
            return _Call(latency_s=latency_s, deltas=(), outcome=failure)
        reply, usage = self._written(request, digest.hexdigest())
        with self._lock:
            self.bill = self.bill.plus(usage)
        if fault is None and latency_s > request.timeout_s:
            latency_s, fault = request.timeout_s, Fault(kind="timeout")
        if fault is None:
            return _Call(latency_s=latency_s, deltas=_deltas(reply), outcome=reply)
        deltas = _deltas(reply) if fault.kind in _HALF else []
        return _Call(latency_s=latency_s, deltas=deltas[: len(deltas) // 2], outcome=_failure(fault))

    def _chance(self, conversation: str) -> random.Random:
        """The dice of this attempt at this conversation."""
        with self._lock:
            if len(self._attempts) > CONVERSATIONS_MAX:
                self._attempts.clear()
            self._attempts[conversation] += 1
            attempt = self._attempts[conversation]
        return random.Random(f"{self._seed}:{conversation}:{attempt}")  # noqa: S311  # a simulation, to be repeated

    def _fault(self, turn: int, chance: random.Random) -> Fault | None:
        with self._lock:
            for index, fault in enumerate(self._scenario.faults):
                spared = fault.rate is not None and chance.random() >= fault.rate
                used_up = fault.times is not None and self._faults_met[index] >= fault.times
                if spared or used_up or fault.turn not in (None, turn):
                    continue
                self._faults_met[index] += 1
                return fault
        return None

    def _written(self, request: ModelRequest, conversation: str) -> tuple[ModelReply, Usage]:
        """What the model writes within its bound. Tool calls that do not fit whole are left out."""
        count, bound = self._tokens.count_text, request.max_output_tokens
        answer = self._script(request)
        text = answer.text or ""
        text += _PADDING * ((answer.tokens or 0) - count(text))
        calls = [_tool_call(call, f"call_{conversation[:16]}_{i}") for i, call in enumerate(answer.tool_calls)]
        functions = [call["function"] for call in calls]
        written = count(text) + sum(count(function["name"]) + count(function["arguments"]) for function in functions)
        finish_reason = "tool_calls" if calls else "stop"
        if written > bound:
            text, calls, finish_reason = self._tokens.cut(text, bound), [], "length"
        message: dict[str, Any] = {"role": "assistant", "content": text or None if calls else text}
        usage = Usage(
            input_tokens=self._tokens.count_request(request.messages, request.tools),
            output_tokens=min(written, bound),
        )
        reply = ModelReply(
            message=message | ({"tool_calls": calls} if calls else {}),
            usage=usage,
            finish_reason=finish_reason,
            response_id=f"sim-{conversation}",
        )
        return reply, usage


def _failure(fault: Fault) -> ProviderError:
    error, message, status = _FAILURES[fault.kind]
    return error(message, status=status, retry_after_s=fault.retry_after_s)


def _tool_call(call: ToolCall, call_id: str) -> dict[str, Any]:
    given = call.arguments
    arguments = given if isinstance(given, str) else json.dumps(given, default=str)
    return {"id": call_id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _deltas(reply: ModelReply) -> list[Mapping[str, Any]]:
    text = reply.message["content"] or ""
    size = -(-len(text) // DELTAS_MAX) or 1
    deltas: list[Mapping[str, Any]] = [{"content": text[at : at + size]} for at in range(0, len(text), size)]
    calls = enumerate(reply.message.get("tool_calls", ()))
    return deltas + [{"tool_calls": [{"index": index, **call}]} for index, call in calls]
