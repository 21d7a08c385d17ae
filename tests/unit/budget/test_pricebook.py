from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest

from bursar.budget.pricing.book import ModelFacts, PriceBook, book_from_litellm_map, main
from bursar.budget.usage import Usage

BUILTIN = PriceBook.builtin()
TAKEN = date(2026, 11, 20)


def entry(**changes: Any) -> dict[str, Any]:
    return {
        "litellm_provider": "acme",
        "mode": "chat",
        "input_cost_per_token": 4e-07,
        "output_cost_per_token": 1.6e-06,
        **changes,
    }


def book(raw: Mapping[str, Mapping[str, Any]]) -> PriceBook:
    return PriceBook(book_from_litellm_map(raw, taken=TAKEN, source="a test"))


def facts(**changes: Any) -> ModelFacts:
    found = book({"acme/m": entry(**changes)}).lookup("acme", "m")
    assert found is not None
    return found


# --- The shipped book -------------------------------------------------------------------------------------------------


def test_the_installed_litellm_gives_the_shipped_book_to_the_byte() -> None:
    main(["--check"])


def test_reading_the_book_imports_no_litellm() -> None:
    code = """if True:
        import sys
        from bursar.budget.pricing.book import PriceBook
        PriceBook.builtin()
        sys.exit("litellm" in sys.modules)
    """
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("provider", "model", "input_usd", "output_usd", "cache_read_usd", "cache_write_usd"),
    [
        ("openai", "gpt-4.1-mini", "0.4", "1.6", "0.1", None),
        ("anthropic", "claude-sonnet-4-5", "3", "15", "0.3", "3.75"),
        ("gemini", "gemini-2.5-pro", "1.25", "10", "0.125", None),
    ],
)
def test_well_known_models_have_their_published_prices(
    provider: str, model: str, input_usd: str, output_usd: str, cache_read_usd: str, cache_write_usd: str | None
) -> None:
    found = BUILTIN.lookup(provider, model)
    assert found is not None
    assert found.price.id == f"book:{provider}/{model}@{BUILTIN.taken}"
    assert found.price.effective == BUILTIN.taken
    assert found.price.source.startswith("litellm ")
    assert found.price.input_usd_per_mtok == Decimal(input_usd)
    assert found.price.output_usd_per_mtok == Decimal(output_usd)
    assert found.price.cache_read_usd_per_mtok == Decimal(cache_read_usd)
    assert found.price.cache_write_usd_per_mtok == (Decimal(cache_write_usd) if cache_write_usd else None)
    assert found.context_window is not None
    assert found.context_window >= 200_000
    assert found.max_output_tokens is not None
    assert found.max_output_tokens >= 32_768


def test_a_long_context_model_charges_its_long_prices_over_the_threshold() -> None:
    gemini = BUILTIN.lookup("gemini", "gemini-2.5-pro")
    assert gemini is not None
    assert gemini.price.cost(Usage(input_tokens=200_000, output_tokens=0)) == 250_000_000
    assert gemini.price.cost(Usage(input_tokens=200_001, output_tokens=0)) == 500_002_500


def test_every_entry_of_the_shipped_book_is_a_price_and_none_is_free() -> None:
    entries = list(BUILTIN.entries())
    assert len(entries) == len(BUILTIN) > 2_000
    for name, found in entries:
        assert not found.price.is_free, name
        assert found.price.input_usd_per_mtok > 0 or found.price.request_usd > 0, name
        assert found.price.id == f"book:{name}@{BUILTIN.taken}"


# --- Looking a model up -----------------------------------------------------------------------------------------------


def test_a_lookup_never_crosses_providers() -> None:
    assert BUILTIN.lookup("anthropic", "gpt-4.1-mini") is None
    assert BUILTIN.lookup("acme", "gpt-4.1-mini") is None


def test_a_lookup_never_takes_a_similar_model() -> None:
    for model in ("gpt-4.1-min", "gpt-4.1-mini-", "GPT-4.1-mini", "gpt-4.1-mini-2099-01-01", ""):
        assert BUILTIN.lookup("openai", model) is None


def test_a_model_may_be_named_with_its_provider() -> None:
    assert BUILTIN.lookup("openai", "openai/gpt-4.1-mini") == BUILTIN.lookup("openai", "gpt-4.1-mini")


def test_sub_providers_of_the_map_are_found_by_the_provider_that_is_called() -> None:
    raw = {
        "claude": entry(litellm_provider="vertex_ai-anthropic_models"),
        "anthropic.claude": entry(litellm_provider="bedrock_converse"),
    }
    assert list(book(raw)) == ["bedrock/anthropic.claude", "vertex_ai/claude"]
    assert book(raw).lookup("bedrock_converse", "anthropic.claude") is not None


def test_an_entry_that_names_its_provider_goes_before_a_bare_one() -> None:
    named, bare = entry(input_cost_per_token=1e-06), entry(input_cost_per_token=2e-06)
    for raw in ({"acme/m": named, "m": bare}, {"m": bare, "acme/m": named}):
        found = book(raw).lookup("acme", "m")
        assert found is not None
        assert found.price.input_usd_per_mtok == 1


def test_the_book_knows_no_price_of_a_day_before_it_was_made() -> None:
    assert BUILTIN.lookup("openai", "gpt-4.1-mini", on=BUILTIN.taken) is not None
    assert BUILTIN.lookup("openai", "gpt-4.1-mini", on=BUILTIN.taken - timedelta(days=1)) is None


def test_a_misspelt_model_and_a_wrong_provider_are_told_what_is_near() -> None:
    assert BUILTIN.near("openai", "gpt-4.1-minni")[0] == "openai/gpt-4.1-mini"
    assert "anthropic/claude-sonnet-4-5" in BUILTIN.near("openai", "claude-sonnet-4-5")
    assert BUILTIN.near("house", "qqqqqqqqqqqqqqqqqqqqqqq") == []


def test_entries_are_filtered_by_a_part_of_their_name_in_any_case() -> None:
    names = [name for name, _ in BUILTIN.entries("OpenAI/GPT-4.1")]
    assert "openai/gpt-4.1-mini" in names
    assert all("openai/gpt-4.1" in name for name in names)
    assert names == sorted(names)


# --- Making a book from litellm's map ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"input_cost_per_token": 0.0, "output_cost_per_token": 0.0},
        {"input_cost_per_token": 0},
        {"output_cost_per_token": 0.0},
        {"output_cost_per_token": None},
        {"mode": "image_generation"},
        {"mode": "embedding", "input_cost_per_token": 0.0},
        {"mode": "embedding", "input_cost_per_character": 1e-07},
        {"mode": "rerank", "input_cost_per_token": 0.0, "input_cost_per_query": 0.0},
        {"mode": None},
        {"tiered_pricing": [{"input_cost_per_token": 1e-06, "range": [0, 32000]}]},
        {"tiered_pricing": [{"input_cost_per_token": 1e-06, "output_cost_per_token": 1e-06, "range": [32000, 64000]}]},
        {"input_cost_per_token_above_128k_tokens": 1e-06, "input_cost_per_token_above_200k_tokens": 2e-06},
        {"input_cost_per_token_above_200k_tokens": 2e-06},
    ],
    ids=str,
)
def test_a_model_whose_whole_price_is_not_known_has_none_and_is_not_free(changes: dict[str, Any]) -> None:
    assert book({"acme/m": entry(**changes)}).lookup("acme", "m") is None


@pytest.mark.parametrize("model", ["o3-deep-research", "gpt-4o-search-preview", "gpt-5-search-api", "sonar-pro"])
def test_a_model_that_bills_every_search_has_no_price_by_its_tokens_alone(model: str) -> None:
    assert len(book({f"acme/{model}": entry()})) == 0


def test_noise_of_floating_point_is_no_part_of_a_price() -> None:
    noisy = facts(input_cost_per_token=2.4997000000000006e-07, output_cost_per_token=8.000000000000001e-07)
    assert noisy.price.input_usd_per_mtok == Decimal("0.24997")
    assert noisy.price.output_usd_per_mtok == Decimal("0.8")


@pytest.mark.parametrize("written", [0.0, 1e-07, 4e-07])
def test_a_cache_write_is_never_cheaper_than_the_input_it_is(written: float) -> None:
    assert facts(cache_creation_input_token_cost=written).price.cache_write_usd_per_mtok is None


def test_a_cached_read_listed_at_zero_costs_the_plain_price() -> None:
    assert facts(cache_read_input_token_cost=0.0).price.cache_read_usd_per_mtok is None


@pytest.mark.parametrize(("provider", "last_plain"), [("acme", 200_000), ("xai", 199_999)])
def test_long_prices_begin_where_the_provider_says(provider: str, last_plain: int) -> None:
    raw = entry(
        litellm_provider=provider,
        input_cost_per_token_above_200k_tokens=8e-07,
        output_cost_per_token_above_200k_tokens=3.2e-06,
        output_cost_per_token_above_200k_tokens_priority=9e-06,
        cache_read_input_token_cost_above_200k_tokens=2e-07,
    )
    found = book({"m": raw}).lookup(provider, "m")
    assert found is not None
    (long,) = found.price.long_context
    assert long.above_input_tokens == last_plain
    assert long.input_usd_per_mtok == Decimal("0.8")
    assert long.output_usd_per_mtok == Decimal("3.2")
    assert long.cache_read_usd_per_mtok == Decimal("0.2")


def test_a_model_with_several_steps_of_input_length_has_them_all() -> None:
    ranges = [
        {"range": [0, 32000.0], "input_cost_per_token": 1e-06, "output_cost_per_token": 5e-06},
        {"range": [128000.0, 256000.0], "input_cost_per_token": 3e-06, "output_cost_per_token": 1.5e-05},
        {"range": [32000.0, 128000.0], "input_cost_per_token": 2e-06, "output_cost_per_token": 1e-05},
    ]
    listed = facts(tiered_pricing=ranges, input_cost_per_token=None, output_cost_per_token=None).price
    named = facts(
        input_cost_per_token=1e-06,
        output_cost_per_token=5e-06,
        input_cost_per_token_above_32k_tokens=2e-06,
        output_cost_per_token_above_32k_tokens=1e-05,
        input_cost_per_token_above_128k_tokens=3e-06,
        output_cost_per_token_above_128k_tokens=1.5e-05,
    ).price
    for found in (listed, named):
        assert [step.above_input_tokens for step in found.long_context] == [32_000, 128_000]
        assert found.cost(Usage(input_tokens=128_001, output_tokens=1)) == 128_001 * 3_000 + 15_000


def test_service_tiers_have_their_published_prices_and_else_none_that_is_too_low() -> None:
    found = facts(
        cache_read_input_token_cost=1e-07,
        output_cost_per_reasoning_token=1.6e-06,
        input_cost_per_token_batches=2e-07,
        output_cost_per_token_batches=8e-07,
        input_cost_per_token_priority=7e-07,
        output_cost_per_token_priority=2.8e-06,
        output_cost_per_token_flex=8e-07,
    ).price
    assert found.batch is not None
    assert found.batch.cache_read_usd_per_mtok == Decimal("0.1"), "never dearer than the standard tier's"
    assert found.batch.reasoning_usd_per_mtok is None, "it costs what output costs, on every tier"
    assert found.priority is not None
    assert found.priority.cache_read_usd_per_mtok is None, "no discount is known, so the plain input price"
    assert found.priority.output_usd_per_mtok == Decimal("2.8")
    assert found.flex is None, "a tier without an input price of its own has none"


def test_the_other_kinds_of_token_and_the_fee_of_a_request_are_in_the_book() -> None:
    found = facts(
        cache_creation_input_token_cost=5e-07,
        cache_creation_input_token_cost_above_1hr=8e-07,
        input_cost_per_audio_token=3.2e-05,
        input_cost_per_image_token=5e-06,
        cache_read_input_audio_token_cost=1e-06,
        output_cost_per_audio_token=6.4e-05,
        output_cost_per_image_token=3e-05,
        input_cost_per_request=0.005,
    ).price
    assert found.cache_write_1h_usd_per_mtok == Decimal("0.8")
    assert (found.input_audio_usd_per_mtok, found.input_image_usd_per_mtok) == (Decimal(32), Decimal(5))
    assert (found.output_audio_usd_per_mtok, found.output_image_usd_per_mtok) == (Decimal(64), Decimal(30))
    assert (found.cache_read_audio_usd_per_mtok, found.request_usd) == (Decimal(1), Decimal("0.005"))


def test_an_embedding_costs_what_it_reads_and_a_rerank_a_fee_for_each_search() -> None:
    embedding = facts(mode="embedding", output_cost_per_token=None).price
    assert (embedding.input_usd_per_mtok, embedding.output_usd_per_mtok) == (Decimal("0.4"), Decimal(0))
    search = facts(mode="rerank", input_cost_per_token=0.0, output_cost_per_token=0.0, input_cost_per_query=0.002).price
    assert (search.input_usd_per_mtok, search.output_usd_per_mtok, search.request_usd) == (
        Decimal(0),
        Decimal(0),
        Decimal("0.002"),
    )
    assert search.cost(Usage(input_tokens=0, output_tokens=0, searches=3)) == 6_000_000


def test_sizes_are_kept_and_unknown_sizes_stay_unknown() -> None:
    known = facts(max_input_tokens=1000, max_output_tokens=100)
    assert (known.context_window, known.max_output_tokens) == (1000, 100)
    unknown = facts(max_tokens=100)
    assert (unknown.context_window, unknown.max_output_tokens) == (None, None)


def test_the_command_needs_the_day_of_the_prices() -> None:
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2
