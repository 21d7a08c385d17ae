"""bursar.yaml: budgets of organisations, tenants, teams, users, agents and nodes, and what is a part of what."""

from __future__ import annotations

from decimal import Decimal

import pytest

from bursar.runtime.config import BudgetConfig
from tests.unit.runtime.config_texts import MINIMAL, mistakes, parse

EVERYTHING = """\
organisations:
  globex: {budgets: [{usd: 100, per: month}]}
tenants:
  acme:
    organisation: globex
    budgets: [{usd: 60, per: month, zone: Europe/Paris, rollover_percent: 50, overdraft_percent: 10, alerts: [50, 80]}]
    teams:
      red: {budgets: [{usd: 20, per: month}], users: {dana: {budgets: [{usd: 5, per: month}]}}}
      blue: {budgets: [{usd: 40, per: month}]}
    users: {dana@example.com: {budgets: [{tokens: 1000, per: rolling-24h}]}}
    agents: {support: {budgets: [{usd: 60, per: month}], nodes: {last answer: {budgets: [{usd: 1, per: month}]}}}}
  rival: {organisation: globex, budgets: [{usd: 40, per: month, mode: soft}]}
"""


def test_every_scope_has_budgets_with_every_policy() -> None:
    config = parse(MINIMAL + EVERYTHING)
    acme = config.tenants["acme"]
    assert acme.organisation == "globex"
    assert acme.budgets[0] == BudgetConfig(
        usd=Decimal(60), per="month", zone="Europe/Paris", rollover_percent=50, overdraft_percent=10, alerts=[50, 80]
    )
    assert acme.teams["red"].users["dana"].budgets[0].usd == 5
    assert acme.users["dana@example.com"].budgets[0].per == "rolling-24h"
    assert acme.agents["support"].nodes["last answer"].budgets[0].usd == 1
    assert config.tenants["rival"].budgets[0].mode == "soft"


def test_a_budget_is_hard_and_nothing_of_it_is_carried_over_unless_it_says_so() -> None:
    plain = BudgetConfig(usd=Decimal(1))
    assert (plain.mode, plain.rollover_percent, plain.overdraft_percent, plain.oversubscribed, plain.alerts) == (
        "hard",
        0,
        0,
        False,
        [],
    )


@pytest.mark.parametrize(
    ("change", "key", "parts"),
    [
        (
            ("usd: 20", "usd: 21"),
            "tenants.acme.budgets[0].usd",
            "$61.00 per month (teams.red $21.00, teams.blue $40.00)",
        ),
        (("usd: 5,", "usd: 25,"), "tenants.acme.teams.red.budgets[0].usd", "$25.00 per month (users.dana $25.00)"),
        (
            ("{usd: 1,", "{usd: 99,"),
            "tenants.acme.agents.support.budgets[0].usd",
            "$99.00 per month (nodes.last answer $99.00)",
        ),
        (("usd: 60, per: month}", "usd: 61, per: month}"), "tenants.acme.budgets[0].usd", "(agents.support $61.00)"),
        (
            ("usd: 40, per: month, mode: soft", "usd: 41, per: month"),
            "organisations.globex.budgets[0].usd",
            "$101.00 per month (tenants.acme $60.00, tenants.rival $41.00)",
        ),
    ],
)
def test_hard_parts_do_not_come_to_more_than_the_whole(change: tuple[str, str], key: str, parts: str) -> None:
    text = EVERYTHING.replace(*change)
    assert text != EVERYTHING
    [line] = mistakes(MINIMAL + text)
    assert line.split(": ")[1].startswith(f"{key} = ")
    assert f"its parts come to {parts}" in line or parts in line
    assert line.endswith("raise it, lower a part, or say `oversubscribed: true` beside it")


def test_parts_that_come_to_more_in_several_places_are_all_named() -> None:
    text = EVERYTHING.replace("usd: 5,", "usd: 25,").replace("{usd: 1,", "{usd: 99,")
    keys = [line.split(": ")[1].split(" = ")[0] for line in mistakes(MINIMAL + text)]
    assert keys == ["tenants.acme.teams.red.budgets[0].usd", "tenants.acme.agents.support.budgets[0].usd"]


@pytest.mark.parametrize(
    "whole",
    ["usd: 1, oversubscribed: true", "usd: 1, mode: soft", "usd: 1, per: day", "tokens: 1", "usd: 9"],
    ids=["oversubscribed", "soft", "another period", "another dimension", "enough"],
)
def test_only_hard_limits_of_one_period_and_dimension_are_compared(whole: str) -> None:
    tenant = f"{{budgets: [{{{whole}}}], agents: {{a: {{budgets: [{{usd: 4}}]}}, b: {{budgets: [{{usd: 5}}]}}}}}}"
    parse(f"{MINIMAL}tenants: {{acme: {tenant}}}")


def test_teams_users_and_agents_each_share_out_the_whole() -> None:
    part = "{x: {budgets: [{usd: 5}]}}"
    parse(f"{MINIMAL}tenants: {{acme: {{budgets: [{{usd: 5}}], teams: {part}, users: {part}, agents: {part}}}}}")


def test_an_organisation_that_is_nowhere_is_a_mistake_beside_every_other() -> None:
    text = f"{MINIMAL}organisations: {{globex: {{budgets: [{{usd: x}}]}}}}\ntenants: {{acme: {{organisation: globx}}}}"
    assert mistakes(text) == [
        '4:42: organisations.globex.budgets[0].usd = "x": expected a number',
        '5:32: tenants.acme.organisation = "globx": there is no such organisation; did you mean globex?',
    ]


@pytest.mark.parametrize("name", ['"a/b"', '""', "team:x", '"a\\u0001"', "a b"])
def test_a_users_name_fits_into_an_account_path(name: str) -> None:
    [line] = mistakes(f"{MINIMAL}tenants: {{acme: {{users: {{{name}: {{budgets: [{{usd: 1}}]}}}}}}}}")
    assert "expected a name of at most 127" in line


@pytest.mark.parametrize("name", ['"a/b"', '""', '"node:x"', '"a\\u0001"'])
def test_a_nodes_name_fits_into_an_account_path(name: str) -> None:
    agents = f"{{a: {{nodes: {{{name}: {{budgets: [{{usd: 1}}]}}}}}}}}"
    [line] = mistakes(f"{MINIMAL}tenants: {{acme: {{agents: {agents}}}}}")
    assert "expected a node's name" in line
