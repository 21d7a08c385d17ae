"""bursar.yaml: the published schema and the reference page agree with the code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from bursar.budget.errors import ConfigError
from bursar.runtime.config import (
    AgentBudgets,
    BudgetConfig,
    Config,
    GpuPrice,
    ModelConfig,
    ModelPrice,
    TenantConfig,
    config_schema,
    starter_config,
)
from bursar.runtime.config_budgets import NodeBudgets, OrganisationConfig, TeamBudgets, UserBudgets
from bursar.runtime.config_escalations import EscalationsConfig, HoursConfig, LevelConfig, PersonConfig, RuleConfig
from bursar.runtime.config_gateway import GatewayConfig
from bursar.runtime.config_ledger import LeaseConfig, LedgerConfig
from bursar.runtime.config_retention import RetentionConfig
from bursar.runtime.config_routing import AutoConfig, DowngradeStep, RatesConfig
from bursar.runtime.config_smtp import SmtpConfig
from bursar.runtime.config_webhooks import WebhookConfig
from tests.unit.runtime.config_texts import MINIMAL, model, parse

DOCS = Path(__file__).parents[3] / "docs"


# The published schema


def test_the_published_schema_is_the_codes() -> None:
    published = (DOCS / "bursar.schema.json").read_text()
    printed = subprocess.run(
        [sys.executable, "-m", "bursar.runtime.config"], capture_output=True, text=True, check=True
    ).stdout
    assert published == printed, "python -m bursar.runtime.config > docs/bursar.schema.json"
    assert json.loads(published) == config_schema()


def test_the_schema_is_valid_and_describes_every_key() -> None:
    schema = config_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    for section in (schema, *schema["$defs"].values()):
        for key, value in section["properties"].items():
            assert value.get("description"), key


@pytest.mark.parametrize("text", [MINIMAL, starter_config()])
def test_the_schema_takes_what_the_code_takes(text: str) -> None:
    jsonschema.validate(YAML(typ="safe", pure=True).load(text), config_schema())


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"{MINIMAL}colour: red",
        f"{MINIMAL}lease_s: 0",
        f"{MINIMAL}tenants: {{Acme: {{}}}}",
        f"{MINIMAL}tenants: {{acme: {{budgets: [{{usd: -1}}]}}}}",
        f"{MINIMAL}tenants: {{acme: {{tiers: []}}}}",
        model("{provider: openai, model: x, price: cheap}"),
        model("{provider: openai, model: x, api_key_env: sk-abc}"),
        MINIMAL.replace("sqlite:///bursar.db", "bursar.db"),
    ],
)
def test_the_schema_refuses_what_the_code_refuses(text: str) -> None:
    with pytest.raises(ConfigError):
        parse(text)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(YAML(typ="safe", pure=True).load(text), config_schema())


# The reference page


PAGE = (DOCS / "configuration.md").read_text()


LINKS = {
    "AutoConfig": "[auto](#auto)",
    "DowngradeStep": "[step](#the-ladder)",
    "EscalationsConfig": "[escalations](#escalations)",
    "HoursConfig": "[hours](#working-hours)",
    "LevelConfig": "[level](#levels)",
    "PersonConfig": "[person](#people)",
    "RetentionConfig": "[retention](#retention)",
    "RuleConfig": "[rule](#rules)",
    "SmtpConfig": "[mail server](#mail)",
    "GatewayConfig": "[gateway](#the-gateway)",
    "RatesConfig": "[rates](#rates)",
    "AgentBudgets": "[agent](#agents-teams-and-users)",
    "BudgetConfig": "[budget](#budgets)",
    "GpuPrice": "[GPU time](#gpu-time)",
    "LeaseConfig": "[lease](#leases)",
    "LedgerConfig": "[ledger](#when-the-ledger-is-away)",
    "LongContextPrice": "[step](#steps-of-input-length)",
    "ModelConfig": "[model](#models)",
    "ModelPrice": "[prices](#prices)",
    "NodeBudgets": "[budgets of a node](#agents-teams-and-users)",
    "OrganisationConfig": "[organisation](#organisations)",
    "TeamBudgets": "[team](#agents-teams-and-users)",
    "UserBudgets": "[user](#agents-teams-and-users)",
    "TenantConfig": "[tenant](#tenants)",
    "WebhookConfig": "[webhook](#webhooks)",
    "TierPrice": "[tier](#service-tiers)",
}


SECTIONS = [
    Config,
    ModelConfig,
    ModelPrice,
    GpuPrice,
    OrganisationConfig,
    TenantConfig,
    AgentBudgets,
    NodeBudgets,
    TeamBudgets,
    UserBudgets,
    BudgetConfig,
    WebhookConfig,
    LedgerConfig,
    LeaseConfig,
    AutoConfig,
    DowngradeStep,
    RatesConfig,
    GatewayConfig,
    PersonConfig,
    EscalationsConfig,
    HoursConfig,
    RuleConfig,
    LevelConfig,
    SmtpConfig,
    RetentionConfig,
]


def rows(section: type[Any]) -> list[str]:
    """The table of a section as the page must show it."""
    schema = config_schema()
    node = schema if section is Config else schema["$defs"][section.__name__]
    return [
        f"| `{key}` | {kind(value)} | {default(value, required=key in node.get('required', ()))} | "
        f"{' '.join(value['description'].split())} |"
        for key, value in node["properties"].items()
    ]


def kind(value: dict[str, Any]) -> str:
    if "$ref" in value:
        return LINKS[value["$ref"].rpartition("/")[2]]
    if "enum" in value:
        return ", ".join(f"`{choice}`" for choice in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    if branches := value.get("anyOf", value.get("oneOf")):
        kinds = [kind(branch) for branch in branches if branch.get("type") != "null"]
        return "amount" if kinds == ["number", "text"] else " or ".join(kinds)
    if value["type"] == "array":
        return f"list of {kind(value['items'])}"
    if value["type"] == "object":
        return f"name: {kind(next(iter(value['patternProperties'].values())))}"
    return {"string": "text", "integer": "whole number", "number": "number", "boolean": "`true`, `false`"}[
        value["type"]
    ]


def default(value: dict[str, Any], *, required: bool) -> str:
    written = value.get("default")
    written = str(written).lower() if isinstance(written, bool) else written
    written = ", ".join(written) if isinstance(written, list) else written
    return "required" if required else "" if written in (None, "", {}) else f"`{written}`"


@pytest.mark.parametrize("section", SECTIONS)
def test_the_page_has_a_table_of_every_key(section: type[Any]) -> None:
    table = "\n".join(["| key | value | default | meaning |", "|---|---|---|---|", *rows(section)])
    assert f"\n\n{table}\n\n" in PAGE


@pytest.mark.parametrize(
    ("text", "answer"),
    re.findall(r"^```yaml\n(.*?)^```(?:\n\n[^`#]*\n\n```text\n(.*?)^```)?", PAGE, re.MULTILINE | re.DOTALL),
)
def test_every_example_of_the_page_loads_or_is_answered_as_shown(text: str, answer: str) -> None:
    if answer:
        with pytest.raises(ConfigError) as caught:
            parse(text)
        assert f"{caught.value}\n" == answer
    else:
        parse(text)
        jsonschema.validate(YAML(typ="safe", pure=True).load(text), config_schema())
