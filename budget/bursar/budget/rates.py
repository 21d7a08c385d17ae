"""Rates: how much may be taken in a minute, over all processes, by the generic cell rate algorithm in the store.

Of each rate one time is kept: when all that was taken will be paid off at the rate. What is taken moves it on, to a
minute from now at most. So a minute's worth is had at once, and in any span of time at most that much more than the
rate gives for its length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, select, text, update

from bursar.budget.errors import UsageError
from bursar.budget.schema import FOREVER_US, rate
from bursar.budget.stores.prepared import Prepared
from bursar.budget.stores.store import Store
from bursar.budget.usage import TOKENS_MAX
from bursar.budget.windows import to_us

__all__ = ["RateWant", "Rates"]

_MINUTE_US = 60_000_000

OWED_US_MAX = 24 * 60 * _MINUTE_US
"""How long at most it takes to pay off what was taken once: one huge request must not close a key for good."""


class RateWant(NamedTuple):
    """What somebody wants of one rate."""

    name: str
    per_minute: int
    amount: int
    """More than a minute's worth is given where nothing is owed, and paid off afterwards."""


class _TooFast(Exception):
    """Rolls back what was taken of other rates; `args[0]` is the time to wait in seconds."""


# The same words in both stores, and the row is made where it is missing: one statement for each rate.
_TAKE = Prepared(
    text("""
        INSERT INTO rate (name, paid_us) VALUES (:name, :now + :cost)
        ON CONFLICT (name) DO UPDATE
        SET paid_us = CASE WHEN rate.paid_us > :now THEN rate.paid_us ELSE :now END + :cost
        WHERE rate.paid_us <= :latest
    """)
)
_PAID = Prepared(select(rate.c.paid_us).where(rate.c.name == bindparam("of")))
_GIVE_BACK = Prepared(
    update(rate).where(rate.c.name == bindparam("of")).values(paid_us=rate.c.paid_us - bindparam("back"))
)


class Rates:
    """The rates of a store, shared by all its processes. Safe to use from several threads."""

    def __init__(self, store: Store, clock: Callable[[], datetime]) -> None:
        self._store, self._clock = store, clock

    def take(self, wants: Iterable[RateWant]) -> float | None:
        """Take all that is wanted, or nothing of it; returns None, or after how many seconds to ask again.

        Each name at most once. Raises UsageError for a rate below 1 and an amount that is no count, LedgerUnavailable.
        """
        ordered = sorted(wants)  # two processes take the locks of their rates in one order
        now = to_us(self._clock())
        try:
            with self._store.write() as connection:
                waits = [_take(connection, want, now) for want in ordered]
                if longest := max(waits, default=0):
                    raise _TooFast(longest / 1_000_000)
        except _TooFast as refused:
            return float(refused.args[0])
        return None

    def give_back(self, name: str, per_minute: int, amount: int) -> None:
        """Give back what was taken at this rate and not used."""
        back = min(_checked(per_minute, amount) * _MINUTE_US // per_minute, OWED_US_MAX)
        with self._store.write() as connection:
            _GIVE_BACK(connection, {"of": name, "back": back})

    def owe(self, name: str, per_minute: int, amount: int) -> None:
        """Take what was used at this rate beyond what was taken, whatever is owed already."""
        cost = min(_whole_us(per_minute, amount), OWED_US_MAX)
        with self._store.write() as connection:
            _TAKE(connection, {"name": name, "now": to_us(self._clock()), "cost": cost, "latest": FOREVER_US})


def _take(connection: Connection, want: RateWant, now: int) -> int:
    """Take one rate; returns 0, or after how many microseconds there is enough."""
    whole = _whole_us(want.per_minute, want.amount)
    latest = now + max(0, _MINUTE_US - whole)
    taken = {"name": want.name, "now": now, "cost": min(whole, OWED_US_MAX), "latest": latest}
    if _TAKE(connection, taken).rowcount:
        return 0
    ((paid_us,),) = _PAID(connection, {"of": want.name}).fetchall()
    return int(paid_us) - latest


def _whole_us(per_minute: int, amount: int) -> int:
    """How long it takes until so much is paid off."""
    return -(-_checked(per_minute, amount) * _MINUTE_US // per_minute)


def _checked(per_minute: object, amount: object) -> int:
    if type(per_minute) is not int or not 1 <= per_minute <= TOKENS_MAX:
        raise UsageError(f"rate of {per_minute!r} per minute: expected a whole number from 1 to {TOKENS_MAX}")
    if type(amount) is not int or not 0 <= amount <= TOKENS_MAX:
        raise UsageError(f"an amount of {amount!r} of a rate: expected a whole number from 0 to {TOKENS_MAX}")
    return amount
