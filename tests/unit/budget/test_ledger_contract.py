"""What every store of the ledger must pass; it needs a `ledger`, its `clock`, and `another` ledger on its store."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import select

from bursar.budget import Amounts, Call, Ledger, Limits, Refusal, Replay, Reservation, Scope, ToolQuote, Wait
from bursar.budget.errors import ConflictError, NotFoundError, ReservationError
from bursar.budget.schema import entry
from bursar.budget.testing import FREE, NANO_PER_TOKEN, SUPPORT, Clock, a_call, a_quote, reserved, tokens
from bursar.budget.windows import to_us

Another = Callable[[], Ledger]

ONE_CALL = Amounts(100 * NANO_PER_TOKEN, 100, 1)
"""What the call of `a_quote()` is held at."""


def settled(ledger: Ledger, call: Call, *, input_tokens: int = 40, output_tokens: int = 10) -> Reservation:
    made = reserved(ledger, call)
    ledger.dispatch(made)
    ledger.settle(made, usage=tokens(input_tokens, output_tokens), outcome="exact", reply="hello")
    return made


def posted(ledger: Ledger, run_id: str = "run_1") -> Amounts:
    return ledger.reports.bill(run_id).posted


def held(ledger: Ledger, run_id: str = "run_1") -> Amounts:
    return ledger.reports.bill(run_id).held


def journaled(ledger: Ledger) -> list[str]:
    with ledger.store.read() as connection:
        return list(connection.execute(select(entry.c.kind).order_by(entry.c.seq)).scalars())


def refused(ledger: Ledger, call: Call, *, final: bool = False) -> Refusal:
    refusal = ledger.reserve(call, a_quote(), final=final)
    assert isinstance(refusal, Refusal), refusal
    return refusal


def stop(ledger: Ledger, *, by: str = SUPPORT.run_path, path: str = SUPPORT.run_path) -> None:
    kind = "tenant" if "/" not in by else "run"
    ledger.gates.stop(path, Refusal(cause="limit", kind=kind, path=by, dimension="steps", limit=1))  # type: ignore[arg-type]


# --- One call is paid once --------------------------------------------------------------------------------------------


def test_a_settled_call_is_replayed_and_costs_nothing(ledger: Ledger, another: Another) -> None:
    made = settled(ledger, a_call())
    before = posted(ledger)
    for one in (ledger, another()):
        assert one.reserve(a_call(), a_quote()) == Replay(made.id, "hello")
    assert posted(ledger) == before
    assert held(ledger) == Amounts()


@pytest.mark.parametrize("why", ["stopped", "cancelled", "fenced", "used up"])
def test_a_run_that_may_not_go_on_is_still_given_what_it_has_paid_for(ledger: Ledger, why: str) -> None:
    settled(ledger, a_call())
    if why == "stopped":
        stop(ledger)
    elif why == "cancelled":
        ledger.gates.cancel(SUPPORT.run_path, author="dana")
    elif why == "fenced":
        ledger.gates.hold(SUPPORT.run_path, "another worker", 60)
    else:
        ledger.budgets.set("acme", limit={"steps": 0}, author="dana")
    assert isinstance(ledger.reserve(a_call(), a_quote()), Replay)
    assert isinstance(ledger.reserve(a_call("call_2"), a_quote()), Refusal)


def test_a_released_attempt_is_followed_by_the_next(ledger: Ledger) -> None:
    first = reserved(ledger, a_call())
    ledger.release(first, note="connection refused")
    second = reserved(ledger, a_call())
    assert (first.attempt, second.attempt) == (0, 1)
    assert held(ledger) == ONE_CALL


def test_an_unknown_attempt_stays_charged_beside_the_next(ledger: Ledger) -> None:
    first = reserved(ledger, a_call())
    ledger.dispatch(first)
    ledger.settle(first, usage=None, outcome="unknown")
    second = reserved(ledger, a_call())
    assert second.attempt == 1
    assert posted(ledger) == held(ledger) == ONE_CALL


def test_a_run_is_never_given_the_reply_of_another(ledger: Ledger) -> None:
    settled(ledger, a_call())
    other = Scope(tenant="rival", agents=("support",), run_id="run_2")
    ledger.gates.open(other, Limits.unlimited())
    assert reserved(ledger, a_call(scope=other)).attempt == 0


def test_what_an_earlier_holder_left_open_is_given_up_before_the_call_is_made_again(ledger: Ledger) -> None:
    before = ledger.gates.hold(SUPPORT.run_path, "worker", 60).epoch
    never_sent, sent = reserved(ledger, a_call("a", epoch=before)), reserved(ledger, a_call("b", epoch=before))
    ledger.dispatch(sent)
    after = ledger.gates.hold(SUPPORT.run_path, "worker", 60).epoch
    for id in ("a", "b"):
        assert reserved(ledger, a_call(id, epoch=after)).attempt == 1
    states = {(one.call, one.attempt): (one.state, one.outcome) for one in ledger.reports.bill("run_1").attempts}
    assert states["a", 0] == ("released", None)
    assert states["b", 0] == ("settled", "unknown")
    assert posted(ledger) == ONE_CALL
    with pytest.raises(ReservationError):
        ledger.dispatch(never_sent)


# --- Dispatch: the last moment before bytes leave ---------------------------------------------------------------------


def test_a_reservation_is_dispatched_once(ledger: Ledger) -> None:
    made = reserved(ledger, a_call())
    ledger.dispatch(made)
    with pytest.raises(ReservationError, match="must not be sent"):
        ledger.dispatch(made)


def test_nothing_is_sent_after_the_deadline(ledger: Ledger, clock: Clock) -> None:
    made = reserved(ledger, a_call(), deadline_us=to_us(clock.now) + 1_000_000)
    clock.advance(seconds=1)
    in_time = reserved(ledger, a_call("call_2"), deadline_us=to_us(clock.now))
    ledger.dispatch(in_time)
    clock.advance(microseconds=1)
    with pytest.raises(ReservationError):
        ledger.dispatch(made)


def test_nothing_is_sent_by_a_worker_that_lost_its_run(ledger: Ledger, another: Another, clock: Clock) -> None:
    epoch = ledger.gates.hold(SUPPORT.run_path, "slow worker", 10).epoch
    made = reserved(ledger, a_call(epoch=epoch))
    clock.advance(seconds=11)
    another().gates.hold(SUPPORT.run_path, "other worker", 10)
    with pytest.raises(ReservationError):
        ledger.dispatch(made)


@pytest.mark.parametrize("closed_by", ["settle", "release", "reap"])
def test_nothing_is_sent_on_a_closed_reservation(ledger: Ledger, clock: Clock, closed_by: str) -> None:
    made = reserved(ledger, a_call(), deadline_us=to_us(clock.now))
    if closed_by == "settle":
        ledger.settle(made, usage=None, outcome="unknown")
    elif closed_by == "release":
        ledger.release(made, note="not needed")
    else:
        clock.advance(seconds=1)
        assert ledger.reap() == 1
    with pytest.raises(ReservationError):
        ledger.dispatch(made)


# --- Settle -----------------------------------------------------------------------------------------------------------


def test_a_settle_posts_what_was_used_and_gives_back_the_rest(ledger: Ledger) -> None:
    made = reserved(ledger, a_call())
    assert held(ledger) == made.held == ONE_CALL
    came_to = ledger.settle(made, usage=tokens(40, 10), outcome="exact", reply="hello")
    assert came_to == posted(ledger) == Amounts(50 * NANO_PER_TOKEN, 50, 1)
    assert held(ledger) == Amounts()


def test_an_unknown_outcome_is_charged_at_what_was_reserved(ledger: Ledger) -> None:
    assert ledger.settle(reserved(ledger, a_call()), usage=None, outcome="unknown") == ONE_CALL
    assert posted(ledger) == ONE_CALL


def test_settling_twice_with_the_same_amounts_changes_nothing(ledger: Ledger) -> None:
    exact, unknown = settled(ledger, a_call()), reserved(ledger, a_call("call_2"))
    ledger.settle(unknown, usage=None, outcome="unknown")
    before, rows = ledger.reports.bill("run_1"), journaled(ledger)
    ledger.settle(exact, usage=tokens(40, 10), outcome="exact", reply="hello")
    ledger.settle(unknown, usage=None, outcome="unknown")
    assert ledger.reports.bill("run_1") == before
    assert journaled(ledger) == rows


def test_settling_twice_with_other_amounts_is_refused(ledger: Ledger) -> None:
    made = settled(ledger, a_call())
    before = ledger.reports.bill("run_1")
    for usage, outcome in ((tokens(41, 10), "exact"), (None, "unknown")):
        with pytest.raises(ReservationError, match="cannot be settled again"):
            ledger.settle(made, usage=usage, outcome=outcome, reply="other")  # type: ignore[arg-type]
    assert ledger.reports.bill("run_1") == before


@pytest.mark.parametrize("sent", [True, False], ids=["sent", "never sent"])
def test_the_truth_about_a_call_that_was_given_up_is_booked_late(ledger: Ledger, clock: Clock, sent: bool) -> None:
    made = reserved(ledger, a_call(), deadline_us=to_us(clock.now))
    if sent:
        ledger.dispatch(made)
    clock.advance(seconds=1)
    assert ledger.reap() == 1
    assert posted(ledger) == (ONE_CALL if sent else Amounts())
    ledger.settle(made, usage=tokens(40, 10), outcome="exact", reply="hello")
    assert posted(ledger) == Amounts(50 * NANO_PER_TOKEN, 50, 1)
    assert journaled(ledger)[-1] == "correct"
    assert ledger.reserve(a_call(), a_quote()) == Replay(made.id, "hello")


def test_proof_that_a_call_was_not_billed_corrects_what_was_charged_when_it_was_given_up(
    ledger: Ledger, clock: Clock
) -> None:
    made = reserved(ledger, a_call(), deadline_us=to_us(clock.now))
    ledger.dispatch(made)
    clock.advance(seconds=1)
    assert ledger.reap() == 1
    for _ in range(2):
        ledger.release(made, note="HTTP 429")
        assert posted(ledger) == held(ledger) == Amounts()
    assert journaled(ledger)[-2:] == ["expire", "correct"]
    attempt = ledger.reports.bill("run_1").attempts[0]
    assert (attempt.state, attempt.outcome, attempt.note) == ("released", None, "HTTP 429")


def test_an_answer_that_is_kept_stays_charged_whatever_is_said_of_it_later(ledger: Ledger) -> None:
    made = reserved(ledger, a_call())
    ledger.dispatch(made)
    ledger.settle(made, usage=None, outcome="unknown", reply="hello")
    ledger.release(made, note="HTTP 429")
    assert posted(ledger) == ONE_CALL
    assert ledger.reserve(a_call(), a_quote()) == Replay(made.id, "hello")


def test_overage_counts_against_the_limit_and_refuses_only_what_no_longer_fits(ledger: Ledger) -> None:
    ledger.budgets.set("acme", limit={"tokens": 300}, author="dana")
    made = reserved(ledger, a_call())
    ledger.dispatch(made)
    ledger.settle(made, usage=tokens(50, 100), outcome="exact", reply="hello")
    settled(ledger, a_call("call_2"), input_tokens=50, output_tokens=90)
    assert refused(ledger, a_call("call_3")).path == "acme"


@pytest.mark.parametrize("late", [False, True])
def test_more_than_was_reserved_is_booked_in_full_and_journaled_as_overage(
    ledger: Ledger, clock: Clock, late: bool
) -> None:
    ledger.budgets.set("acme", limit={"tokens": 150}, author="dana")
    made = reserved(ledger, a_call(), deadline_us=to_us(clock.now))
    ledger.dispatch(made)
    if late:
        clock.advance(seconds=1)
        ledger.reap()
    ledger.settle(made, usage=tokens(50, 200), outcome="exact", reply="hello")
    assert posted(ledger).tokens == 250
    assert journaled(ledger)[-1] == "overage"
    refusal = refused(ledger, a_call("call_2"))
    assert (refusal.path, refusal.posted, refusal.remaining) == ("acme", 250, 0)


# --- Release, reap and tools ------------------------------------------------------------------------------------------


def test_a_release_gives_back_all_that_was_held(ledger: Ledger) -> None:
    made = reserved(ledger, a_call())
    ledger.dispatch(made)
    ledger.release(made, note="connection refused")
    assert held(ledger) == posted(ledger) == Amounts()
    assert ledger.reports.bill("run_1").attempts[0].note == "connection refused"


def test_a_release_after_the_settle_changes_nothing(ledger: Ledger) -> None:
    made = settled(ledger, a_call())
    before = ledger.reports.bill("run_1")
    ledger.release(made, note="too late")
    assert ledger.reports.bill("run_1") == before


@pytest.mark.parametrize("how", ["past its deadline", "holder silent", "run let go", "run taken over"])
def test_the_reaper_releases_what_was_never_sent_and_charges_what_was(ledger: Ledger, clock: Clock, how: str) -> None:
    hold = ledger.gates.hold(SUPPORT.run_path, "worker", 10)
    until = to_us(clock.now) + 5_000_000 if how == "past its deadline" else None
    reserved(ledger, a_call("a", epoch=hold.epoch), deadline_us=until)
    ledger.dispatch(reserved(ledger, a_call("b", epoch=hold.epoch), deadline_us=until))
    assert ledger.reap() == 0
    if how == "past its deadline":
        clock.advance(seconds=6)
    elif how == "holder silent":
        clock.advance(seconds=11)
    elif how == "run let go":
        ledger.gates.let_go(SUPPORT.run_path, hold.epoch)
    else:
        ledger.gates.hold(SUPPORT.run_path, "worker", 10)
    assert ledger.reap() == 2
    assert held(ledger) == Amounts()
    assert posted(ledger) == ONE_CALL
    assert ledger.reap() == 0


def test_the_reaper_of_one_run_gives_up_what_earlier_holders_left_and_nothing_else(ledger: Ledger) -> None:
    other = Scope(tenant="acme", agents=("support",), run_id="run_2")
    ledger.gates.open(other, Limits.unlimited())
    for scope in (SUPPORT, other):
        epoch = ledger.gates.hold(scope.run_path, "worker", 60).epoch
        reserved(ledger, a_call("left", scope=scope, epoch=epoch))
        epoch = ledger.gates.hold(scope.run_path, "worker", 60).epoch
        reserved(ledger, a_call("now", scope=scope, epoch=epoch))
    assert ledger.reap("run_1") == 1
    assert (held(ledger, "run_1").steps, held(ledger, "run_2").steps) == (1, 2)


def test_a_tool_call_is_charged_once_and_within_its_limit(ledger: Ledger) -> None:
    ledger.budgets.set("acme", limit={"tool_calls": 2, "nanousd": 0, "tokens": 0, "steps": 0}, author="dana")
    for _ in range(2):
        ledger.charge(a_call("tool_1"), ToolQuote())
    assert posted(ledger) == Amounts(tool_calls=1)
    assert isinstance(ledger.charge(a_call("tool_2"), ToolQuote()), Reservation)
    refusal = ledger.charge(a_call("tool_3"), ToolQuote())
    assert isinstance(refusal, Refusal)
    assert (refusal.dimension, refusal.needed, refusal.remaining) == ("tool_calls", 1, 0)
    assert posted(ledger) == Amounts(tool_calls=2)


# --- Every scope at once ----------------------------------------------------------------------------------------------


def test_every_scope_holds_and_posts_the_same(ledger: Ledger) -> None:
    helper = SUPPORT.child("researcher", "researcher.1")
    ledger.gates.open(helper, Limits.unlimited())
    for path in ("acme", "acme/support", "acme/researcher"):
        ledger.budgets.set(path, limit={}, author="dana")
    settled(ledger, a_call())
    settled(ledger, a_call("call_2", scope=helper))
    reserved(ledger, a_call("call_3", scope=helper))
    steps = {line.path: (line.posted.steps, line.held.steps) for line in ledger.budgets.ls(runs=True)}
    assert steps == {
        "acme": (2, 1),
        "acme/support": (2, 1),
        "acme/researcher": (1, 1),
        "acme/support/run_1": (2, 1),
        "acme/support/run_1/researcher.1": (1, 1),
    }


@pytest.mark.parametrize("scope", ["acme", "acme/support", "acme/support/run_2"])
def test_one_scope_that_refuses_holds_nothing_in_any(ledger: Ledger, scope: str) -> None:
    run_2 = Scope(tenant="acme", agents=("support",), run_id="run_2")
    limited = scope == run_2.run_path
    ledger.gates.open(run_2, Limits(steps=0 if limited else None))
    if not limited:
        ledger.budgets.set(scope, limit={"steps": 0}, author="dana")
    ledger.budgets.set("acme", per="day", limit={"steps": 9}, author="dana")
    assert refused(ledger, a_call(scope=run_2)).path == scope
    assert all(line.held == Amounts() for line in ledger.budgets.ls(runs=True))


def test_a_call_waits_for_calls_in_flight_and_is_refused_only_by_what_is_spent(ledger: Ledger) -> None:
    ledger.budgets.set("acme", limit={"steps": 1}, author="dana")
    made = reserved(ledger, a_call())
    assert ledger.reserve(a_call("call_2"), a_quote()) == Wait("acme")
    ledger.release(made, note="connection refused")
    settled(ledger, a_call("call_2"))
    assert refused(ledger, a_call("call_3")).dimension == "steps"


def test_a_run_that_was_never_opened_can_reserve_nothing(ledger: Ledger) -> None:
    for scope in (Scope(tenant="acme", agents=("support",), run_id="run_9"), SUPPORT.child("researcher", "r.1")):
        with pytest.raises(NotFoundError, match="was never opened"):
            ledger.reserve(a_call(scope=scope), a_quote())
    with pytest.raises(NotFoundError, match="was never opened"):
        ledger.gates.open(SUPPORT.child("a", "a.1").child("b", "b.1"), Limits())


def test_a_runs_id_belongs_to_one_run(ledger: Ledger) -> None:
    for tenant, agent in (("rival", "support"), ("acme", "sales")):
        with pytest.raises(ConflictError, match="run_1"):
            ledger.gates.open(Scope(tenant=tenant, agents=(agent,), run_id="run_1"), Limits())


def test_opening_a_run_again_grants_nothing(ledger: Ledger) -> None:
    run_2 = Scope(tenant="acme", agents=("support",), run_id="run_2")
    for steps in (1, 100):
        ledger.gates.open(run_2, Limits(steps=steps))
    settled(ledger, a_call(scope=run_2))
    assert refused(ledger, a_call("call_2", scope=run_2)).limit == 1


# --- A stop sticks ----------------------------------------------------------------------------------------------------


def test_a_stopped_run_gets_nothing_whatever_is_left(ledger: Ledger, another: Another) -> None:
    stop(ledger)
    for number in range(3):
        for one in (ledger, another()):
            refusal = refused(one, a_call(f"call_{number}"))
            assert (refusal.cause, refusal.path) == ("stopped", SUPPORT.run_path)
    assert ledger.charge(a_call("tool"), ToolQuote()) == refused(ledger, a_call())


def test_the_first_refusal_that_stopped_a_run_stays(ledger: Ledger) -> None:
    stop(ledger)
    stop(ledger, by="acme")
    stopped = ledger.gates.stopped(SUPPORT.run_path)
    assert stopped is not None
    assert stopped.path == SUPPORT.run_path


@pytest.mark.parametrize("by", ["grant", "reopen", "extend"])
def test_a_stopped_run_goes_on_once_more_is_granted(ledger: Ledger, by: str) -> None:
    stop(ledger)
    if by == "grant":
        ledger.budgets.grant(SUPPORT.run_path, Amounts(steps=1), author="dana", note="go on")
    elif by == "reopen":
        ledger.gates.reopen(SUPPORT.run_path, author="dana")
    else:
        ledger.gates.extend(SUPPORT.run_path, 60, author="dana")
    assert ledger.gates.stopped(SUPPORT.run_path) is None
    reserved(ledger, a_call())


def test_a_grant_to_the_scope_that_stopped_runs_lets_all_of_them_go_on(ledger: Ledger) -> None:
    ledger.budgets.set("acme", limit={"steps": 5}, author="dana")
    run_2 = Scope(tenant="acme", agents=("support",), run_id="run_2")
    ledger.gates.open(run_2, Limits())
    for path in (SUPPORT.run_path, run_2.run_path):
        stop(ledger, by="acme", path=path)
    ledger.budgets.grant(SUPPORT.run_path, Amounts(steps=1), author="dana", note="not what stopped it")
    assert refused(ledger, a_call()).cause == "stopped"
    ledger.budgets.grant("acme", Amounts(steps=1), author="dana", note="go on")
    reserved(ledger, a_call())
    reserved(ledger, a_call(scope=run_2))


def test_a_stopped_run_gives_one_last_answer(ledger: Ledger) -> None:
    stop(ledger)
    reserved(ledger, a_call("last"), final=True)
    assert refused(ledger, a_call("one more"), final=True).cause == "stopped"
    assert refused(ledger, a_call("one more")).cause == "stopped"


def test_the_last_answer_may_be_tried_again_as_any_call(ledger: Ledger) -> None:
    stop(ledger)
    ledger.release(reserved(ledger, a_call("last"), final=True), note="connection refused")
    again = reserved(ledger, a_call("last", model="another"), final=True)
    assert again.attempt == 1
    ledger.settle(again, usage=tokens(10, 10), outcome="exact", reply="that is all")
    assert ledger.reserve(a_call("last"), a_quote(), final=True) == Replay(again.id, "that is all")


def test_each_stop_has_its_own_last_answer(ledger: Ledger) -> None:
    stop(ledger)
    reserved(ledger, a_call("last"), final=True)
    ledger.gates.reopen(SUPPORT.run_path, author="dana")
    stop(ledger)
    reserved(ledger, a_call("last again"), final=True)


def test_a_last_answer_is_within_the_limits_too(ledger: Ledger) -> None:
    ledger.budgets.set("acme", limit={"steps": 0}, author="dana")
    stop(ledger, by="acme")
    assert refused(ledger, a_call("last"), final=True).cause == "limit"


def test_an_agent_used_as_a_tool_is_stopped_with_its_run_and_has_a_last_answer_of_its_own(ledger: Ledger) -> None:
    helper = SUPPORT.child("researcher", "researcher.1")
    ledger.gates.open(helper, Limits.unlimited())
    stop(ledger)
    assert refused(ledger, a_call(scope=helper)).path == SUPPORT.run_path
    reserved(ledger, a_call("helper's last", scope=helper), final=True)
    assert refused(ledger, a_call("one more", scope=helper), final=True).cause == "stopped"
    reserved(ledger, a_call("last"), final=True)


def test_a_cancelled_run_gets_nothing_not_even_a_last_answer(ledger: Ledger, another: Another) -> None:
    helper = SUPPORT.child("researcher", "researcher.1")
    ledger.gates.open(helper, Limits.unlimited())
    ledger.gates.hold(SUPPORT.run_path, "worker", 60)
    another().gates.cancel(SUPPORT.run_path, author="dana")
    for scope in (SUPPORT, helper):
        assert refused(ledger, a_call(scope=scope, epoch=1), final=True).cause == "cancelled"
    assert ledger.gates.cancelled("worker") == {"run_1"}


def test_an_agent_used_as_a_tool_can_be_cancelled_alone(ledger: Ledger) -> None:
    helper = SUPPORT.child("researcher", "researcher.1")
    ledger.gates.open(helper, Limits.unlimited())
    ledger.gates.cancel(helper.run_paths[-1], author="dana")
    assert refused(ledger, a_call(scope=helper)).cause == "cancelled"
    reserved(ledger, a_call())


# --- Who may spend, and for how long ----------------------------------------------------------------------------------


def test_a_worker_that_lost_its_run_can_reserve_nothing(ledger: Ledger, another: Another, clock: Clock) -> None:
    old = ledger.gates.hold(SUPPORT.run_path, "slow worker", 10).epoch
    clock.advance(seconds=10)
    new = another().gates.hold(SUPPORT.run_path, "other worker", 10).epoch
    assert new == old + 1
    assert refused(ledger, a_call(epoch=old)).cause == "fenced"
    reserved(ledger, a_call(epoch=new))


def test_a_run_out_of_time_can_reserve_nothing_until_it_is_given_more(ledger: Ledger, clock: Clock) -> None:
    run_2 = Scope(tenant="acme", agents=("support",), run_id="run_2")
    ledger.gates.open(run_2, Limits(seconds=10))
    hold = ledger.gates.hold(run_2.run_path, "worker", 1000)
    assert hold.deadline is not None
    clock.now = hold.deadline
    refusal = refused(ledger, a_call(scope=run_2, epoch=hold.epoch), final=True)
    assert (refusal.cause, refusal.dimension, refusal.limit) == ("deadline", "seconds", 10)
    clock.advance(seconds=100)
    ledger.gates.extend(run_2.run_path, 5, author="dana")
    clock.advance(seconds=4)
    reserved(ledger, a_call(scope=run_2, epoch=hold.epoch))
    clock.advance(seconds=1)
    assert refused(ledger, a_call("call_2", scope=run_2, epoch=hold.epoch)).cause == "deadline"


# --- Limits change while runs go on -----------------------------------------------------------------------------------


def test_a_changed_limit_keeps_what_was_used_and_holds_from_the_next_call_on(ledger: Ledger, another: Another) -> None:
    admin = another()
    ledger.budgets.set("acme", limit={"steps": 1}, author="dana")
    settled(ledger, a_call())
    assert refused(ledger, a_call("call_2")).limit == 1
    line = admin.budgets.set("acme", limit={"steps": 2}, author="dana")
    assert line.posted.steps == 1
    settled(ledger, a_call("call_2"))
    admin.budgets.set("acme", limit={"steps": None}, author="dana")
    settled(ledger, a_call("call_3"))
    admin.budgets.set("acme", limit={"steps": 1}, author="dana")
    refusal = refused(ledger, a_call("call_4"))
    assert (refusal.limit, refusal.posted, refusal.remaining) == (1, 3, 0)


def test_a_limit_that_is_new_counts_from_when_it_was_set(ledger: Ledger) -> None:
    settled(ledger, a_call())
    ledger.budgets.set("acme", limit={"steps": 1}, author="dana")
    settled(ledger, a_call("call_2"))
    assert refused(ledger, a_call("call_3")).posted == 1


def test_several_budgets_of_a_tenant_hold_together(ledger: Ledger, clock: Clock) -> None:
    ledger.budgets.set("acme", per="hour", limit={"steps": 1}, author="dana")
    ledger.budgets.set("acme", per="day", limit={"steps": 2}, author="dana")
    settled(ledger, a_call())
    assert refused(ledger, a_call("call_2")).window == "2026-11-20T12+00:00"
    clock.advance(hours=1)
    settled(ledger, a_call("call_2"))
    clock.advance(hours=1)
    assert refused(ledger, a_call("call_3")).window == "2026-11-20"


@pytest.mark.parametrize(("per", "length"), [("hour", 3600), ("day", 86400), ("week", 604800), ("month", 2592000)])
def test_a_new_window_begins_by_itself_with_nothing_used(ledger: Ledger, clock: Clock, per: str, length: int) -> None:
    line = ledger.budgets.set("acme", per=per, limit={"steps": 1}, author="dana")  # type: ignore[arg-type]
    settled(ledger, a_call())
    refusal = refused(ledger, a_call("call_2"))
    assert line.resets_at is not None
    assert refusal.resets_us == to_us(line.resets_at) <= to_us(clock.now) + length * 1_000_000
    clock.now = line.resets_at
    settled(ledger, a_call("call_2"))
    assert refused(ledger, a_call("call_3")).cause == "limit"


def test_a_call_is_booked_in_the_window_in_which_it_was_reserved(ledger: Ledger, clock: Clock) -> None:
    line = ledger.budgets.set("acme", per="day", limit={"steps": 1}, author="dana")
    made = reserved(ledger, a_call())
    assert line.resets_at is not None
    clock.now = line.resets_at
    ledger.settle(made, usage=tokens(40, 10), outcome="exact", reply="hello")
    settled(ledger, a_call("call_2"))


def test_a_grant_raises_the_present_window_only(ledger: Ledger, clock: Clock) -> None:
    ledger.budgets.set("acme", per="day", limit={"steps": 1}, author="dana")
    line = ledger.budgets.grant("acme", Amounts(steps=1), author="dana", note="one more today")
    assert line.limit["steps"] == 2
    settled(ledger, a_call())
    settled(ledger, a_call("call_2"))
    assert line.resets_at is not None
    clock.now = line.resets_at
    settled(ledger, a_call("call_3"))
    assert refused(ledger, a_call("call_4")).limit == 1


def test_a_free_model_needs_no_money(ledger: Ledger) -> None:
    ledger.budgets.set("acme", limit={"nanousd": 0}, author="dana")
    made = reserved(ledger, a_call(), a_quote(price=FREE))
    assert ledger.settle(made, usage=tokens(40, 10), outcome="exact").nanousd == 0


def test_a_model_without_a_price_is_refused_where_money_is_limited(ledger: Ledger) -> None:
    reserved(ledger, a_call(), a_quote(price=None))
    ledger.budgets.set("acme", limit={"nanousd": 10**18}, author="dana")
    refusal = ledger.reserve(a_call("call_2"), a_quote(price=None))
    assert isinstance(refusal, Refusal)
    assert (refusal.cause, refusal.detail) == ("unpriced", "small-1")
