"""The command on runs and budgets, as a person and as a program use it; every command that it prints works."""

from __future__ import annotations

import json
import re
import time
from decimal import Decimal
from pathlib import Path

import pytest

from bursar.runtime.cli.exits import Exit
from tests.support.processes import Child
from tests.unit.runtime.cli_project import Command, command, make_project, run_id

REFUND = ("agents.py:support", "Refund order 1001, it never came.", "--tenant", "acme")
RUNAWAY = ("agents.py:runaway", "Find it.", "--tenant", "acme")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the command is called."""
    monkeypatch.chdir(tmp_path)
    return make_project(tmp_path)


@pytest.fixture
def bursar(project: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command in this process."""
    return command(capsys)


# bursar run


def test_the_answer_goes_to_stdout_and_what_tools_print_does_not(bursar: Command) -> None:
    said = bursar("run", "agents.py:support", "Hello, my parcel is late.", "--tenant", "acme")
    assert said.code == Exit.OK
    answer, _, summary, after = said.out.splitlines()
    assert answer == "Which order is it about? Please send me its number."
    assert re.fullmatch(r"succeeded  \$0\.0\d+  \d+ tokens  1 step  run_[0-9a-f]{21}", summary)
    assert after == f"-> bursar budget why {run_id(said)}"
    assert said.err == ""

    said = bursar("run", *REFUND)
    assert "looking for 1001" in said.err
    assert "looking" not in said.out


def test_a_limit_ends_the_run_with_3_and_is_never_passed(bursar: Command) -> None:
    said = bursar("run", *RUNAWAY, "--cost-limit", "0.0005")
    assert said.code == Exit.LIMIT
    assert "refused: run run_" in said.out
    assert "\nstopped  $0.000" in said.out

    said = bursar("run", *RUNAWAY, "--cost-limit", "0.0005", "--on-limit", "stop", "--json")
    assert said.code == Exit.LIMIT
    assert 0 < Decimal(said.json["cost_usd"]) <= Decimal("0.0005")


@pytest.mark.parametrize(("flag", "value", "key"), [("--steps", "3", "steps"), ("--tokens", "900", "tokens")])
def test_every_limit_of_the_command_holds(bursar: Command, flag: str, value: str, key: str) -> None:
    said = bursar("run", *RUNAWAY, flag, value, "--json")
    assert said.code == Exit.LIMIT
    assert 0 < said.json[key] <= int(value)


def test_a_run_out_of_time_says_how_to_give_it_more(bursar: Command) -> None:
    said = bursar("run", "agents.py:slow", "Find it.", "--tenant", "acme", "--seconds", "0.6", "--on-limit", "stop")
    assert said.code == Exit.LIMIT
    assert "has used its time" in said.out
    assert said.nexts[0][-2:] == ["--seconds", "600"]


def test_a_limit_of_the_command_only_tightens_the_agents_own(bursar: Command) -> None:
    said = bursar("run", *RUNAWAY, "--steps", "1000", "--json")
    assert said.code == Exit.LIMIT
    assert said.json["steps"] <= 8


def test_a_graph_keeps_the_safe_defaults_beside_the_limits_that_are_given(bursar: Command) -> None:
    started = bursar("run", "agents.py:own", "Hello", "--tenant", "acme", "--steps", "7", "--json").json
    [limit] = [line["limit"] for line in bursar("budget", "ls", "--runs", "--json").json if line["kind"] == "run"]
    assert started["agent"] == "own"
    assert limit == {"cost_usd": "1.000000000", "tokens": None, "steps": 7, "tool_calls": 200}


def test_a_graph_takes_a_text_or_its_input_as_json(bursar: Command) -> None:
    message = json.dumps({"messages": [{"role": "user", "content": "Hello"}]})
    spoken, given = (bursar("run", "agents.py:own", text, "--tenant", "acme", "--json") for text in ("Hello", message))
    assert spoken.code == given.code == Exit.OK
    assert spoken.json["output"] == given.json["output"]
    assert spoken.json["cost_usd"] == given.json["cost_usd"]


def test_what_a_model_writes_cannot_steer_the_terminal_and_is_no_markup(bursar: Command) -> None:
    said = bursar("run", "agents.py:rude", "Hello", "--tenant", "acme")
    assert said.out.splitlines()[0] == r"\x1b[2J\x1b]0;owned\x07I am \u202e[bold]calm[/bold] :smile:"
    assert not re.search(r"[^\n\x20-\x7e]", bursar("run", "agents.py:rude", "Hello", "--tenant", "acme", "--json").out)


def test_a_failing_graph_shows_class_and_message_and_its_traceback_only_when_asked(bursar: Command) -> None:
    said = bursar("run", "agents.py:broken", "Hello", "--tenant", "acme")
    assert said.code == Exit.ERROR
    assert said.err == f"error: ZeroDivisionError: division \\x1b[31mby zero -> bursar runs resume {run_id(said)}\n"
    assert said.out.startswith("failed  $0.00  0 tokens  0 steps")

    said = bursar("run", "agents.py:broken", "Hello", "--tenant", "acme", "--debug")
    assert "Traceback (most recent call last)" in said.err
    assert "in boom" in said.err
    assert "\x1b" not in said.err


# bursar runs resume


def test_a_run_that_waits_exits_with_4_and_the_commands_it_prints_work(bursar: Command) -> None:
    said = bursar("run", *REFUND)
    assert said.code == Exit.WAITS
    assert "waits for a person: support wants to call refund" in said.out
    assert '  order_id: "1001"' in said.out
    show, approve, reject = said.nexts
    assert "support wants to call refund" in bursar(*show).out
    assert reject[-2:] == ["--reason", "..."]

    resumed = bursar(*approve)
    assert resumed.code == Exit.OK
    assert "I have refunded $42.50" in resumed.out
    again = bursar(*approve)
    assert again.code != Exit.OK
    assert again.err.startswith("error: ")


def test_a_printed_command_names_the_configuration_where_it_is_another(bursar: Command, project: Path) -> None:
    (project / "bursar.yaml").rename(project / "an other.yaml")
    config = ("--config", "an other.yaml")
    said = bursar("run", *REFUND, *config)
    assert [tuple(command[-2:]) for command in said.nexts] == [config, config, config]
    assert bursar(*said.nexts[1]).code == Exit.OK
    assert tuple(bursar("runs", "show", run_id(said), *config).nexts[0][-2:]) == config


def test_a_rejection_is_told_to_the_agent_with_its_reason(bursar: Command) -> None:
    waiting = run_id(bursar("run", *REFUND))
    said = bursar("runs", "resume", waiting, "--reject", "--message", "it was delivered", "--by", "dana")
    assert said.code == Exit.OK
    assert "was not approved" in said.out
    history = bursar("runs", "show", waiting, "--json").json["history"]
    assert ("queued", "dana") in [(event["status"], event["by"]) for event in history]
    assert "(by dana)" in bursar("runs", "show", waiting).out


def test_an_edit_must_fit_the_tool_and_changes_nothing_otherwise(bursar: Command) -> None:
    waiting = run_id(bursar("run", *REFUND))
    for wrong in ('{"order_id": 1001}', "[1]", "{", '{"order_id": "1001", "amount_usd": "all"}'):
        said = bursar("runs", "resume", waiting, "--edit", wrong)
        assert said.code == Exit.USAGE, wrong
    assert bursar("runs", "show", waiting, "--json").json["status"] == "interrupted"

    right = '{"order_id": "1001", "amount_usd": 20}'
    planned = bursar("runs", "resume", waiting, "--edit", right, "--dry-run")
    assert planned.code == Exit.OK
    assert '"amount_usd": 20' in planned.out
    assert bursar("runs", "show", waiting, "--json").json["status"] == "interrupted"
    assert bursar("runs", "resume", waiting, "--edit", right).code == Exit.OK


def test_a_decision_that_does_not_fit_says_what_does(bursar: Command) -> None:
    waiting = run_id(bursar("run", *REFUND))
    for arguments, words in (
        ((), "waits: support wants to call refund -> bursar inbox show"),
        (("--stop",), "--stop is no answer to what run"),
        (("--approve", "--reject"), "one decision at a time, not --approve and --reject"),
        (("--approve", "--grant-usd", "1"), "one decision at a time"),
        (("--approve", "--on", "nothing"), "approve or edit or reject or respond"),
        (("--grant-usd", "-1"), "is no amount of USD"),
    ):
        said = bursar("runs", "resume", waiting, *arguments)
        assert said.code == Exit.USAGE, arguments
        assert words in said.err
        assert said.err.count("\n") == 1
    assert bursar("runs", "resume", waiting, "--respond", "ask for a photo").code == Exit.OK
    assert "waits on: nothing" in bursar("runs", "resume", waiting, "--approve").err


def test_at_a_limit_a_person_is_asked_and_the_printed_commands_work(bursar: Command) -> None:
    said = bursar("run", *RUNAWAY, "--steps", "2", "--on-limit", "escalate")
    assert said.code == Exit.WAITS
    _, grant, _ = said.nexts
    assert grant[-2:] == ["--steps", "20"]

    granted = bursar(*grant[:-1], "2")
    assert granted.code == Exit.WAITS
    assert "  4 steps  " in granted.out
    _, _, stop = granted.nexts
    assert stop[1] == "stop"
    assert bursar(*stop).code == Exit.OK
    assert bursar("runs", "show", run_id(granted), "--json").json["status"] == "stopped"


def test_a_run_that_was_stopped_goes_on_with_the_command_that_its_refusal_names(bursar: Command) -> None:
    said = bursar("run", *RUNAWAY, "--cost-limit", "0.0002", "--on-limit", "stop")
    assert said.code == Exit.LIMIT
    before = bursar("runs", "show", run_id(said), "--json").json["steps"]
    goes_on = said.nexts[0]
    assert goes_on[-2:] == ["--grant-usd", "1"]
    assert bursar(*goes_on).code == Exit.LIMIT  # now by its limit in steps
    assert bursar("runs", "show", run_id(said), "--json").json["steps"] == 8 > before


def test_a_question_of_a_graph_is_answered_by_text_or_by_json(bursar: Command) -> None:
    waiting = bursar("run", "agents.py:asker", "Hello", "--tenant", "acme")
    assert waiting.code == Exit.WAITS
    assert "waits for a person: red or blue?" in waiting.out
    said = bursar("runs", "resume", run_id(waiting), "--respond", "red")
    assert said.out.startswith("you said 'red'\n")

    waiting = bursar("run", "agents.py:asker", "Hello", "--tenant", "acme")
    said = bursar("runs", "resume", run_id(waiting), "--edit", '["red", 1]')
    assert said.out.startswith("you said ['red', 1]\n")


# bursar budget


def test_why_adds_up_to_the_cost_to_the_nano_dollar_also_over_failures(bursar: Command) -> None:
    said = bursar("run", "agents.py:mixed", "Find it.", "--tenant", "acme")
    assert said.code == Exit.LIMIT
    bill = bursar("budget", "why", run_id(said), "--json").json
    attempts = bill["attempts"]
    assert {attempt["outcome"] for attempt in attempts} >= {"exact", "unknown"}
    assert {attempt["model"] for attempt in attempts} >= {"flaky", "looper", "search"}
    total = sum(Decimal(attempt["posted"]["cost_usd"]) for attempt in attempts)
    assert total == Decimal(bill["cost"]["cost_usd"]) == Decimal(bill["sum"]["cost_usd"]) > 0
    assert all(attempt["reason"] and attempt["price"]["id"] for attempt in attempts if attempt["kind"] == "model")

    shown = bursar("budget", "why", run_id(said)).out
    assert f"sum of the attempts  ${total:f}\ncost of the run      ${total:f}  equal" in shown
    assert "refused: run" in shown
    assert "broke off" in shown
    for attempt in attempts:
        if attempt["kind"] == "model":
            assert f"${attempt['posted']['cost_usd']}" in shown
            assert attempt["price"]["id"] in shown


def test_why_shows_what_was_granted_by_whom(bursar: Command) -> None:
    said = bursar("run", *RUNAWAY, "--steps", "2", "--on-limit", "stop")
    bursar("runs", "resume", run_id(said), "--grant-steps", "1", "--by", "dana", "--message", "once more")
    shown = bursar("budget", "why", run_id(said)).out
    assert re.search(r"grant +dana +once more", shown)


def test_a_tenants_budget_is_set_listed_and_met(bursar: Command) -> None:
    assert bursar("budget", "set", "acme", "--steps", "3", "--per", "day", "--zone", "Europe/Paris").code == Exit.OK
    said = bursar("run", *RUNAWAY)
    assert said.code == Exit.LIMIT
    assert "refused: tenant acme has " in said.out
    [daily] = [line for line in bursar("budget", "ls", "acme", "--json").json if line["per"] == "day"]
    assert daily["posted"]["steps"] == daily["limit"]["steps"] == 3
    assert bursar("budget", "set", "acme", "--steps", "none", "--per", "day").code == Exit.OK
    assert bursar("run", *RUNAWAY, "--steps", "5", "--json").json["steps"] == 5


def test_a_dry_run_changes_nothing(bursar: Command) -> None:
    before = bursar("budget", "ls", "--json").json
    for arguments in (
        ("budget", "set", "acme", "--usd", "1"),
        ("budget", "grant", "acme", "--usd", "1"),
    ):
        said = bursar(*arguments, "--dry-run")
        assert said.code == Exit.OK
        assert "nothing was changed" in said.out
        assert bursar(*arguments, "--dry-run", "--json").json["dry_run"] is True
    assert bursar("budget", "ls", "--json").json == before
    running = run_id(bursar("run", *REFUND))
    assert bursar("runs", "cancel", running, "--dry-run").code == Exit.OK
    assert bursar("runs", "show", running, "--json").json["status"] == "interrupted"


def test_a_tenant_whose_budget_is_gone_is_granted_more_and_its_run_goes_on(bursar: Command) -> None:
    said = bursar("run", "agents.py:support", "Hello, my parcel is late.", "--tenant", "poor", "--on-limit", "stop")
    first = bursar("run", "agents.py:support", "Hello again.", "--tenant", "poor", "--on-limit", "stop")
    assert (said.code, first.code) == (Exit.OK, Exit.LIMIT)
    assert "refused: tenant poor has $" in first.out
    grant = first.nexts[0]
    assert grant == ["budget", "grant", "poor", "--usd", "50"]
    assert bursar(*grant, "--reason", "the fair", "--by", "dana").code == Exit.OK
    assert bursar("runs", "resume", run_id(first)).code == Exit.OK


# bursar runs ls, show, tail, cancel


def test_runs_are_listed_the_newest_first_by_tenant_and_state(bursar: Command) -> None:
    assert bursar("runs", "ls").out.startswith("no runs\n-> bursar run ")
    ids = [run_id(bursar("run", *arguments)) for arguments in (REFUND, RUNAWAY)]
    assert [run["id"] for run in bursar("runs", "ls", "--json").json] == ids[::-1]
    assert [run["id"] for run in bursar("runs", "ls", "--status", "stopped", "--json").json] == ids[1:]
    assert bursar("runs", "ls", "--tenant", "poor", "--json").json == []
    table = bursar("runs", "ls").out
    assert all(f"{one}  acme/" in table for one in ids)


def test_a_cancelled_run_stays_cancelled(bursar: Command) -> None:
    waiting = run_id(bursar("run", *REFUND))
    said = bursar("runs", "cancel", waiting, "--by", "dana")
    assert (said.code, said.out) == (Exit.OK, f"{waiting} is cancelled\n")
    assert bursar("runs", "cancel", waiting).code == Exit.ERROR
    assert "waits on: nothing" in bursar("runs", "resume", waiting, "--approve").err
    assert bursar("runs", "resume", waiting).code == Exit.ERROR
    assert "cancelled by dana" in bursar("runs", "show", waiting).out


def test_tail_follows_a_run_of_another_process_until_it_ends(bursar: Command, project: Path) -> None:
    with Child("-m", "bursar.runtime.cli", "run", f"{project}/agents.py:slow", "Find it.", *flags(project)) as child:
        running = wait_for_run(bursar)
        said = bursar("runs", "tail", running, "--json")
        child.wait()
    told = [json.loads(line) for line in said.out.splitlines()]
    assert said.code == Exit.LIMIT
    assert [one["status"] for one in told if one["kind"] == "status"] == ["running", "stopped"]
    costs = [Decimal(one["cost_usd"]) for one in told if one["kind"] == "model"]
    assert len(costs) == 4
    assert sum(costs) == Decimal(bursar("runs", "show", running, "--json").json["cost_usd"])


def flags(project: Path) -> tuple[str, ...]:
    return ("--tenant", "acme", "--steps", "4", "--config", f"{project}/bursar.yaml")


def wait_for_run(bursar: Command) -> str:
    """The id of the run that another process has begun."""
    for _ in range(100):
        if found := bursar("runs", "ls", "--status", "running", "--json").json:
            return str(found[0]["id"])
        time.sleep(0.1)
    raise AssertionError("no run began")
