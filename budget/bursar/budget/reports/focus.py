"""Charges as FOCUS 1.2 rows, the FinOps Open Cost and Usage Specification, for the tools that finance works with.

https://focus.finops.org/focus-specification/v1-2/
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from bursar.budget.money import usd
from bursar.budget.reports.bill import Attempt
from bursar.budget.reports.charges import DaySum
from bursar.budget.reports.export import Kind
from bursar.budget.windows import from_us, window_at

__all__ = ["COLUMNS", "VALIDATOR_NAMES", "focus_rows"]

MTOK = Decimal(1_000_000)

COLUMNS: Mapping[str, Kind] = {
    "AvailabilityZone": "text",
    "BilledCost": "decimal",
    "BillingAccountId": "text",
    "BillingAccountName": "text",
    "BillingAccountType": "text",
    "BillingCurrency": "text",
    "BillingPeriodEnd": "time",
    "BillingPeriodStart": "time",
    "CapacityReservationId": "text",
    "CapacityReservationStatus": "text",
    "ChargeCategory": "text",
    "ChargeClass": "text",
    "ChargeDescription": "text",
    "ChargeFrequency": "text",
    "ChargePeriodEnd": "time",
    "ChargePeriodStart": "time",
    "CommitmentDiscountCategory": "text",
    "CommitmentDiscountId": "text",
    "CommitmentDiscountName": "text",
    "CommitmentDiscountQuantity": "decimal",
    "CommitmentDiscountStatus": "text",
    "CommitmentDiscountType": "text",
    "CommitmentDiscountUnit": "text",
    "ConsumedQuantity": "decimal",
    "ConsumedUnit": "text",
    "ContractedCost": "decimal",
    "ContractedUnitPrice": "decimal",
    "EffectiveCost": "decimal",
    "InvoiceId": "text",
    "InvoiceIssuerName": "text",
    "ListCost": "decimal",
    "ListUnitPrice": "decimal",
    "PricingCategory": "text",
    "PricingCurrency": "text",
    "PricingCurrencyContractedUnitPrice": "decimal",
    "PricingCurrencyEffectiveCost": "decimal",
    "PricingCurrencyListUnitPrice": "decimal",
    "PricingQuantity": "decimal",
    "PricingUnit": "text",
    "ProviderName": "text",
    "PublisherName": "text",
    "RegionId": "text",
    "RegionName": "text",
    "ResourceId": "text",
    "ResourceName": "text",
    "ResourceType": "text",
    "ServiceCategory": "text",
    "ServiceName": "text",
    "ServiceSubcategory": "text",
    "SkuId": "text",
    "SkuMeter": "text",
    "SkuPriceDetails": "text",
    "SkuPriceId": "text",
    "SubAccountId": "text",
    "SubAccountName": "text",
    "SubAccountType": "text",
    "Tags": "text",
    "ChargeType": "text",
    "InvoiceIssuer": "text",
    "Provider": "text",
    "Publisher": "text",
    "ResourceID": "text",
}
"""The columns of FOCUS 1.2 in its order, and VALIDATOR_NAMES behind them."""

VALIDATOR_NAMES: Mapping[str, str] = {
    "ChargeType": "ChargeCategory",
    "InvoiceIssuer": "InvoiceIssuerName",
    "Provider": "ProviderName",
    "Publisher": "PublisherName",
    "ResourceID": "ResourceId",
}
"""What the rules of focus-validator 1.0.0 call columns of the specification; they are written, too, so that it passes
a file as it is."""

_ALWAYS = {
    "BillingCurrency": "USD",
    "ChargeCategory": "Usage",
    "ChargeFrequency": "Usage-Based",
    "PricingCategory": "Standard",
    "PricingCurrency": "USD",
    "ServiceCategory": "AI and Machine Learning",
    "ServiceSubcategory": "Generative AI",
    "SubAccountType": "Tenant",
}
_TAGS = ("organisation", "tenant", "team", "user", "agent", "node", "tier", "outcome")
_PROVIDER = re.compile(r"\w+:([^/@]+)/")  # the price rows of a book are named after provider and model


class _Charge(NamedTuple):
    """One line of what a call, or the calls of a day, cost."""

    meter: str
    quantity: Decimal
    unit: str
    unit_price: Decimal
    tokens: int


def focus_rows(charged: Attempt | DaySum) -> Iterator[dict[str, Any]]:
    """A row for each line of a call's price, or one for what retention has left of a day's calls.

    List and contracted cost are quantity times price, exact. Billed and effective cost add up to what was posted: the
    last row takes what rounding up to whole nano-USD has added. A tool that costs nothing is no charge.
    """
    if charged.kind == "tool" and not charged.posted.nanousd:
        return
    charges = _charges(charged) if isinstance(charged, Attempt) else [_whole("day", charged)]
    rounding = usd(charged.posted.nanousd) - sum(one.quantity * one.unit_price for one in charges)
    shared = {**dict.fromkeys(COLUMNS), **_ALWAYS, **_account(charged), **_times(charged), **_what(charged)}
    for place, charge in enumerate(charges, 1):
        cost = charge.quantity * charge.unit_price
        billed = cost + rounding if place == len(charges) else cost
        row = {**shared, **_costs(charge, cost, billed), **_sku(charged, charge)}
        yield row | {name: row[column] for name, column in VALIDATOR_NAMES.items()}


def _charges(attempt: Attempt) -> list[_Charge]:
    if attempt.outcome == "unknown" or attempt.usage is None or attempt.price is None:
        return [_whole("unknown" if attempt.outcome == "unknown" else "request", attempt)]
    charges = [
        _Charge(line.label, Decimal(1), "Requests", line.usd, 0)
        if line.usd_per_mtok is None
        else _Charge(line.label, line.tokens / MTOK, "1000000 Tokens", line.usd_per_mtok, line.tokens)
        for line in attempt.price.explain(attempt.usage)
    ]
    return charges or [_whole("request", attempt)]


def _whole(meter: str, charged: Attempt | DaySum) -> _Charge:
    """What is charged as one, since no line of a price explains it."""
    unit = "Days" if isinstance(charged, DaySum) else "Requests"
    return _Charge(meter, Decimal(1), unit, usd(charged.posted.nanousd), charged.posted.tokens)


def _account(charged: Attempt | DaySum) -> dict[str, Any]:
    above = charged.organisation
    return {
        "BillingAccountId": above or charged.tenant,
        "BillingAccountName": above or charged.tenant,
        "BillingAccountType": "Organisation" if above else "Tenant",
        "SubAccountId": charged.tenant,
        "SubAccountName": charged.tenant,
    }


def _times(charged: Attempt | DaySum) -> dict[str, Any]:
    starts = charged.day if isinstance(charged, DaySum) else charged.reserved_at.replace(microsecond=0)
    ends = starts + timedelta(days=1) if isinstance(charged, DaySum) else _end_of(charged, starts)
    month = window_at("month", "UTC", starts)
    return {
        "BillingPeriodStart": from_us(month.starts_us),
        "BillingPeriodEnd": from_us(month.ends_us),
        "ChargePeriodStart": starts,
        "ChargePeriodEnd": ends,
    }


def _end_of(attempt: Attempt, starts: datetime) -> datetime:
    """The end of its last second: both ends are written in whole seconds, and a charge takes some time."""
    closed = attempt.closed_at or starts
    return max(starts, closed.replace(microsecond=0)) + timedelta(seconds=1)


def _what(charged: Attempt | DaySum) -> dict[str, Any]:
    model = charged.model or charged.kind
    provider = _PROVIDER.match(charged.price_id or "")
    name = provider[1] if provider else model
    run = charged.run_id if isinstance(charged, Attempt) else None
    tags = {key: value for key in _TAGS if (value := getattr(charged, key)) is not None}
    return {
        "ResourceId": run,
        "ResourceName": run,
        "ResourceType": "Agent run" if run else None,
        "InvoiceIssuerName": name,
        "ProviderName": name,
        "PublisherName": name,
        "ServiceName": model,
        "Tags": json.dumps(tags),
    }


def _costs(charge: _Charge, cost: Decimal, billed: Decimal) -> dict[str, Any]:
    return {
        "BilledCost": billed,
        "EffectiveCost": billed,
        "PricingCurrencyEffectiveCost": billed,
        "ListCost": cost,
        "ContractedCost": cost,
        "ListUnitPrice": charge.unit_price,
        "ContractedUnitPrice": charge.unit_price,
        "PricingCurrencyListUnitPrice": charge.unit_price,
        "PricingCurrencyContractedUnitPrice": charge.unit_price,
        "PricingQuantity": charge.quantity,
        "PricingUnit": charge.unit,
        "ConsumedQuantity": Decimal(charge.tokens or 1),
        "ConsumedUnit": "Tokens" if charge.tokens else "Requests",
    }


def _sku(charged: Attempt | DaySum, charge: _Charge) -> dict[str, Any]:
    model, tier = charged.model or charged.kind, charged.tier
    return {
        "ChargeDescription": f"{model}: {charge.meter} for {charged.agent}" + (f", tier {tier}" if tier else ""),
        "SkuId": model,
        "SkuMeter": charge.meter,
        "SkuPriceId": f"{charged.price_id or 'no price'}: {charge.meter}",
    }
