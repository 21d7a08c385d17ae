"""The commands that say what would be: a dry run of a policy, and estimates."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from bursar.runtime.cli.exits import Exit
from tests.unit.runtime.cli_project import Command, command, make_project, run_id

HELLO = ("run", "agents.py:support", "Hello, my parcel is late.", "--tenant", "acme")
REFUND = ("run", "agents.py:support", "Refund order 1001, it never came.", "--tenant", "acme")

POLICY = """\
tenants:
  acme:
    budgets: [{steps: 2, per: month}, {usd: "100", per: total}]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the command is called."""
    monkeypatch.chdir(tmp_path)
    return make_project(tmp_path)


@pytest.fixture
def bursar(project: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command in this process."""
    return command(capsys)


# bursar budget simulate


def test_a_dry_run_says_what_a_policy_would_have_refused_and_saved(bursar: Command, project: Path) -> None:
    (project / "policy.yaml").write_text(POLICY)
    runs = [run_id(bursar(*HELLO)) for _ in range(3)]
    said = bursar("budget", "simulate", "policy.yaml", "--json").json
    cost = Decimal(bursar("runs", "show", runs[0], "--json").json["cost_usd"])
    assert (said["calls"], said["refused"], said["stopped_runs"]) == (3, 1, 1)
    assert Decimal(said["really_spent"]["cost_usd"]) == 3 * cost
    assert Decimal(said["saved"]["cost_usd"]) == cost
    month, total = said["budgets"]
    assert (month["per"], month["limit"]["steps"], month["spent"]["steps"], month["refused"]) == ("month", 2, 2, 1)
    assert [one["run"] for one in month["first_stopped"]] == runs[2:]
    assert (total["per"], total["refused"]) == ("total", 0)

    said = bursar("budget", "simulate", "policy.yaml")
    assert f"{runs[2]} would have been stopped: tenant acme has 0 steps left of 2 steps" in said.out
    assert "policy.yaml would have refused 1 of 3 calls" in said.out
    assert said.code == Exit.OK


def test_a_dry_run_changes_no_budget(bursar: Command, project: Path) -> None:
    (project / "policy.yaml").write_text(POLICY)
    before = bursar("budget", "ls", "--json").json
    assert "no call was made since" in bursar("budget", "simulate", "policy.yaml", "--since", "2h").out
    assert bursar("budget", "ls", "--json").json == before


def test_a_whole_configuration_is_a_policy_too(bursar: Command) -> None:
    bursar(*HELLO)
    assert bursar("budget", "simulate", "bursar.yaml", "--json").json["refused"] == 0


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "tenants: {acme: {budgetz: []}}",
            "policy.yaml:1:18: tenants.acme.budgetz: unknown key; did you mean budgets?",
        ),
        ("tenants:\n  acme: {tiers: [smal]}", "policy.yaml:2:18: tenants.acme.tiers[0]"),
        ("tenant: {}", "policy.yaml:1:1: tenant: unknown key; did you mean tenants?"),
        ("", "policy.yaml:1:1: the file is empty; a policy needs tenants or organisations -> write"),
    ],
)
def test_a_mistake_in_a_policy_is_shown_where_it_stands(bursar: Command, project: Path, text: str, error: str) -> None:
    (project / "policy.yaml").write_text(text)
    said = bursar("budget", "simulate", "policy.yaml")
    assert (said.code, said.out) == (Exit.ERROR, "")
    assert error in said.err


def test_a_time_that_is_none_and_a_policy_that_is_not_there_are_errors(bursar: Command) -> None:
    assert "is no time" in bursar("budget", "simulate", "bursar.yaml", "--since", "soon").err
    assert "there is no configuration here" in bursar("budget", "simulate", "nowhere.yaml").err


# bursar budget estimate


def test_an_estimate_says_how_many_runs_it_still_needs(bursar: Command) -> None:
    cost = Decimal(bursar(*HELLO, "--json").json["cost_usd"])
    bursar(*REFUND)  # waits for a person, and so does not count
    said = bursar("budget", "estimate", "support", "--tenant", "acme", "--json").json
    assert (said["runs"], said["runs_needed"], said["percent"]) == (1, 9, 80)
    assert Decimal(said["cost_usd"]["expected"]) == cost
    assert (said["cost_usd"]["low"], said["steps"]["worst"], said["steps"]["worst_is"]) == (None, 12, "limit")
    said = bursar("budget", "estimate", "support", "--tenant", "acme")
    assert "acme/support, from its last 1 finished run" in said.out
    assert "1 run seen, the 80 % interval needs 9 runs" in said.out


def test_an_estimate_needs_a_tenant_where_there_are_several(bursar: Command) -> None:
    said = bursar("budget", "estimate", "support")
    assert said.code == Exit.USAGE
    assert "-> bursar budget estimate support --tenant acme" in said.err
    assert "'nobody' is not in the configuration" in bursar("budget", "estimate", "support", "--tenant", "nobody").err


def test_a_run_that_waits_shows_what_is_still_to_come(bursar: Command) -> None:
    said = bursar(*REFUND)
    assert (
        "to finish: no run seen that says what it will cost, at most $0.99" in bursar("runs", "show", run_id(said)).out
    )
    assert bursar("runs", "show", run_id(said), "--json").json["to_finish"]["runs"] == 0
    assert bursar("runs", "show", run_id(bursar(*HELLO)), "--json").json["to_finish"] is None
