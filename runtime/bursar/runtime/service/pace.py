"""How fast callers may ask: requests and tokens in a minute, of the key and of its tenant."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from bursar.budget.errors import LedgerUnavailable
from bursar.budget.rates import RateWant
from bursar.runtime.config import Config
from bursar.runtime.ledger_thread import LedgerThread
from bursar.runtime.service.caller import Caller
from bursar.runtime.service.errors import TooFast
from bursar.runtime.stop import LimitReached
from bursar.runtime.tenants import tenant_of

__all__ = ["Pace", "Taken"]


@dataclass(slots=True)
class Taken:
    """What a request took of the rates in tokens, and what it turned out to need."""

    tokens: int
    used: int | None = None
    """None gives nothing back."""


class Pace:
    """Takes of the rates before a request, and puts right afterwards what it used."""

    def __init__(self, config: Config, ledger: LedgerThread) -> None:
        self._config = config
        self._ledger = ledger

    @asynccontextmanager
    async def kept(self, caller: Caller, tokens: Callable[[], int]) -> AsyncIterator[Taken]:
        """Let a request through that needs at most so many tokens; raises TooFast."""
        rates = list(self._rates(caller))
        taken = Taken(0)
        if rates:
            if any(kind == "tokens" for kind, _, _ in rates):
                taken.tokens = tokens()
            wants = [RateWant(name, limit, taken.tokens if kind == "tokens" else 1) for kind, name, limit in rates]
            if wait_s := await self._ledger.at_once(self._ledger.ledger.rates.take, wants):
                raise TooFast(wait_s)
        try:
            yield taken
        except LimitReached:
            taken.used = 0  # nothing was sent
            raise
        finally:
            await self._correct(taken, rates)

    async def _correct(self, taken: Taken, rates: Sequence[tuple[str, str, int]]) -> None:
        """Give back what was not used; or owe what was used beyond, before the next request can ask."""
        more = 0 if taken.used is None else taken.used - taken.tokens
        of_store = self._ledger.ledger.rates
        for kind, name, limit in rates:
            if kind == "tokens" and more < 0:
                self._ledger.soon(of_store.give_back, name, limit, -more)
            elif kind == "tokens" and more:
                with suppress(LedgerUnavailable):  # the answer is paid, and goes out
                    await self._ledger.do(of_store.owe, name, limit, more)

    def _rates(self, caller: Caller) -> Iterator[tuple[str, str, int]]:
        """Kind, name and limit of each rate that binds the caller."""
        of_tenant = tenant_of(self._config, caller.scope.tenant).rates
        for name, rates in ((f"key:{caller.key_id}", caller.rates), (f"tenant:{caller.scope.tenant}", of_tenant)):
            if rates.requests_per_minute is not None:
                yield "requests", f"{name}:requests", rates.requests_per_minute
            if rates.tokens_per_minute is not None:
                yield "tokens", f"{name}:tokens", rates.tokens_per_minute
