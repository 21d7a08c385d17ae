"""How the provider behaves: what it answers, how long it takes, what goes wrong."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from tests.support.tokens import Counting

__all__ = ["UNBILLED", "Answer", "Behaviour", "Fault", "FaultKind"]

FaultKind = Literal[
    "rate_limit",  # 429, with Retry-After where `retry_after_s` is given
    "overloaded",  # 503 of a server that is well, but full
    "quota",  # 429 with OpenAI's code for a used up budget
    "server_error",  # `status`, 500 or 503
    "unauthorized",  # 401
    "model_missing",  # 404
    "bad_request",  # 400
    "content_filter",  # 400 with OpenAI's code for it
    "context_length",  # 400 with OpenAI's code for it
    "drop_before",  # the connection closes before a byte
    "billed_timeout",  # billed, then silence until the client leaves
    "stalled",  # the same after `after_tokens`; without `stream` after half the body
    "billed_drop",  # billed, then the connection closes in the middle of the body
    "broken_stream",  # closes after `after_tokens`; without `stream` the same as billed_drop
    "html",  # billed, 200 with a web page
    "empty",  # billed, 200 without a body
    "bad_json",  # billed, 200 with half an object
    "no_usage",  # billed, answered without `usage`
    "negative_usage",  # billed, answered with numbers below zero
]

UNBILLED: frozenset[FaultKind] = frozenset(
    {
        "rate_limit",
        "overloaded",
        "quota",
        "server_error",
        "unauthorized",
        "model_missing",
        "bad_request",
        "content_filter",
        "context_length",
        "drop_before",
    }
)
"""Faults before generation starts; every other one is charged for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the model says."""

    text: str | None = None
    """None is nothing beside tool calls, and without them a filler of `output_tokens` tokens."""

    tool_calls: Sequence[tuple[str, Mapping[str, Any] | str]] = ()
    """Name and arguments; arguments that are text are sent as they are, valid or not."""

    output_tokens: int | None = None
    """At least so many are generated; those beyond what is shown come first, as hidden reasoning. None: as shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What goes wrong with one request."""

    kind: FaultKind = field(kw_only=False)
    status: Literal[500, 503] = 500
    retry_after_s: float | None = None
    after_tokens: int = 5

    def __post_init__(self) -> None:
        if self.kind not in get_args(FaultKind):
            raise ValueError(f"fault {self.kind!r}: expected one of {', '.join(get_args(FaultKind))}")


Script = Callable[[dict[str, Any], int], Answer] | Sequence[Answer]
Faults = Callable[[dict[str, Any], int], Fault | None] | Sequence[Fault | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """Settings of a provider; they hold for requests that come in after they were given."""

    script: Script = (Answer(),)
    """Called with the request and how many calls were billed before it; or a list, whose last answer repeats."""

    faults: Faults = ()
    """Called with the request and how many requests came before it; or a list, after which all goes well."""

    output_tokens: int = 100
    """The length of an answer without text of its own."""

    latency_s: float = 0.0
    """Time from request to first byte: the median, where `latency_sigma` spreads it."""

    latency_sigma: float = 0.0
    """Sigma of the log-normal distribution of latencies; 0 makes each the same."""

    chunk_s: float = 0.0
    """Time per streamed chunk, which is one token."""

    seed: int = 0
    counting: Counting = "real"
    models: Sequence[str] = ("house-7b",)
    """What `/v1/models` lists; any model is answered for."""

    def answer(self, body: dict[str, Any], calls_before: int) -> Answer:
        """The answer to this request."""
        if callable(self.script):
            return self.script(body, calls_before)
        return self.script[min(calls_before, len(self.script) - 1)]

    def fault(self, body: dict[str, Any], requests_before: int) -> Fault | None:
        """What goes wrong with this request, if anything."""
        if callable(self.faults):
            return self.faults(body, requests_before)
        return self.faults[requests_before] if requests_before < len(self.faults) else None

    def latency(self, calls_before: int) -> float:
        """Seconds before the first byte of this call: the n-th call of a seed always takes the same."""
        spread = random.Random(self.seed * 1_000_003 + calls_before).lognormvariate(0, self.latency_sigma)
        return self.latency_s * spread

    def with_json(self, changes: Mapping[str, Any]) -> Behaviour:
        """A copy with the fields of a JSON object; raises TypeError or ValueError for what does not exist."""
        fields = dict(changes)
        if "script" in fields:
            fields["script"] = [Answer(**answer) for answer in fields["script"]]
        if "faults" in fields:
            fields["faults"] = [fault and Fault(**fault) for fault in fields["faults"]]
        return replace(self, **fields)
