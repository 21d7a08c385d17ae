from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bursar.budget.errors import ConfigError
from bursar.budget.pricing.book import ModelFacts
from bursar.budget.pricing.files import read_price_file
from bursar.budget.usage import Usage

DAY = date(2026, 11, 20)
HEADER = "provider,model,effective,input_usd_per_mtok,output_usd_per_mtok"


def read(folder: Path, content: str | object, name: str = "prices") -> Mapping[str, ModelFacts]:
    file = folder / name
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_price_file(file, effective=DAY).prices


def problems(folder: Path, content: str | object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(folder, content)
    return caught.value.message.replace(f"{folder}/prices", "prices").splitlines()


# --- A table ----------------------------------------------------------------------------------------------------------


def test_a_table_has_a_line_for_each_model(tmp_path: Path) -> None:
    prices = read(tmp_path, f"{HEADER}\nhouse,seven,2026-12-01,0.10,0.20\nopenai,openai/gpt-9,,1,2\n")
    assert list(prices) == ["house/seven", "openai/gpt-9"]
    assert prices["house/seven"].price.input_usd_per_mtok == Decimal("0.10")
    assert prices["house/seven"].price.effective == date(2026, 12, 1)
    assert prices["openai/gpt-9"].price.effective == DAY, "the day of the import, where the table has none"


def test_a_table_may_have_every_price_steps_of_input_length_and_service_tiers(tmp_path: Path) -> None:
    table = """\
provider,model,service_tier,above_input_tokens,input_usd_per_mtok,cache_write_1h_usd_per_mtok,output_usd_per_mtok,\
request_usd,context_window,max_output_tokens
house,seven,,,1,2.5,4,0.005,64000,4096
house,seven,,32000,2,,8,,,
house,seven,batch,,0.5,,2,,,
house,seven,batch,32000,1,,4,,,
"""
    facts = read(tmp_path, table)["house/seven"]
    price = facts.price
    assert (facts.context_window, facts.max_output_tokens) == (64_000, 4_096)
    assert price.cost(Usage(input_tokens=32_000, output_tokens=1)) == 5_000_000 + 32_000 * 1_000 + 4_000
    assert price.cost(Usage(input_tokens=32_001, output_tokens=1)) == 5_000_000 + 32_001 * 2_000 + 8_000
    batch = Usage(input_tokens=32_001, output_tokens=1, service_tier="batch")
    assert price.cost(batch) == 5_000_000 + 32_001 * 1_000 + 4_000
    assert price.cache_write_1h_usd_per_mtok == Decimal("2.5")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("house,seven,,cheap,2", "prices:2: input_usd_per_mtok = 'cheap': expected an amount of USD, 0 or more"),
        ("house,seven,,-1,2", "prices:2: input_usd_per_mtok = '-1': expected"),
        ("house,seven,,NaN,2", "prices:2: input_usd_per_mtok = 'NaN': expected"),
        ("house,seven,,1e9,2", "prices:2: input_usd_per_mtok = '1e9': expected"),
        ("house,seven,,0.0000000001,2", "prices:2: input_usd_per_mtok = '0.0000000001': expected"),
        ("house,seven,,,2", "prices:2: input_usd_per_mtok = '': expected"),
        (",seven,,1,2", "prices:2: provider = '': expected a name"),
        ("house,seven,soon,1,2", "prices:2: effective = 'soon': expected a day such as 2026-11-20"),
        ("house,seven,,1", "prices:2: expected as many values as there are columns"),
        ("house,seven,,1,2,3", "prices:2: expected as many values as there are columns"),
        ("house,seven,,1,2\nhouse,seven,,1,2", "prices:3: house/seven has this tier and step already"),
        ("house,seven,2026-01-01,1,2\nhouse,seven,2026-02-01,1,2", "prices:3 = '2026-02-01': expected one day for"),
        ('house,"seven,,1,2', "prices:"),
        ("", "prices: there is no price in it"),
    ],
)
def test_a_bad_line_is_named_with_its_value_and_what_was_expected(tmp_path: Path, lines: str, said: str) -> None:
    (found,) = problems(tmp_path, f"{HEADER}\n{lines}\n")
    assert found.startswith(said)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (
            "provider,model\nhouse,seven\n",
            "prices:1: missing columns: 'input_usd_per_mtok', 'output_usd_per_mtok'; expected provider",
        ),
        ("\r0", "prices:1: not a line of CSV"),
        (f"{HEADER},price\nhouse,seven,,1,2,3\n", "prices:1: unknown columns: 'price'; expected provider, model"),
        (
            f"{HEADER},service_tier\nhouse,seven,,1,2,gold\n",
            "prices:2: service_tier = 'gold': expected standard, batch",
        ),
        (f"{HEADER},service_tier\nhouse,seven,,1,2,flex\n", "prices:2: house/seven has no line of plain prices for st"),
        (
            f"{HEADER},context_window\nhouse,seven,,1,2,wide\n",
            "prices:2: context_window = 'wide': expected a whole num",
        ),
    ],
)
def test_a_table_of_another_shape_is_refused(tmp_path: Path, table: str, said: str) -> None:
    assert any(found.startswith(said) for found in problems(tmp_path, table))


def test_every_problem_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    found = problems(tmp_path, f"{HEADER}\nhouse,a,,x,2\nhouse,b,,1,y\nhouse,c,,1,2\n")
    assert [line.split(":")[1] for line in found] == ["2", "3"]
    many = problems(tmp_path, f"{HEADER}\n" + "house,a,,x,y\n" * 50)
    assert many[-1].startswith("... and ")


# --- OpenRouter's list ------------------------------------------------------------------------------------------------


def listed(**changes: Any) -> dict[str, Any]:
    pricing = {
        "prompt": "0.0000025",
        "completion": "0.00001",
        "request": "0",
        "image": "0.003613",
        "input_cache_read": "0.00000125",
        "internal_reasoning": "0",
    }
    entry = {"id": "openai/gpt-4o", "context_length": 128000, "pricing": pricing}
    return {**entry, "top_provider": {"max_completion_tokens": 16384}, **changes}


def test_the_list_of_openrouter_is_read_at_its_prices_per_token(tmp_path: Path) -> None:
    facts = read(tmp_path, {"data": [listed()]})["openrouter/openai/gpt-4o"]
    assert (facts.context_window, facts.max_output_tokens) == (128_000, 16_384)
    assert facts.price.cost(Usage(input_tokens=10, output_tokens=3, cache_read_tokens=4)) == 60_000 - 45_000 + 5_000 + (
        30_000
    )
    assert facts.price.reasoning_usd_per_mtok is None, "a zero means that it has no price of its own"


def test_a_router_has_no_price_of_its_own_and_a_free_model_is_free(tmp_path: Path) -> None:
    router = listed(id="openrouter/auto", pricing={"prompt": "-1", "completion": "-1"})
    gratis = listed(id="meta/llama:free", pricing={"prompt": "0", "completion": "0"})
    prices = read(tmp_path, {"data": [router, gratis]})
    assert list(prices) == ["openrouter/meta/llama:free"]
    assert prices["openrouter/meta/llama:free"].price.is_free


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (7, "prices: data[0] = 7: expected a model with an id"),
        (listed(pricing=None), "prices: data[0].pricing = None: expected a mapping of prices"),
        (listed(context_length="wide"), "prices: data[0].context_length = 'wide': expected a whole number of tokens"),
        (listed(pricing={"prompt": "1e-6"}), "prices: data[0].pricing.completion = None: expected an amount"),
        (
            listed(pricing={"prompt": "x", "completion": "0"}),
            "prices: data[0].pricing.prompt = 'x': expected an amount",
        ),
        (
            listed(pricing={"prompt": 0.1, "completion": "0"}),
            "prices: data[0].pricing.prompt = 0.1: expected an amount",
        ),
    ],
)
def test_a_bad_entry_is_named_by_its_place(tmp_path: Path, entry: object, said: str) -> None:
    assert [found[: len(said)] for found in problems(tmp_path, {"data": [entry]})] == [said]


# --- litellm's map ----------------------------------------------------------------------------------------------------


def entry(**changes: Any) -> dict[str, Any]:
    priced = {"input_cost_per_token": 4e-07, "output_cost_per_token": 1.6e-06}
    return {"litellm_provider": "openai", "mode": "chat", **priced, **changes}


def test_the_map_of_litellm_gives_what_the_book_would_take_from_it(tmp_path: Path) -> None:
    prices = read(tmp_path, {"gpt-9": entry(), "gpt-10": entry(input_cost_per_token=0), "dall-e": entry(mode="image")})
    assert list(prices) == ["openai/gpt-9"]
    assert prices["openai/gpt-9"].price.input_usd_per_mtok == Decimal("0.4")
    assert prices["openai/gpt-9"].price.effective == DAY


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"input_cost_per_token": "cheap"}, "prices: gpt-9.input_cost_per_token = 'cheap': expected an amount of USD"),
        ({"output_cost_per_token": -1e-6}, "prices: gpt-9.output_cost_per_token = -1e-06: expected an amount of USD"),
        ({"cache_read_input_token_cost": True}, "prices: gpt-9.cache_read_input_token_cost = True: expected an amount"),
        ({"max_input_tokens": "many"}, "prices: gpt-9.max_input_tokens = 'many': expected a whole number of tokens"),
        ({"tiered_pricing": [{"range": "all"}]}, "prices: gpt-9.tiered_pricing[0] = {'range': 'all'}: expected prices"),
        ({"tiered_pricing": 7}, "prices: gpt-9.tiered_pricing[0] = 7: expected prices with a range of two numbers"),
    ],
)
def test_a_bad_value_is_named_by_its_key(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    assert [found[: len(said)] for found in problems(tmp_path, {"gpt-9": entry(**changes)})] == [said]


# --- Any file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is no JSON: Expecting property name"),
        ('{"data": NaN}', "is no JSON: NaN is no number"),
        ("[1, 2]", "expected litellm's map of prices, OpenRouter's list of models"),
        ("{}", "expected litellm's map of prices"),
        ("[" * 100_000, "is no JSON"),
    ],
)
def test_a_file_of_no_known_kind_is_refused(tmp_path: Path, content: str, said: str) -> None:
    assert said in problems(tmp_path, content)[0]


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_price_file(tmp_path / "missing", effective=DAY)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=re.escape("is no text in UTF-8 (byte 0)")):
        read_price_file(tmp_path / "binary", effective=DAY)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                (
                    *("data", "id", "pricing", "prompt", "completion", "litellm_provider", "mode", "x"),
                    *("input_cost_per_token", "tiered_pricing", "range", "max_input_tokens", "context_length"),
                )
            ),
            inner | st.sampled_from(["chat", "openai", "0.1"]),
            max_size=5,
        )
    ),
    max_leaves=20,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(anything | st.text(max_size=60))
def test_whatever_is_in_a_file_it_gives_prices_or_a_clear_error(tmp_path: Path, content: object) -> None:
    file = tmp_path / "any"
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8", errors="replace")
    try:
        read = read_price_file(file, effective=DAY)
    except ConfigError:
        return
    assert read.prices
