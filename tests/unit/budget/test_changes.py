"""The history says of every limit, grant, price and policy who changed it, when and why."""

from __future__ import annotations

from bursar.budget import Amounts, Ledger, Refusal
from bursar.budget.audit.changes import Change, changes
from bursar.budget.pricing.book import ModelFacts
from bursar.budget.testing import PRICE, SUPPORT, Clock, a_call, reserved, tokens


def said(found: list[Change]) -> list[tuple[str, str, str | None, str | None]]:
    return [(one.kind, one.path, one.per, one.author) for one in found]


def test_the_newest_change_comes_first_with_its_budget_its_author_and_its_reason(ledger: Ledger, clock: Clock) -> None:
    ledger.budgets.set("acme", per="day", limit={"steps": 9}, author="ada", note="a try")
    clock.advance(hours=1)
    ledger.budgets.grant("acme", Amounts(steps=3), author="bob", note="the launch")
    clock.advance(hours=1)
    ledger.budgets.revoke(1, author="ada", note="over")
    found = changes(ledger.store)
    assert said(found) == [
        ("take_back", "acme", "day", "ada"),
        ("grant", "acme", "day", "bob"),
        ("limit", "acme", "day", "ada"),
    ]
    assert [(one.note, one.limit["steps"]) for one in found] == [("over", 3), ("the launch", 3), ("a try", 9)]
    assert found[0].at == clock.now


def test_prices_policies_and_gates_are_changes_too(ledger: Ledger) -> None:
    facts = ModelFacts(price=PRICE, context_window=None, max_output_tokens=None)
    ledger.prices.add({"openai/small-1": facts}, author="ada", note="the contract")
    ledger.policies.set("acme", unpriced="allow_and_alert", author="bob")
    ledger.gates.stop(SUPPORT.run_path, Refusal(cause="stopped", kind="run", path=SUPPORT.run_path))
    ledger.gates.reopen(SUPPORT.run_path, author="dana")
    assert set(said(changes(ledger.store))) == {
        ("price", "price:openai/small-1", None, "ada"),
        ("policy", "acme", None, "bob"),
        ("stop", SUPPORT.run_path, None, None),
        ("reopen", SUPPORT.run_path, None, "dana"),
    }


def test_what_nobody_decided_is_no_change(ledger: Ledger, clock: Clock) -> None:
    ledger.budgets.set("acme", per="day", limit={"steps": 9}, rollover_percent=50, author="ada")
    clock.advance(days=1)
    ledger.settle(reserved(ledger, a_call()), usage=tokens(1), outcome="exact", reply="")
    assert said(changes(ledger.store)) == [("limit", "acme", "day", "ada")]


def test_changes_are_chosen_by_scope_author_and_time(ledger: Ledger, clock: Clock) -> None:
    ledger.budgets.set("acme", limit={"steps": 9}, author="ada")
    ledger.budgets.set("acme/support", limit={"steps": 5}, author="bob")
    ledger.budgets.set("acme2", limit={"steps": 9}, author="ada")
    clock.advance(days=1)
    ledger.budgets.set("acme", limit={"steps": 8}, author="bob")
    assert {one.path for one in changes(ledger.store, "acme")} == {"acme", "acme/support"}
    assert {one.path for one in changes(ledger.store, author="ada")} == {"acme", "acme2"}
    assert said(changes(ledger.store, since=clock.now)) == [("limit", "acme", "total", "bob")]
