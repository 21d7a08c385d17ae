"""A call is paid once: attempts, the moment of sending, what is booked and when."""

from __future__ import annotations

import pytest

from bursar.budget import Amounts, Ledger, Limits, Refusal, Replay, Scope
from bursar.budget.admission import MoneyLeft
from bursar.budget.errors import CallInFlight, ReservationError
from bursar.budget.testing.contract.steps import ONE_CALL, Another, held, journaled, posted, refused, settled, stop
from bursar.budget.testing.plain import FREE, NANO_PER_TOKEN, SUPPORT, Clock, a_call, a_quote, reserved, tokens
from bursar.budget.windows import to_us

__all__ = ["CallRules"]


class CallRules:
    """What holds of one call."""

    # --- One call is paid once ----------------------------------------------------------------------------------------

    def test_a_settled_call_is_replayed_and_costs_nothing(self, ledger: Ledger, another: Another) -> None:
        made = settled(ledger, a_call())
        before = posted(ledger)
        for one in (ledger, another()):
            assert one.reserve(a_call(), a_quote()) == Replay(made.id, "hello")
        assert posted(ledger) == before
        assert held(ledger) == Amounts()

    @pytest.mark.parametrize("why", ["stopped", "cancelled", "fenced", "used up"])
    def test_a_run_that_may_not_go_on_is_still_given_what_it_has_paid_for(self, ledger: Ledger, why: str) -> None:
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

    def test_a_released_attempt_is_followed_by_the_next(self, ledger: Ledger) -> None:
        first = reserved(ledger, a_call())
        ledger.release(first, note="connection refused")
        second = reserved(ledger, a_call())
        assert (first.attempt, second.attempt) == (0, 1)
        assert held(ledger) == ONE_CALL

    def test_an_unknown_attempt_stays_charged_beside_the_next(self, ledger: Ledger) -> None:
        first = reserved(ledger, a_call())
        ledger.dispatch(first)
        ledger.settle(first, usage=None, outcome="unknown")
        second = reserved(ledger, a_call())
        assert second.attempt == 1
        assert posted(ledger) == held(ledger) == ONE_CALL

    def test_a_run_is_never_given_the_reply_of_another(self, ledger: Ledger) -> None:
        settled(ledger, a_call())
        other = Scope(tenant="rival", agents=("support",), run_id="run_2")
        ledger.gates.open(other, Limits.unlimited())
        assert reserved(ledger, a_call(scope=other)).attempt == 0

    def test_what_an_earlier_holder_left_open_is_given_up_before_the_call_is_made_again(self, ledger: Ledger) -> None:
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

    @pytest.mark.parametrize("sent", [False, True], ids=["reserved", "dispatched"])
    def test_an_exclusive_call_is_not_made_beside_an_attempt_at_it(
        self, ledger: Ledger, another: Another, sent: bool
    ) -> None:
        first = reserved(ledger, a_call(), exclusive=True)
        if sent:
            ledger.dispatch(first)
        with pytest.raises(CallInFlight, match="ask again"):
            another().reserve(a_call(), a_quote(), exclusive=True)
        assert held(ledger) == ONE_CALL
        assert reserved(ledger, a_call("call_2"), exclusive=True).attempt == 0
        ledger.settle(first, usage=None, outcome="unknown")
        assert reserved(ledger, a_call(), exclusive=True).attempt == 1

    def test_an_exclusive_call_that_was_settled_is_replayed_beside_whatever_is_under_way(self, ledger: Ledger) -> None:
        reserved(ledger, a_call())
        second = reserved(ledger, a_call())
        ledger.settle(second, usage=tokens(40), outcome="exact", reply="hello")
        assert ledger.reserve(a_call(), a_quote(), exclusive=True) == Replay(second.id, "hello")

    def test_an_exclusive_call_goes_on_where_a_new_holder_takes_the_run(self, ledger: Ledger) -> None:
        before = ledger.gates.hold(SUPPORT.run_path, "worker", 60).epoch
        reserved(ledger, a_call(epoch=before), exclusive=True)
        after = ledger.gates.hold(SUPPORT.run_path, "worker", 60).epoch
        assert reserved(ledger, a_call(epoch=after), exclusive=True).attempt == 1

    # --- What a call leaves -------------------------------------------------------------------------------------------

    def test_a_reservation_says_which_budget_in_money_is_nearest_to_its_end(self, ledger: Ledger) -> None:
        assert reserved(ledger, a_call()).money_left is None
        ledger.budgets.set("acme", limit={"nanousd": 1_000_000}, author="dana")
        ledger.budgets.set("acme/support", per="day", limit={"nanousd": 800_000, "tokens": 201}, author="dana")
        made = reserved(ledger, a_call("call_2"))
        assert made.money_left == MoneyLeft("acme/support", "day", 800_000, 700_000)
        assert made.money_left.percent == 87
        ledger.budgets.set("acme", limit={"nanousd": 50_000}, author="dana")  # below what is held
        nearest = reserved(ledger, a_call("call_3"), a_quote(1, 1, price=FREE)).money_left
        assert nearest == MoneyLeft("acme", "total", 50_000, 0)
        assert nearest.percent == 0

    # --- Dispatch: the last moment before bytes leave -----------------------------------------------------------------

    def test_a_reservation_is_dispatched_once(self, ledger: Ledger) -> None:
        made = reserved(ledger, a_call())
        ledger.dispatch(made)
        with pytest.raises(ReservationError, match="must not be sent"):
            ledger.dispatch(made)

    def test_nothing_is_sent_after_the_deadline(self, ledger: Ledger, clock: Clock) -> None:
        made = reserved(ledger, a_call(), deadline_us=to_us(clock.now) + 1_000_000)
        clock.advance(seconds=1)
        in_time = reserved(ledger, a_call("call_2"), deadline_us=to_us(clock.now))
        ledger.dispatch(in_time)
        clock.advance(microseconds=1)
        with pytest.raises(ReservationError):
            ledger.dispatch(made)

    def test_nothing_is_sent_by_a_worker_that_lost_its_run(
        self, ledger: Ledger, another: Another, clock: Clock
    ) -> None:
        epoch = ledger.gates.hold(SUPPORT.run_path, "slow worker", 10).epoch
        made = reserved(ledger, a_call(epoch=epoch))
        clock.advance(seconds=11)
        another().gates.hold(SUPPORT.run_path, "other worker", 10)
        with pytest.raises(ReservationError):
            ledger.dispatch(made)

    @pytest.mark.parametrize("closed_by", ["settle", "release", "reap"])
    def test_nothing_is_sent_on_a_closed_reservation(self, ledger: Ledger, clock: Clock, closed_by: str) -> None:
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

    # --- Settle -------------------------------------------------------------------------------------------------------

    def test_a_settle_posts_what_was_used_and_gives_back_the_rest(self, ledger: Ledger) -> None:
        made = reserved(ledger, a_call())
        assert held(ledger) == made.held == ONE_CALL
        came_to = ledger.settle(made, usage=tokens(40, 10), outcome="exact", reply="hello")
        assert came_to == posted(ledger) == Amounts(50 * NANO_PER_TOKEN, 50, 1)
        assert held(ledger) == Amounts()

    def test_an_unknown_outcome_is_charged_at_what_was_reserved(self, ledger: Ledger) -> None:
        assert ledger.settle(reserved(ledger, a_call()), usage=None, outcome="unknown") == ONE_CALL
        assert posted(ledger) == ONE_CALL

    def test_settling_twice_with_the_same_amounts_changes_nothing(self, ledger: Ledger) -> None:
        exact, unknown = settled(ledger, a_call()), reserved(ledger, a_call("call_2"))
        ledger.settle(unknown, usage=None, outcome="unknown")
        before, rows = ledger.reports.bill("run_1"), journaled(ledger)
        ledger.settle(exact, usage=tokens(40, 10), outcome="exact", reply="another reply")
        ledger.settle(unknown, usage=None, outcome="unknown")
        assert ledger.reports.bill("run_1") == before
        assert journaled(ledger) == rows
        assert ledger.reserve(a_call(), a_quote()) == Replay(exact.id, "hello")

    def test_settling_twice_with_other_amounts_is_refused(self, ledger: Ledger) -> None:
        made = settled(ledger, a_call())
        before = ledger.reports.bill("run_1")
        for usage, outcome in ((tokens(41, 10), "exact"), (None, "unknown")):
            with pytest.raises(ReservationError, match="cannot be settled again"):
                ledger.settle(made, usage=usage, outcome=outcome, reply="other")  # type: ignore[arg-type]
        assert ledger.reports.bill("run_1") == before

    @pytest.mark.parametrize("sent", [True, False], ids=["sent", "never sent"])
    def test_the_truth_about_a_call_that_was_given_up_is_booked_late(
        self, ledger: Ledger, clock: Clock, sent: bool
    ) -> None:
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
        self, ledger: Ledger, clock: Clock
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

    def test_an_answer_that_is_kept_stays_charged_whatever_is_said_of_it_later(self, ledger: Ledger) -> None:
        made = reserved(ledger, a_call())
        ledger.dispatch(made)
        ledger.settle(made, usage=None, outcome="unknown", reply="hello")
        ledger.release(made, note="HTTP 429")
        assert posted(ledger) == ONE_CALL
        assert ledger.reserve(a_call(), a_quote()) == Replay(made.id, "hello")

    def test_overage_counts_against_the_limit_and_refuses_only_what_no_longer_fits(self, ledger: Ledger) -> None:
        ledger.budgets.set("acme", limit={"tokens": 300}, author="dana")
        made = reserved(ledger, a_call())
        ledger.dispatch(made)
        ledger.settle(made, usage=tokens(50, 100), outcome="exact", reply="hello")
        settled(ledger, a_call("call_2"), input_tokens=50, output_tokens=90)
        assert refused(ledger, a_call("call_3")).path == "acme"

    @pytest.mark.parametrize("late", [False, True])
    def test_more_than_was_reserved_is_booked_in_full_and_journaled_as_overage(
        self, ledger: Ledger, clock: Clock, late: bool
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

    def test_what_was_unknown_is_booked_exactly_once_it_is_known_and_is_certain_from_then_on(
        self, ledger: Ledger
    ) -> None:
        made = reserved(ledger, a_call())
        ledger.dispatch(made)
        ledger.settle(made, usage=None, outcome="unknown")
        ledger.settle(made, usage=tokens(40, 10), outcome="exact", reply="hello")
        assert posted(ledger) == Amounts(50 * NANO_PER_TOKEN, 50, 1)
        assert journaled(ledger)[-2:] == ["settle", "correct"]
        with pytest.raises(ReservationError, match="cannot be settled again"):
            ledger.settle(made, usage=None, outcome="unknown")
