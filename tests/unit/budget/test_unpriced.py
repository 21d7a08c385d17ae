"""A model without a price under a limit in money: what the tenant's policy makes of it."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from bursar.budget import Ledger, Refusal, Reservation
from bursar.budget.errors import UsageError
from bursar.budget.testing import NANO_PER_TOKEN, PRICE, a_call, a_quote, reserved, tokens

UNPRICED = a_quote(price=None)


def limited(ledger: Ledger) -> None:
    ledger.budgets.set("acme", limit={"nanousd": 1_000 * NANO_PER_TOKEN}, author="dana")


def test_it_is_refused_unless_the_tenant_says_otherwise(ledger: Ledger) -> None:
    limited(ledger)
    refusal = ledger.reserve(a_call(), UNPRICED)
    assert isinstance(refusal, Refusal)
    assert refusal.cause == "unpriced"


def test_under_ceiling_price_it_is_reserved_and_posted_at_the_tenants_own_price(ledger: Ledger) -> None:
    limited(ledger)
    ledger.policies.set("acme", unpriced="ceiling_price", ceiling=PRICE, author="dana")
    made = reserved(ledger, a_call(), UNPRICED)
    assert made.held.nanousd == 100 * NANO_PER_TOKEN
    ledger.dispatch(made)
    assert ledger.settle(made, usage=tokens(20, 10), outcome="exact").nanousd == 30 * NANO_PER_TOKEN
    [attempt] = ledger.reports.bill("run_1").attempts
    assert attempt.price is not None
    assert attempt.price.id.startswith("ceiling:acme#")


def test_a_ceiling_is_held_to_the_limit_like_any_price(ledger: Ledger) -> None:
    limited(ledger)
    ledger.policies.set("acme", unpriced="ceiling_price", ceiling=PRICE, author="dana")
    made = ledger.reserve(a_call(), a_quote(990, 500, price=None))
    assert isinstance(made, Refusal)


def test_under_allow_and_alert_it_goes_out_unpaid_and_somebody_is_told_once_a_day(ledger: Ledger) -> None:
    limited(ledger)
    ledger.policies.set("acme", unpriced="allow_and_alert", author="dana")
    for number in range(3):
        made = ledger.reserve(a_call(f"call {number}"), UNPRICED)
        assert isinstance(made, Reservation)
        assert made.held.nanousd == 0
    assert [alert.kind for alert in ledger.alerts.ls()] == ["price.missing"]


def test_another_tenants_policy_changes_nothing(ledger: Ledger) -> None:
    limited(ledger)
    ledger.policies.set("other", unpriced="allow_and_alert", author="dana")
    assert isinstance(ledger.reserve(a_call(), UNPRICED), Refusal)


def test_a_price_id_stands_for_the_same_rates_for_ever(ledger: Ledger) -> None:
    reserved(ledger, a_call("a"))
    dearer = replace(PRICE, input_usd_per_mtok=Decimal(9))
    with pytest.raises(UsageError, match=f"price {PRICE.id} has other rates"):
        ledger.reserve(a_call("b"), a_quote(price=dearer))
    moved = replace(PRICE, source="the same, read elsewhere")
    reserved(ledger, a_call("c"), a_quote(price=moved))
