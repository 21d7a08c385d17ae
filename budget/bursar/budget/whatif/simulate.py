"""A dry run of a policy: the calls that were made, asked again under other budgets by the admission of the live ledger.

A replay of events at their recorded times. A call is reserved when it was, with what it held, and settles after as long
as it took, at what it came to. What the policy refuses stops its run, as on the ledger: none of the run's later calls
are made. A call that has to wait is let in when there is room. One that is capped below what it wrote costs no more
than it may. Before `since` nothing is asked: what was used then is used.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from typing import NamedTuple

from bursar.budget.admission import Admitted, Wait, admit
from bursar.budget.amounts import Amounts
from bursar.budget.errors import UsageError
from bursar.budget.journal import NOTHING
from bursar.budget.refusal import Refusal
from bursar.budget.schema import FOREVER_US
from bursar.budget.stores.store import Store
from bursar.budget.whatif.history import Given, RolledUp, given, really_stopped, rolled_up
from bursar.budget.whatif.replayed import REAL, SIMULATED, Account, Budget, Limit, Rule, Side, Tally, smaller
from bursar.budget.whatif.trace import TracedCall, calls
from bursar.budget.windows import from_us, to_us

__all__ = ["RUNS_NAMED_MAX", "WAIT_S_MAX", "Line", "Outcome", "Rule", "Simulation", "StoppedRun", "simulate"]

RUNS_NAMED_MAX = 20
"""How many of the runs that a budget would have stopped in a window are named: the first ones."""

CALLS_PER_SIGN = 1_000
"""How many calls are replayed from one sign of progress to the next."""


WAIT_S_MAX = 600
"""How long a call waits for others in flight: as long as a run may work, if nobody says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoppedRun:
    """A run that would have been stopped, when, and what by."""

    run_id: str
    at: datetime
    refusal: Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What a budget of the policy would have done in one window; a rolling one in the whole time."""

    path: str
    per: str
    window: str
    """Its name; empty for total and for rolling."""

    limit: Limit
    """By dimension, in the order of `DIMENSIONS`; grants and what was carried over included."""

    calls: int
    """Calls that were really made."""

    refused: int
    """Of these, those that this budget refuses, and those that the runs that it stopped made afterwards."""

    stopped: int
    """Runs that this budget stops."""

    runs: tuple[StoppedRun, ...]
    """The first of them."""

    saved: Amounts
    """What the refused calls really came to."""

    really_spent: Amounts
    """What was posted in the window, also before `since`."""

    spent: Amounts
    """What is posted all the same."""

    really_highest: Amounts
    """The most that was posted and held at once, by dimension."""

    highest: Amounts
    """The most that is posted and held at once, by dimension."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a policy does to the calls that were made from `since` until `until`."""

    since: datetime
    until: datetime
    calls: int
    refused: int
    """Calls that are not made: those refused or tired of waiting, and those that stopped runs made afterwards."""

    capped: int
    """Calls whose output is bounded more tightly than it was."""

    waited: int
    """Calls that wait for others in flight."""

    stopped: int
    """Runs that are stopped, by a budget or because a call of theirs waited for too long."""

    really_stopped: Mapping[str, int]
    """Runs begun in that time that a limit above them really stopped and nobody let go on, by its path."""

    really_spent: Amounts
    spent: Amounts
    lines: tuple[Line, ...]
    """Of each budget the windows in which calls were made."""

    @property
    def saved(self) -> Amounts:
        """What is not spent."""
        return self.really_spent - self.spent


class _Closing(NamedTuple):
    """A call in flight, by the time at which it is settled or released."""

    at_us: int
    order: int
    side: Side
    places: Sequence[tuple[Budget, Account]]
    held: Amounts
    posted: Amounts


class Simulation:
    """The replay: pure balances, fed with calls in order. Memory grows with budgets, windows and stopped runs alone."""

    def __init__(self, rules: Iterable[Rule], *, since_us: int, grants: Iterable[Given] = ()) -> None:
        self._since_us = since_us
        self._budgets: dict[str, list[Budget]] = {}
        for rule in rules:
            self._budgets.setdefault(rule.path, []).append(Budget(rule, since_us))
        self._grants = sorted(grants, key=lambda one: one.at_us, reverse=True)
        self._closing: list[_Closing] = []
        self._order = count()
        self._waiting: deque[TracedCall] = deque()
        self._stopped: dict[str, Tally] = {}
        self._all = Tally()
        self._late = Tally()
        self._capped = self._waited = 0

    @property
    def begins_us(self) -> int:
        """From when on it needs calls, so that each window in which `since` lies is known from its beginning."""
        every = [budget.begins_us for budgets in self._budgets.values() for budget in budgets]
        return max(0, min([self._since_us, *every]))

    def carry_in(self, day: RolledUp) -> None:
        """Count what was spent before the first call that is replayed, in the windows that hold its day."""
        for budget in self._at(day.paths):
            if budget.begins_us <= day.day_us:
                for side in (REAL, SIMULATED):
                    budget.close(budget.at(day.day_us), side, NOTHING, day.spent)

    def take(self, call: TracedCall) -> None:
        """Let time pass until the call was reserved, and ask for it."""
        now = call.reserved_us
        self._pass(now)
        self._book(call, now, REAL, call.held, call.posted)
        if now < self._since_us:
            self._book(call, now, SIMULATED, call.held, call.posted)
            return
        for tally in (self._all, *(budget.at(now).tally for budget in self._at(call.paths))):
            tally.calls += 1
        self._all.posted[REAL] += call.posted
        if not self._decided(call, now):
            self._waited += 1
            self._waiting.append(call)

    def outcome(self, until: datetime, stopped: Mapping[str, int]) -> Outcome:
        """What came of it, once every call was taken and has ended; `stopped` are the runs really stopped, by path."""
        self._pass(FOREVER_US - 1)
        really, spent = self._all.posted
        return Outcome(
            since=from_us(self._since_us),
            until=until,
            calls=self._all.calls,
            refused=self._all.refused,
            capped=self._capped,
            waited=self._waited,
            stopped=len(self._stopped),
            really_stopped=stopped,
            really_spent=really,
            spent=spent,
            lines=tuple(self._lines()),
        )

    def _at(self, paths: Iterable[str]) -> list[Budget]:
        return [budget for path in paths for budget in self._budgets.get(path, ())]

    def _pass(self, now: int) -> None:
        """Let every grant and every settle happen that is due."""
        while True:
            closes_us = self._closing[0].at_us if self._closing else FOREVER_US
            granted_us = self._grants[-1].at_us if self._grants else FOREVER_US
            at = min(closes_us, granted_us)
            if at > now:
                return self._give_up(now)
            changed = self._give(self._grants.pop()) if granted_us <= closes_us else self._close()
            if changed and self._waiting:
                self._ask_again(changed, at)

    def _give(self, one: Given) -> list[Budget]:
        """Make a grant; returns the budgets that may now have room."""
        budgets = [budget for budget in self._at([one.path]) if budget.rule.per == one.per]
        for budget in budgets:
            budget.grant(one.at_us, one.amount, carried=one.carried)
        return budgets

    def _close(self) -> list[Budget]:
        """End the next call in flight; returns the budgets that may now have room."""
        _, _, side, places, held, posted = heapq.heappop(self._closing)
        for budget, account in places:
            budget.close(account, side, held, posted)
        return [budget for budget, _ in places] if side == SIMULATED else []

    def _ask_again(self, changed: Sequence[Budget], now: int) -> None:
        """Ask once more for the calls that wait and draw on these budgets, in the order in which they came."""
        self._give_up(now)
        waiting, self._waiting = self._waiting, deque()
        for call in waiting:
            if not any(budget in changed for budget in self._at(call.paths)) or not self._decided(call, now):
                self._waiting.append(call)

    def _give_up(self, now: int) -> None:
        """End the runs of calls that have waited for too long."""
        while self._waiting and now - self._waiting[0].reserved_us > WAIT_S_MAX * 1_000_000:
            call = self._waiting.popleft()
            self._refuse(call, self._stopped.setdefault(call.run_id, self._late))

    def _decided(self, call: TracedCall, now: int) -> bool:
        """Whether a call is admitted or refused now; False where it has to wait."""
        if (tally := self._stopped.get(call.run_id)) is not None:
            self._refuse(call, tally)
            return True
        budgets = self._at(call.paths)
        verdict = admit([budget.balance(now) for budget in budgets if budget.rule.mode == "hard"], call.quote)
        if isinstance(verdict, Wait):
            return False
        if isinstance(verdict, Refusal):
            self._stop(call, verdict, budgets, now)
        else:
            self._admit(call, verdict, now)
        return True

    def _admit(self, call: TracedCall, verdict: Admitted, now: int) -> None:
        held, posted = call.held, call.posted
        if verdict.capped:
            held, posted = verdict.amounts, smaller(posted, verdict.amounts)
            self._capped += 1
        self._all.posted[SIMULATED] += posted
        self._book(call, now, SIMULATED, held, posted)

    def _stop(self, call: TracedCall, refusal: Refusal, budgets: Iterable[Budget], now: int) -> None:
        by_limit = refusal.cause == "limit"  # a model without a price is refused by any limit in money
        budget = next(
            one for one in budgets if one.rule.path == refusal.path and (one.rule.per == refusal.per or not by_limit)
        )
        tally = self._stopped[call.run_id] = budget.at(now).tally
        tally.stopped += 1
        if len(tally.runs) < RUNS_NAMED_MAX:
            tally.runs.append((call.run_id, now, refusal))
        self._refuse(call, tally)

    def _refuse(self, call: TracedCall, tally: Tally) -> None:
        self._all.refused += 1
        tally.refused += 1
        tally.saved += call.posted

    def _book(self, call: TracedCall, now: int, side: Side, held: Amounts, posted: Amounts) -> None:
        places = [(budget, budget.at(now)) for budget in self._at(call.paths) if budget.begins_us <= now]
        for budget, account in places:
            budget.hold(account, side, held)
        if call.closed_us is not None:
            ends_us = now + call.closed_us - call.reserved_us
            heapq.heappush(self._closing, _Closing(ends_us, next(self._order), side, places, held, posted))

    def _lines(self) -> Iterator[Line]:
        for path in sorted(self._budgets):
            for budget in self._budgets[path]:
                for account in budget.told:
                    if account.tally.calls:
                        yield _line(budget.rule, account)


def simulate(
    store: Store,
    rules: Sequence[Rule],
    *,
    since: datetime,
    until: datetime,
    progress: Callable[[float], None] = lambda _: None,
) -> Outcome:
    """Replay the calls that were reserved from `since` until `until` under these budgets; changes nothing.

    Budgets that were set differently meanwhile, and runs' own limits, play no part; grants to a budget of the same path
    and period do. `progress` is told the fraction that is done. Raises UsageError where there is no such time, or its
    calls were rolled up.
    """
    since_us, until_us = to_us(since), to_us(until)
    if since_us >= until_us:
        raise UsageError(
            f"nothing was made from {since.isoformat()} until {until.isoformat()}", next_step="--since 30d"
        )
    with store.read() as connection:
        before = rolled_up(connection, since_us)
        simulation = Simulation(rules, since_us=since_us, grants=given(connection, since_us))
        stopped = really_stopped(connection, since_us, until_us)
    for day in before:
        simulation.carry_in(day)
    first_us = 0
    for number, call in enumerate(calls(store, since_us=simulation.begins_us, until_us=until_us)):
        first_us = first_us or call.reserved_us
        if number % CALLS_PER_SIGN == 0:
            progress((call.reserved_us - first_us) / (until_us - first_us))
        simulation.take(call)
    return simulation.outcome(until, stopped)


def _line(rule: Rule, account: Account) -> Line:
    tally = account.tally
    really, spent = tally.posted
    really_highest, highest = tally.highest
    return Line(
        path=rule.path,
        per=rule.per,
        window="" if rule.per.startswith("rolling") else account.window.name,
        limit=account.limit,
        calls=tally.calls,
        refused=tally.refused,
        stopped=tally.stopped,
        runs=tuple(StoppedRun(run_id=run_id, at=from_us(at), refusal=why) for run_id, at, why in tally.runs),
        saved=tally.saved,
        really_spent=really,
        spent=spent,
        really_highest=really_highest,
        highest=highest,
    )
