"""Schedules of all that may be done to a ledger, and a plain model of what must come of it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule
from sqlalchemy import bindparam, delete, func, select

from bursar.budget import (
    Amounts,
    Ledger,
    Limits,
    ModelQuote,
    Refusal,
    Replay,
    Reservation,
    Scope,
    Store,
    ToolQuote,
    Usage,
    Wait,
)
from bursar.budget.amounts import DIMENSIONS
from bursar.budget.audit.verify import verify
from bursar.budget.errors import ReservationError
from bursar.budget.reservations import Outcome
from bursar.budget.schema import account, metadata, pot
from bursar.budget.slices import Slice
from bursar.budget.testing import FREE, PRICE, Clock, a_call, a_quote, audit, excesses, tokens
from bursar.budget.windows import rolling_us, to_us

__all__ = ["LedgerMachine"]

RED = Scope(
    organisation="globex", tenant="acme", team="red", user="dana", agents=("support",), run_id="run_1"
)  # every kind of scope
PLAIN = Scope(organisation="globex", tenant="acme", agents=("support",), run_id="run_2")
NORTH = Scope(organisation="globex", tenant="north", agents=("sales",), run_id="run_3")
RUNS = (RED, PLAIN, NORTH)

NEVER_US = 2**62
LEASE_S = 600.0
SLICE_S, BATCH = 300.0, 2
HOUR_US = 3_600_000_000

BUDGETS: dict[tuple[str, str], dict[str, Any]] = {
    ("org:globex", "total"): {"dimension": "steps", "oversubscribed": True},
    ("acme", "day"): {"dimension": "nanousd", "zone": "Europe/Paris", "rollover_percent": 50, "organisation": "globex"},
    ("acme", "rolling-60m"): {"dimension": "tokens"},
    ("acme/team:red", "hour"): {"dimension": "tokens"},
    ("acme/user:dana", "week"): {"dimension": "steps", "zone": "America/New_York"},
    ("acme/support", "month"): {"dimension": "tokens", "zone": "Asia/Kathmandu", "overdraft_percent": 20},
    ("acme/support/node:model", "total"): {"dimension": "tokens"},
    ("north", "day"): {"dimension": "nanousd", "zone": "America/New_York", "organisation": "globex"},
}
UNITS = {"nanousd": 1_000, "tokens": 1, "steps": 0.01}
"""What a limit drawn in tokens is worth in each dimension."""

OF_POT = (
    select(
        pot.c.path,
        pot.c.per,
        *(func.sum(account.c[f"{side}_{name}"]) for side in ("held", "posted") for name in DIMENSIONS),
    )
    .join(account)
    .group_by(pot.c.id, pot.c.path, pot.c.per)
)
"""What every pot has, in all of its windows together."""

OF_NOW = (
    select(account.c.id, pot.c.path, pot.c.per)
    .join(pot)
    .where(account.c.starts_us <= bindparam("now"), account.c.ends_us > bindparam("now"))
)

# Before changes to summer and winter time, and before the ends of months, of years and of a leap day.
BEGINS = [
    datetime(2026, 3, 28, 22, 50, tzinfo=UTC),
    datetime(2026, 10, 24, 21, 50, tzinfo=UTC),
    datetime(2026, 11, 1, 3, 50, tzinfo=UTC),
    datetime(2026, 12, 31, 22, 50, tzinfo=UTC),
    datetime(2028, 2, 28, 18, 5, tzinfo=UTC),
]

begins = st.sampled_from(BEGINS)
runs = st.sampled_from(RUNS)
calls = st.sampled_from("abcdefghijklmnop")
clients = st.integers(0, 1)
budgets = st.sampled_from(sorted(BUDGETS))
amounts = st.integers(0, 400)
of_runs = st.integers(0, 1_500)
quotes = st.builds(
    a_quote,
    st.integers(0, 60),
    st.integers(1, 120),
    price=st.sampled_from([PRICE, FREE]),
    min_output_tokens=st.just(16),
)
whole_calls = st.tuples(clients, calls, quotes, st.sampled_from([0, 90]))
usages = st.builds(tokens, st.integers(0, 80), st.integers(0, 160))
modes = st.none() | st.sampled_from(["hard", "soft"])
sizes = st.builds(lambda worth, steps: Amounts(worth * 1_000, worth, steps), st.integers(1, 300), st.integers(1, 4))
percents = st.integers(0, 100)
outcomes = st.sampled_from(["exact", "estimated", "unknown"])

Phase = Literal["reserved", "dispatched", "known", "unknown", "released"]


def cost_of(made: Reservation, usage: Usage | None, outcome: Outcome) -> Amounts:
    """What a settle must post."""
    if usage is None:
        return made.held
    nanousd = made.price.cost(usage) if made.price else 0
    due = Amounts(nanousd, usage.total_tokens, made.held.steps, made.held.tool_calls)
    return lesser(due, made.held) if outcome == "unknown" else due


def lesser(one: Amounts, other: Amounts) -> Amounts:
    return Amounts(*(min(getattr(one, name), getattr(other, name)) for name in DIMENSIONS))


@dataclass
class Attempt:
    """What the model knows of a reservation."""

    made: Reservation
    reserved_us: int
    deadline_us: int
    phase: Phase = "reserved"
    charged: Amounts = Amounts()
    told: Reservation | None = None
    """As its holder knows it, where that was not told that the hold is smaller now."""

    @property
    def handed(self) -> Reservation:
        """What its holder hands in."""
        return self.told or self.made

    @property
    def open(self) -> bool:
        return self.phase in ("reserved", "dispatched")

    @property
    def scope(self) -> Scope:
        return self.made.call.scope

    @property
    def held(self) -> Amounts:
        return self.made.held if self.open else Amounts()

    @property
    def posted(self) -> Amounts:
        return Amounts() if self.open else self.charged

    def give_up(self) -> None:
        if self.phase == "dispatched":
            self.phase, self.charged = "unknown", self.made.held
        else:
            self.phase = "released"


@dataclass
class Part:
    """What the model knows of a slice."""

    slice: Slice | None
    """None once its process has crashed."""

    scope: Scope
    epoch: int
    reserved_us: int
    until_us: int
    size: Amounts
    rest: Amounts
    """What of it was neither written as spent nor given back."""

    changes: int
    """How many limits had been changed when it was taken."""

    written: Amounts = Amounts()
    spent: Amounts = Amounts()
    """What its process knows and has not written."""

    unwritten: int = 0
    lost: bool = False

    @property
    def held(self) -> Amounts:
        return Amounts() if self.lost else self.rest

    @property
    def posted(self) -> Amounts:
        return self.written + (self.rest if self.lost else Amounts())

    def write(self) -> None:
        self.rest -= Amounts(*(min(getattr(self.spent, name), getattr(self.rest, name)) for name in DIMENSIONS))
        self.written += self.spent
        self.spent, self.unwritten = Amounts(), 0


@dataclass
class Run:
    """What the model knows of a run."""

    epoch: int = 0
    lease_until_us: int | None = None
    stopped: bool = False


class LedgerMachine(RuleBasedStateMachine):
    """A subclass names the store, which each schedule finds empty."""

    store: Store
    attempts = Bundle("attempts")

    def __init__(self) -> None:
        super().__init__()
        with self.store.write() as connection:
            for table in reversed(metadata.sorted_tables):
                connection.execute(delete(table))
        self.clock = Clock()
        self.clients = [self.client(), self.client()]
        self.of_run = {scope: Run() for scope in RUNS}
        self.of_call: dict[tuple[Scope, str], list[Attempt]] = defaultdict(list)
        self.parts: list[Part] = []
        self.soft: set[tuple[str, str]] = set()
        self.excess: dict[tuple[int, str], int] = {}
        self.explained = False
        self.changes = 0

    def teardown(self) -> None:
        assert not verify(self.store).findings

    def client(self) -> Ledger:
        return Ledger(self.store, clock=self.clock)

    @property
    def now(self) -> int:
        return to_us(self.clock.now)

    def all(self) -> Iterator[Attempt]:
        return (one for attempts in self.of_call.values() for one in attempts)

    def part_of(self, scope: Scope) -> Part | None:
        """The slice that a run's process works with."""
        return next((one for one in self.parts if one.scope == scope and one.slice is not None), None)

    # --- Limits and grants --------------------------------------------------------------------------------------------

    @initialize(
        begin=begins, limits=st.dictionaries(budgets, amounts, min_size=1, max_size=4), run=st.integers(0, 1_500)
    )
    def begin(self, begin: datetime, limits: dict[tuple[str, str], int], run: int) -> None:
        """Few of the budgets are limited, so that each of them is now and then the one that refuses."""
        self.clock.now = begin
        for path, per in BUDGETS:
            how = dict(BUDGETS[path, per])
            limit = self.limit(how.pop("dimension"), limits.get((path, per)))
            self.clients[0].budgets.set(path, per=per, limit=limit, author="dana", **{"oversubscribed": True, **how})
        for scope in RUNS:
            of_run = Limits(steps=12, tool_calls=2, tokens=run, cost_usd=None, seconds=None)
            self.clients[0].gates.open(scope, of_run)

    def limit(self, dimension: str, amount: int | None) -> dict[str, int | None]:
        return {dimension: None if amount is None else int(amount * UNITS[dimension])}

    @rule(client=clients, budget=budgets, amount=st.none() | amounts, mode=modes)
    def change_limit(self, client: int, budget: tuple[str, str], amount: int | None, mode: Any) -> None:
        self.explained, self.changes = True, self.changes + 1
        limit = self.limit(BUDGETS[budget]["dimension"], amount)
        self.clients[client].budgets.set(budget[0], per=budget[1], limit=limit, author="dana", mode=mode)
        if mode is not None:
            (self.soft.add if mode == "soft" else self.soft.discard)(budget)

    @rule(client=clients, budget=budgets, amount=amounts, minutes=st.none() | st.integers(1, 200))
    def grant(self, client: int, budget: tuple[str, str], amount: int, minutes: int | None) -> None:
        path, per = budget
        dimension = BUDGETS[budget]["dimension"]
        given = Amounts(**{dimension: int(amount * UNITS[dimension])})
        if given and rolling_us(per) is None:
            until = None if minutes is None else self.clock.now + timedelta(minutes=minutes)
            self.clients[client].budgets.grant(path, given, author="dana", note="", per=per, expires_at=until)

    @rule(client=clients, which=st.integers(0, 5))
    def revoke(self, client: int, which: int) -> None:
        running = [one for one in self.clients[client].budgets.grants() if one.ended_at is None]
        if which < len(running):
            given = running[which].amount
            taken = self.clients[client].budgets.revoke(running[which].id, author="eve", note="")
            assert all(0 <= getattr(taken, name) <= getattr(given, name) for name in DIMENSIONS)

    @rule(scope=runs, how=st.sampled_from(["stop", "reopen", "grant"]))
    def stop_or_let_go_on(self, scope: Scope, how: str) -> None:
        gates = self.clients[0].gates
        if how == "stop":
            gates.stop(scope.run_path, Refusal(cause="stopped", kind="run", path=scope.run_path))
        elif how == "reopen":
            gates.reopen(scope.run_path, author="dana")
        else:
            self.clients[0].budgets.grant(scope.run_path, Amounts(tokens=50, steps=1), author="dana", note="")
        self.of_run[scope].stopped = how == "stop"

    # --- Calls --------------------------------------------------------------------------------------------------------

    @rule(
        target=attempts,
        client=clients,
        scope=runs,
        id=calls,
        quote=quotes,
        patience_s=st.none() | st.integers(0, 600),
        send=st.booleans(),
    )
    def reserve(self, client: int, scope: Scope, id: str, quote: ModelQuote, patience_s: int | None, send: bool) -> Any:
        run, earlier = self.of_run[scope], self.of_call[scope, id]
        deadline_us = NEVER_US if patience_s is None else self.now + patience_s * 1_000_000
        call = a_call(id, scope=scope, epoch=run.epoch)
        made = self.clients[client].reserve(call, quote, deadline_us=deadline_us)
        answer = self.answered(made, run, earlier, deadline_us)
        if send and isinstance(answer, Attempt):
            self.dispatch(client, answer)
        return answer

    @rule(target=attempts, scope=runs, whole=st.lists(whole_calls, min_size=1, max_size=6))
    def make_whole_calls(self, scope: Scope, whole: list[tuple[int, str, ModelQuote, int]]) -> Any:
        made = []
        for client, id, quote, pause_s in whole:
            self.clock.advance(seconds=pause_s)
            answer = self.reserve(client, scope, id, quote, None, send=True)
            if isinstance(answer, Attempt):
                self.settle(client, answer, tokens(quote.input_tokens, answer.made.max_output_tokens // 2), "exact")
                made.append(answer)
            self.no_limit_is_exceeded_but_by_an_overage_a_late_truth_or_a_lowered_limit()
        return multiple(*made)

    @rule(target=attempts, client=clients, scope=runs, id=st.sampled_from(["tool x", "tool y"]))
    def use_tool(self, client: int, scope: Scope, id: str) -> Any:
        run, earlier = self.of_run[scope], self.of_call[scope, id]
        made = self.clients[client].charge(a_call(id, scope=scope, epoch=run.epoch), ToolQuote())
        answer = self.answered(made, run, earlier, NEVER_US)
        if isinstance(answer, Attempt):
            answer.phase, answer.charged = "known", answer.made.held
        return answer

    def answered(
        self, made: Reservation | Replay | Wait | Refusal, run: Run, earlier: list[Attempt], deadline_us: int
    ) -> Any:
        known = [one.made.id for one in earlier if one.phase == "known"]
        if isinstance(made, Replay):
            assert made.reservation_id in known
            return multiple()
        assert not known, "a settled call was not replayed"
        for one in earlier:
            if one.open and one.made.call.epoch < run.epoch:
                one.give_up()
        if not self.may_go_on(made, run):
            return multiple()
        assert isinstance(made, Reservation)
        assert made.attempt == len(earlier)
        self.draws_on_every_scope(made.call.scope, made.accounts, node=made.call.node)
        self.holds_within_limits(made)
        earlier.append(Attempt(made, self.now, deadline_us))
        if made.held.tokens and made.call.scope.tenant == "acme":
            self.rolls_within_its_limit()
        return earlier[-1]

    def may_go_on(self, made: object, run: Run) -> bool:
        """Whether something was admitted; where it was not, there has to be a reason."""
        if isinstance(made, Refusal):
            assert made.cause == ("stopped" if run.stopped else "limit")
            assert (made.path, made.per) not in self.soft, "a soft limit refused"
            return False
        assert not run.stopped, "a stop did not stick"
        if isinstance(made, Wait):
            assert any(one.open for one in self.all()) or any(one.held for one in self.parts), "it waits for nobody"
            return False
        return True

    def draws_on_every_scope(self, scope: Scope, accounts: str, *, node: str | None = None) -> None:
        """In the windows of now, and on nothing else."""
        paths = scope.paths if node is None else scope.with_node(node)
        wanted = [(path, per) for path, per in BUDGETS if path in paths] + [(scope.run_path, "total")]
        drawn = set(json.loads(accounts))
        with self.store.read() as connection:
            found = connection.execute(OF_NOW, {"now": self.now}).all()
        assert sorted((path, per) for number, path, per in found if number in drawn) == sorted(wanted)
        assert len(drawn) == len(wanted)

    def holds_within_limits(self, made: Reservation) -> None:
        """What was just admitted fits, in every hard limit that it needs something of."""
        drawn = set(json.loads(made.accounts))
        over = [key for key in excesses(self.store) if key[0] in drawn and getattr(made.held, key[1])]
        assert not over, f"{over} was exceeded by {made.held}"

    def rolls_within_its_limit(self) -> None:
        """Of what was reserved in the last hour, and is held or posted, there is no more than the limit."""
        (line,) = (one for one in self.clients[0].budgets.ls("acme") if one.per == "rolling-60m")
        begin = self.now - HOUR_US
        charged: list[Attempt | Part] = [*self.all(), *self.parts]
        found = [one for one in charged if one.scope.tenant == "acme" and one.reserved_us > begin]
        used = sum(one.held.tokens + one.posted.tokens for one in found)
        assert line.mode == "soft" or line.limit["tokens"] is None or used <= line.limit["tokens"]

    @rule(client=clients, one=attempts)
    def dispatch(self, client: int, one: Attempt) -> None:
        in_time = one.phase == "reserved" and self.now <= one.deadline_us
        if in_time and one.made.call.epoch == self.of_run[one.scope].epoch:
            self.clients[client].dispatch(one.handed)
            one.phase = "dispatched"
        else:
            with pytest.raises(ReservationError):
                self.clients[client].dispatch(one.handed)

    @rule(client=clients, one=attempts, percent=percents, told=st.booleans())
    def shrink(self, client: int, one: Attempt, percent: int, told: bool) -> None:
        """Hold less; its holder may be cut off before it hears of that."""
        held = one.made.held
        keep = replace(held, nanousd=held.nanousd * percent // 100, tokens=held.tokens * percent // 100)
        shrunk = self.clients[client].shrink(one.handed, keep)
        assert shrunk.held == (keep if one.open else held)
        one.told = None if told else one.handed
        one.made = replace(one.made, held=shrunk.held)

    @rule(client=clients, one=attempts)
    def check(self, client: int, one: Attempt) -> None:
        """What is in flight is cut off only where its limits were changed, it was taken over, or an overage came."""
        refusal = self.clients[client].check(one.made)
        run = self.of_run[one.scope]
        assert (refusal is not None and refusal.cause == "fenced") == (one.made.call.epoch < run.epoch)
        if refusal is not None and refusal.cause == "limit":
            assert refusal.posted + refusal.held > (refusal.limit or 0)

    @rule(client=clients, one=attempts, usage=usages, outcome=outcomes)
    def settle(self, client: int, one: Attempt, usage: Usage, outcome: Outcome) -> None:
        is_unknown = outcome == "unknown"
        said = None if is_unknown and not usage.output_tokens % 2 else usage  # else it is a bound
        posted = cost_of(one.made, said, outcome)
        if one.phase == "known" and posted != one.charged:
            with pytest.raises(ReservationError):
                self.clients[client].settle(one.handed, usage=said, outcome=outcome, reply="hello")
            return
        self.explained = posted.tokens > one.made.held.tokens or not one.open
        reply = None if is_unknown else "hello"
        self.clients[client].settle(one.handed, usage=said, outcome=outcome, reply=reply)
        if one.phase == "unknown" and is_unknown and lesser(posted, one.charged) == one.charged:
            return  # the bound that was known is lower
        if one.phase != "known":
            one.phase, one.charged = "unknown" if is_unknown else "known", posted

    @rule(client=clients, one=attempts)
    def release(self, client: int, one: Attempt) -> None:
        self.clients[client].release(one.handed, note="connection refused")
        if one.open or one.phase == "unknown":
            one.phase, one.charged = "released", Amounts()

    # --- Slices -------------------------------------------------------------------------------------------------------

    @rule(client=clients, scope=runs, size=sizes, whole=st.lists(st.tuples(calls, quotes, percents), max_size=6))
    def call_out_of_a_slice(
        self, client: int, scope: Scope, size: Amounts, whole: list[tuple[str, ModelQuote, int]]
    ) -> None:
        """Of the run's slice, or else of one that is taken for it."""
        part = self.part_of(scope) or self.open_slice(client, scope, size)
        if part is None:
            return
        for id, quote, percent in whole:
            self.spend_of(part, id, quote, percent)
            self.no_limit_is_exceeded_but_by_an_overage_a_late_truth_or_a_lowered_limit()

    def spend_of(self, part: Part, id: str, quote: ModelQuote, percent: int) -> None:
        assert part.slice is not None
        call = a_call(f"slice {part.slice.id} {id}", scope=part.scope, epoch=part.epoch)
        made = part.slice.reserve(replace(call, node="without a budget"), quote)
        if isinstance(made, Reservation):
            assert self.now < part.until_us
            usage = tokens(quote.input_tokens, made.max_output_tokens * percent // 100)
            part.spent += part.slice.settle(made, usage=usage, outcome="exact", reply="hello")
            assert (part.written + part.spent).tokens <= part.size.tokens, "more than the slice has"
            part.unwritten += 1
            if part.unwritten == BATCH:
                self.write(part)

    def open_slice(self, client: int, scope: Scope, size: Amounts) -> Part | None:
        run = self.of_run[scope]
        taken = self.clients[client].slices.open(scope, run.epoch, size, seconds=SLICE_S, batch=BATCH)
        if not self.may_go_on(taken, run):
            return None
        assert isinstance(taken, Slice)
        self.draws_on_every_scope(scope, taken._made.accounts)
        until_us = self.now + int(SLICE_S * 1_000_000)
        self.parts.append(Part(taken, scope, run.epoch, self.now, until_us, size, size, self.changes))
        return self.parts[-1]

    @rule(scope=runs, close=st.booleans())
    def write_or_close_a_slice(self, scope: Scope, close: bool) -> None:
        part = self.part_of(scope)
        if part is None or part.slice is None:
            return
        if close:
            part.slice.close()
        else:
            part.slice.flush()
        self.write(part)
        if close:
            part.rest, part.slice = Amounts(), None

    def write(self, part: Part) -> None:
        self.explained = part.changes < self.changes  # a limit that is newer than the slice was not asked
        part.write()

    # --- Workers that come and go, and time ---------------------------------------------------------------------------

    @rule(client=clients, scope=runs, how=st.sampled_from(["crash", "let go", "take over"]))
    def change_hands(self, client: int, scope: Scope, how: str) -> None:
        run = self.of_run[scope]
        if how == "crash":  # all that a process knew is lost
            self.clients[client] = self.client()
            for part in self.parts:
                part.slice = None
        if how == "let go":
            self.clients[client].gates.let_go(scope.run_path, run.epoch)
            run.lease_until_us = None
        else:
            hold = self.clients[client].gates.hold(scope.run_path, "worker", LEASE_S)
            assert hold.epoch == run.epoch + 1
            run.epoch, run.lease_until_us = hold.epoch, self.now + int(LEASE_S * 1_000_000)

    @rule(client=clients, scope=st.none() | runs)
    def reap(self, client: int, scope: Scope | None) -> None:
        silent: Callable[[Scope, int, int], bool] = self.is_silent if scope is None else self.was_taken_over
        left = [
            one
            for one in self.all()
            if one.open and scope in (None, one.scope) and silent(one.scope, one.made.call.epoch, one.deadline_us)
        ]
        lost = [
            one
            for one in self.parts
            if not one.lost
            and self.is_there(one)
            and scope in (None, one.scope)
            and silent(one.scope, one.epoch, one.until_us)
        ]
        assert self.clients[client].reap(None if scope is None else scope.run_id) == len(left) + len(lost)
        for one in left:
            one.give_up()
        for part in lost:
            part.lost = True

    def is_there(self, one: Part) -> bool:
        """Whether a slice was not closed."""
        return one.slice is not None or bool(one.rest)

    def was_taken_over(self, scope: Scope, epoch: int, _deadline_us: int) -> bool:
        return epoch < self.of_run[scope].epoch

    def is_silent(self, scope: Scope, epoch: int, deadline_us: int) -> bool:
        run = self.of_run[scope]
        nobody = run.epoch > 0 and (run.lease_until_us is None or run.lease_until_us < self.now)
        return deadline_us < self.now or epoch < run.epoch or nobody

    @rule(seconds=st.integers(-60, 900))
    def move_the_clock(self, seconds: int) -> None:
        self.clock.advance(seconds=seconds)

    @rule(budget=budgets, before_us=st.integers(0, 1))
    def go_to_the_end_of_a_window(self, budget: tuple[str, str], before_us: int) -> None:
        lines = self.clients[0].budgets.ls(budget[0])
        for line in lines:
            if (line.path, line.per) == budget and line.resets_at is not None:
                self.clock.now = line.resets_at - timedelta(microseconds=before_us)

    # --- What holds after every step ----------------------------------------------------------------------------------

    @invariant()
    def the_store_adds_up(self) -> None:
        audit(self.store)

    @invariant()
    def every_scope_has_what_its_runs_have(self) -> None:
        with self.store.read() as connection:
            rows = connection.execute(OF_POT).all()
        charged: list[tuple[tuple[str, ...], Amounts, Amounts]] = [
            (one.scope.with_node("model"), one.held, one.posted) for one in self.all()
        ]
        charged += [(one.scope.paths, one.held, one.posted) for one in self.parts]
        for path, per, *found in rows:
            held = sum((held for paths, held, _ in charged if path in paths), Amounts())
            posted = sum((posted for paths, _, posted in charged if path in paths), Amounts())
            assert (Amounts(*map(int, found[:4])), Amounts(*map(int, found[4:]))) == (held, posted), (path, per)

    @invariant()
    def no_limit_is_exceeded_but_by_an_overage_a_late_truth_or_a_lowered_limit(self) -> None:
        over = excesses(self.store)
        grown = {key for key, amount in over.items() if amount > self.excess.get(key, 0)}
        assert self.explained or not grown
        self.excess, self.explained = over, False
