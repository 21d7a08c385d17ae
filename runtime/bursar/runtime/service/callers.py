"""The holders of standing keys: looked up in the store, and remembered for a moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from bursar.budget.errors import UsageError
from bursar.runtime.config_routing import RatesConfig
from bursar.runtime.runtime import Runtime
from bursar.runtime.service.caller import Caller
from bursar.runtime.service.errors import Unauthorized
from bursar.runtime.service.key_text import is_key
from bursar.runtime.service.keys import Key, Keys
from bursar.runtime.tenants import organisation_of, tiers_of

__all__ = ["StandingCallers"]

REMEMBERED_S = 1.0
"""How long a key is not looked up again. One that is revoked meanwhile is refused by the ledger all the same."""

REMEMBERED_MAX = 10_000


class _Known(NamedTuple):
    caller: Caller
    key: Key
    until: float


class StandingCallers:
    """The keys of a runtime's store."""

    def __init__(self, runtime: Runtime, keys: Keys, *, timer: Callable[[], float] = time.monotonic) -> None:
        self._runtime = runtime
        self._keys = keys
        self._timer = timer
        self._known: dict[str, _Known] = {}

    async def of(self, token: str) -> Caller:
        """The holder of a key; raises Unauthorized."""
        if not is_key(token):
            raise Unauthorized
        known = self._known.get(token)
        if known is None or known.until <= self._timer():
            known = self._known[token] = await self._looked_up(token)
            if len(self._known) > REMEMBERED_MAX:
                del self._known[next(iter(self._known))]
        if not known.key.is_valid(self._runtime.clock()):
            raise Unauthorized
        return known.caller

    async def _looked_up(self, token: str) -> _Known:
        key = await self._runtime.ledger_thread.do(self._keys.find, token)
        if key is None:
            raise Unauthorized
        return _Known(self._caller(key), key, self._timer() + REMEMBERED_S)

    def _caller(self, key: Key) -> Caller:
        terms, config = key.terms, self._runtime.config
        try:
            scope = terms.scope(key.id, organisation_of(config, terms.tenant))
        except UsageError:  # the tenant is no longer in the configuration
            raise Unauthorized from None
        return Caller(
            key_id=key.id,
            run=self._runtime.standing(scope, tiers=tiers_of(config, terms.tenant)),
            agent=terms.agent,
            asks_for=None if terms.asks_for is None else frozenset(terms.asks_for),
            rates=RatesConfig(requests_per_minute=terms.requests_per_minute, tokens_per_minute=terms.tokens_per_minute),
        )
