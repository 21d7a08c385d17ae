"""Limits change while runs go on, and windows follow one another by themselves."""

# ruff: noqa: D102, S101 - tests assert, and say their rule in the name

from __future__ import annotations

import pytest

from bursar.budget import Amounts, Ledger, Refusal
from bursar.budget.testing.contract.steps import Another, refused, settled
from bursar.budget.testing.plain import FREE, Clock, a_call, a_quote, reserved, tokens
from bursar.budget.windows import to_us

__all__ = ["LimitRules"]


class LimitRules:
    """What holds of limits, grants and windows."""

    def test_a_changed_limit_keeps_what_was_used_and_holds_from_the_next_call_on(
        self, ledger: Ledger, another: Another
    ) -> None:
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

    def test_a_limit_that_is_new_counts_from_when_it_was_set(self, ledger: Ledger) -> None:
        settled(ledger, a_call())
        ledger.budgets.set("acme", limit={"steps": 1}, author="dana")
        settled(ledger, a_call("call_2"))
        assert refused(ledger, a_call("call_3")).posted == 1

    def test_several_budgets_of_a_tenant_hold_together(self, ledger: Ledger, clock: Clock) -> None:
        ledger.budgets.set("acme", per="hour", limit={"steps": 1}, author="dana")
        ledger.budgets.set("acme", per="day", limit={"steps": 2}, author="dana")
        settled(ledger, a_call())
        assert refused(ledger, a_call("call_2")).window == "2026-11-20T12+00:00"
        clock.advance(hours=1)
        settled(ledger, a_call("call_2"))
        clock.advance(hours=1)
        assert refused(ledger, a_call("call_3")).window == "2026-11-20"

    @pytest.mark.parametrize(("per", "length"), [("hour", 3600), ("day", 86400), ("week", 604800), ("month", 2592000)])
    def test_a_new_window_begins_by_itself_with_nothing_used(
        self, ledger: Ledger, clock: Clock, per: str, length: int
    ) -> None:
        line = ledger.budgets.set("acme", per=per, limit={"steps": 1}, author="dana")
        settled(ledger, a_call())
        refusal = refused(ledger, a_call("call_2"))
        assert line.resets_at is not None
        assert refusal.resets_us == to_us(line.resets_at) <= to_us(clock.now) + length * 1_000_000
        clock.now = line.resets_at
        settled(ledger, a_call("call_2"))
        assert refused(ledger, a_call("call_3")).cause == "limit"

    def test_a_call_is_booked_in_the_window_in_which_it_was_reserved(self, ledger: Ledger, clock: Clock) -> None:
        line = ledger.budgets.set("acme", per="day", limit={"steps": 1}, author="dana")
        made = reserved(ledger, a_call())
        assert line.resets_at is not None
        clock.now = line.resets_at
        ledger.settle(made, usage=tokens(40, 10), outcome="exact", reply="hello")
        settled(ledger, a_call("call_2"))

    def test_a_grant_raises_the_present_window_only(self, ledger: Ledger, clock: Clock) -> None:
        ledger.budgets.set("acme", per="day", limit={"steps": 1}, author="dana")
        line = ledger.budgets.grant("acme", Amounts(steps=1), author="dana", note="one more today")
        assert line.limit["steps"] == 2
        settled(ledger, a_call())
        settled(ledger, a_call("call_2"))
        assert line.resets_at is not None
        clock.now = line.resets_at
        settled(ledger, a_call("call_3"))
        assert refused(ledger, a_call("call_4")).limit == 1

    def test_a_free_model_needs_no_money(self, ledger: Ledger) -> None:
        ledger.budgets.set("acme", limit={"nanousd": 0}, author="dana")
        made = reserved(ledger, a_call(), a_quote(price=FREE))
        assert ledger.settle(made, usage=tokens(40, 10), outcome="exact").nanousd == 0

    def test_a_model_without_a_price_is_refused_where_money_is_limited(self, ledger: Ledger) -> None:
        reserved(ledger, a_call(), a_quote(price=None))
        ledger.budgets.set("acme", limit={"nanousd": 10**18}, author="dana")
        refusal = ledger.reserve(a_call("call_2"), a_quote(price=None))
        assert isinstance(refusal, Refusal)
        assert (refusal.cause, refusal.detail) == ("unpriced", "small-1")
