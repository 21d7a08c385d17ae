from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest

from bursar.budget import Ledger, Store
from bursar.budget.audit.verify import verify
from bursar.budget.errors import LedgerUnavailable
from bursar.budget.pricing.book import ModelFacts, PriceBook
from bursar.budget.pricing.pricelist import PriceList
from bursar.budget.pricing.prices import LongContext, Price, Schedule
from bursar.budget.testing import Clock
from tests.support.journaled import entries_of

TODAY = date(2026, 11, 20)


def facts(usd: str = "1", effective: date = TODAY, **more: Any) -> ModelFacts:
    price = Price(
        id="as the file calls it",
        source="a test",
        effective=effective,
        input_usd_per_mtok=Decimal(usd),
        output_usd_per_mtok=Decimal(usd),
        **more,
    )
    return ModelFacts(price=price, context_window=None, max_output_tokens=None)


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """Each kind of store in turn; whatever a test did to it, its journal is sound at the end."""
    store = Store(store_url)
    yield store
    assert not verify(store).findings
    store.close()


@pytest.fixture
def prices(store: Store, clock: Clock) -> PriceList:
    return PriceList(store, clock)


def usd(prices: PriceList, on: date | None = None, model: str = "house/seven") -> Decimal | None:
    provider, _, name = model.partition("/")
    found = prices.lookup(provider, name, on)
    return found.price.input_usd_per_mtok if found else None


def test_the_latest_price_that_is_effective_on_the_day_holds(prices: PriceList, clock: Clock) -> None:
    for day, amount in ((0, "1"), (10, "3"), (-10, "2")):
        prices.add({"house/seven": facts(amount, TODAY + timedelta(days=day))}, author="dana")
    assert usd(prices) == 1
    assert usd(prices, TODAY - timedelta(days=1)) == 2
    assert usd(prices, TODAY - timedelta(days=11)) is None
    assert usd(prices, TODAY + timedelta(days=10)) == 3
    clock.advance(days=10)
    assert usd(prices) == 3, "it takes effect on its day, without anybody doing anything"


def test_a_listed_price_goes_before_the_book_and_takes_its_sizes_from_there(prices: PriceList) -> None:
    book = PriceBook.builtin().lookup("openai", "gpt-4.1-mini")
    assert book is not None
    assert prices.lookup("openai", "gpt-4.1-mini") == book
    prices.add({"openai/gpt-4.1-mini": facts("0.07")}, author="dana")
    found = prices.lookup("openai", "gpt-4.1-mini")
    assert found is not None
    assert found.price.input_usd_per_mtok == Decimal("0.07")
    assert (found.context_window, found.max_output_tokens) == (book.context_window, book.max_output_tokens)
    assert prices.lookup("openai", "gpt-4.1") == PriceBook.builtin().lookup("openai", "gpt-4.1")
    assert prices.lookup("acme", "gpt-4.1-mini") is None


def test_a_price_replaces_that_of_the_same_day_under_another_id(prices: PriceList) -> None:
    (first,) = prices.add({"house/seven": facts("1")}, author="dana")
    (second,) = prices.add({"house/seven": facts("2")}, author="dana", note="a mistake")
    assert usd(prices) == 2
    assert [row.note for row in prices.ls()] == ["a mistake"]
    assert first.facts.price.id.startswith("list:house/seven@2026-11-20#")
    assert second.facts.price.id != first.facts.price.id, "old postings keep the row that they were made with"
    (again,) = prices.add({"house/seven": facts("2")}, author="dana")
    assert again.facts.price.id == second.facts.price.id


def test_every_part_of_a_price_comes_back_from_the_list(prices: PriceList) -> None:
    step = LongContext(above_input_tokens=9, input_usd_per_mtok=Decimal(3), output_usd_per_mtok=Decimal(3))
    half = Schedule(input_usd_per_mtok=Decimal("0.5"), output_usd_per_mtok=Decimal("0.5"), long_context=(step,))
    (listed,) = prices.add({"house/seven": facts(long_context=(step,), batch=half)}, author="dana")
    assert [row.facts for row in prices.ls("SEVEN")] == [listed.facts]
    assert prices.ls("eight") == []


def test_every_price_is_journaled_with_who_and_why_and_the_row_itself(
    prices: PriceList, store: Store, clock: Clock
) -> None:
    (listed,) = prices.add({"house/seven": facts()}, author="dana", note="the list of November")
    (entry,) = entries_of(store, "price")
    assert (entry["author"], entry["note"], entry["path"]) == ("dana", "the list of November", "price:house/seven")
    assert f'"id":"{listed.facts.price.id}"' in entry["detail"]
    assert listed.set_at == clock.now


def test_what_another_process_lists_is_used_here_within_a_minute(prices: PriceList, store: Store, clock: Clock) -> None:
    assert usd(prices) is None
    PriceList(store, clock).add({"house/seven": facts()}, author="dana")
    clock.advance(seconds=61)
    assert usd(prices) == 1


def test_prices_that_were_read_hold_while_the_store_is_away(
    prices: PriceList, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    prices.add({"house/seven": facts()}, author="dana")
    assert usd(prices) == 1

    def away(_: Store) -> None:
        raise LedgerUnavailable("the store is away")

    clock.advance(hours=1)
    with monkeypatch.context() as patched:
        patched.setattr(Store, "read", away)
        assert usd(prices) == 1
        with pytest.raises(LedgerUnavailable):
            prices.ls()


def test_a_ledger_has_the_list_of_its_store(empty_ledger: Ledger) -> None:
    empty_ledger.prices.add({"house/seven": facts()}, author="dana")
    assert usd(empty_ledger.prices) == 1
