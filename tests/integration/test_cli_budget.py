"""Budgets by command: set with every policy, granted for a time, taken back, and seen as a tree of scopes."""

from __future__ import annotations

from pathlib import Path

import pytest

from bursar.runtime.cli.exits import Exit
from tests.unit.runtime.cli_project import Command, command, make_project

ORGANISATION = """\
organisations:
  globex: {budgets: [{usd: "100", per: month}]}
tenants:
  acme:
    organisation: globex
    budgets: [{usd: "5", per: month, zone: Europe/Paris}]
    teams: {red: {budgets: [{usd: "4", per: month}], users: {dana: {budgets: [{steps: 20, per: rolling-24h}]}}}}
    agents: {support: {budgets: [{steps: 50, per: hour}], nodes: {model: {budgets: [{steps: 40, per: hour}]}}}}
"""

RUN = ("run", "agents.py:support", "Hello, my parcel is late.", "--tenant", "acme")


@pytest.fixture
def bursar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command in a folder whose configuration has a budget in every scope."""
    monkeypatch.chdir(make_project(tmp_path))
    file = tmp_path / "bursar.yaml"
    file.write_text(file.read_text().partition("tenants:")[0] + ORGANISATION)
    monkeypatch.setenv("COLUMNS", "140")
    return command(capsys)


def names(said: str) -> list[str]:
    """The first column of a table, without its heading, as it is moved in."""
    rows = said.splitlines()[2:]
    return [row[: len(row) - len(row.lstrip())] + row.split()[0] for row in rows if " %" in row or "  -" in row]


def test_a_list_is_a_tree_of_scopes(bursar: Command) -> None:
    said = bursar("budget", "ls")
    assert names(said.out) == [
        "org:globex",
        "  acme",
        "    support",
        "      node:model",
        "    team:red",
        "      user:dana",
    ]
    assert names(bursar("budget", "ls", "acme/team:red").out) == ["acme/team:red", "  user:dana"]


def test_a_list_shows_what_is_spent_as_a_bar_where_there_is_room_and_in_percent_everywhere(
    bursar: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    bursar("budget", "set", "acme", "--steps", "2", "--per", "day")
    assert bursar(*RUN).code == Exit.OK
    assert "▒" not in bursar("budget", "ls").out, "nothing is in flight"
    [row] = [line for line in bursar("budget", "ls", "acme").out.splitlines() if "2 steps" in line]
    assert "██████······  50 %" in row
    monkeypatch.setenv("COLUMNS", "80")
    [row] = [line for line in bursar("budget", "ls", "acme").out.splitlines() if "2 steps" in line]
    assert "█" not in row
    assert "  50 %" in row


def test_a_runs_team_and_user_pay_and_are_shown_with_it(bursar: Command) -> None:
    said = bursar(*RUN, "--team", "red", "--user", "dana", "--json")
    assert (said.json["team"], said.json["user"]) == ("red", "dana")
    lines = {line["path"]: line["posted"]["steps"] for line in bursar("budget", "ls", "--json").json}
    assert lines == {
        "org:globex": 1,
        "acme": 1,
        "acme/support": 1,
        "acme/support/node:model": 1,
        "acme/team:red": 1,
        "acme/team:red/user:dana": 1,
    }
    assert bursar(*RUN, "--team", "rde").code == Exit.USAGE


POLICY = (
    *("--per", "week", "--zone", "Asia/Tokyo", "--soft", "--rollover", "50", "--overdraft", "10"),
    *("--oversubscribe", "--alert", "50", "--alert", "80", "--reason", "the fair", "--by", "dana"),
)


def test_every_policy_is_set_by_command_and_what_is_left_out_stays(bursar: Command) -> None:
    set_ = bursar("budget", "set", "acme", "--usd", "3", *POLICY, "--json").json
    policy = {
        "zone": "Asia/Tokyo",
        "mode": "soft",
        "rollover_percent": 50,
        "overdraft_percent": 10,
        "oversubscribed": True,
        "alerts": [50, 80],
        "source": "command",
        "part_of": "org:globex",
    }
    assert policy.items() <= set_.items()
    said = bursar("budget", "set", "acme", "--usd", "4", "--per", "week", "--reason", "more")
    assert "soft $4.00" in said.out
    assert "acme per week: rollover 50 %, overdraft 10 %, oversubscribed, alerts at 50, 80 %" in said.out
    plain = ("--hard", "--rollover", "0", "--overdraft", "0", "--no-oversubscribe", "--no-alerts")
    again = bursar("budget", "set", "acme", "--per", "week", *plain, "--json").json
    assert (again["mode"], again["rollover_percent"], again["oversubscribed"], again["alerts"]) == (
        "hard",
        0,
        False,
        [],
    )
    assert again["limit"]["cost_usd"] == "4.000000000"


def test_a_limit_below_what_is_used_says_until_when_nothing_is_admitted(bursar: Command) -> None:
    assert bursar(*RUN, "--user", "dana").code == Exit.OK
    said = bursar("budget", "set", "acme/user:dana", "--steps", "0")
    assert said.code == Exit.OK
    assert "acme/user:dana has used 0 steps of 0 steps: nothing more is admitted until it is raised" in said.out
    said = bursar("budget", "set", "acme", "--steps", "1", "--per", "month")
    assert "acme has used 1 step of 1 step: nothing more is admitted until 20" in said.out
    assert "admitted" not in bursar("budget", "set", "acme", "--steps", "1", "--per", "month", "--soft").out


def test_a_part_larger_than_what_is_free_is_refused_with_the_way_out_and_that_way_works(bursar: Command) -> None:
    said = bursar("budget", "set", "acme/team:blue", "--usd", "2", "--per", "month")
    assert said.code == Exit.USAGE
    assert "acme has $5.00 per month, and its parts would be given $6.00" in said.err
    way_out = said.err.strip().rpartition(" or bursar ")[2].split()
    assert bursar(*way_out).code == Exit.OK
    assert bursar("budget", "set", "acme/team:blue", "--usd", "2", "--per", "month").code == Exit.OK


def test_a_grant_is_listed_until_it_is_taken_back(bursar: Command) -> None:
    granted = bursar("budget", "grant", "acme", "--usd", "50", "--expires", "2h", "--reason", "the fair", "--by", "eve")
    assert "$55.00" in granted.out
    [revoke] = granted.nexts
    assert revoke[:2] == ["budget", "revoke"]
    [line] = bursar("budget", "grants", "acme", "--json").json
    assert (line["by"], line["reason"], line["ended_at"]) == ("eve", "the fair", None)
    assert line["expires_at"] is not None
    assert "until " in bursar("budget", "grants").out
    assert bursar(*revoke, "--dry-run", "--json").json["dry_run"] is True
    assert "nothing was changed" in bursar(*revoke, "--dry-run").out
    assert "$50.00 taken back" in bursar(*revoke, "--reason", "over").out
    assert "ended, $50.00 taken back" in bursar("budget", "grants").out
    assert bursar("budget", "ls", "acme", "--json").json[0]["limit"]["cost_usd"] == "5.000000000"
    for arguments in (revoke, [*revoke, "--dry-run"]):
        assert bursar(*arguments).code == Exit.USAGE
    assert bursar("budget", "revoke", "77").code == bursar("budget", "revoke", "77", "--dry-run").code == Exit.ERROR


@pytest.mark.parametrize(
    ("arguments", "said", "next_step"),
    [
        (("set", "org:nobody", "--usd", "1"), "organisation 'nobody' is not in", "under organisations:"),
        (("set", "acme", "--usd", "1", "--per", "year"), "expected one of hour, day", "bursar budget set --help"),
        (("set", "acme", "--rollover", "10"), "a budget per total has no next window", "--per month"),
        (("set", "acme", "--usd", "1", "--per", "day", "--rollover", "101"), "expected a whole percent", None),
        (("set", "acme", "--usd", "1", "--alert", "0"), "expected a whole percent from 1 to 1000", None),
        (("grant", "acme", "--usd", "1", "--expires", "never"), "'never' is no time", "2026-11-20"),
        (("grant", "acme", "--usd", "1", "--expires", "2020-01-01"), "which is past", "--expires 2h"),
        (
            ("grant", "acme/team:red/user:dana", "--steps", "1"),
            "is rolling: it has no window to give to",
            "bursar budget set acme/team:red/user:dana --per rolling-24h",
        ),
    ],
    ids=str,
)
def test_a_mistake_is_one_line_with_a_next_step(
    bursar: Command, arguments: tuple[str, ...], said: str, next_step: str | None
) -> None:
    answer = bursar("budget", *arguments)
    assert answer.code == Exit.USAGE
    assert answer.err.count("\n") == 1
    assert said in answer.err
    assert next_step is None or next_step in answer.err


def test_a_refusal_at_a_rolling_limit_names_the_command_that_lets_the_run_go_on(bursar: Command) -> None:
    bursar("budget", "set", "acme/team:red/user:dana", "--steps", "0", "--per", "rolling-24h")
    refused = bursar(*RUN, "--team", "red", "--user", "dana", "--on-limit", "stop")
    assert refused.code == Exit.LIMIT
    more = refused.nexts[0]
    assert more == ["budget", "set", "acme/team:red/user:dana", "--per", "rolling-24h", "--steps", "20"]
    assert bursar(*more).code == Exit.OK


@pytest.mark.parametrize("path", ["nobody", "nobody/support", "org:nobody"])
@pytest.mark.parametrize("what", ["ls", "grants", "forecast", "history"])
def test_nothing_is_found_of_a_tenant_only_if_there_is_such_a_tenant(bursar: Command, what: str, path: str) -> None:
    said = bursar("budget", what, path)
    assert said.code == Exit.USAGE
    assert "'nobody' is not in the configuration (it has " in said.err
    assert "-> add `nobody: {budgets: [{usd: 5, per: month}]}`" in said.err


def test_a_windows_end_is_said_with_the_zone_that_decides_on_it(bursar: Command) -> None:
    said = bursar("budget", "ls").out
    assert "+00:00 (UTC)" in said, "the organisation's month"
    assert "(Europe/Paris)" in said, "the tenant's month"


def test_a_limit_of_nothing_is_not_said_to_end_with_its_window(bursar: Command) -> None:
    assert bursar(*RUN).code == Exit.OK
    said = bursar("budget", "set", "org:globex", "--usd", "0", "--per", "month").out
    assert "nothing more is admitted until it is raised or granted more" in " ".join(said.split())


def test_a_history_can_be_read_on_80_columns(bursar: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    bursar("budget", "set", "acme", "--steps", "0", "--per", "day", "--reason", "a brake")
    assert bursar(*RUN).code == Exit.LIMIT
    said = bursar("budget", "history", "acme")
    assert "this call needs" not in said.out, "what follows from a refusal is left to `budget why`"
    assert len(said.out.splitlines()) < 40
    assert all(len(line) <= 80 for line in said.out.splitlines())
