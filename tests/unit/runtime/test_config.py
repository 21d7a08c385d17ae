"""bursar.yaml: what it may say, and what is made of it."""

from __future__ import annotations

import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bursar.budget.errors import ConfigError, UsageError
from bursar.budget.windows import PERIODS, check_period
from bursar.runtime.config import (
    SIM_PRICE,
    BudgetConfig,
    Config,
    ModelConfig,
    ModelPrice,
    load_config,
    starter_config,
)
from tests.unit.runtime.config_texts import MINIMAL, mistakes, model, parse

# What a file may say


def test_the_smallest_file_needs_a_database_a_model_and_a_tier() -> None:
    config = parse(MINIMAL)
    assert config.tiers == {"small": ["demo"]}
    assert (config.tenants, config.unknown_tenants, config.lease_s) == ({}, "refuse", 10)


def test_the_starter_loads_and_gives_acme_five_dollars_a_month_on_a_simulated_model() -> None:
    config = parse(starter_config())
    assert config.models["demo"].provider == "sim"
    assert config.tiers == {"small": ["demo"]}
    [budget] = config.tenants["acme"].budgets
    assert (budget.usd, budget.per, budget.zone) == (Decimal(5), "month", "UTC")


def test_the_starters_commented_models_load_when_uncommented() -> None:
    config = parse(re.sub(r"(?m)^  # ", "  ", starter_config()))
    assert set(config.models) == {"demo", "mini", "llama"}
    assert config.models["llama"].price == "free"


def test_a_model_of_the_simulator_is_metered_without_a_price_of_its_own() -> None:
    assert parse(MINIMAL).models["demo"].price == SIM_PRICE
    assert (SIM_PRICE.input_usd_per_mtok, SIM_PRICE.output_usd_per_mtok) == (Decimal("0.40"), Decimal("1.60"))


def test_any_other_model_without_a_price_leaves_it_to_the_price_book() -> None:
    assert parse(model("{provider: openai, model: gpt-4.1-mini}")).models["m"].price is None


@settings(deadline=None)  # a busy machine is no property of a price
@given(st.decimals(min_value=0, max_value=1_000_000, places=9), st.sampled_from(["", '"', "'"]))
def test_no_digit_of_a_price_is_lost_quoted_or_not(price: Decimal, quote: str) -> None:
    text = f"price: {{input_usd_per_mtok: {quote}{price}{quote}, output_usd_per_mtok: 1}}"
    declared = parse(model(f"{{provider: openai, model: x, {text}}}")).models["m"].price
    assert isinstance(declared, ModelPrice)
    assert declared.input_usd_per_mtok.as_tuple() == price.as_tuple()


def test_whole_numbers_may_have_underscores() -> None:
    config = parse(f"{MINIMAL}tenants: {{acme: {{budgets: [{{tokens: 40_000}}]}}}}")
    assert config.tenants["acme"].budgets[0].tokens == 40_000


@pytest.mark.parametrize("per", [*PERIODS, "rolling-1m", "rolling-24h", "rolling-9999d"])
def test_every_period_of_the_ledger_is_one_of_the_configuration(per: str) -> None:
    assert BudgetConfig(usd=Decimal(1), per=check_period(per)).per == per


@pytest.mark.parametrize("per", ["", "year", "rolling", "rolling-24", "rolling-0h", "rolling-12345h", "rolling-1w"])
def test_what_is_no_period_of_the_ledger_is_none_of_the_configuration(per: str) -> None:
    with pytest.raises(UsageError):
        check_period(per)
    with pytest.raises(ValidationError, match="expected hour, day"):
        BudgetConfig(usd=Decimal(1), per=per)


def test_an_anchor_may_be_used_many_times() -> None:
    text = "tenants: {a: {budgets: &same [{usd: 1}]}, b: {budgets: *same}}"
    tenants = parse(MINIMAL + text).tenants
    assert tenants["a"].budgets == tenants["b"].budgets


def test_a_configuration_never_changes() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        parse(MINIMAL).lease_s = 20


# Where it lies


def test_relative_paths_begin_at_the_files_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bursar.yaml").write_text(MINIMAL)
    monkeypatch.chdir(tmp_path)
    config = load_config("bursar.yaml")
    monkeypatch.chdir("/")
    assert config.path == tmp_path / "bursar.yaml"
    assert config.base == tmp_path
    assert config.database_path == tmp_path / "bursar.db"


def test_an_absolute_database_stays_where_it_is() -> None:
    config = parse(MINIMAL.replace("bursar.db", "/var/lib/bursar.db"))
    assert config.database_path == Path("/var/lib/bursar.db")


@pytest.mark.parametrize(
    "database", ["postgresql+psycopg://bob@db.example:5433/bursar", "postgresql:///bursar?host=/run/postgresql"]
)
def test_a_server_is_named_by_its_url_and_holds_the_checkpoints_too(database: str) -> None:
    config = parse(MINIMAL.replace("sqlite:///bursar.db", database))
    assert config.database_url({}) == database
    assert config.database_path is None
    assert config.checkpoints_url({}) == database


def test_checkpoints_of_a_file_lie_beside_it() -> None:
    config = parse(MINIMAL.replace("bursar.db", "/var/lib/ours.db"))
    assert config.checkpoints_url({}) == "sqlite:////var/lib/ours.checkpoints.db"
    assert config.database_url({}) == "sqlite:////var/lib/ours.db"


def test_a_configuration_made_in_python_begins_at_the_current_folder() -> None:
    config = Config(
        database="sqlite:///bursar.db",
        models={"demo": ModelConfig(provider="sim", scenario="support")},
        tiers={"small": ["demo"]},
    )
    assert (config.path, config.base) == (None, Path.cwd())


# Secrets


KEYED = model("{provider: openai, model: x, api_key_env: HOUSE_KEY}")


def test_a_secret_is_read_from_its_variable() -> None:
    assert parse(KEYED).secret("m", {"HOUSE_KEY": " s3cret\n"}) == "s3cret"


SERVER = MINIMAL.replace(
    "sqlite:///bursar.db", "postgresql+psycopg://bob@db/bursar\ndatabase_password_env: DB_PASSWORD"
)


def test_the_databases_password_is_read_from_its_variable() -> None:
    url = parse(SERVER).database_url({"DB_PASSWORD": "p@ss/w:rd\n"})
    assert url == "postgresql+psycopg://bob:p%40ss%2Fw%3Ard@db/bursar"


def test_a_missing_password_names_its_variable() -> None:
    with pytest.raises(ConfigError, match="DB_PASSWORD is not set, and the database needs it -> export DB_PASSWORD="):
        parse(SERVER).database_url({})


def test_a_model_without_a_variable_has_no_secret() -> None:
    assert parse(MINIMAL).secret("demo", {}) is None


@pytest.mark.parametrize("env", [{}, {"HOUSE_KEY": ""}, {"HOUSE_KEY": " "}])
def test_a_missing_variable_names_the_model_the_variable_and_the_way_without_a_key(env: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(KEYED).secret("m", env)
    assert str(caught.value) == (
        'bursar.yaml:3:48: models.m.api_key_env = "HOUSE_KEY": the environment variable HOUSE_KEY is not set, and '
        "model m of provider openai needs it -> export HOUSE_KEY=..., or use provider: sim, which needs no key"
    )


@pytest.mark.parametrize("key", ["sk-proj-abc123", "AKIAIOSFODNN7EXAMPLE", "gsk_1234", "s3cret", "[a]", "2f9c"])
def test_a_key_in_place_of_its_variables_name_is_refused_and_never_repeated(key: str) -> None:
    text = model(f'{{provider: openai, model: x, api_key_env: "{key}"}}')
    assert mistakes(text) == [
        "3:35: models.m.api_key_env: expected the name of an environment variable such as OPENAI_API_KEY; "
        "never write the key itself here"
    ]
    with pytest.raises(ValidationError) as caught:
        ModelConfig(provider="openai", model="x", api_key_env=key)
    assert key not in str(caught.value)


def test_a_key_under_an_unknown_name_is_not_repeated() -> None:
    text = model("{provider: openai, model: x, api_key: abc123}")
    assert mistakes(text) == ["3:35: models.m.api_key: unknown key; did you mean api_key_env?"]


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        (MINIMAL.replace("sqlite:///bursar.db", "postgresql://bob:hunter2@db/bursar"), "hunter2"),
        (model('{provider: vllm, model: x, api_base: "http://bob:hunter2@host/v1"}'), "hunter2"),
        (model('{provider: vllm, model: x, api_base: "http://host/v1?key=hunter2"}'), "hunter2"),
        (model("{provider: openai, model: x, price: sk-proj-hunter2}"), "hunter2"),
        (f"{MINIMAL}unknown_tenants: {'k9' * 20}", "k9k9"),
    ],
)
def test_a_value_that_may_hold_a_secret_is_shown_without_it(text: str, hidden: str) -> None:
    [line] = mistakes(text)
    assert hidden not in line
    assert "***" in line


# In Python


def test_references_are_checked_in_python_too() -> None:
    with pytest.raises(ValidationError, match=r"tiers\.small\[0\]: there is no such model; did you mean demo\?"):
        Config(
            database="sqlite:///bursar.db",
            models={"demo": ModelConfig(provider="sim", scenario="support")},
            tiers={"small": ["dem"]},
        )


@pytest.mark.parametrize("amount", [0.4, True])
def test_a_float_is_no_amount_of_money(amount: Any) -> None:
    with pytest.raises(ValidationError, match="a float is not the amount that was written"):
        BudgetConfig(usd=amount)
    with pytest.raises(ValidationError, match="a float is not the amount that was written"):
        ModelPrice(input_usd_per_mtok=amount, output_usd_per_mtok=Decimal(1))


def test_whoever_uses_a_setting_can_point_at_it() -> None:
    error = parse(MINIMAL).error(
        "models", "demo", "scenario", text="there is no such scenario", next_step="try support"
    )
    assert str(error) == (
        'bursar.yaml:2:42: models.demo.scenario = "support": there is no such scenario -> try support'
    )


# Speed


def test_importing_the_configuration_loads_no_graph_no_provider_and_no_yaml() -> None:
    code = "import sys, bursar.runtime.config; print(*{'langgraph', 'litellm', 'ruamel.yaml'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
