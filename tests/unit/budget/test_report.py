from __future__ import annotations

import pytest

from bursar.budget import Amounts, Ledger, Limits, Refusal, Scope, ToolQuote
from bursar.budget.errors import NotFoundError
from bursar.budget.testing import FREE, NANO_PER_TOKEN, NOON, PRICE, SUPPORT, Clock, a_call, a_quote, reserved, tokens


def a_run(ledger: Ledger, run_id: str, *, tenant: str = "acme", agent: str = "support") -> Scope:
    scope = Scope(tenant=tenant, agents=(agent,), run_id=run_id)
    ledger.gates.open(scope, Limits.unlimited())
    return scope


def pay(ledger: Ledger, id: str, scope: Scope = SUPPORT, *, input_tokens: int = 40, model: str = "small-1") -> None:
    made = reserved(ledger, a_call(id, scope=scope, model=model))
    ledger.dispatch(made)
    ledger.settle(made, usage=tokens(input_tokens, 10), outcome="exact", reply="hello")


# --- The bill of a run ------------------------------------------------------------------------------------------------


def test_the_attempts_of_a_run_add_up_to_its_balance(ledger: Ledger) -> None:
    helper = SUPPORT.child("researcher", "researcher.1")
    ledger.gates.open(helper, Limits.unlimited())
    pay(ledger, "a")
    pay(ledger, "b", helper, input_tokens=30)
    ledger.settle(reserved(ledger, a_call("c")), usage=None, outcome="unknown", note="no answer")
    ledger.release(reserved(ledger, a_call("d")), note="connection refused")
    ledger.charge(a_call("tool"), ToolQuote())
    reserved(ledger, a_call("e"))
    pay(ledger, "z", a_run(ledger, "run_10"))
    bill = ledger.reports.bill("run_1")
    assert sum((one.posted for one in bill.attempts), Amounts()) == bill.posted == Amounts(190_000, 190, 3, 1)
    assert sum((one.held for one in bill.attempts if one.state == "reserved"), Amounts()) == bill.held
    assert ledger.reports.spent(SUPPORT.run_path) == bill.posted
    assert ledger.reports.spent(helper.run_paths[-1]) == Amounts(40 * NANO_PER_TOKEN, 40, 1)


def test_an_attempt_tells_all_that_led_to_its_amount(ledger: Ledger, clock: Clock) -> None:
    ledger.budgets.set("acme", limit={"tokens": 80}, author="dana")
    made = reserved(ledger, a_call())
    clock.advance(seconds=2)
    ledger.settle(made, usage=tokens(40, 10), outcome="estimated", reply="hello", note="no usage came")
    (one,) = ledger.reports.bill("run_1").attempts
    assert (one.call, one.attempt, one.kind, one.state, one.outcome) == ("call_1", 0, "model", "settled", "estimated")
    assert (one.agent, one.node, one.tier, one.model) == ("support", "model", "small", "small-1")
    assert (one.reason, one.note) == ("the tier's first", "no usage came")
    assert (one.max_output_tokens, one.capped) == (30, True)
    assert (one.held, one.posted) == (Amounts(80_000, 80, 1), Amounts(50_000, 50, 1))
    assert (one.usage, one.price) == (tokens(40, 10), PRICE)
    assert one.price is not None
    assert one.usage is not None
    assert one.price.cost(one.usage) == one.posted.nanousd
    assert (one.reserved_at, one.closed_at) == (NOON, clock.now)


def test_each_attempt_keeps_the_price_it_was_made_with(ledger: Ledger) -> None:
    reserved(ledger, a_call("a"), a_quote(price=FREE))
    reserved(ledger, a_call("b"), a_quote(price=None))
    reserved(ledger, a_call("c"))
    assert [one.price for one in ledger.reports.bill("run_1").attempts] == [FREE, None, PRICE]


def test_a_bill_has_the_changes_of_its_own_run_only(ledger: Ledger) -> None:
    run_10 = a_run(ledger, "run_10")
    helper = SUPPORT.child("researcher", "researcher.1")
    ledger.gates.open(helper, Limits())
    ledger.budgets.grant(helper.run_paths[-1], Amounts(steps=1), author="dana", note="for the helper")
    ledger.budgets.grant(run_10.run_path, Amounts(steps=1), author="eve", note="for another run")
    assert ledger.reports.bill("run_1").changes == [(NOON, "grant", "dana", "for the helper")]


def test_a_bill_says_what_may_be_spent_and_why_the_run_was_stopped(ledger: Ledger) -> None:
    scope = Scope(tenant="acme", agents=("support",), run_id="run_2")
    ledger.gates.open(scope, Limits(steps=3, tool_calls=None, cost_usd="0.5"))
    refusal = Refusal(cause="limit", kind="run", path=scope.run_path, dimension="steps", limit=3, posted=3, needed=1)
    ledger.gates.stop(scope.run_path, refusal)
    bill = ledger.reports.bill("run_2")
    assert (bill.run_id, bill.tenant, bill.path) == ("run_2", "acme", scope.run_path)
    assert bill.limit == {"nanousd": 500_000_000, "tokens": None, "steps": 3, "tool_calls": None}
    assert bill.stopped == refusal
    assert ledger.reports.bill("run_1").stopped is None


def test_a_run_that_is_unknown_has_no_bill_and_has_spent_nothing(ledger: Ledger) -> None:
    with pytest.raises(NotFoundError, match="knows no run run_9"):
        ledger.reports.bill("run_9")
    assert ledger.reports.spent("acme/support/run_9") == Amounts()


def test_the_usage_of_a_run_is_that_of_its_settled_calls(ledger: Ledger) -> None:
    assert ledger.reports.usage("run_1") == tokens(0)
    pay(ledger, "a")
    pay(ledger, "b", input_tokens=30)
    ledger.settle(reserved(ledger, a_call("c")), usage=None, outcome="unknown")
    assert ledger.reports.usage("run_1") == tokens(70, 20)
