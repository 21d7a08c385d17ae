"""Calls under way: less is held of them, they may have to be cut off, and are charged what they came to at most."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bursar.budget import Amounts, Ledger, Limits, Reservation, Scope, Usage
from bursar.budget.errors import ReservationError, UsageError
from bursar.budget.testing.contract.steps import ONE_CALL, Another, held, journaled, posted, stop
from bursar.budget.testing.plain import NANO_PER_TOKEN, Clock, a_call, reserved, tokens
from bursar.budget.windows import to_us

__all__ = ["UnderwayRules"]

HALF = Amounts(50 * NANO_PER_TOKEN, 50, 1)


def sent(ledger: Ledger, id: str = "call_1") -> Reservation:
    """A call that is under way."""
    made = reserved(ledger, a_call(id))
    ledger.dispatch(made)
    return made


class UnderwayRules:
    """What holds of calls under way."""

    # --- The hold is made smaller -------------------------------------------------------------------------------------

    def test_a_hold_is_made_smaller_in_every_scope_and_what_it_frees_can_be_held_again(self, ledger: Ledger) -> None:
        for path in ("acme", "acme/support", "acme/support/node:model"):
            ledger.budgets.set(path, limit={"tokens": 150}, author="dana")
        made = sent(ledger)
        assert ledger.shrink(made, HALF).held == HALF
        assert held(ledger) == HALF
        assert {line.held for line in ledger.budgets.ls()} == {HALF}
        assert reserved(ledger, a_call("call_2")).max_output_tokens == 50
        assert journaled(ledger)[-2:] == ["shrink", "reserve"]

    def test_money_and_tokens_are_given_back_and_the_step_stays(self, ledger: Ledger) -> None:
        made = ledger.shrink(sent(ledger), Amounts())
        assert made.held == held(ledger) == Amounts(steps=1)
        ledger.settle(made, usage=tokens(0), outcome="exact")
        assert posted(ledger) == Amounts(steps=1)

    def test_a_hold_never_grows(self, ledger: Ledger) -> None:
        made = ledger.shrink(sent(ledger), HALF)
        for keep in (ONE_CALL, replace(HALF, tokens=51), replace(HALF, nanousd=-1)):
            with pytest.raises(UsageError, match="never grows"):
                ledger.shrink(made, keep)
        assert held(ledger) == HALF

    @pytest.mark.parametrize("stale", [False, True], ids=["told", "not told"])
    @pytest.mark.parametrize("end", ["exact", "unknown", "overage", "release", "give up"])
    def test_a_call_ends_against_its_smaller_hold_whether_its_holder_was_told_of_it_or_not(
        self, ledger: Ledger, clock: Clock, end: str, stale: bool
    ) -> None:
        made = reserved(ledger, a_call(), deadline_us=to_us(clock.now) + 1_000_000)
        ledger.dispatch(made)
        shrunk = ledger.shrink(made, HALF)
        made = made if stale else shrunk
        if end == "exact":
            assert ledger.settle(made, usage=tokens(40), outcome="exact").tokens == 40
        elif end == "unknown":
            assert ledger.settle(made, usage=None, outcome="unknown") == HALF
        elif end == "overage":
            assert ledger.settle(made, usage=tokens(60), outcome="exact").tokens == 60
            assert journaled(ledger)[-1] == "overage"
        elif end == "release":
            ledger.release(made, note="connection refused")
            assert posted(ledger) == Amounts()
        else:
            clock.advance(seconds=2)
            assert ledger.reap() == 1
            assert posted(ledger) == HALF
        assert held(ledger) == Amounts()

    def test_a_call_that_is_over_is_not_made_smaller(self, ledger: Ledger) -> None:
        made = sent(ledger)
        ledger.settle(made, usage=None, outcome="unknown")
        assert ledger.shrink(made, HALF) == made
        assert posted(ledger) == ONE_CALL
        with pytest.raises(ReservationError):
            ledger.shrink(replace(made, id=made.id + 1), HALF)

    # --- At most ------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(("bound", "charged"), [(30, 30), (100, 100), (170, 100)])
    def test_an_unknown_call_is_charged_the_lesser_of_its_bound_and_its_hold(
        self, ledger: Ledger, bound: int, charged: int
    ) -> None:
        due = Amounts(charged * NANO_PER_TOKEN, charged, 1)
        assert ledger.settle(sent(ledger), usage=tokens(bound), outcome="unknown") == due
        assert posted(ledger) == due
        assert held(ledger) == Amounts()
        assert ledger.reports.usage("run_1") == Usage(input_tokens=0, output_tokens=0)  # which nobody has reported

    def test_of_two_bounds_of_an_unknown_call_the_lower_one_stays_and_the_truth_goes_before_both(
        self, ledger: Ledger
    ) -> None:
        made = sent(ledger)
        for bound, charged in ((None, 100), (tokens(30), 30), (tokens(60), 30), (None, 30)):
            ledger.settle(made, usage=bound, outcome="unknown")
            assert posted(ledger).tokens == charged
        ledger.settle(made, usage=tokens(45), outcome="exact")
        assert posted(ledger).tokens == 45

    def test_an_unknown_call_below_its_hold_is_given_back_as_charged_once_it_is_known_to_be_free(
        self, ledger: Ledger
    ) -> None:
        made = sent(ledger)
        ledger.settle(made, usage=tokens(30), outcome="unknown")
        ledger.release(made, note="the provider billed nothing")
        assert posted(ledger) == held(ledger) == Amounts()

    def test_no_margin_is_learned_from_a_bound(self, ledger: Ledger) -> None:
        before = ledger.margins.bound("small-1", 2_000)
        for number in range(5):
            made = sent(ledger, f"call_{number}")
            ledger.settle(made, usage=tokens(9_000), outcome="unknown", counted_input_tokens=2_000)
        assert ledger.margins.bound("small-1", 2_000) == before

    # --- May it go on? ------------------------------------------------------------------------------------------------

    def test_a_call_goes_on_at_the_very_limit_and_is_cut_off_where_it_was_lowered(
        self, ledger: Ledger, another: Another
    ) -> None:
        ledger.budgets.set("acme", limit={"tokens": 100}, author="dana")
        made = sent(ledger)
        assert ledger.check(made) is None
        another().budgets.set("acme", limit={"tokens": 99}, author="dana")
        refusal = ledger.check(made)
        assert refusal is not None
        assert (refusal.cause, refusal.path, refusal.dimension) == ("limit", "acme", "tokens")
        assert "cut off: tenant acme has spent and holds 100 tokens, above its limit of 99 tokens." in refusal.words()
        assert ledger.check(ledger.shrink(made, HALF)) is None  # now it fits
        ledger.budgets.set("acme", limit={"tokens": 1}, author="dana", mode="soft")
        assert ledger.check(made) is None

    def test_a_limit_of_which_a_call_uses_nothing_does_not_cut_it_off(self, ledger: Ledger) -> None:
        ledger.budgets.set("acme", limit={"tool_calls": 1}, author="dana")
        made = sent(ledger)
        ledger.budgets.set("acme", limit={"tool_calls": 0}, author="dana")
        assert ledger.check(made) is None

    def test_the_limit_of_a_rolling_window_counts_all_that_is_in_it(self, ledger: Ledger, clock: Clock) -> None:
        ledger.budgets.set("acme", per="rolling-60m", limit={"tokens": 200}, author="dana")
        sent(ledger)
        clock.advance(minutes=30)
        made = sent(ledger, "call_2")
        assert ledger.check(made) is None
        ledger.budgets.set("acme", per="rolling-60m", limit={"tokens": 199}, author="dana")
        assert ledger.check(made) is not None
        clock.advance(minutes=31)
        assert ledger.check(made) is None

    @pytest.mark.parametrize("why", ["cancelled", "fenced", "deadline"])
    def test_a_call_of_a_run_that_may_not_go_on_is_cut_off(self, ledger: Ledger, clock: Clock, why: str) -> None:
        scope = Scope(tenant="acme", agents=("support",), run_id="run_2")
        ledger.gates.open(scope, Limits(seconds=30))
        epoch = ledger.gates.hold(scope.run_path, "worker", 60).epoch
        made = reserved(ledger, a_call(scope=scope, epoch=epoch))
        assert ledger.check(made) is None
        if why == "cancelled":
            ledger.gates.cancel(scope.run_path, author="dana")
        elif why == "fenced":
            ledger.gates.hold(scope.run_path, "worker", 60)
        else:
            clock.advance(seconds=30)
        refusal = ledger.check(made)
        assert refusal is not None
        assert refusal.cause == why

    def test_a_run_that_was_stopped_lets_the_calls_end_that_were_sent(self, ledger: Ledger) -> None:
        made = sent(ledger)
        stop(ledger)
        assert ledger.check(made) is None
