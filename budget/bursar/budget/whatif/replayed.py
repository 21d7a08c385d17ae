"""The balances of one budget while calls are replayed: as they really were, and as they would have been."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from bursar.budget.admission import Balance
from bursar.budget.amounts import DIMENSIONS, Amounts
from bursar.budget.journal import NOTHING
from bursar.budget.refusal import Refusal
from bursar.budget.schema import FOREVER_US
from bursar.budget.scope import budget_kind
from bursar.budget.windows import Period, Window, from_us, rolling_us, window_at

__all__ = ["REAL", "SIMULATED", "Account", "Budget", "Limit", "Rule", "Side", "Tally", "amounts_of", "smaller"]

Side = Literal[0, 1]
REAL: Side = 0
SIMULATED: Side = 1

Limit = tuple[int | None, int | None, int | None, int | None]
"""By dimension, in the order of `DIMENSIONS`; None = no limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One budget of a policy, as `Budgets.set` takes it; raises UsageError for a path that can have none."""

    path: str
    per: Period = "total"
    zone: str = "UTC"
    limit: Mapping[str, int | None]
    """By dimension, in the ledger's units; None or left out = no limit."""

    mode: Literal["hard", "soft"] = "hard"
    rollover_percent: int = 0
    overdraft_percent: int = 0

    def __post_init__(self) -> None:
        budget_kind(self.path)

    @property
    def bounds(self) -> Limit:
        """The limit in the order of the dimensions."""
        nanousd, tokens, steps, tool_calls = (self.limit.get(name) for name in DIMENSIONS)
        return nanousd, tokens, steps, tool_calls


@dataclass(slots=True)
class Tally:
    """What is told of a window; pairs are indexed by side."""

    calls: int = 0
    refused: int = 0
    stopped: int = 0
    runs: list[tuple[str, int, Refusal]] = field(default_factory=list)
    """Of the first runs that were stopped: id, time, refusal."""

    saved: Amounts = NOTHING
    posted: list[Amounts] = field(default_factory=lambda: [NOTHING, NOTHING])
    highest: list[Amounts] = field(default_factory=lambda: [NOTHING, NOTHING])


@dataclass(slots=True)
class Account:
    """One window of a budget, or one bucket of a rolling one; pairs are indexed by side."""

    window: Window
    limit: Limit
    tally: Tally
    posted: list[Amounts] = field(default_factory=lambda: [NOTHING, NOTHING])
    held: list[Amounts] = field(default_factory=lambda: [NOTHING, NOTHING])
    counts: bool = True
    """Whether it is part of the present balance."""


class Budget:
    """A rule and its windows, from the one that holds `since_us` on. Time only goes forward: `at` opens the next."""

    def __init__(self, rule: Rule, since_us: int) -> None:
        self.rule = rule
        self.told: list[Account] = []
        """What there is to tell of: each window, or the first bucket of a rolling one, with the tally of all."""

        self._kind = budget_kind(rule.path)
        self._rolling_us = rolling_us(rule.per)
        self._counting: deque[Account] = deque()
        self._posted = [NOTHING, NOTHING]
        self._held = [NOTHING, NOTHING]
        self._open(since_us - (self._rolling_us or 0))
        self.begins_us = self.told[0].window.starts_us
        """From when on calls count."""

    def at(self, now: int) -> Account:
        """The account in which a call counts that is reserved now."""
        if now >= self._counting[-1].window.ends_us:
            self._open(now)
        if self._rolling_us is not None:
            while self._counting[0].window.ends_us <= now - self._rolling_us:
                self._drop(self._counting.popleft())
        return self._counting[-1]

    def balance(self, now: int) -> Balance:
        """What admission sees of it, as the ledger shows it: an overdraft is room above the limit."""
        account, percent = self.at(now), self.rule.overdraft_percent
        nanousd, tokens, steps, tool_calls = (
            None if limit is None else limit + (base or 0) * percent // 100
            for limit, base in zip(account.limit, self.rule.bounds, strict=True)
        )
        ends_us = account.window.ends_us if self._rolling_us is None else self._counting[0].window.ends_us
        return Balance(
            kind=self._kind,
            path=self.rule.path,
            limit=(nanousd, tokens, steps, tool_calls),
            posted=amounts_of(self._posted[SIMULATED]),
            held=amounts_of(self._held[SIMULATED]),
            per=self.rule.per,
            window=account.window.name,
            ends_us=None if ends_us >= FOREVER_US else ends_us + (self._rolling_us or 0),
            zone=self.rule.zone,
        )

    def hold(self, account: Account, side: Side, held: Amounts) -> None:
        """Hold what a call may come to."""
        account.held[side] += held
        if account.counts:
            self._held[side] += held
            self._note_highest(account, side)

    def close(self, account: Account, side: Side, held: Amounts, posted: Amounts) -> None:
        """Give back what a call held, and post what it came to."""
        account.held[side] -= held
        account.posted[side] += posted
        account.tally.posted[side] += posted
        if account.counts:
            self._held[side] -= held
            self._posted[side] += posted
            if smaller(posted, held) != posted:
                self._note_highest(account, side)

    def grant(self, now: int, amount: Amounts, *, carried: bool) -> None:
        """Raise the limit of the present window; what was `carried` into a later one than the first is made here."""
        account = self.at(now)
        if not (carried and account is not self.told[0]):
            account.limit = _raised(account.limit, amount)

    def _open(self, now: int) -> None:
        window = window_at(self.rule.per, self.rule.zone, from_us(now))
        if self._rolling_us is not None and self.told:
            self._counting.append(Account(window, self.rule.bounds, self.told[0].tally))
            return
        limit = self.rule.bounds
        if self._counting:
            last = self._counting.pop()
            limit = _raised(limit, self._carried(last, window))
            self._drop(last)
        self._counting.append(Account(window, limit, Tally()))
        self.told.append(self._counting[-1])

    def _note_highest(self, account: Account, side: Side) -> None:
        used, highest = self._held[side] + self._posted[side], account.tally.highest
        highest[side] = Amounts(*map(max, amounts_of(highest[side]), amounts_of(used)))

    def _drop(self, account: Account) -> None:
        account.counts = False
        for side in (REAL, SIMULATED):
            self._held[side] -= account.held[side]
            self._posted[side] -= account.posted[side]

    def _carried(self, last: Account, window: Window) -> Amounts:
        """What the windows since the last one that was used leave to this one; below zero what is owed."""
        if not (self.rule.rollover_percent or self.rule.overdraft_percent):
            return NOTHING
        used = last.posted[SIMULATED] + last.held[SIMULATED]  # what is in flight may come to what it holds
        carried, before = self._left_of(_raised(last.limit, NOTHING - used)), None
        ends_us = last.window.ends_us
        while ends_us < window.starts_us and carried != before:  # until more idle windows change nothing
            before, ends_us = carried, window_at(self.rule.per, self.rule.zone, from_us(ends_us)).ends_us
            carried = self._left_of(_raised(self.rule.bounds, before))
        return carried

    def _left_of(self, left: Limit) -> Amounts:
        """What of an amount comes into the next window: up to `rollover_percent` of the limit, or all that is owed."""
        carried = {}
        for name, base, amount in zip(DIMENSIONS, self.rule.bounds, left, strict=True):
            if base is not None and amount is not None:
                owed = amount * bool(self.rule.overdraft_percent)
                carried[name] = min(amount, base * self.rule.rollover_percent // 100) if amount >= 0 else owed
        return Amounts(**carried)


def amounts_of(amounts: Amounts) -> tuple[int, int, int, int]:
    """The amounts in the order of `DIMENSIONS`."""
    return amounts.nanousd, amounts.tokens, amounts.steps, amounts.tool_calls


def smaller(one: Amounts, other: Amounts) -> Amounts:
    """The smaller amount of each dimension."""
    return Amounts(*map(min, amounts_of(one), amounts_of(other)))


def _raised(limit: Limit, amount: Amounts) -> Limit:
    nanousd, tokens, steps, tool_calls = (
        None if bound is None else bound + more for bound, more in zip(limit, amounts_of(amount), strict=True)
    )
    return nanousd, tokens, steps, tool_calls
