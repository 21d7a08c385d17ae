from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bursar.budget import Amounts, Ledger, Limits, Refusal, Reservation, Scope
from bursar.budget.simulate import Outcome, Rule, simulate
from bursar.budget.windows import to_us
from tests.support.ledger import NOON, Clock, a_call, a_quote, new_store, tokens

# --- A trace, and what the ledger itself makes of it ------------------------------------------------------------------


@dataclass(frozen=True)
class Ask:
    """A call that a program wants to make, and how it goes if it is let."""

    run: int
    at_s: int
    input_tokens: int
    bound: int
    output_tokens: int
    lasts_s: int


@dataclass
class Enforced:
    """What the live ledger did."""

    refused: int = 0
    capped: int = 0
    waited: int = 0
    stopped: dict[str, int] | None = None


def scope_of(run: int) -> Scope:
    return Scope(
        tenant="acme", agents=(("support", "sales")[run % 2],), run_id=f"run_{run}", user=("dana", "eve")[run // 2 % 2]
    )


class Live:
    """Drives a ledger as programs do: what waits asks again after each settle, what is refused stops its run."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger, self._clock = ledger, clock
        self._flying: list[tuple[int, int, Reservation, Ask]] = []
        self._waiting: list[tuple[int, Ask]] = []
        self._order = count()
        self.did = Enforced(stopped={})

    def play(self, asks: Sequence[Ask]) -> Enforced:
        for run in {ask.run for ask in asks}:
            self._ledger.gates.open(scope_of(run), Limits.unlimited())
        for number, ask in enumerate(sorted(asks, key=lambda one: one.at_s)):
            self._pass(ask.at_s)
            if not self._decided(number, ask):
                self.did.waited += 1
                self._waiting.append((number, ask))
        self._pass(10**9)
        return self.did

    def _pass(self, now_s: int) -> None:
        while self._flying and self._flying[0][0] <= now_s:
            at, _, made, ask = heapq.heappop(self._flying)
            self._clock.now = NOON + timedelta(seconds=at)
            output = min(ask.output_tokens, made.max_output_tokens)
            self._ledger.settle(made, usage=tokens(ask.input_tokens, output), outcome="exact", reply="x")
            self._waiting = [one for one in self._waiting if not self._decided(*one)]
        if now_s < 10**9:
            self._clock.now = NOON + timedelta(seconds=now_s)

    def _decided(self, number: int, ask: Ask) -> bool:
        scope = scope_of(ask.run)
        made = self._ledger.reserve(a_call(f"call_{number}", scope=scope), a_quote(ask.input_tokens, ask.bound))
        if isinstance(made, Refusal):
            self.did.refused += 1
            if made.cause == "limit":
                self._ledger.gates.stop(scope.run_path, made)
                assert self.did.stopped is not None
                self.did.stopped[scope.run_id] = to_us(self._clock())
        elif isinstance(made, Reservation):
            self.did.capped += made.capped
            ends = (to_us(self._clock()) - to_us(NOON)) // 1_000_000 + ask.lasts_s
            heapq.heappush(self._flying, (ends, next(self._order), made, ask))
        else:
            return False
        return True


def set_all(ledger: Ledger, rules: Iterable[Rule]) -> None:
    for rule in rules:
        ledger.budgets.set(
            rule.path,
            per=rule.per,
            zone=rule.zone,
            limit=rule.limit,
            author="dana",
            mode=rule.mode,
            rollover_percent=rule.rollover_percent,
            overdraft_percent=rule.overdraft_percent,
        )


def replay(ledger: Ledger, clock: Clock, rules: Sequence[Rule]) -> Outcome:
    return simulate(ledger.store, rules, since=NOON, until=clock.now + timedelta(seconds=1))


ASKS = st.lists(
    st.builds(
        Ask,
        run=st.integers(0, 5),
        at_s=st.integers(0, 7_200),
        input_tokens=st.integers(0, 60),
        bound=st.integers(1, 80),
        output_tokens=st.integers(0, 80),
        lasts_s=st.integers(0, 900),
    ),
    min_size=1,
    max_size=25,
)

LIMITS = st.fixed_dictionaries(
    {}, optional={"nanousd": st.integers(0, 900_000), "tokens": st.integers(0, 900), "steps": st.integers(0, 12)}
)


def rules_at(path: str) -> st.SearchStrategy[Rule]:
    return st.builds(
        Rule,
        path=st.just(path),
        per=st.sampled_from(["hour", "day", "total", "rolling-30m"]),
        limit=LIMITS,
        mode=st.sampled_from(["hard", "hard", "soft"]),
        rollover_percent=st.sampled_from([0, 0, 50]),
        overdraft_percent=st.sampled_from([0, 0, 20]),
    )


PATHS = ("acme", "acme/support", "acme/sales", "acme/user:dana", "acme/support/node:model")
POLICIES = st.tuples(*(st.none() | rules_at(path) for path in PATHS)).map(lambda some: [one for one in some if one])


@settings(max_examples=60)
@given(asks=ASKS, rules=POLICIES)
def test_what_a_dry_run_decides_is_what_the_ledger_decides_on_the_same_calls(
    tmp_path_factory: pytest.TempPathFactory, asks: list[Ask], rules: list[Rule]
) -> None:
    clock, bound_clock = Clock(), Clock()
    free = Ledger(new_store(tmp_path_factory.mktemp("free")), clock=clock)
    bound = Ledger(new_store(tmp_path_factory.mktemp("bound")), clock=bound_clock)
    set_all(bound, rules)
    assert Live(free, clock).play(asks).refused == 0
    enforced = Live(bound, bound_clock).play(asks)
    shadow = replay(free, clock, rules)
    named = {run.run_id: to_us(run.at) for line in shadow.lines for run in line.runs}
    assert (shadow.refused, shadow.capped, shadow.waited) == (enforced.refused, enforced.capped, enforced.waited)
    assert named == enforced.stopped
    assert shadow.spent == spent_in(bound)
    free.close()
    bound.close()


def spent_in(ledger: Ledger) -> Amounts:
    return sum((line.posted for line in ledger.reports.spend("tenant")), Amounts())
