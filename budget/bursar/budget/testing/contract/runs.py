"""Every scope of a call pays, a stop sticks, and only a run's holder may spend for it."""

from __future__ import annotations

import pytest

from bursar.budget import Amounts, Ledger, Limits, Replay, Scope, ToolQuote, Wait
from bursar.budget.errors import ConflictError, NotFoundError
from bursar.budget.testing.contract.steps import Another, refused, settled, stop
from bursar.budget.testing.plain import SUPPORT, Clock, a_call, a_quote, reserved, tokens

__all__ = ["RunRules"]


class RunRules:
    """What holds of runs and of all that pays for them."""

    # --- Every scope at once ------------------------------------------------------------------------------------------

    def test_every_scope_holds_and_posts_the_same(self, ledger: Ledger) -> None:
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
    def test_one_scope_that_refuses_holds_nothing_in_any(self, ledger: Ledger, scope: str) -> None:
        run_2 = Scope(tenant="acme", agents=("support",), run_id="run_2")
        limited = scope == run_2.run_path
        ledger.gates.open(run_2, Limits(steps=0 if limited else None))
        if not limited:
            ledger.budgets.set(scope, limit={"steps": 0}, author="dana")
        ledger.budgets.set("acme", per="day", limit={"steps": 9}, author="dana")
        assert refused(ledger, a_call(scope=run_2)).path == scope
        assert all(line.held == Amounts() for line in ledger.budgets.ls(runs=True))

    def test_a_call_waits_for_calls_in_flight_and_is_refused_only_by_what_is_spent(self, ledger: Ledger) -> None:
        ledger.budgets.set("acme", limit={"steps": 1}, author="dana")
        made = reserved(ledger, a_call())
        assert ledger.reserve(a_call("call_2"), a_quote()) == Wait("acme")
        ledger.release(made, note="connection refused")
        settled(ledger, a_call("call_2"))
        assert refused(ledger, a_call("call_3")).dimension == "steps"

    def test_a_run_that_was_never_opened_can_reserve_nothing(self, ledger: Ledger) -> None:
        for scope in (Scope(tenant="acme", agents=("support",), run_id="run_9"), SUPPORT.child("researcher", "r.1")):
            with pytest.raises(NotFoundError, match="was never opened"):
                ledger.reserve(a_call(scope=scope), a_quote())
        with pytest.raises(NotFoundError, match="was never opened"):
            ledger.gates.open(SUPPORT.child("a", "a.1").child("b", "b.1"), Limits())

    def test_a_runs_id_belongs_to_one_run(self, ledger: Ledger) -> None:
        for tenant, agent in (("rival", "support"), ("acme", "sales")):
            with pytest.raises(ConflictError, match="run_1"):
                ledger.gates.open(Scope(tenant=tenant, agents=(agent,), run_id="run_1"), Limits())

    def test_opening_a_run_again_grants_nothing(self, ledger: Ledger) -> None:
        run_2 = Scope(tenant="acme", agents=("support",), run_id="run_2")
        for steps in (1, 100):
            ledger.gates.open(run_2, Limits(steps=steps))
        settled(ledger, a_call(scope=run_2))
        assert refused(ledger, a_call("call_2", scope=run_2)).limit == 1

    # --- A stop sticks ------------------------------------------------------------------------------------------------

    def test_a_stopped_run_gets_nothing_whatever_is_left(self, ledger: Ledger, another: Another) -> None:
        stop(ledger)
        for number in range(3):
            for one in (ledger, another()):
                refusal = refused(one, a_call(f"call_{number}"))
                assert (refusal.cause, refusal.path) == ("stopped", SUPPORT.run_path)
        assert ledger.charge(a_call("tool"), ToolQuote()) == refused(ledger, a_call())

    def test_the_first_refusal_that_stopped_a_run_stays(self, ledger: Ledger) -> None:
        stop(ledger)
        stop(ledger, by="acme")
        stopped = ledger.gates.stopped(SUPPORT.run_path)
        assert stopped is not None
        assert stopped.path == SUPPORT.run_path

    @pytest.mark.parametrize("by", ["grant", "reopen", "extend"])
    def test_a_stopped_run_goes_on_once_more_is_granted(self, ledger: Ledger, by: str) -> None:
        stop(ledger)
        if by == "grant":
            ledger.budgets.grant(SUPPORT.run_path, Amounts(steps=1), author="dana", note="go on")
        elif by == "reopen":
            ledger.gates.reopen(SUPPORT.run_path, author="dana")
        else:
            ledger.gates.extend(SUPPORT.run_path, 60, author="dana")
        assert ledger.gates.stopped(SUPPORT.run_path) is None
        reserved(ledger, a_call())

    def test_a_grant_to_the_scope_that_stopped_runs_lets_all_of_them_go_on(self, ledger: Ledger) -> None:
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

    def test_a_stopped_run_gives_one_last_answer(self, ledger: Ledger) -> None:
        stop(ledger)
        reserved(ledger, a_call("last"), final=True)
        assert refused(ledger, a_call("one more"), final=True).cause == "stopped"
        assert refused(ledger, a_call("one more")).cause == "stopped"

    def test_the_last_answer_may_be_tried_again_as_any_call(self, ledger: Ledger) -> None:
        stop(ledger)
        ledger.release(reserved(ledger, a_call("last"), final=True), note="connection refused")
        again = reserved(ledger, a_call("last", model="another"), final=True)
        assert again.attempt == 1
        ledger.settle(again, usage=tokens(10, 10), outcome="exact", reply="that is all")
        assert ledger.reserve(a_call("last"), a_quote(), final=True) == Replay(again.id, "that is all")

    def test_each_stop_has_its_own_last_answer(self, ledger: Ledger) -> None:
        stop(ledger)
        reserved(ledger, a_call("last"), final=True)
        ledger.gates.reopen(SUPPORT.run_path, author="dana")
        stop(ledger)
        reserved(ledger, a_call("last again"), final=True)

    def test_a_last_answer_is_within_the_limits_too(self, ledger: Ledger) -> None:
        ledger.budgets.set("acme", limit={"steps": 0}, author="dana")
        stop(ledger, by="acme")
        assert refused(ledger, a_call("last"), final=True).cause == "limit"

    def test_an_agent_used_as_a_tool_is_stopped_with_its_run_and_has_a_last_answer_of_its_own(
        self, ledger: Ledger
    ) -> None:
        helper = SUPPORT.child("researcher", "researcher.1")
        ledger.gates.open(helper, Limits.unlimited())
        stop(ledger)
        assert refused(ledger, a_call(scope=helper)).path == SUPPORT.run_path
        reserved(ledger, a_call("helper's last", scope=helper), final=True)
        assert refused(ledger, a_call("one more", scope=helper), final=True).cause == "stopped"
        reserved(ledger, a_call("last"), final=True)

    def test_a_cancelled_run_gets_nothing_not_even_a_last_answer(self, ledger: Ledger, another: Another) -> None:
        helper = SUPPORT.child("researcher", "researcher.1")
        ledger.gates.open(helper, Limits.unlimited())
        ledger.gates.hold(SUPPORT.run_path, "worker", 60)
        another().gates.cancel(SUPPORT.run_path, author="dana")
        for scope in (SUPPORT, helper):
            assert refused(ledger, a_call(scope=scope, epoch=1), final=True).cause == "cancelled"
        assert ledger.gates.cancelled("worker") == {"run_1"}

    def test_an_agent_used_as_a_tool_can_be_cancelled_alone(self, ledger: Ledger) -> None:
        helper = SUPPORT.child("researcher", "researcher.1")
        ledger.gates.open(helper, Limits.unlimited())
        ledger.gates.cancel(helper.run_paths[-1], author="dana")
        assert refused(ledger, a_call(scope=helper)).cause == "cancelled"
        reserved(ledger, a_call())

    # --- Who may spend, and for how long ------------------------------------------------------------------------------

    def test_a_worker_that_lost_its_run_can_reserve_nothing(
        self, ledger: Ledger, another: Another, clock: Clock
    ) -> None:
        old = ledger.gates.hold(SUPPORT.run_path, "slow worker", 10).epoch
        clock.advance(seconds=10)
        new = another().gates.hold(SUPPORT.run_path, "other worker", 10).epoch
        assert new == old + 1
        assert refused(ledger, a_call(epoch=old)).cause == "fenced"
        reserved(ledger, a_call(epoch=new))

    def test_a_run_out_of_time_can_reserve_nothing_until_it_is_given_more(self, ledger: Ledger, clock: Clock) -> None:
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
