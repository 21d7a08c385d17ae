"""A grant adds to one window until it ends; what ends is never more than what nobody used or holds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from bursar.budget import Amounts, Ledger, Refusal, Reservation, Scope, Store
from bursar.budget.errors import NotFoundError, UsageError
from bursar.budget.limits import Limits
from bursar.budget.testing import SUPPORT, Clock, a_call, a_quote, audit, excesses, reserved, tokens


@pytest.fixture
def ledger(store_url: str, clock: Clock) -> Iterator[Ledger]:
    with closing(Ledger(Store(store_url), clock=clock)) as ledger:
        ledger.gates.open(SUPPORT, Limits.unlimited())
        ledger.budgets.set("acme", per="month", limit={"tokens": 100}, author="dana")
        yield ledger
        audit(ledger.store)
        assert not excesses(ledger.store)


def give(ledger: Ledger, amount: int, expires_at: datetime | None = None, *, path: str = "acme") -> int:
    ledger.budgets.grant(path, Amounts(tokens=amount), author="dana", note="the fair", expires_at=expires_at)
    return ledger.budgets.grants(path)[0].id


def limit(ledger: Ledger) -> int | None:
    [line] = ledger.budgets.ls("acme")
    return line.limit["tokens"]


def test_a_grant_says_who_gave_it_why_and_until_when(ledger: Ledger, clock: Clock) -> None:
    until = clock.now + timedelta(hours=2)
    number = give(ledger, 50, until)
    [line] = ledger.budgets.grants()
    assert (line.id, line.path, line.per, line.window) == (number, "acme", "month", "2026-11")
    assert (line.amount, line.taken, line.author, line.note) == (Amounts(tokens=50), Amounts(), "dana", "the fair")
    assert (line.granted_at, line.expires_at, line.ended_at) == (clock.now, until, None)


def test_what_is_unused_is_taken_back_when_it_expires(ledger: Ledger, clock: Clock) -> None:
    give(ledger, 100, clock.now + timedelta(hours=2))
    ledger.settle(reserved(ledger, a_call("a"), a_quote(60, 60)), usage=tokens(60, 60), outcome="exact", reply="")
    clock.advance(hours=2)
    refusal = ledger.reserve(a_call("b"), a_quote(1, 16))
    assert isinstance(refusal, Refusal)
    assert (limit(ledger), ledger.budgets.grants()[0].taken) == (120, Amounts(tokens=80))


def test_what_a_call_in_flight_holds_is_not_taken_back_from_under_it(ledger: Ledger, clock: Clock) -> None:
    number = give(ledger, 100)
    in_flight = reserved(ledger, a_call("a"), a_quote(90, 60))
    assert ledger.budgets.revoke(number, author="eve", note="over") == Amounts(tokens=50)
    assert limit(ledger) == 150
    ledger.settle(in_flight, usage=tokens(90, 60), outcome="exact", reply="")
    assert isinstance(ledger.reserve(a_call("b"), a_quote(1, 16)), Refusal)


def test_several_grants_end_one_after_the_other(ledger: Ledger, clock: Clock) -> None:
    for hours in (3, 1, 2):
        give(ledger, 10 * hours, clock.now + timedelta(hours=hours))
    limits = []
    for number in range(4):
        reserved(ledger, a_call(f"hour {number}"), a_quote(1, 1))
        limits.append(limit(ledger))
        clock.advance(hours=1)
    assert limits == [160, 150, 130, 100]


def test_a_grant_ends_with_its_window_and_neither_expires_nor_gives_in_the_next(ledger: Ledger, clock: Clock) -> None:
    number = give(ledger, 50, datetime(2026, 12, 24, tzinfo=UTC))
    clock.now = datetime(2026, 12, 1, tzinfo=UTC)
    assert isinstance(ledger.reserve(a_call(), a_quote(100, 1)), Refusal)
    clock.now = datetime(2026, 12, 25, tzinfo=UTC)
    reserved(ledger, a_call(), a_quote(50, 50))
    assert limit(ledger) == 100
    ledger.budgets.revoke(number, author="eve", note="of November")
    assert limit(ledger) == 100


def test_a_new_limit_keeps_a_grant_and_the_grant_still_ends(ledger: Ledger) -> None:
    number = give(ledger, 50)
    ledger.budgets.set("acme", per="month", limit={"tokens": 20}, author="dana")
    assert limit(ledger) == 70
    ledger.budgets.revoke(number, author="eve", note="")
    assert limit(ledger) == 20


@pytest.mark.parametrize("ended", ["revoked", "expired"])
def test_a_grant_ends_once(ledger: Ledger, clock: Clock, ended: str) -> None:
    number = give(ledger, 50, clock.now + timedelta(hours=1))
    if ended == "revoked":
        ledger.budgets.revoke(number, author="eve", note="")
    else:
        clock.advance(hours=1)
        reserved(ledger, a_call())
    with pytest.raises(UsageError, match=f"grant {number} ended at 2026-11-20T1"):
        ledger.budgets.revoke(number, author="eve", note="")
    assert limit(ledger) == 100


def test_what_cannot_be_granted_or_taken_back_is_refused(ledger: Ledger, clock: Clock) -> None:
    with pytest.raises(UsageError, match="which is past"):
        give(ledger, 1, clock.now)
    with pytest.raises(NotFoundError, match="there is no grant 77"):
        ledger.budgets.revoke(77, author="eve", note="")


def test_a_list_of_grants_is_of_a_path_and_what_is_below_the_newest_first(ledger: Ledger) -> None:
    for path in ("acme/support", "rival"):
        ledger.budgets.set(path, limit={"tokens": 1}, author="dana")
    for path in ("acme", "acme/support", "rival", "acme"):
        ledger.budgets.grant(path, Amounts(tokens=1), author="dana", note="")
    assert [line.path for line in ledger.budgets.grants("acme")] == ["acme", "acme/support", "acme"]
    assert len(ledger.budgets.grants()) == 4


class Grants(RuleBasedStateMachine):
    """Grants that come, expire and are revoked while calls are in flight."""

    store_url: str
    examples = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.ledger = Ledger(Store(self.store_url), clock=self.clock)
        number = next(self.examples)  # one store for all of them: each has a tenant of its own
        self.scope = Scope(tenant=f"tenant_{number}", agents=("support",), run_id=f"run_{number}")
        self.ledger.gates.open(self.scope, Limits.unlimited())
        self.ledger.budgets.set(self.scope.tenant, per="month", limit={"tokens": 100}, author="dana")
        self.open: list[Reservation] = []
        self.calls = 0

    @rule(amount=st.integers(1, 200), hours=st.none() | st.integers(1, 9))
    def give(self, amount: int, hours: int | None) -> None:
        until = None if hours is None else self.clock.now + timedelta(hours=hours)
        give(self.ledger, amount, until, path=self.scope.tenant)

    @rule(data=st.data())
    def revoke(self, data: st.DataObject) -> None:
        running = [one for one in self.ledger.budgets.grants(self.scope.tenant) if one.ended_at is None]
        if running:
            one = data.draw(st.sampled_from(running))
            taken = self.ledger.budgets.revoke(one.id, author="eve", note="")
            assert 0 <= taken.tokens <= one.amount.tokens

    @rule(wanted=st.integers(1, 150))
    def reserve(self, wanted: int) -> None:
        self.calls += 1
        made = self.ledger.reserve(a_call(f"{self.calls}", scope=self.scope), a_quote(wanted, 1, min_output_tokens=1))
        if isinstance(made, Reservation):
            self.open.append(made)

    @precondition(lambda self: self.open)
    @rule(part=st.floats(0, 1))
    def settle(self, part: float) -> None:
        made = self.open.pop()
        self.ledger.settle(made, usage=tokens(int(made.held.tokens * part)), outcome="exact", reply="")

    @rule(minutes=st.integers(1, 300))
    def wait(self, minutes: int) -> None:
        self.clock.advance(minutes=minutes)

    @invariant()
    def nothing_ends_below_what_is_used_or_held(self) -> None:
        assert not excesses(self.ledger.store)

    def teardown(self) -> None:
        for made in self.open:
            self.ledger.release(made, note="the end")
        audit(self.ledger.store)
        self.ledger.close()


def test_whatever_ends_while_calls_are_in_flight_no_limit_falls_below_what_is_used_or_held(store_url: str) -> None:
    machine = type("Machine", (Grants,), {"store_url": store_url})
    run_state_machine_as_test(machine, settings=settings(max_examples=15, stateful_step_count=25, deadline=None))


@pytest.mark.parametrize("ended", ["revoked", "expired"])
def test_what_a_call_in_flight_held_of_a_grant_is_taken_back_once_it_gives_it_back(
    ledger: Ledger, clock: Clock, ended: str
) -> None:
    number = give(ledger, 100, clock.now + timedelta(hours=1))
    in_flight = reserved(ledger, a_call("a"), a_quote(100, 100))
    if ended == "revoked":
        assert ledger.budgets.revoke(number, author="eve", note="") == Amounts()
    else:
        clock.advance(hours=1)
        ledger.reserve(a_call("b"), a_quote(1, 1))
    assert ledger.budgets.grants()[0].ended_at is None
    ledger.release(in_flight, note="not sent")
    assert isinstance(ledger.reserve(a_call("c"), a_quote(101, 1, min_output_tokens=1)), Refusal)
    [line] = ledger.budgets.grants()
    assert (limit(ledger), line.taken, line.ended_at) == (100, Amounts(tokens=100), clock.now)


def test_a_key_that_was_used_for_another_path_is_refused(ledger: Ledger) -> None:
    ledger.budgets.set("rival", limit={"tokens": 1}, author="dana")
    ledger.budgets.grant("acme", Amounts(tokens=1), author="dana", note="", key="decision 7")
    with pytest.raises(UsageError, match="was given to acme, and cannot be given to rival"):
        ledger.budgets.grant("rival", Amounts(tokens=1), author="dana", note="", key="decision 7")
