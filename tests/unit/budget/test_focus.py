"""FOCUS rows; `python -m tests.focus` shows a file of them to the public validator."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar.budget import Amounts, Price, Store, Usage
from bursar.budget.money import usd
from bursar.budget.reports.focus import COLUMNS, VALIDATOR_NAMES, focus_rows
from bursar.budget.reports.report import Attempt, Selection
from bursar.budget.testing import NOON, PRICE
from tests.support.spending import MIDNIGHT, Past, a_past

NEVER_EMPTY = {
    *("BilledCost", "BillingAccountId", "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart", "ChargeCategory"),
    *("ChargeFrequency", "ChargePeriodEnd", "ChargePeriodStart", "ContractedCost", "EffectiveCost", "ListCost"),
    *("InvoiceIssuerName", "ProviderName", "PublisherName", "ServiceCategory", "ServiceName", "ServiceSubcategory"),
    # Of usage that is no correction, as all of ours is:
    *("ConsumedQuantity", "ConsumedUnit", "PricingCategory", "PricingQuantity", "PricingUnit", "PricingCurrency"),
    *("ListUnitPrice", "ContractedUnitPrice", "SkuId", "SkuPriceId"),
}
NEVER_FILLED = {
    name for name in COLUMNS if name.startswith(("Commitment", "Capacity", "Region", "Availability", "InvoiceId"))
} | {"ChargeClass"}
ATTEMPT = Attempt(
    id=1,
    call="run_1:task:1:0",
    attempt=0,
    kind="model",
    state="settled",
    outcome="exact",
    organisation=None,
    tenant="acme",
    team=None,
    user=None,
    agent="support",
    run_id="run_1",
    node="model",
    tier="small",
    model="small-1",
    reason=None,
    max_output_tokens=None,
    capped=False,
    held=Amounts(),
    posted=Amounts(),
    usage=None,
    price=None,
    note=None,
    reserved_at=NOON,
    closed_at=NOON,
)
TYPES = {"text": str, "decimal": Decimal, "time": datetime}


@pytest.fixture
def past(tmp_path: Path) -> Iterator[Past]:
    with a_past(tmp_path) as past:
        yield past


def rows(past: Past, **how: Any) -> list[dict[str, Any]]:
    return [row for charge in past.reports.charges(Selection(**how)) for row in focus_rows(charge)]


def test_a_row_has_the_columns_of_focus_1_2_in_its_order() -> None:
    of_1_2 = [name for name in COLUMNS if name not in VALIDATOR_NAMES]
    assert len(of_1_2) == 57
    assert of_1_2 == sorted(of_1_2)


def test_values_have_the_types_of_their_columns_and_are_there_where_they_must_be(past: Past) -> None:
    past.attempt(organisation="globex")
    past.attempt(outcome="unknown", usage=None, price_id=None, nanousd=12_345)
    past.attempt(kind="tool", model=None, price_id=None, usage=None, nanousd=7)
    past.summed_up(MIDNIGHT, calls=3, nanousd=777)
    for row in rows(past):
        assert row.keys() == COLUMNS.keys()
        for name, kind in COLUMNS.items():
            assert row[name] is None or isinstance(row[name], TYPES[kind]), (name, row[name])
        assert {name for name in NEVER_EMPTY if row[name] is None} == set()
        assert {name for name in NEVER_FILLED if row[name] is not None} <= {"InvoiceIssuer", "InvoiceIssuerName"}
        assert json.loads(row["Tags"])["tenant"] == "acme"
        assert row["ConsumedQuantity"] > 0
        assert all(row[name] == row[column] for name, column in VALIDATOR_NAMES.items())


def test_each_line_of_a_price_is_a_charge_of_its_own(past: Past) -> None:
    past.attempt(usage=Usage(input_tokens=100, output_tokens=7, cache_read_tokens=60))
    found = {row["SkuMeter"]: row for row in rows(past)}
    assert [*found] == ["input", "cached input", "output"]
    cached = found["cached input"]
    assert (cached["PricingQuantity"], cached["PricingUnit"]) == (Decimal("0.00006"), "1000000 Tokens")
    assert (cached["ListUnitPrice"], cached["ListCost"], cached["BilledCost"]) == (1, usd(60_000), usd(60_000))
    assert (cached["ConsumedQuantity"], cached["ConsumedUnit"]) == (60, "Tokens")
    assert cached["SkuPriceId"] == f"{PRICE.id}: cached input"


def test_what_no_price_explains_is_one_charge_for_the_request(past: Past) -> None:
    past.attempt(outcome="unknown", usage=None, nanousd=12_345)
    [row] = rows(past)
    assert (row["PricingQuantity"], row["PricingUnit"], row["ListUnitPrice"]) == (1, "Requests", usd(12_345))
    assert (row["BilledCost"], row["SkuMeter"]) == (usd(12_345), "unknown")


def test_a_tool_that_costs_nothing_is_no_charge(past: Past) -> None:
    past.attempt(kind="tool", model="find_order", price_id=None, nanousd=0)
    assert rows(past) == []


def test_accounts_are_the_organisation_and_its_tenants_or_the_tenant_alone(past: Past) -> None:
    past.attempt(organisation="globex", usage=Usage(input_tokens=1, output_tokens=0))
    past.attempt(usage=Usage(input_tokens=1, output_tokens=0))
    kinds = [(row["BillingAccountId"], row["BillingAccountType"], row["SubAccountId"]) for row in rows(past)]
    assert kinds == [("globex", "Organisation", "acme"), ("acme", "Tenant", "acme")]


@pytest.mark.parametrize(
    ("price_id", "provider"),
    [("book:openai/gpt-4.1-mini@2026-11-20", "openai"), ("config:house@1234", "small-1"), (None, "small-1")],
)
def test_the_provider_is_the_one_that_the_price_row_names(past: Past, price_id: str | None, provider: str) -> None:
    if price_id is not None:
        past.price(Price.free(id=price_id, source="a test", effective=PRICE.effective))
    past.attempt(price_id=price_id)
    assert {row["ProviderName"] for row in rows(past)} == {provider}


def test_a_charge_lies_in_whole_seconds_and_in_the_month_of_its_begin(past: Past) -> None:
    late = datetime(2026, 11, 30, 23, 59, 59, 999_999, tzinfo=UTC)
    past.attempt(at=late, usage=Usage(input_tokens=1, output_tokens=0))
    [row] = rows(past)
    assert row["ChargePeriodStart"] == late.replace(microsecond=0)
    assert row["ChargePeriodEnd"] == datetime(2026, 12, 1, 0, 0, 2, tzinfo=UTC)
    assert row["BillingPeriodStart"] == datetime(2026, 11, 1, tzinfo=UTC)
    assert row["BillingPeriodEnd"] == datetime(2026, 12, 1, tzinfo=UTC)


def test_an_export_has_the_selected_charges_in_order(store_url: str) -> None:
    store = Store(store_url)
    past = Past(store)
    one = Usage(input_tokens=1, output_tokens=0)
    past.attempt(at=NOON + timedelta(hours=1), usage=one, run_id="run_2")
    past.attempt(at=NOON, usage=one)
    past.attempt(at=NOON, state="released")
    past.attempt(at=NOON, tenant="rival")
    past.summed_up(MIDNIGHT - timedelta(days=60), calls=3, nanousd=777)
    assert [row["ResourceId"] for row in rows(past, where={"tenant": "acme"})] == [None, "run_1", "run_2"]
    assert len(rows(past, since=NOON + timedelta(hours=1))) == 1
    store.close()


@given(
    st.builds(
        Price,
        id=st.just("x"),
        source=st.just("a test"),
        effective=st.just(PRICE.effective),
        input_usd_per_mtok=st.decimals(0, 1000, places=9),
        output_usd_per_mtok=st.decimals(0, 1000, places=9),
        request_usd=st.decimals(0, 1, places=9),
    ),
    st.builds(Usage, input_tokens=st.integers(0, 10**7), output_tokens=st.integers(0, 10**7)),
    st.sampled_from(["exact", "estimated", "unknown"]),
)
def test_billed_costs_add_up_to_what_was_posted(price: Price, usage: Usage, outcome: str) -> None:
    posted = Amounts(price.cost(usage), usage.total_tokens, 1)
    found = [*focus_rows(replace(ATTEMPT, price=price, usage=usage, outcome=outcome, posted=posted))]
    assert sum(row["BilledCost"] for row in found) == usd(posted.nanousd)
    for row in found:
        assert row["ListUnitPrice"] * row["PricingQuantity"] == row["ListCost"] == row["ContractedCost"]
