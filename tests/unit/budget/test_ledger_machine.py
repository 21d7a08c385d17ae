"""Any schedule of reservations, crashes, take-overs and changed limits, against a plain model of what must come of it.

`BURSAR_SCHEDULES=nightly` tries ten thousand of them.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

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
from bursar.budget.audit.verify import verify
from bursar.budget.errors import ReservationError
from bursar.budget.reservations import Outcome
from bursar.budget.testing import FREE, PRICE, Clock, a_call, a_quote, audit, excesses, tokens
from bursar.budget.windows import to_us
from tests.support.ledger import new_store

SCHEDULES = {"quick": 15, "nightly": 10_000}
settings.register_profile(
    "schedules",
    max_examples=SCHEDULES[os.environ.get("BURSAR_SCHEDULES", "quick")],
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)

RUNS = tuple(Scope(tenant="acme", agents=("support",), run_id=f"run_{number}") for number in (1, 2))
LEASE_S = 600.0

Phase = Literal["reserved", "dispatched", "known", "unknown", "released"]
runs = st.sampled_from(RUNS)
calls = st.sampled_from("abcdefghijklmnop")
quotes = st.builds(
    a_quote,
    st.integers(0, 60),
    st.integers(1, 120),
    price=st.sampled_from([PRICE, FREE]),
    min_output_tokens=st.just(16),
)
usages = st.builds(tokens, st.integers(0, 80), st.integers(0, 160))
limits = st.none() | st.integers(0, 1_500)


def cost_of(made: Reservation, usage: Usage) -> Amounts:
    """What a settle must post."""
    nanousd = made.price.cost(usage) if made.price else 0
    return Amounts(nanousd, usage.total_tokens, made.held.steps, made.held.tool_calls)


@dataclass
class Attempt:
    """What the model knows of a reservation."""

    made: Reservation
    deadline_us: int
    phase: Phase = "reserved"
    posted: Amounts = Amounts()

    @property
    def open(self) -> bool:
        return self.phase in ("reserved", "dispatched")

    def give_up(self) -> None:
        if self.phase == "dispatched":
            self.phase, self.posted = "unknown", self.made.held
        else:
            self.phase = "released"


@dataclass
class Run:
    """What the model knows of a run."""

    epoch: int = 0
    lease_until_us: int | None = None
    stopped: bool = False


class LedgerMachine(RuleBasedStateMachine):
    attempts = Bundle("attempts")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = Clock()
        self.store = new_store(Path(self.folder.name))
        self.ledger = Ledger(self.store, clock=self.clock)
        self.of_run = {scope: Run() for scope in RUNS}
        self.of_call: dict[tuple[Scope, str], list[Attempt]] = defaultdict(list)
        self.excess: dict[tuple[int, str], int] = {}
        self.explained = False

    def teardown(self) -> None:
        assert not verify(self.store).findings
        self.store.close()
        self.folder.cleanup()

    @property
    def now(self) -> int:
        return to_us(self.clock.now)

    def all(self) -> list[Attempt]:
        return [one for attempts in self.of_call.values() for one in attempts]

    def epoch_of(self, one: Attempt) -> int:
        return self.of_run[one.made.call.scope].epoch

    # --- Limits -------------------------------------------------------------------------------------------------------

    @initialize(tenant=limits, day=limits, run=limits)
    def budgets(self, tenant: int | None, day: int | None, run: int | None) -> None:
        money = None if tenant is None else tenant * 1000
        self.ledger.budgets.set("acme", limit={"nanousd": money, "steps": 20}, author="dana")
        self.ledger.budgets.set(
            "acme/support", per="day", zone="Europe/Paris", limit={"tokens": day, "tool_calls": 3}, author="dana"
        )
        for scope in RUNS:
            self.ledger.gates.open(scope, Limits(steps=12, tool_calls=2, tokens=run, cost_usd=None, seconds=None))

    @rule(limit=limits, daily=st.booleans())
    def set_limit(self, limit: int | None, daily: bool) -> None:
        self.explained = True
        if daily:
            self.ledger.budgets.set("acme/support", per="day", limit={"tokens": limit}, author="dana")
        else:
            money = None if limit is None else limit * 1000
            self.ledger.budgets.set("acme", limit={"nanousd": money}, author="dana")

    @rule(scope=runs, how=st.sampled_from(["stop", "reopen", "grant"]))
    def stop_or_let_go_on(self, scope: Scope, how: str) -> None:
        if how == "stop":
            self.ledger.gates.stop(scope.run_path, Refusal(cause="stopped", kind="run", path=scope.run_path))
        elif how == "reopen":
            self.ledger.gates.reopen(scope.run_path, author="dana")
        else:
            self.ledger.budgets.grant(scope.run_path, Amounts(tokens=50, steps=1), author="dana", note="")
        self.of_run[scope].stopped = how == "stop"

    # --- Calls --------------------------------------------------------------------------------------------------------

    @rule(
        target=attempts,
        scope=runs,
        id=calls,
        quote=quotes,
        patience_s=st.none() | st.integers(0, 600),
        send=st.booleans(),
    )
    def reserve(self, scope: Scope, id: str, quote: ModelQuote, patience_s: int | None, send: bool) -> object:
        run, earlier = self.of_run[scope], self.of_call[scope, id]
        deadline_us = 2**62 if patience_s is None else self.now + patience_s * 1_000_000
        made = self.ledger.reserve(a_call(id, scope=scope, epoch=run.epoch), quote, deadline_us=deadline_us)
        answer = self.answered(made, run, earlier, deadline_us)
        if send and isinstance(answer, Attempt):
            self.dispatch(answer)
        return answer

    @rule(target=attempts, scope=runs, id=calls, quote=quotes)
    def make_a_whole_call(self, scope: Scope, id: str, quote: ModelQuote) -> object:
        answer = self.reserve(scope, id, quote, None, send=True)
        if isinstance(answer, Attempt):
            self.settle(answer, tokens(quote.input_tokens, answer.made.max_output_tokens // 2), "exact")
        return answer

    @rule(target=attempts, scope=runs, id=st.sampled_from(["tool x", "tool y"]))
    def use_tool(self, scope: Scope, id: str) -> object:
        run, earlier = self.of_run[scope], self.of_call[scope, id]
        made = self.ledger.charge(a_call(id, scope=scope, epoch=run.epoch), ToolQuote())
        answer = self.answered(made, run, earlier, 2**62)
        if isinstance(made, Reservation):
            earlier[-1].phase, earlier[-1].posted = "known", made.held
        return answer

    def answered(
        self, made: Reservation | Replay | Wait | Refusal, run: Run, earlier: list[Attempt], deadline_us: int
    ) -> object:
        known = [one for one in earlier if one.phase == "known"]
        if isinstance(made, Replay):
            assert made.reservation_id in [one.made.id for one in known]
            return multiple()
        assert not known, "a settled call was not replayed"
        for one in earlier:
            if one.open and one.made.call.epoch < run.epoch:
                one.give_up()
        if isinstance(made, Refusal):
            assert made.cause == ("stopped" if run.stopped else "limit")
            return multiple()
        assert not run.stopped, "a stop did not stick"
        if isinstance(made, Wait):
            assert any(one.open for one in self.all()), "a call waits for nobody"
            return multiple()
        assert made.attempt == len(earlier)
        self.holds_within_limits(made)
        earlier.append(Attempt(made, deadline_us))
        return earlier[-1]

    def holds_within_limits(self, made: Reservation) -> None:
        over = excesses(self.store)
        assert not [key for key in over if key[0] in json.loads(made.accounts) and getattr(made.held, key[1]) > 0]

    @rule(one=attempts)
    def dispatch(self, one: Attempt) -> None:
        if one.phase == "reserved" and self.now <= one.deadline_us and one.made.call.epoch == self.epoch_of(one):
            self.ledger.dispatch(one.made)
            one.phase = "dispatched"
        else:
            with pytest.raises(ReservationError):
                self.ledger.dispatch(one.made)

    @rule(one=attempts, usage=usages, outcome=st.sampled_from(["exact", "estimated", "unknown"]))
    def settle(self, one: Attempt, usage: Usage, outcome: Outcome) -> None:
        said = None if outcome == "unknown" else usage
        posted = one.made.held if said is None else cost_of(one.made, said)
        if one.phase == "known" and posted != one.posted:
            with pytest.raises(ReservationError):
                self.ledger.settle(one.made, usage=said, outcome=outcome, reply="hello")
            return
        self.explained = posted.tokens > one.made.held.tokens or not one.open
        reply = None if said is None else "hello"
        assert self.ledger.settle(one.made, usage=said, outcome=outcome, reply=reply) == posted
        if one.phase != "known":
            one.phase, one.posted = "unknown" if said is None else "known", posted

    @rule(one=attempts)
    def release(self, one: Attempt) -> None:
        self.ledger.release(one.made, note="connection refused")
        if one.open or one.phase == "unknown":
            one.phase, one.posted = "released", Amounts()

    # --- Workers that come and go -------------------------------------------------------------------------------------

    @rule(scope=runs, how=st.sampled_from(["crash", "let go", "take over"]))
    def change_hands(self, scope: Scope, how: str) -> None:
        run = self.of_run[scope]
        if how == "crash":  # all that a process knew is lost
            self.store.close()
            self.store = Store(self.store.url)
            self.ledger = Ledger(self.store, clock=self.clock)
        if how == "let go":
            self.ledger.gates.let_go(scope.run_path, run.epoch)
            run.lease_until_us = None
        else:
            hold = self.ledger.gates.hold(scope.run_path, "worker", LEASE_S)
            assert hold.epoch == run.epoch + 1
            run.epoch, run.lease_until_us = hold.epoch, self.now + int(LEASE_S * 1_000_000)

    @rule(scope=st.none() | runs)
    def reap(self, scope: Scope | None) -> None:
        gone = self.is_silent if scope is None else self.is_of_an_earlier_holder
        left = [one for one in self.all() if one.open and scope in (None, one.made.call.scope) and gone(one)]
        assert self.ledger.reap(None if scope is None else scope.run_id) == len(left)
        for one in left:
            one.give_up()

    def is_of_an_earlier_holder(self, one: Attempt) -> bool:
        return one.made.call.epoch < self.of_run[one.made.call.scope].epoch

    def is_silent(self, one: Attempt) -> bool:
        run = self.of_run[one.made.call.scope]
        nobody = run.epoch > 0 and (run.lease_until_us is None or run.lease_until_us < self.now)
        return one.deadline_us < self.now or self.is_of_an_earlier_holder(one) or nobody

    @rule(seconds=st.none() | st.integers(1, 900))
    def advance(self, seconds: int | None) -> None:
        if seconds is not None:
            self.clock.advance(seconds=seconds)
            return
        (line,) = self.ledger.budgets.ls("acme/support")
        assert line.resets_at is not None
        self.clock.now = line.resets_at

    # --- What holds after every step ----------------------------------------------------------------------------------

    @invariant()
    def the_store_adds_up(self) -> None:
        audit(self.store)

    @invariant()
    def the_store_agrees_with_the_model(self) -> None:
        lines = [line for line in self.ledger.budgets.ls("acme", runs=True) if line.kind == "run"]
        held = sum((one.made.held for one in self.all() if one.open), Amounts())
        posted = sum((one.posted for one in self.all() if not one.open), Amounts())
        assert sum((line.held for line in lines), Amounts()) == held
        assert sum((line.posted for line in lines), Amounts()) == posted

    @invariant()
    def no_limit_is_exceeded_but_by_an_overage_a_late_truth_or_a_lowered_limit(self) -> None:
        over = excesses(self.store)
        grown = {key for key, amount in over.items() if amount > self.excess.get(key, 0)}
        assert self.explained or not grown
        self.excess, self.explained = over, False


TestSchedules = LedgerMachine.TestCase
TestSchedules.settings = settings.get_profile("schedules")
