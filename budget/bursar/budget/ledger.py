"""The ledger: reserve before a call, settle after it, in every scope at once; nothing is sent that it has not reserved.

reserve -> Reservation   admitted and held in every scope
        -> Replay        this call was settled before; here is its reply, for free
        -> Wait          only calls in flight stand in its way
        -> Refusal       it does not fit, or the run may not go on
dispatch                 the last moment before bytes leave; from here on a crash leaves it charged
shrink, check            while it runs: hold less of it, and see whether it may go on
settle                   what it really came to, with the reply, in one transaction
release                  it was surely not billed
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from operator import attrgetter, itemgetter
from typing import Self

from sqlalchemy import Connection

from bursar.budget.accounts import Standing, current
from bursar.budget.admission import Admitted, ModelQuote, MoneyLeft, ToolQuote, Wait, admit, money_left
from bursar.budget.alerts.alerts import Alerts
from bursar.budget.alerts.calls import unpriced
from bursar.budget.alerts.thresholds import refused
from bursar.budget.amounts import Amounts
from bursar.budget.budgets import Budgets
from bursar.budget.errors import ReservationError, UsageError
from bursar.budget.gate import Gates, closed, use_final
from bursar.budget.journal import claim
from bursar.budget.margin import Margins
from bursar.budget.policies import Policies
from bursar.budget.pricing.pricelist import PriceList
from bursar.budget.pricing.prices import Price
from bursar.budget.rates import Rates
from bursar.budget.refusal import Refusal
from bursar.budget.reports.report import Reports
from bursar.budget.reservations import (
    Call,
    Outcome,
    Replay,
    Reservation,
    chains_of,
    dispatch,
    give_up,
    insert_reservation,
    keep_price,
    never_sent,
    next_attempt,
    release,
    settle,
    silent,
)
from bursar.budget.scope import Scope
from bursar.budget.slices import Slices
from bursar.budget.stores.migrate import migrate
from bursar.budget.stores.store import Store
from bursar.budget.underway import check, shrink
from bursar.budget.usage import Usage
from bursar.budget.whatif.estimate import Estimates
from bursar.budget.windows import to_us, utc_now

__all__ = ["Call", "Ledger", "Outcome", "Replay", "Reservation"]


class Ledger:
    """Scopes, limits, reservations and postings in one store. Blocking, and safe to use from several threads."""

    def __init__(self, store: Store, *, clock: Callable[[], datetime] = utc_now) -> None:
        self.store = store
        self._clock = clock
        self.budgets = Budgets(store, clock)
        self.gates = Gates(store, clock)
        self.margins = Margins(store)
        self.reports = Reports(store)
        self.prices = PriceList(store, clock)
        self.policies = Policies(store, clock)
        self.estimates = Estimates(store)
        self.slices = Slices(store, clock)
        self.rates = Rates(store, clock)
        self.alerts = Alerts(store, clock)
        self._known_prices: dict[str, Price] = {}

    @classmethod
    def open(cls, url: str, *, clock: Callable[[], datetime] = utc_now) -> Self:
        """The ledger in a store such as `sqlite:///bursar.db`, made or brought to this version.

        Raises ConfigError for another kind of store, LedgerUnavailable and LedgerVersionError.
        """
        store = Store(url)
        migrate(store)
        return cls(store, clock=clock)

    def reserve(
        self,
        call: Call,
        quote: ModelQuote | ToolQuote,
        *,
        deadline_us: int | None = None,
        final: bool = False,
        behind: str | None = None,
        exclusive: bool = False,
    ) -> Reservation | Replay | Wait | Refusal:
        """Hold what the call may come to in every scope, or say why not.

        `deadline_us` is until when it may be dispatched; after it, a reservation whose holder fell silent is given up.
        `final` asks for the one last answer that a stopped run may give. `behind` is a scope that others wait for: a
        call that could be admitted waits behind them. Raises LedgerUnavailable, and NotFoundError for a run that was
        never opened; then nothing was reserved. `exclusive` raises CallInFlight where an attempt at the same call is
        under way.
        """
        with self.store.write() as connection:
            return self._reserve(
                connection, call, quote, deadline_us=deadline_us, final=final, behind=behind, exclusive=exclusive
            )

    def replay(self, call: Call) -> Replay | None:
        """The reply of a call that was settled before, for one that nobody can be asked for now; None without one."""
        with self.store.write() as connection:
            claim(connection, call.scope.chains)
            found = next_attempt(connection, call, self._now())
        return found if isinstance(found, Replay) else None

    def charge(self, call: Call, quote: ToolQuote) -> Reservation | Replay | Wait | Refusal:
        """Reserve and settle a tool call at once: its cost is known before it runs."""
        with self.store.write() as connection:
            made = self._reserve(connection, call, quote)
            if isinstance(made, Reservation):
                settle(connection, made, usage=None, outcome="exact", reply="", note=None, now=self._now())
            return made

    def dispatch(self, made: Reservation) -> None:
        """Mark that bytes are about to leave; on disk when this returns.

        Raises ReservationError where the reservation is no longer held (its deadline passed, or the run was taken
        over): then nothing may be sent.
        """
        if refused := self.dispatch_all([made])[0]:
            raise refused

    def dispatch_all(self, made: Sequence[Reservation]) -> list[ReservationError | None]:
        """`dispatch` for calls of any tenants in one transaction, so that they wait for the disk once.

        For each, in their order, None or the error that `dispatch` would raise.
        """
        now, said = self._now(), dict[int, ReservationError | None]()
        with self.store.write(durable=True) as connection:
            for one in sorted(made, key=attrgetter("id")):  # two transactions must not wait for each other's rows
                sent = dispatch(connection, one, now=now)
                words = f"reservation {one.id} is no longer held; the call must not be sent"
                said[one.id] = None if sent else ReservationError(words)
        return [said[one.id] for one in made]

    def settle(
        self,
        made: Reservation,
        *,
        usage: Usage | None,
        outcome: Outcome,
        reply: str | None = None,
        note: str | None = None,
        counted_input_tokens: int | None = None,
    ) -> Amounts:
        """Post what the call came to and give back the rest; returns what was posted.

        `unknown` posts all that was held; or what `usage` costs, if that is less: then it is the most that the call can
        have used. `counted_input_tokens` is our own count of the request, from which the
        model's margin is learned. A call that was given up in the meantime is still booked. Settling twice with the
        same amounts changes nothing; with other amounts it raises ReservationError, as for what was never reserved.
        """
        now = self._now()
        with self.store.write() as connection:
            claim(connection, made.call.scope.chains)
            posted = settle(connection, made, usage=usage, outcome=outcome, reply=reply, note=note, now=now)
            if usage is not None and outcome != "unknown" and counted_input_tokens and made.call.model:
                self.margins.learn(connection, made.call.model, counted_input_tokens, usage.input_tokens)
        return posted

    def shrink(self, made: Reservation, keep: Amounts) -> Reservation:
        """Hold only `keep` any longer for a call that is under way; returns the reservation as it is held then.

        What it comes to above that is overage, so keep what it can surely not exceed. A call that is over meanwhile
        stays as it is. Raises UsageError for more than is held, and ReservationError for what was never reserved.
        """
        with self.store.write() as connection:
            claim(connection, made.call.scope.chains)
            return shrink(connection, made, keep, now=self._now())

    def check(self, made: Reservation) -> Refusal | None:
        """Whether a call that is under way may go on: None, or why it should be cut off. Reads only.

        It should where its run was cancelled, taken over or is out of time, and where a hard limit on which it draws is
        exceeded by what is posted and held: it was lowered, or another call came to more than its bound.
        """
        with self.store.read() as connection:
            return check(connection, made, self._now())

    def release(self, made: Reservation, *, note: str) -> None:
        """Give back all that was held: the call was surely not billed, as `note` says.

        So is what was charged for a call that was given up in the meantime; any other that was settled stays as it is.
        Raises ReservationError for what was never reserved.
        """
        with self.store.write() as connection:
            claim(connection, made.call.scope.chains)
            release(connection, made, note=note, now=self._now())

    def forget(self, call: Call, *, deadline_us: int | None) -> int:
        """Release what was reserved for a call with this deadline and never dispatched; returns how many that were.

        For a `reserve` that was cut off in its commit, so that nobody knows whether it was made.
        """
        with self.store.write() as connection:
            claim(connection, call.scope.chains)
            rows = never_sent(connection, call, deadline_us)
            for row in rows:
                give_up(connection, row, self._now())
        return len(rows)

    def reap(self, run_id: str | None = None, *, skew_s: float = 0) -> int:
        """Give up reservations whose holder fell silent: never sent is released, sent stays charged as unknown.

        With `run_id`, those that earlier holders of this run left open. `skew_s` is how far the clock of another holder
        may be behind, so that it is believed to live for so much longer. Returns how many were given up.
        """
        now = self._now()
        since = now - int(skew_s * 1_000_000)
        with self.store.read() as connection:  # nearly always there is nothing to do, and nobody has to wait for that
            if not silent(connection, since, run_id):
                return 0
        with self.store.write() as connection:
            claimed = {name for row in silent(connection, since, run_id) for name in chains_of(row)}
            claim(connection, claimed)
            silent_now = silent(connection, since, run_id)  # as they are under the lock
            rows = [row for row in silent_now if claimed.issuperset(chains_of(row))]
            for row in sorted(rows, key=itemgetter("id")):  # as `dispatch_all` locks them
                give_up(connection, row, now)
        return len(rows)

    def money_left(self, scope: Scope) -> MoneyLeft | None:
        """The budget in money of this scope that is nearest to its end, its nodes' aside; None where none limits it."""
        with self.store.write() as connection:  # a window may have to be opened
            claim(connection, scope.chains)
            pots = current(connection, scope.paths, self._now())
        return money_left((row.balance for row in pots if row.mode == "hard"), Amounts())

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def _reserve(
        self,
        connection: Connection,
        call: Call,
        quote: ModelQuote | ToolQuote,
        *,
        deadline_us: int | None = None,
        final: bool = False,
        behind: str | None = None,
        exclusive: bool = False,
    ) -> Reservation | Replay | Wait | Refusal:
        claim(connection, call.scope.chains)
        now = self._now()
        attempt = next_attempt(connection, call, now, exclusive=exclusive)
        if isinstance(attempt, Replay):
            return attempt
        pots = current(connection, call.scope.with_node(call.node), now)
        _check_organisation(pots, call)
        refusal = closed(pots, call, now, final=final)
        if refusal is not None:
            return refusal
        if isinstance(quote, ModelQuote) and quote.price is None:
            quote = self._by_policy(connection, quote, call.scope.tenant)
        balances = [row.balance for row in pots if row.mode == "hard"]
        verdict = admit(balances, quote)
        if isinstance(verdict, Refusal):
            _tell_of(connection, pots, verdict, call, now)
        if not isinstance(verdict, Admitted):
            return verdict
        if behind is not None:
            return Wait(behind)
        if isinstance(quote, ModelQuote) and quote.price is not None:
            keep_price(connection, quote.price, self._known_prices, now)
        elif isinstance(quote, ModelQuote) and quote.allow_unpriced:
            unpriced(connection, call.scope, quote.model, now)
        accounts, left = [row.account_id for row in pots], money_left(balances, verdict.amounts)
        made = insert_reservation(connection, call, quote, verdict, attempt, accounts, now, deadline_us, left)
        if final:
            use_final(connection, call)
        return made

    def _by_policy(self, connection: Connection, quote: ModelQuote, tenant: str) -> ModelQuote:
        """A quote without a price, as the tenant's policy has it."""
        policy = self.policies.of(connection, tenant)
        return replace(quote, price=policy.ceiling, allow_unpriced=policy.unpriced == "allow_and_alert")

    def _now(self) -> int:
        return to_us(self._clock())


def _tell_of(connection: Connection, pots: Iterable[Standing], refusal: Refusal, call: Call, now: int) -> None:
    """Write the alert that a watched limit refuses calls; once in a window."""
    for row in pots:
        watched = row.alerts is not None and row.account_id is not None
        if watched and refusal.cause == "limit" and (row.path, row.per) == (refusal.path, refusal.per):
            refused(connection, row.account_id or 0, refusal.dimension, now, run_id=call.scope.run_id)


def _check_organisation(pots: Iterable[Standing], call: Call) -> None:
    """Raise UsageError for a call that leaves out the organisation whose budget bounds its tenant, or names another."""
    for row in pots:
        if row.kind == "tenant" and row.parent not in (None, *call.scope.chains):
            raise UsageError(
                f"tenant {row.path} belongs to {row.parent}, and the call's scope does not say so",
                next_step=f"Scope(organisation={(row.parent or '')[4:]!r}, ...)",
            )
