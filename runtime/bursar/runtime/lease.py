"""A run's lease: the slice that it holds, out of which it goes on for a while when the ledger's store is away."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from bursar.budget.admission import ModelQuote, ToolQuote
from bursar.budget.amounts import Amounts
from bursar.budget.errors import LedgerError, ReservationError
from bursar.budget.money import NANO
from bursar.budget.reservations import Call, Replay, Reservation
from bursar.budget.scope import Scope
from bursar.budget.slices import Slice, Slices
from bursar.runtime.config_ledger import LedgerConfig

__all__ = ["Lease", "Terms", "terms_of"]

_log = logging.getLogger("bursar.runtime")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How much a run may lease, and for how long at a time."""

    amounts: Amounts
    seconds: float


class Lease:
    """Keeps one slice of what a run may spend.

    `take`, `keep`, `give_back` and `end` use the store, and raise LedgerUnavailable; nothing else does.
    """

    def __init__(
        self, slices: Slices, scope: Scope, epoch: int, terms: Terms, *, clock: Callable[[], datetime]
    ) -> None:
        self._slices = slices
        self._scope = scope
        self._epoch = epoch
        self._terms = terms
        self._clock = clock
        self._slice: Slice | None = None
        self._renew_at = clock()
        self._is_over = False

    def take(self, after: Slice | None = None) -> None:
        """Hold a slice; where it does not fit into what is left, the run goes without."""
        made = self._slices.open(
            self._scope,
            self._epoch,
            self._terms.amounts,
            seconds=self._terms.seconds,
            batch=_NEVER_FULL,
            after=after,
        )
        self._slice = made if isinstance(made, Slice) else None
        self._renewed()

    def keep(self, *, ask: bool) -> bool:
        """Write what was settled, and renew the slice or take a whole one where a part was used.

        Returns whether the store had to be asked, as `ask` wants it in any case.
        """
        if self._is_over:
            return False
        held = self._slice
        written = held.flush() if held is not None else 0
        if not written and not ask and self._clock() < self._renew_at:
            return False
        if held is None or not (held.is_untouched and held.renew(self._terms.seconds)):
            self._replace(held)
        self._renewed()
        return True

    def give_back(self) -> None:
        """Give the slice up, since it stands in its own run's way; not while calls are in flight out of it."""
        with suppress(ReservationError):
            if self._slice is not None:
                self._slice.close()
            self._is_over = True

    def end(self) -> None:
        """Write what was settled and give back the rest; what is in flight then stays charged."""
        self._is_over = True
        if self._slice is not None:
            try:
                self._slice.close()
            except ReservationError as error:
                _log.error("run %s: %s", self._scope.run_id, error)
                self._slice.flush()

    def reserve(self, call: Call, quote: ModelQuote | ToolQuote, *, asked: bool) -> Reservation | Replay | None:
        """Admit a call out of the slice; None where the ledger has to be asked.

        `asked` says that it was and gave no answer, so that the call's next attempt may be there already.
        """
        if self._slice is None:
            return None
        return self._slice.reserve(call, quote, skip=asked)

    def learn(self, made: Reservation, reply: str | None = None) -> None:
        """Take in what became of a call that the ledger admitted."""
        if self._slice is not None:
            self._slice.learn(made.call, made.attempt, reply)

    @property
    def slice(self) -> Slice:
        """The slice out of which calls are in flight: it is not replaced while there are any."""
        if self._slice is None:
            raise LedgerError(f"run {self._scope.run_id} has leased nothing")
        return self._slice

    def _replace(self, held: Slice | None) -> None:
        try:
            if held is not None:
                held.close()
        except ReservationError:  # calls are in flight out of it
            if held is not None:
                held.renew(self._terms.seconds)
        else:
            self._slice = None
            self.take(after=held)

    def _renewed(self) -> None:
        self._renew_at = self._clock() + timedelta(seconds=self._terms.seconds / 3)


def terms_of(settings: LedgerConfig) -> Terms:
    """The terms that a configuration sets."""
    lease = settings.lease
    amounts = Amounts(int(lease.usd * NANO), lease.tokens, lease.steps, lease.tool_calls)
    return Terms(amounts=amounts, seconds=lease.seconds)


_NEVER_FULL = 1_000_000
"""A slice's steps bound it; it is written by `keep`, never by the call that fills a batch."""
