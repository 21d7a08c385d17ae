"""The true bill: what a provider would charge for, whatever its client has noticed or written down."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

__all__ = ["Bill", "Billed"]

_NANOUSD_PER_TOKEN_AT_1_USD_PER_MTOK = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Billed:
    """One call that is charged for."""

    request_id: str
    """The answer's `id`."""

    model: str
    key: str
    """The bearer token, empty without one."""

    input_tokens: int
    output_tokens: int
    """What was generated, hidden reasoning and every one of `n` choices included."""

    at_ns: int
    """When generation started, in nanoseconds since 1970 UTC."""

    headers: Mapping[str, str]
    """`user-agent`, `idempotency-key` and all `x-...` of the request, in small letters."""

    digest: str
    """SHA-256 of the messages: the same question asked twice has the same digest."""

    def nanousd(self, input_usd_per_mtok: Decimal | str | int, output_usd_per_mtok: Decimal | str | int) -> int:
        """The charge in 1e-9 USD, rounded up."""
        usd_per_mtok = self.input_tokens * Fraction(input_usd_per_mtok)
        usd_per_mtok += self.output_tokens * Fraction(output_usd_per_mtok)
        return math.ceil(usd_per_mtok * _NANOUSD_PER_TOKEN_AT_1_USD_PER_MTOK)


class Bill:
    """Everything charged and everything asked since the last reset; may be read and written from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._entries: dict[str, Billed] = {}
        self._requests = self._in_flight = self._in_flight_max = 0

    @property
    def entries(self) -> tuple[Billed, ...]:
        """The charges, in the order in which generation started."""
        with self._changed:
            return tuple(self._entries.values())

    @property
    def calls(self) -> int:
        """Calls charged for."""
        return len(self._entries)

    @property
    def input_tokens(self) -> int:
        return sum(entry.input_tokens for entry in self.entries)

    @property
    def output_tokens(self) -> int:
        return sum(entry.output_tokens for entry in self.entries)

    @property
    def requests(self) -> int:
        """Requests for an answer that came in, charged for or not."""
        return self._requests

    @property
    def in_flight(self) -> int:
        """Requests not yet answered."""
        return self._in_flight

    @property
    def in_flight_max(self) -> int:
        """The most requests that were ever unanswered at the same time."""
        return self._in_flight_max

    def nanousd(self, input_usd_per_mtok: Decimal | str | int, output_usd_per_mtok: Decimal | str | int) -> int:
        """The sum in 1e-9 USD, each call rounded up."""
        return sum(entry.nanousd(input_usd_per_mtok, output_usd_per_mtok) for entry in self.entries)

    def as_json(self) -> dict[str, Any]:
        """The whole bill in JSON's types."""
        figures = ("calls", "input_tokens", "output_tokens", "requests", "in_flight", "in_flight_max")
        with self._changed:
            return {name: getattr(self, name) for name in figures} | {
                "entries": [dataclasses.asdict(entry) for entry in self.entries]
            }

    def wait_until(self, done: Callable[[Bill], bool], timeout_s: float = 10) -> None:
        """Return once `done(bill)` is true; raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: done(self), timeout_s):
                raise TimeoutError(f"not so after {timeout_s} s: {self.as_json()}")

    def charge(self, billed: Billed) -> None:
        """Put a call on the bill, or its newer figures in the place of the old."""
        with self._changed:
            self._entries[billed.request_id] = billed
            self._changed.notify_all()

    @contextlib.contextmanager
    def request(self) -> Iterator[int]:
        """Count a request while it is in flight, and yield how many came before it."""
        with self._changed:
            number = self._requests
            self._requests += 1
            self._in_flight += 1
            self._in_flight_max = max(self._in_flight_max, self._in_flight)
            self._changed.notify_all()
        try:
            yield number
        finally:
            with self._changed:
                self._in_flight -= 1
                self._changed.notify_all()
