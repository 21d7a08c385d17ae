"""Calls that go wrong in every way at once, and what their ledger must say of each against the provider's true bill."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bursar.budget.reports.bill import Attempt
from tests.support.behaviour import UNBILLED, Answer, Behaviour, Fault, FaultKind
from tests.support.bill import Bill, Billed

__all__ = ["AT_ONCE", "TENANTS", "TIERS", "Chaos", "Told", "check", "models_at"]

AT_ONCE = 64
"""How many calls are in flight."""

PRICES = {"cheap": ("1", "4"), "dear": ("3", "100"), "local": ("2", "7")}
"""USD per million tokens read and written, by the provider's name of the model."""

STREAMS_ONLY = "local"
"""The model that charges a stream for what it has written of it, and for nothing that it keeps to itself."""

TIERS = {"small": ["cheap", "local"], "frontier": ["dear", "cheap"], "house": ["local"]}
TENANTS = {
    "acme": {"budgets": [{"usd": "1000"}]},
    "globex": {"budgets": [{"usd": "1000", "per": "day"}]},
    "narrow": {"budgets": [{"usd": "0.3"}]},
}
"""The last one's money is used up soon."""

FAULTS: Mapping[FaultKind, int] = {
    "rate_limit": 2,
    "server_error": 2,
    "bad_request": 1,
    "context_length": 1,
    "drop_before": 2,
    "billed_timeout": 1,
    "billed_drop": 2,
    "broken_stream": 4,
    "html": 1,
    "empty": 1,
    "bad_json": 1,
    "no_usage": 2,
    "negative_usage": 1,
}
"""How often each comes among a hundred requests."""

TOO_LATE = ("no answer in time", "did not answer", "Timeout")
"""What is said of attempts that a busy machine may not even have sent."""

KEPT_TO_ITSELF: frozenset[FaultKind] = frozenset({"billed_timeout", "billed_drop", "html", "empty", "bad_json"})
"""Faults for which a whole answer is charged that was not streamed."""


def models_at(api_base: str) -> dict[str, dict[str, Any]]:
    """The section `models` of a bursar.yaml that calls the provider there."""
    return {
        name: {
            "provider": "openai_compatible",
            "model": name,
            "api_base": api_base,
            "price": {"input_usd_per_mtok": read, "output_usd_per_mtok": written},
            "context_window": 32_768,
            "timeout_s": 3,
            "retries": 1,
            "aborted_stream": "charge_streamed" if name == STREAMS_ONLY else "charge_reserved",
        }
        for name, (read, written) in PRICES.items()
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """How one call is made."""

    number: int
    tenant: str
    tier: str
    streamed: bool
    max_output_tokens: int
    cancel_after_s: float | None = None
    cancel_after_tokens: int | None = None

    @property
    def messages(self) -> list[dict[str, str]]:
        """The question, which no other call asks."""
        return [{"role": "user", "content": f"{self.number}. Where is my order?" + " It has not come." * 8}]

    @property
    def is_cancelled(self) -> bool:
        """Whether its caller may go away before its end."""
        return self.cancel_after_s is not None or self.cancel_after_tokens is not None


Make = Callable[[Told, Callable[[Mapping[str, Any]], None] | None], Awaitable[object]]
"""Makes a call, in pieces where it is listened to; raises where there is no answer."""


@dataclass
class Chaos:
    """A schedule that its seed decides: who calls, how, and what the provider does at each attempt."""

    seed: int
    requests: dict[int, list[bool]] = field(default_factory=lambda: defaultdict(list))
    """Of each request that came to the provider, whether it is billed; by the number of their call."""

    def told(self, number: int) -> Told:
        """How a call is made."""
        rng = random.Random(f"{self.seed} call {number}")
        chance, streamed = rng.random(), rng.random() < 0.5
        return Told(
            number=number,
            tenant=rng.choice(list(TENANTS)),
            tier=rng.choice(list(TIERS)),
            streamed=streamed,
            max_output_tokens=rng.choice([40, 400]),
            cancel_after_s=rng.uniform(0, 0.1) if chance < 0.08 else None,
            cancel_after_tokens=rng.randrange(1, 40) if streamed and 0.08 <= chance < 0.14 else None,
        )

    def behaviour(self) -> Behaviour:
        """The provider's part."""
        return Behaviour(
            script=self._answer, faults=self._fault, latency_s=0.01, latency_sigma=0.7, chunk_s=0.0005, seed=self.seed
        )

    async def run(self, calls: int, make: Make) -> Counter[str]:
        """Make so many calls, and count how they ended: `answered`, `cancelled`, or by the name of an error."""
        ends: Counter[str] = Counter()
        todo = iter(range(calls))

        async def work() -> None:
            for number in todo:
                ends[await self._one(self.told(number), make)] += 1

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
        return ends

    async def _one(self, told: Told, make: Make) -> str:
        heard = 0

        def listen(delta: Mapping[str, Any]) -> None:
            nonlocal heard
            heard += bool(delta.get("content"))
            if heard == told.cancel_after_tokens:
                task.cancel()

        task = asyncio.ensure_future(make(told, listen if told.streamed else None))
        if told.cancel_after_s is not None:
            asyncio.get_running_loop().call_later(told.cancel_after_s, task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            return "cancelled"
        except Exception as error:
            return type(error).__name__
        return "answered"

    def _answer(self, body: dict[str, Any], calls_before: int) -> Answer:
        rng = random.Random(f"{self.seed} answer {_number(body)}")
        return Answer(text=" token" * rng.randrange(1, 80))

    def _fault(self, body: dict[str, Any], requests_before: int) -> Fault | None:
        number = _number(body)
        earlier = self.requests[number]
        fault = self._drawn(random.Random(f"{self.seed} fault {number} {len(earlier)}"), body)
        earlier.append(fault is None or fault.kind not in UNBILLED)
        return fault

    def _drawn(self, rng: random.Random, body: Mapping[str, Any]) -> Fault | None:
        streams_only = body["model"] == STREAMS_ONLY and body.get("stream")
        draw = rng.randrange(100)
        for kind, weight in FAULTS.items():
            draw -= weight
            if draw < 0 and not (streams_only and kind in KEPT_TO_ITSELF):
                return Fault(kind, after_tokens=rng.randrange(40), retry_after_s=0 if kind == "rate_limit" else None)
            if draw < 0:
                return None
        return None


def check(chaos: Chaos, calls: int, attempts: Mapping[str, Sequence[Attempt]], bill: Bill) -> Counter[str]:
    """Compare each call with the provider's bill; raises AssertionError. Returns how the attempts were settled.

    `attempts` are those of each call, in order.
    """
    billed: dict[str, list[Billed]] = defaultdict(list)
    for entry in bill.entries:
        billed[entry.digest].append(entry)
    outcomes: Counter[str] = Counter()
    for number in range(calls):
        told, made = chaos.told(number), attempts.get(f"call {number}", ())
        entries = iter(billed.pop(_digest(told), []))
        came = [next(entries) if is_billed else None for is_billed in chaos.requests[number]]
        assert not list(entries), "the provider charges for more than it was asked"
        for attempt, one in zip(_arrived(told, made, len(came)), came, strict=True):
            _check(attempt, one)
        outcomes.update(one.outcome or one.state for one in made)
    assert not billed, "the provider charges for calls that nobody made"
    return outcomes


def _arrived(told: Told, made: Sequence[Attempt], requests: int) -> Sequence[Attempt]:
    """The attempts that came to the provider: all, but for a caller who went away or waited for too long before."""
    for one in made[::-1]:
        gone = one is made[-1] and told.is_cancelled
        if len(made) > requests and (gone or any(words in (one.note or "") for words in TOO_LATE)):
            assert one.outcome == "unknown" or one.state == "released", (told, made, requests)
            made = [other for other in made if other is not one]
    return made


def _check(attempt: Attempt, entry: Billed | None) -> None:
    truth = 0 if entry is None else entry.nanousd(*PRICES[entry.model])
    assert attempt.state in ("settled", "released")
    if attempt.state == "released":
        assert truth == 0, (attempt, entry)
    elif attempt.outcome == "exact":
        assert entry is not None
        assert (attempt.model, attempt.posted.nanousd) == (entry.model, truth)
        assert attempt.posted.tokens == entry.input_tokens + entry.output_tokens
    else:
        assert attempt.outcome == "unknown"
        assert truth <= attempt.posted.nanousd <= attempt.held.nanousd, (attempt, entry)


def _digest(told: Told) -> str:
    return hashlib.sha256(json.dumps(told.messages, sort_keys=True).encode()).hexdigest()


def _number(body: Mapping[str, Any]) -> int:
    return int(body["messages"][0]["content"].partition(".")[0])
