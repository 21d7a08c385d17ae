from __future__ import annotations

from typing import Any

import pytest

from bursar.budget.errors import UsageError
from bursar.budget.scope import Kind, Scope, budget_kind

RUN = Scope(tenant="acme", agents=("support",), run_id="run_1")


def test_a_run_draws_on_its_tenant_its_agent_and_itself() -> None:
    assert RUN.paths == ("acme", "acme/support", "acme/support/run_1")
    assert RUN.run_path == "acme/support/run_1"
    assert RUN.run_paths == ("acme/support/run_1",)


def test_an_agent_used_as_a_tool_draws_on_every_agent_and_run_above_it() -> None:
    helper = RUN.child("researcher", "researcher.1").child("reader", "reader.4")
    assert helper.paths == (
        "acme",
        "acme/support",
        "acme/researcher",
        "acme/reader",
        "acme/support/run_1",
        "acme/support/run_1/researcher.1",
        "acme/support/run_1/researcher.1/reader.4",
    )
    assert helper.run_path == RUN.run_path


def test_whoever_asked_for_a_run_pays_for_it_too() -> None:
    run = Scope(tenant="acme", agents=("support",), run_id="run_1", within="acme/gateway/key_1")
    assert run.paths == ("acme", "acme/gateway", "acme/support", "acme/gateway/key_1", "acme/support/run_1")


def test_an_agent_that_calls_itself_pays_once() -> None:
    assert RUN.child("support", "support.1").paths[:3] == ("acme", "acme/support", "acme/support/run_1")


@pytest.mark.parametrize(
    "names",
    [{"tenant": ""}, {"tenant": "a/b"}, {"agents": ("",)}, {"agents": ("a/b",)}, {"run_id": "a/b"}, {"run_id": ""}],
    ids=str,
)
def test_a_name_that_would_make_another_path_is_refused(names: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="needs a name without '/'"):
        Scope(**{"tenant": "acme", "agents": ("support",), "run_id": "run_1", **names})


def test_a_run_without_an_agent_is_refused() -> None:
    with pytest.raises(UsageError, match="needs an agent"):
        Scope(tenant="acme", agents=(), run_id="run_1")


def test_scopes_with_the_same_names_are_the_same() -> None:
    assert RUN.child("a", "a.1") == Scope(tenant="acme", agents=("support", "a"), run_id="run_1", sub_runs=("a.1",))


def test_a_run_draws_on_its_organisation_its_team_and_its_user_too() -> None:
    run = Scope(tenant="acme", agents=("support",), run_id="run_1", organisation="globex", team="red", user="dana")
    assert run.paths == (
        "org:globex",
        "acme",
        "acme/team:red",
        "acme/user:dana",
        "acme/team:red/user:dana",
        "acme/support",
        "acme/support/run_1",
    )
    assert run.chains == ("org:globex", "acme")


def test_an_agent_used_as_a_tool_draws_on_the_same_organisation_team_and_user() -> None:
    run = Scope(tenant="acme", agents=("support",), run_id="run_1", organisation="globex", team="red", user="dana")
    above = {"org:globex", "acme/team:red", "acme/user:dana", "acme/team:red/user:dana"}
    assert above <= set(run.child("researcher", "researcher.1").paths)


def test_a_node_draws_on_its_budget_of_all_runs_and_on_that_of_this_one() -> None:
    helper = RUN.child("researcher", "researcher.1")
    assert RUN.with_node("draft") == (*RUN.paths, "acme/support/node:draft", "acme/support/run_1/node:draft")
    assert helper.with_node("draft") == (
        *helper.paths,
        "acme/researcher/node:draft",
        "acme/support/run_1/researcher.1/node:draft",
    )


@pytest.mark.parametrize("prefix", ["org:", "team:", "user:", "node:"])
@pytest.mark.parametrize("place", ["tenant", "team", "user", "organisation", "run_id"])
def test_a_name_that_would_make_a_path_of_another_kind_is_refused(place: str, prefix: str) -> None:
    names: dict[str, Any] = {"tenant": "acme", "agents": ("support",), "run_id": "run_1", place: f"{prefix}x"}
    with pytest.raises(UsageError, match="needs a name"):
        Scope(**names)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("org:globex", "organisation"),
        ("acme", "tenant"),
        ("acme/team:red", "team"),
        ("acme/user:dana", "user"),
        ("acme/team:red/user:dana", "user"),
        ("acme/support", "agent"),
        ("acme/support/node:draft", "node"),
        ("acme/support/run_1/node:draft", "node"),
    ],
)
def test_a_path_says_what_its_budget_belongs_to(path: str, kind: Kind) -> None:
    assert budget_kind(path) == kind


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "acme/",
        "org:",
        "acme/team:",
        "team:red",
        "org:globex/acme",
        "acme/support/run_1",
        "acme/user:dana/team:red",
        "acme/team:red/support",
        "acme/node:draft",
        "acme/node:draft/support",
    ],
)
def test_a_path_that_names_nothing_that_has_a_budget_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match="a budget belongs to"):
        budget_kind(path)
