"""What is given back, what is given up, and calls whose cost is known before."""

from __future__ import annotations

import pytest

from bursar.budget import Amounts, Ledger, Limits, Refusal, Reservation, Scope, ToolQuote
from bursar.budget.testing.contract.steps import ONE_CALL, held, posted, settled
from bursar.budget.testing.plain import SUPPORT, Clock, a_call, reserved
from bursar.budget.windows import to_us

__all__ = ["LeftoverRules"]


class LeftoverRules:
    """What holds of calls that end otherwise than by an answer."""

    def test_a_release_gives_back_all_that_was_held(self, ledger: Ledger) -> None:
        made = reserved(ledger, a_call())
        ledger.dispatch(made)
        ledger.release(made, note="connection refused")
        assert held(ledger) == posted(ledger) == Amounts()
        assert ledger.reports.bill("run_1").attempts[0].note == "connection refused"

    def test_a_release_after_the_settle_changes_nothing(self, ledger: Ledger) -> None:
        made = settled(ledger, a_call())
        before = ledger.reports.bill("run_1")
        ledger.release(made, note="too late")
        assert ledger.reports.bill("run_1") == before

    @pytest.mark.parametrize("how", ["past its deadline", "holder silent", "run let go", "run taken over"])
    def test_the_reaper_releases_what_was_never_sent_and_charges_what_was(
        self, ledger: Ledger, clock: Clock, how: str
    ) -> None:
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

    def test_the_reaper_of_one_run_gives_up_what_earlier_holders_left_and_nothing_else(self, ledger: Ledger) -> None:
        other = Scope(tenant="acme", agents=("support",), run_id="run_2")
        ledger.gates.open(other, Limits.unlimited())
        for scope in (SUPPORT, other):
            epoch = ledger.gates.hold(scope.run_path, "worker", 60).epoch
            reserved(ledger, a_call("left", scope=scope, epoch=epoch))
            epoch = ledger.gates.hold(scope.run_path, "worker", 60).epoch
            reserved(ledger, a_call("now", scope=scope, epoch=epoch))
        assert ledger.reap("run_1") == 1
        assert (held(ledger, "run_1").steps, held(ledger, "run_2").steps) == (1, 2)

    def test_a_tool_call_is_charged_once_and_within_its_limit(self, ledger: Ledger) -> None:
        ledger.budgets.set("acme", limit={"tool_calls": 2, "nanousd": 0, "tokens": 0, "steps": 0}, author="dana")
        for _ in range(2):
            ledger.charge(a_call("tool_1"), ToolQuote())
        assert posted(ledger) == Amounts(tool_calls=1)
        assert isinstance(ledger.charge(a_call("tool_2"), ToolQuote()), Reservation)
        refusal = ledger.charge(a_call("tool_3"), ToolQuote())
        assert isinstance(refusal, Refusal)
        assert (refusal.dimension, refusal.needed, refusal.remaining) == ("tool_calls", 1, 0)
        assert posted(ledger) == Amounts(tool_calls=2)
