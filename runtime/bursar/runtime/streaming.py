"""Accounting for one streamed answer while it runs: what has come of it, whether it may go on, what it holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from itertools import product
from typing import Any

from bursar.budget.amounts import Amounts
from bursar.budget.errors import LedgerUnavailable
from bursar.budget.pricing.prices import Price
from bursar.budget.refusal import Refusal
from bursar.budget.reservations import Reservation
from bursar.budget.usage import ServiceTier, Usage
from bursar.runtime.models.catalog import Model
from bursar.runtime.models.provider import BadReply, BrokenStream
from bursar.runtime.models.tokens import TokenCounter
from bursar.runtime.models.wire import usage_of
from bursar.runtime.run_ledger import RunLedger

__all__ = ["StreamCut", "StreamMeter"]

SHRINK_AFTER_S = 1.0
"""How long a stream runs before its hold is made smaller: a short one gives it all back soon enough."""

CHECK_S = 2.0
"""How often the ledger is asked whether a stream may go on."""

FREED_PERCENT_MIN = 10
"""Which share of a hold has to come free for it to be worth a transaction."""

PAST_BOUND_PERCENT, PAST_BOUND_TOKENS = 150, 64
"""How much may be streamed of what was bounded, by our count, before it is cut: other tokenizers count otherwise."""

UNHEARD_S = 1.0
"""For how long a provider goes on writing before it notices that nobody listens, with all that is still on its way."""

PACE_UNKNOWN = 200.0
"""Tokens per second that a stream is believed to be written at, of which too little has come to tell."""

PACE_WINDOW = 32
"""Over how many deltas the pace is measured."""

PACE_SPAN_S_MIN = 0.02
"""Shorter spans say how the network delivers, not how the model writes."""

COUNTED_CHARACTERS = 2_048
"""How much text is counted at once: counting each delta by itself costs ten times as much."""


class StreamCut(Exception):
    """The answer was cut off, because the ledger no longer lets it go on."""

    def __init__(self, refusal: Refusal) -> None:
        """`refusal` says why."""
        self.refusal = refusal
        super().__init__(refusal.words())


class StreamMeter:
    """What one streamed answer has come to; used by one task."""

    def __init__(
        self,
        ledger: RunLedger,
        made: Reservation,
        model: Model,
        *,
        input_tokens: int,
        margin: Callable[[int], int],
        counter: TokenCounter,
    ) -> None:
        """`input_tokens` is the bound that was reserved; `margin` makes an upper bound of a count of our own."""
        self._ledger, self._made, self._model = ledger, made, model
        self._input_tokens, self._margin, self._counter = input_tokens, margin, counter
        self._time = asyncio.get_running_loop().time
        self._pieces: list[str] = []
        self._uncounted = 0
        self._counted = 0
        self._deltas = 0
        self._heard_at = self._window_at = self._time()
        self._deltas_per_s = 0.0
        self._said: Any = None
        self._past_bound = False
        self._refusal: Refusal | None = None

    def add(self, delta: Mapping[str, Any]) -> None:
        """Take in what a chunk adds; raises BrokenStream where the answer goes past the bound that was reserved."""
        self._heard_at = self._time()
        if not self._deltas:
            self._window_at = self._heard_at  # what came before was no pace of writing
        self._said = delta.get("usage") or self._said
        for text in _texts(delta):
            self._pieces.append(text)
            self._uncounted += len(text)
        self._deltas += 1
        if not self._deltas % PACE_WINDOW:
            self._deltas_per_s = max(self._deltas_per_s, self._pace_now(PACE_WINDOW))
            self._window_at = self._heard_at
        if self._uncounted >= COUNTED_CHARACTERS:
            self._require_within_bound()

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """While within, a stream that takes long holds no more than it needs, and is cut when it may not go on.

        Raises StreamCut.
        """
        loop = asyncio.get_running_loop()
        watcher: asyncio.Task[None] | None = None

        def begin() -> None:
            nonlocal watcher
            watcher = loop.create_task(self._watch(within))

        timer = loop.call_later(SHRINK_AFTER_S, begin)
        try:
            async with asyncio.timeout(None) as within:
                yield
        except TimeoutError:
            if self._refusal is None:
                raise
            raise StreamCut(self._refusal) from None
        finally:
            timer.cancel()
            if watcher is not None:
                watcher.cancel()

    def bound(self) -> Usage | None:
        """The most that a stream can have used that ended before its end; None = all that is held.

        What came, by our count and the model's margin, and what may have been written since and never came: at the
        fastest pace seen, from the last delta until a provider surely knows that nobody listens. A stream of which
        nothing came says nothing of its pace.
        """
        if self._model.aborted_stream == "charge_reserved" or self._past_bound or not self._deltas:
            return None
        said = self._usage_said()
        came = max(self._margin(self._count()), self._deltas, said.output_tokens if said else 0)
        unheard = self._tokens_per_s() * (self._time() - self._heard_at + UNHEARD_S)
        output = min(self._made.max_output_tokens, came + int(unheard) + 1)
        return _dearest(self._made.price, said.input_tokens if said else self._input_tokens, output)

    async def _watch(self, within: asyncio.Timeout) -> None:
        """Shrink the hold once, and end the stream where the ledger says so."""
        pause_s = CHECK_S - SHRINK_AFTER_S
        with suppress(LedgerUnavailable):  # what is held bounds the stream, also while nobody can be asked
            await self._shrink()
        while self._refusal is None:
            await asyncio.sleep(pause_s)
            pause_s = CHECK_S
            with suppress(LedgerUnavailable):
                self._refusal = await self._ledger.check(self._made)
        within.reschedule(self._time())

    async def _shrink(self) -> None:
        """Hold no more input than the provider says that it has read, where that frees enough."""
        price, said, held = self._made.price, self._usage_said(), self._made.held
        if said is None or price is None or price.request_usd:  # a search reads on while it writes
            return
        output = self._made.max_output_tokens
        keep = Amounts(_with_output(price, said, output), said.input_tokens + output)
        freed = (held.nanousd - keep.nanousd) * 100
        if keep.tokens <= held.tokens and freed > held.nanousd * FREED_PERCENT_MIN:
            self._made = await self._ledger.shrink(self._made, keep)

    def _require_within_bound(self) -> None:
        most = self._made.max_output_tokens * PAST_BOUND_PERCENT // 100 + PAST_BOUND_TOKENS
        if self._count() > most:
            self._past_bound = True
            raise BrokenStream(f"it wrote past the {self._made.max_output_tokens} tokens that it was bounded to")

    def _count(self) -> int:
        """Our count of all that came."""
        self._counted += self._counter.count_once("".join(self._pieces))
        self._pieces.clear()
        self._uncounted = 0
        return self._counted

    def _tokens_per_s(self) -> float:
        deltas_per_s = max(self._deltas_per_s or PACE_UNKNOWN, self._pace_now(self._deltas % PACE_WINDOW))
        return deltas_per_s * max(1.0, self._counted / self._deltas)

    def _pace_now(self, deltas: int) -> float:
        """Deltas per second in the present window."""
        return deltas / max(self._heard_at - self._window_at, PACE_SPAN_S_MIN)

    def _usage_said(self) -> Usage | None:
        """What the provider has said of its usage before the end."""
        with suppress(BadReply):
            return usage_of(self._said)
        return None


def _texts(delta: Mapping[str, Any]) -> Iterator[str]:
    """All that a delta shows of what was written."""
    for key in ("content", "reasoning_content"):
        if text := delta.get(key):
            yield text
    for call in delta.get("tool_calls") or ():
        function = call.get("function") or {}
        yield from (text for key in ("name", "arguments") if (text := function.get(key)))


def _dearest(price: Price | None, input_tokens: int, output_tokens: int) -> Usage:
    """The dearest usage of so many tokens that the price's bounds allow: nobody said how they were read and written."""
    plain = Usage(input_tokens=input_tokens, output_tokens=output_tokens)
    if price is None:
        return plain
    written: dict[str, Any] = {"cache_write_tokens": input_tokens}
    reads: list[dict[str, Any]] = [{}, written, {**written, "cache_write_1h_tokens": input_tokens}]
    reads += [{f"input_{kind}_tokens": input_tokens} for kind in price.bounds.input if kind != "text"]
    writes: list[dict[str, Any]] = [{}, {"reasoning_tokens": output_tokens}]
    writes += [{f"output_{kind}_tokens": output_tokens} for kind in price.bounds.output if kind != "text"]
    usages = [
        replace(plain, **read, **write, service_tier=tier)
        for tier, read, write in product(_tiers(price), reads, writes)
    ]
    return max(usages, key=price.cost)


def _with_output(price: Price, said: Usage, output_tokens: int) -> int:
    """The most, in nano-USD, that a call comes to of which the input is known."""
    none: dict[str, Any] = {f"output_{kind}_tokens": 0 for kind in ("image", "audio")}
    read = replace(said, output_tokens=0, reasoning_tokens=0, **none)
    most = max(price.cost(replace(read, service_tier=tier)) for tier in _tiers(price))
    total = said.input_tokens
    return most + 1 + price.worst_case(total, output_tokens) - price.worst_case(total, 0)


def _tiers(price: Price) -> tuple[ServiceTier, ...]:
    return ("standard", *price.bounds.service_tiers)
