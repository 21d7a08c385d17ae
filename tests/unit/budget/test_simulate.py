from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy import Integer, Table, insert

from bursar.budget import Ledger, Limits, Refusal, Reservation, Scope, Store, ToolQuote
from bursar.budget.amounts import Amounts
from bursar.budget.errors import UsageError
from bursar.budget.schema import rollup, summary
from bursar.budget.testing import NOON, SUPPORT, Clock, a_call, a_quote, reserved, tokens
from bursar.budget.whatif import simulate as simulate_module
from bursar.budget.whatif import trace
from bursar.budget.whatif.simulate import WAIT_S_MAX, Outcome, Rule, simulate
from bursar.budget.windows import to_us
from tests.support.ledger import new_store

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
    stopped: dict[str, int] = field(default_factory=dict)


def scope_of(run: int) -> Scope:
    return Scope(
        tenant="acme", agents=(("support", "sales")[run % 2],), run_id=f"run_{run}", user=("dana", "eve")[run // 2 % 2]
    )


class Live:
    """Drives a ledger as programs do: what waits asks again after each settle, what is refused stops its run."""

    def __init__(self, ledger: Ledger) -> None:
        clock = ledger._clock
        assert isinstance(clock, Clock)
        self._ledger, self._clock = ledger, clock
        self._flying: list[tuple[int, int, Reservation, Ask]] = []
        self._waiting: list[tuple[int, Ask]] = []
        self._order = count()
        self.did = Enforced()

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
            self._give_up(at)
            self._waiting = [one for one in self._waiting if not self._decided(*one)]
        self._give_up(now_s)
        if now_s < 10**9:
            self._clock.now = NOON + timedelta(seconds=now_s)

    def _give_up(self, now_s: int) -> None:
        while self._waiting and now_s - self._waiting[0][1].at_s > WAIT_S_MAX:
            path = scope_of(self._waiting.pop(0)[1].run).run_path
            self._ledger.gates.stop(path, Refusal(cause="deadline", kind="run", path=path))
            self.did.refused += 1

    def _decided(self, number: int, ask: Ask) -> bool:
        scope = scope_of(ask.run)
        made = self._ledger.reserve(a_call(f"call_{number}", scope=scope), a_quote(ask.input_tokens, ask.bound))
        if isinstance(made, Refusal):
            self.did.refused += 1
            if made.cause == "limit":
                self._ledger.gates.stop(scope.run_path, made)
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
            oversubscribed=True,
        )


def a_ledger(folder: Path) -> Ledger:
    folder.mkdir(exist_ok=True)
    return Ledger(new_store(folder), clock=Clock())


def replay(ledger: Ledger, rules: Sequence[Rule]) -> Outcome:
    return simulate(ledger.store, rules, since=NOON, until=NOON + timedelta(days=1))


def spent_in(ledger: Ledger) -> Amounts:
    return sum((line.posted for line in ledger.reports.spend("tenant")), Amounts())


PATHS = ("acme", "acme/support", "acme/sales", "acme/user:dana", "acme/support/node:model")


def some_asks(random: Random) -> list[Ask]:
    hours = random.choice([2, 8])
    return [
        Ask(
            run=random.randrange(6),
            at_s=random.randrange(3_600 * hours),
            input_tokens=random.randrange(61),
            bound=random.randrange(1, 81),
            output_tokens=random.randrange(81),
            lasts_s=random.randrange(900),
        )
        for _ in range(random.randrange(5, 26))
    ]


def some_rules(random: Random) -> list[Rule]:
    most = {"nanousd": 900_000, "tokens": 900, "steps": 12}
    rules = []
    for path in random.sample(PATHS, random.randrange(1, 4)):
        per = random.choice(["hour", "day", "total", "rolling-30m"])
        carries = per in ("hour", "day")
        rules.append(
            Rule(
                path=path,
                per=per,
                limit={name: random.randrange(most[name]) for name in random.sample(sorted(most), random.randrange(3))},
                mode=random.choice(["hard", "hard", "soft"]),
                rollover_percent=random.choice([0, 50]) if carries else 0,
                overdraft_percent=random.choice([0, 20]) if carries else 0,
            )
        )
    return rules


@pytest.mark.parametrize("seed", range(16))
def test_what_a_dry_run_decides_is_what_the_ledger_decides_on_the_same_calls(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    asks, rules = some_asks(random), some_rules(random)
    free, bound = a_ledger(tmp_path / "free"), a_ledger(tmp_path / "bound")
    set_all(bound, rules)
    assert Live(free).play(asks).refused == 0
    enforced = Live(bound).play(asks)
    shadow = replay(free, rules)
    named = {run.run_id: to_us(run.at) for line in shadow.lines for run in line.runs}
    assert (shadow.refused, shadow.capped, shadow.waited) == (enforced.refused, enforced.capped, enforced.waited)
    assert named == enforced.stopped
    assert shadow.spent == spent_in(bound)
    assert shadow.saved == spent_in(free) - spent_in(bound)


@pytest.mark.parametrize("seed", range(16, 22))
def test_the_policy_that_was_in_force_refuses_none_of_the_calls_that_it_let_through(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    asks, rules = some_asks(random), some_rules(random)
    ledger = a_ledger(tmp_path)
    set_all(ledger, rules)
    Live(ledger).play(asks)
    again = replay(ledger, rules)
    assert (again.refused, again.stopped, again.capped, again.waited) == (0, 0, 0, 0)
    assert again.spent == again.really_spent == spent_in(ledger)


# --- What is told -----------------------------------------------------------------------------------------------------


@pytest.fixture
def ledger(store_url: str, clock: Clock) -> Iterator[Ledger]:
    """A ledger with run_1 of acme's agent support open, on each kind of store."""
    with closing(Ledger(Store(store_url), clock=clock)) as ledger:
        ledger.gates.open(SUPPORT, Limits.unlimited())
        yield ledger


def pay(ledger: Ledger, id: str, *, scope: Scope = SUPPORT, input_tokens: int = 90, **quoted: Any) -> None:
    made = reserved(ledger, a_call(id, scope=scope), a_quote(input_tokens, 10, **quoted))
    ledger.settle(made, usage=tokens(input_tokens, 10), outcome="exact", reply="x")


def simulated(ledger: Ledger, clock: Clock, *rules: Rule, since: datetime = NOON) -> Outcome:
    return simulate(ledger.store, rules, since=since, until=clock.now + timedelta(seconds=1))


def test_a_run_that_is_stopped_makes_no_more_calls_and_saves_what_they_came_to(ledger: Ledger, clock: Clock) -> None:
    for number in range(5):
        pay(ledger, f"call_{number}")
        clock.advance(seconds=1)
    out = simulated(ledger, clock, Rule(path="acme", limit={"steps": 2}))
    (line,) = out.lines
    assert (out.calls, out.refused, out.stopped) == (5, 3, 1)
    assert (out.really_spent, out.spent, out.saved) == (
        Amounts(500_000, 500, 5),
        Amounts(200_000, 200, 2),
        Amounts(300_000, 300, 3),
    )
    assert (line.calls, line.refused, line.stopped, line.saved) == (5, 3, 1, Amounts(300_000, 300, 3))
    assert (line.really_highest.steps, line.highest.steps) == (5, 2)
    (run,) = line.runs
    assert (run.run_id, run.at) == ("run_1", NOON + timedelta(seconds=2))
    assert (run.refusal.path, run.refusal.dimension, run.refusal.limit) == ("acme", "steps", 2)


def test_what_was_used_before_counts_and_is_not_refused(ledger: Ledger, clock: Clock) -> None:
    for number in range(4):
        pay(ledger, f"call_{number}")
        clock.advance(hours=2)
    since = NOON + timedelta(hours=3)
    out = simulated(
        ledger,
        clock,
        Rule(path="acme", per="day", limit={"steps": 3}),
        Rule(path="acme/support", limit={"steps": 9}),
        Rule(path="acme", per="hour", limit={"steps": 1}),
        since=since,
    )
    assert (out.calls, out.refused) == (2, 1)
    day = next(line for line in out.lines if line.per == "day")
    assert (day.really_spent.steps, day.spent.steps, day.calls) == (4, 3, 2)
    assert [line.window for line in out.lines if line.per == "hour"] == [
        "2026-11-20T16+00:00",
        "2026-11-20T18+00:00",
    ]
    assert next(line for line in out.lines if line.path == "acme/support").spent.steps == 3


def test_each_window_is_told_of_by_itself(ledger: Ledger, clock: Clock) -> None:
    other = Scope(tenant="acme", agents=("support",), run_id="run_2")
    ledger.gates.open(other, Limits.unlimited())
    pay(ledger, "a")
    pay(ledger, "b")
    clock.advance(days=1)
    pay(ledger, "c", scope=other)
    out = simulated(ledger, clock, Rule(path="acme", per="day", limit={"steps": 1}))
    assert [(line.window, line.calls, line.refused) for line in out.lines] == [
        ("2026-11-20", 2, 1),
        ("2026-11-21", 1, 0),
    ]


def test_every_agent_of_a_chain_pays_in_a_dry_run_too(ledger: Ledger, clock: Clock) -> None:
    helper = SUPPORT.child("researcher", "researcher.1")
    ledger.gates.open(helper, Limits.unlimited())
    pay(ledger, "a", scope=helper)
    out = simulated(ledger, clock, Rule(path="acme/support", limit={}), Rule(path="acme/researcher", limit={}))
    assert [(line.path, line.calls) for line in out.lines] == [("acme/researcher", 1), ("acme/support", 1)]


def test_grants_that_were_made_count_where_the_policy_has_the_same_budget(ledger: Ledger, clock: Clock) -> None:
    ledger.budgets.set("acme", per="day", limit={"steps": 1}, author="dana")
    pay(ledger, "a")
    clock.advance(minutes=1)
    ledger.budgets.grant("acme", Amounts(steps=1), author="dana", note="the fair")
    pay(ledger, "b")
    same, other = (Rule(path="acme", per=per, limit={"steps": 1}) for per in ("day", "total"))
    assert simulated(ledger, clock, same).refused == 0
    assert simulated(ledger, clock, same).lines[0].limit == (None, None, 2, None)
    assert simulated(ledger, clock, other).refused == 1


def test_a_call_that_waits_for_longer_than_a_run_may_work_is_not_made(ledger: Ledger, clock: Clock) -> None:
    reserved(ledger, a_call("in flight"))
    clock.advance(minutes=1)
    pay(ledger, "a")
    out = simulated(ledger, clock, Rule(path="acme", limit={"steps": 1}))
    assert (out.waited, out.refused, out.stopped) == (1, 1, 1)
    assert out.spent == Amounts()


def test_a_model_without_a_price_is_refused_under_a_limit_in_money(ledger: Ledger, clock: Clock) -> None:
    pay(ledger, "a", price=None)
    out = simulated(ledger, clock, Rule(path="acme", per="month", limit={"nanousd": 10**9}))
    assert [run.refusal.cause for run in out.lines[0].runs] == ["unpriced"]


def test_tools_are_asked_for_again_too(ledger: Ledger, clock: Clock) -> None:
    for number in range(3):
        ledger.charge(a_call(f"tool_{number}"), ToolQuote())
        clock.advance(seconds=1)
    assert simulated(ledger, clock, Rule(path="acme", limit={"tool_calls": 2})).refused == 1


def test_a_soft_limit_refuses_nothing_and_shows_how_far_it_is_exceeded(ledger: Ledger, clock: Clock) -> None:
    pay(ledger, "a")
    pay(ledger, "b")
    out = simulated(ledger, clock, Rule(path="acme", limit={"steps": 1}, mode="soft"))
    assert (out.refused, out.lines[0].highest.steps) == (0, 2)


def test_runs_that_a_budget_really_stopped_are_told_beside(ledger: Ledger, clock: Clock) -> None:
    ledger.budgets.set("acme", limit={"steps": 0}, author="dana")
    refused = ledger.reserve(a_call(), a_quote())
    assert isinstance(refused, Refusal)
    ledger.gates.stop(SUPPORT.run_path, refused)
    own = Scope(tenant="acme", agents=("support",), run_id="run_2")
    ledger.gates.open(own, Limits(steps=0))
    refused = ledger.reserve(a_call(scope=own), a_quote())
    assert isinstance(refused, Refusal)
    ledger.gates.stop(own.run_path, replace(refused, path=own.run_path))
    assert simulated(ledger, clock).really_stopped == {"acme": 1}


def plain_row(table: Table) -> dict[str, Any]:
    return {column.name: 0 if isinstance(column.type, Integer) else "" for column in table.c if not column.nullable}


def test_what_was_rolled_up_counts_in_the_windows_of_its_day(ledger: Ledger, clock: Clock) -> None:
    pay(ledger, "a")
    whose = {"summary_id": 1, "tenant": "acme", "agent": "support", "node": "model", "calls": 4, "posted_steps": 4}
    with ledger.store.write() as connection:
        connection.execute(insert(summary).values(**{**plain_row(summary), "id": 1}))
        for key, days in ((1, 30), (2, 9)):
            day_us = to_us(NOON.replace(hour=0) - timedelta(days=days))
            connection.execute(insert(rollup).values(**{**plain_row(rollup), **whose, "id": key, "day_us": day_us}))
    rules = [Rule(path="acme", per=per, limit={"steps": 8}) for per in ("total", "month", "day")]
    lines = simulated(ledger, clock, *rules).lines
    assert [(line.per, line.really_spent.steps, line.refused) for line in lines] == [
        ("total", 9, 1),
        ("month", 5, 0),
        ("day", 1, 0),
    ]
    with pytest.raises(UsageError, match="calls before 2026-11-12 were rolled up"):
        simulated(ledger, clock, since=NOON - timedelta(days=20))


def test_calls_are_read_in_parts_without_a_gap(ledger: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(7):
        pay(ledger, f"call_{number}")
        clock.advance(seconds=number % 2)
    one = simulated(ledger, clock, Rule(path="acme", limit={"steps": 5}))
    monkeypatch.setattr(trace, "_AFTER", trace._AFTER.limit(2))
    monkeypatch.setattr(trace, "BATCH", 2)
    assert simulated(ledger, clock, Rule(path="acme", limit={"steps": 5})) == one
    assert (one.calls, one.refused) == (7, 2)


def test_progress_goes_from_nothing_to_at_most_all(
    ledger: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulate_module, "CALLS_PER_SIGN", 1)
    for number in range(3):
        pay(ledger, f"call_{number}")
        clock.advance(minutes=1)
    told: list[float] = []
    simulate(ledger.store, [], since=NOON, until=clock.now, progress=told.append)
    assert told == sorted(told)
    assert told[0] == 0
    assert told[-1] <= 1


def test_a_time_that_is_over_before_it_begins_is_an_error(ledger: Ledger) -> None:
    with pytest.raises(UsageError, match="nothing was made"):
        simulate(ledger.store, [], since=NOON, until=NOON)


def test_a_path_that_can_have_no_budget_is_an_error() -> None:
    with pytest.raises(UsageError, match="a budget belongs to"):
        Rule(path="acme/support/run_1", limit={})
