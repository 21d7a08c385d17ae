"""Paid calls for the gateway's callers: one chat completion in, one answer out, at once or in pieces."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import orjson

from bursar.budget.limits import Limits
from bursar.runtime.attempt import Ask, Delta, PaidReply
from bursar.runtime.context import RunContext
from bursar.runtime.models.provider import Message
from bursar.runtime.service.agents import Agents
from bursar.runtime.service.answered import Answered, Sent
from bursar.runtime.service.asked import asked
from bursar.runtime.service.caller import Attribution, Caller
from bursar.runtime.service.errors import BadRequest, KeyReused
from bursar.runtime.service.names import Names
from bursar.runtime.service.pace import Pace, Taken
from bursar.runtime.service.streamed import Streamed

__all__ = ["Answered", "Calls", "Sent", "Streamed"]

LONG_BYTES = 100_000
"""From how many bytes on what a model reads is counted in a thread: some 10 ms of work."""

OPENED_MAX = 10_000
"""Of how many sessions a process remembers that their accounts were opened."""


class Calls:
    """Makes paid calls for callers, on one event loop."""

    def __init__(self, names: Names, pace: Pace | None = None, agents: Agents | None = None) -> None:
        """Without a pace callers may ask as fast as they like: runs under way are bounded by their limits alone."""
        self._agents = agents
        self._names = names
        self._pace = pace
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}
        self._waiting: Counter[tuple[str, str]] = Counter()
        self._opened: dict[tuple[str, ...], None] = {}

    async def answer(
        self, caller: Caller, chat: Mapping[str, Any], where: Attribution, idempotency_key: str | None = None
    ) -> Answered:
        """The answer to a chat completion's body that was validated; `idempotency_key` replays an earlier one for free.

        Raises UnknownModel, KeyReused for a key that answered another body, CallInFlight where another process answers
        it, TooFast, and whatever `PaidCalls.make` raises.
        """
        return await self._answer(caller, chat, where, _call_id(caller, idempotency_key), idempotency_key is not None)

    def stream(
        self, caller: Caller, chat: Mapping[str, Any], where: Attribution, idempotency_key: str | None = None
    ) -> Streamed:
        """`answer`, in pieces while it comes. A replay comes in one piece."""
        call_id = _call_id(caller, idempotency_key)
        streamed = Streamed(call_id)
        streamed.begin(
            asyncio.create_task(self._answer(caller, chat, where, call_id, idempotency_key is not None, streamed))
        )
        return streamed

    async def _answer(
        self,
        caller: Caller,
        chat: Mapping[str, Any],
        where: Attribution,
        call_id: str,
        repeatable: bool,
        streamed: Streamed | None = None,
    ) -> Answered:
        offer = self._names.resolve(caller, chat["model"])
        if offer.agent is not None and self._agents is not None:
            return await self._by_agent(self._agents, caller, offer.agent, chat, streamed, repeatable=repeatable)
        # A run that repeats itself is told of; what is asked by a standing key again and again is no loop.
        digest = _digest(chat) if repeatable or caller.is_run else None
        ask = asked(chat, offer, node=where.node, digest=digest, exclusive=repeatable)
        read = (ask.messages, ask.tools, ask.response_format)
        await _counted(read, partial(caller.run.calls.counter.count_request, *read))
        most = partial(_most_tokens, caller.run, ask)
        async with self._kept(caller, most) as pace, self._alone(caller, call_id, needed=repeatable):
            run = await self._run_for(caller, where)  # not before: who asks too fast opens no accounts
            on_delta: Delta | None = None
            if streamed is not None:
                run, on_delta = streamed.listening_to(run), streamed.add
            paid = await run.calls.make(run, ask, call_id, on_delta)
            pace.used = paid.posted.tokens
        if repeatable and paid.digest != digest:
            raise KeyReused
        answered = _answered(call_id, ask.tier, paid)
        if streamed is not None and paid.replayed:
            streamed.id, streamed.sent = answered.id, answered.sent
            streamed.add(_in_one_piece(paid.message))
        return answered

    async def _by_agent(
        self,
        agents: Agents,
        caller: Caller,
        name: str,
        chat: Mapping[str, Any],
        streamed: Streamed | None,
        *,
        repeatable: bool,
    ) -> Answered:
        """An agent's answer; it comes in one piece, since what an agent says on its way is not its answer."""
        if repeatable:
            raise BadRequest("an agent's answer is not replayed; leave Idempotency-Key out", param="idempotency-key")
        async with self._kept(caller, lambda: 1) as pace:  # how many nobody knows before: they are owed afterwards
            answered = await agents.answer(caller, name, chat)
            pace.used = answered.posted.tokens
        if streamed is not None:
            streamed.id, streamed.sent = answered.id, answered.sent
            streamed.add(_in_one_piece(answered.message))
        return answered

    async def _run_for(self, caller: Caller, where: Attribution) -> RunContext:
        """The run of a call that belongs there; the first of a session opens the session's account."""
        scope = caller.scope_for(where)
        if scope is caller.scope:
            return caller.run
        if scope.paths not in self._opened:
            await caller.run.calls.open(caller.run, scope, Limits.unlimited())
            self._opened[scope.paths] = None
            if len(self._opened) > OPENED_MAX:
                del self._opened[next(iter(self._opened))]
        return replace(caller.run, scope=scope)

    async def embed(
        self,
        caller: Caller,
        model: str,
        inputs: Sequence[str],
        where: Attribution,
        *,
        dimensions: int | None = None,
        idempotency_key: str | None = None,
    ) -> tuple[Sequence[Sequence[float]], Answered]:
        """A vector for each text, and what they came to; raises as `answer` does."""
        offer = self._names.resolve(caller, model, "embedding")
        digest = _digest({"model": model, "input": inputs, "dimensions": dimensions})
        # Told apart by the body too: another body under the same key is another call.
        call_id = _call_id(caller, None if idempotency_key is None else f"{idempotency_key}:{digest}")
        repeatable = idempotency_key is not None
        most = partial(_tokens_of, caller.run, inputs)
        await _counted(inputs, most)
        async with self._kept(caller, most) as pace, self._alone(caller, call_id, needed=repeatable):
            run = await self._run_for(caller, where)
            made = await run.calls.embeddings.embed(
                run,
                offer.model or model,
                inputs,
                call_id=call_id,
                node=where.node,
                dimensions=dimensions,
                exclusive=repeatable,
            )
            pace.used = made.paid.posted.tokens
        return made.vectors, _answered(call_id, offer.tier, made.paid)

    def _kept(self, caller: Caller, tokens: Callable[[], int]) -> AbstractAsyncContextManager[Taken]:
        return nullcontext(Taken(0)) if self._pace is None else self._pace.kept(caller, tokens)

    @asynccontextmanager
    async def _alone(self, caller: Caller, call_id: str, *, needed: bool) -> AsyncIterator[None]:
        """Let nobody else in this process make the same call meanwhile: who waits finds its reply in the ledger."""
        if not needed:
            yield
            return
        name = (caller.scope.run_id, call_id)
        lock = self._locks.setdefault(name, asyncio.Lock())
        self._waiting[name] += 1
        try:
            async with lock:
                yield
        finally:
            self._waiting[name] -= 1
            if not self._waiting[name]:
                del self._waiting[name], self._locks[name]


async def _counted(read: Any, count: Callable[[], int]) -> None:
    """Count what is long where nobody else waits for it; the call itself then remembers the count."""
    if len(orjson.dumps(read)) > LONG_BYTES:
        await asyncio.to_thread(count)


def _most_tokens(run: RunContext, ask: Ask) -> int:
    """The most that the call can come to: what it reads, and what any model that may answer can write."""
    catalog = run.calls.catalog
    tiers = [ask.tier] if ask.tier in catalog.tiers else catalog.tiers
    names = [ask.model] if ask.model else [name for tier in tiers for name in catalog.tiers[tier]]
    cap = max(catalog.model(name).max_output_tokens for name in names)
    return run.calls.counter.count_request(ask.messages, ask.tools) + min(cap, ask.max_output_tokens or cap)


def _tokens_of(run: RunContext, inputs: Sequence[str]) -> int:
    return sum(map(run.calls.counter.count_text, inputs))


def _answered(call_id: str, tier: str, paid: PaidReply) -> Answered:
    return Answered(
        id=call_id,
        sent=Sent(model=paid.model, tier=paid.tier or tier, reason=paid.reason),
        message=paid.message,
        finish_reason=paid.finish_reason,
        usage=paid.usage,
        posted=paid.posted,
        money_left=paid.money_left,
        replayed=paid.replayed,
    )


def _in_one_piece(message: Message) -> dict[str, Any]:
    """A whole message as one delta, what was thought included."""
    calls = [{"index": place, **call} for place, call in enumerate(message.get("tool_calls") or ())]
    said = {key: value for key, value in message.items() if key not in ("role", "tool_calls")}
    return {**said, **({"tool_calls": calls} if calls else {})}


def _call_id(caller: Caller, idempotency_key: str | None) -> str:
    """It begins with the run that pays, as every call's does: `bursar budget why` finds it by that."""
    if idempotency_key is None:
        return f"{caller.scope.run_id}:call_{secrets.token_hex(12)}"
    return f"{caller.scope.run_id}:idem_{hashlib.sha256(idempotency_key.encode()).hexdigest()[:24]}"


def _digest(chat: Mapping[str, Any]) -> str:
    """What tells this body from every other, streamed or not."""
    content = {key: value for key, value in chat.items() if key not in ("stream", "stream_options")}
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
