from __future__ import annotations

from typing import Any

import pytest

from bursar.budget.errors import UsageError
from bursar.budget.scope import Scope

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
