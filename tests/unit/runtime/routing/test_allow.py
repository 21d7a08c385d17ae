"""Which models run in the house, and what a process knows of budgets when it chooses."""

from __future__ import annotations

import pytest

from bursar.budget.admission import MoneyLeft
from bursar.runtime.config import ModelConfig
from bursar.runtime.routing.allow import Policy, is_local
from bursar.runtime.routing.ladder import Remaining, below
from tests.unit.runtime.routing.house import TIERS


@pytest.mark.parametrize(
    ("api_base", "local"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://localhost:8000/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://127.8.9.1/v1", True),
        ("http://10.0.0.7:8000/v1", False),
        ("http://localhost.example/v1", False),
        ("https://127.0.0.1.example/v1", False),
    ],
)
def test_a_model_is_local_where_this_machine_serves_it(api_base: str, local: bool) -> None:
    section = {"provider": "openai_compatible", "model": "m", "api_base": api_base}
    assert is_local(ModelConfig.model_validate(section)) is local
    for said in (True, False):
        assert is_local(ModelConfig.model_validate(section | {"local": said})) is said


def test_a_script_is_local_and_a_cloud_is_not() -> None:
    assert is_local(ModelConfig.model_validate({"provider": "sim", "scenario": "support"}))
    assert not is_local(ModelConfig.model_validate({"provider": "openai", "model": "gpt-5"}))


def test_below_a_tier_are_those_that_tenant_and_node_allow_the_highest_first() -> None:
    assert below("frontier", TIERS, Policy(tenant="acme"), None) == ["standard", "small"]
    assert below("frontier", TIERS, Policy(tenant="acme"), "standard") == ["standard"]
    assert below("frontier", TIERS, Policy(tenant="acme", tiers=["small"]), None) == ["small"]
    assert below("small", TIERS, Policy(tenant="acme"), None) == []


def left(path: str, percent: int) -> MoneyLeft:
    return MoneyLeft(path, "month", 1_000, percent * 10)


def test_the_first_call_of_a_run_knows_what_others_left_of_the_budgets_it_shares() -> None:
    remaining = Remaining()
    assert remaining.of(["acme", "acme/clerk/run_1"]) is None
    remaining.learn(["acme", "acme/clerk/run_1"], left("acme", 20))
    assert remaining.of(["acme", "acme/clerk/run_2"]) == left("acme", 20)
    assert remaining.of(["rival", "rival/clerk/run_3"]) is None


def test_of_several_budgets_the_one_counts_of_which_the_least_share_is_left() -> None:
    remaining = Remaining()
    remaining.learn(["acme", "acme/clerk/run_1"], left("acme/clerk/run_1", 10))
    remaining.learn(["acme", "acme/clerk/run_2"], left("acme", 30))
    assert remaining.of(["acme", "acme/clerk/run_1"]) == left("acme/clerk/run_1", 10)
    assert remaining.of(["acme", "acme/clerk/run_2"]) == left("acme", 30)


def test_a_budget_that_was_raised_is_forgotten_as_soon_as_another_is_nearer_to_its_end() -> None:
    remaining = Remaining()
    remaining.learn(["acme", "acme/clerk/run_1"], left("acme", 5))
    remaining.learn(["acme", "acme/clerk/run_1"], left("acme/clerk/run_1", 80))
    assert remaining.of(["acme"]) is None
    remaining.learn(["acme", "acme/clerk/run_1"], None)
    assert remaining.of(["acme", "acme/clerk/run_1"]) is None


def test_what_a_run_has_left_of_its_own_budget_hides_nothing_of_what_others_share() -> None:
    remaining = Remaining()
    remaining.learn(["acme"], left("acme", 10))
    remaining.learn(["acme", "acme/clerk/run_1"], left("acme/clerk/run_1", 5))
    assert remaining.of(["acme", "acme/clerk/run_2"]) == left("acme", 10)
