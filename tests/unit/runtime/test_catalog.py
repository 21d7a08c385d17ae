"""What a configured model costs: declared, listed, in the book or unknown; as it is asked for, and as it is sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bursar.budget import Ledger, Store
from bursar.budget.errors import PriceMissingError
from bursar.budget.policies import Policy
from bursar.budget.pricing.book import ModelFacts, PriceBook
from bursar.budget.pricing.pricelist import PriceList
from bursar.budget.pricing.prices import Price
from bursar.budget.testing import Clock
from bursar.budget.usage import Usage
from bursar.runtime.config import Config
from bursar.runtime.models.catalog import Catalog
from bursar.runtime.models.dialect import OPENAI
from bursar.runtime.models.provider import ModelRequest, NotSent
from bursar.runtime.models.wire import body_of
from bursar.runtime.tenants import declare_budgets, require_prices
from tests.support.ledger import new_store
from tests.unit.runtime.config_texts import parse

CONFIG = """\
database: sqlite:///bursar.db
models:
  five: {provider: openai, model: gpt-5}
  flex: {provider: openai, model: gpt-5, service_tier: flex}
  first: {provider: openai, model: gpt-5, service_tier: priority}
  heard: {provider: openai, model: gpt-audio}
  house: {provider: openai_compatible, model: house-7b, api_base: "http://127.0.0.1:9/v1"}
  gpu:
    provider: vllm
    model: llama
    api_base: "http://127.0.0.1:9/v1"
    price: {gpu_usd_per_hour: "3.60", gpus: 2, input_tokens_per_second: 10000, output_tokens_per_second: 1000}
  stepped:
    provider: vllm
    model: qwen
    api_base: "http://127.0.0.1:9/v1"
    price:
      input_usd_per_mtok: 1
      output_usd_per_mtok: 2
      request_usd: 0.005
      long_context: [{above_input_tokens: 100, input_usd_per_mtok: 3, output_usd_per_mtok: 6}]
      batch: {input_usd_per_mtok: 0.50, output_usd_per_mtok: 1}
tiers: {small: [five, house]}
"""
TEXT: list[Mapping[str, Any]] = [
    {"role": "user", "content": "hi"},
    {"role": "user", "content": [{"type": "text", "text": "hi"}]},
]
AUDIO: list[Mapping[str, Any]] = [*TEXT, {"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = new_store(tmp_path)
    yield store
    store.close()


def config(more: str = "") -> Config:
    return parse(CONFIG + more)


def price(name: str) -> Price:
    found = Catalog(config()).price(name)
    assert found is not None
    return found


def test_a_model_reserves_for_the_service_tier_that_it_is_asked_for() -> None:
    plain, flex, first = (price(name).worst_case(1_000, 100) for name in ("five", "flex", "first"))
    assert plain == 1_000 * 1_250 + 100 * 10_000
    assert flex == plain, "a provider may serve it as standard"
    assert first == 2 * plain
    late = Usage(input_tokens=1_000, output_tokens=100, service_tier="flex")
    assert 2 * price("flex").cost(late) == plain


def body(name: str, **extra: Any) -> Mapping[str, Any]:
    provider: Any = Catalog(config()).model(name).provider
    request = ModelRequest(model="m", messages=TEXT, max_output_tokens=5, timeout_s=1, extra=extra)
    return body_of(request, "max_tokens", OPENAI, provider._tier)


@pytest.mark.parametrize(
    ("name", "tier"), [("five", "default"), ("flex", "flex"), ("first", "priority"), ("gpu", None)]
)
def test_a_provider_is_told_the_tier_where_its_own_choice_could_be_dearer(name: str, tier: str | None) -> None:
    assert body(name).get("service_tier") == tier


def test_no_call_asks_for_a_dearer_tier_behind_its_reservation() -> None:
    with pytest.raises(NotSent, match="service_tier would change what the call can cost"):
        body("five", service_tier="priority")


def test_a_call_that_sends_only_text_does_not_reserve_the_price_of_audio() -> None:
    heard = Catalog(config()).model("heard")
    text, audio = heard.price_for(TEXT), heard.price_for(AUDIO)
    assert text is not None
    assert audio is not None
    assert text == audio, "it is the same row"
    assert text.worst_case(1_000, 0) == 1_000 * 2_500
    assert audio.worst_case(1_000, 0) == 1_000 * 32_000


def test_declared_prices_may_be_gpu_time_or_a_whole_row() -> None:
    gpu, stepped = price("gpu"), price("stepped")
    assert (gpu.input_usd_per_mtok, gpu.output_usd_per_mtok) == (Decimal("0.2"), Decimal(2))
    assert gpu.source.startswith("GPU time: 2 x $3.60/h")
    assert stepped.cost(Usage(input_tokens=101, output_tokens=1)) == 5_000_000 + 101 * 3_000 + 6_000
    assert stepped.cost(Usage(input_tokens=2, output_tokens=1, service_tier="batch")) == 5_000_000 + 1_000 + 1_000
    assert stepped.id.startswith("config:stepped@")


def test_a_price_that_is_listed_while_a_runtime_is_open_is_soon_used(store: Store) -> None:
    clock = Clock()
    prices = PriceList(store, clock)
    catalog = Catalog(config(), prices=prices)
    known = catalog.model("five")
    assert catalog.model("five") is known, "nothing is made anew while nothing changes"
    book = PriceBook.builtin().lookup("openai", "gpt-5")
    assert book is not None
    dear = replace(book.price, input_usd_per_mtok=Decimal(9), effective=date(2026, 11, 21))
    listed = ModelFacts(price=dear, context_window=None, max_output_tokens=None)
    prices.add({"openai/gpt-5": listed}, author="dana")
    assert catalog.model("five").price == known.price
    clock.advance(days=1)
    changed = catalog.model("five")
    assert changed.price is not None
    assert changed.price.input_usd_per_mtok == 9
    assert changed.provider is known.provider
    assert catalog.price("house") is None


LIMITED = "tenants: {acme: {tiers: [small], budgets: [{usd: 5}]"
CEILING = "unpriced: ceiling_price, ceiling_price: {input_usd_per_mtok: 10, output_usd_per_mtok: 50}"


def test_an_unpriced_model_under_a_budget_in_money_stops_a_runtime_unless_its_tenant_says_otherwise() -> None:
    refused = config(f"{LIMITED}}}}}")
    with pytest.raises(PriceMissingError, match="model house has no price, and tenant acme has a budget in USD"):
        require_prices(Catalog(refused), refused)
    for policy in ("unpriced: allow_and_alert", CEILING):
        allowed = config(f"{LIMITED}, {policy}}}}}")
        require_prices(Catalog(allowed), allowed)


def test_a_tenants_policy_is_declared_into_the_ledger(store: Store) -> None:
    ledger = Ledger(store, clock=Clock())
    declare_budgets(ledger, config(f"{LIMITED}, {CEILING}}}}}"))
    with store.read() as connection:
        policy = ledger.policies.of(connection, "acme")
    assert policy.unpriced == "ceiling_price"
    assert policy.ceiling is not None
    assert policy.ceiling.id.startswith("ceiling:acme#")
    assert policy.ceiling.worst_case(1, 1) == 60_000
    declare_budgets(ledger, config(f"{LIMITED}}}}}"))
    assert ledger.policies.ls()["acme"] == Policy()
