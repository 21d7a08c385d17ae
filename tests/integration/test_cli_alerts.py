"""The command on alerts: what was told, what is due, and whether a webhook works."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from bursar.runtime.cli.exits import Exit
from tests.support.receiver import Receiver, answer
from tests.unit.runtime.cli_project import Command, command, make_project, run_id

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def bursar(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """The command in a folder whose tenant acme has a watched budget and a webhook."""
    monkeypatch.chdir(make_project(tmp_path))
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    config = tmp_path / "bursar.yaml"
    webhooks = f"webhooks: [{{url: '{receiver.url}/s3cret', secret_env: HOOK_SECRET}}]"
    acme = f"acme: {{budgets: [{{steps: 2, per: month, mode: soft, alerts: [50, 100]}}], {webhooks}}}"
    config.write_text(config.read_text().replace('acme: {budgets: [{usd: "5", per: month, zone: Europe/Paris}]}', acme))
    return command(capsys)


def test_a_run_that_uses_a_budget_up_tells_the_webhook_before_the_command_ends(
    bursar: Command, receiver: Receiver
) -> None:
    said = bursar("run", "agents.py:own", "Hello.", "--tenant", "acme")
    assert said.code == Exit.OK
    (got,) = receiver.received
    told = Webhook(SECRET).verify(got.body, got.headers)
    assert (told["type"], told["data"]["percent"], told["data"]["run_id"]) == ("limit.percent", 50, run_id(said))
    (line,) = bursar("alerts", "ls", "--json").json
    assert line["data"] == told["data"]
    assert [one["state"] for one in line["deliveries"]] == ["delivered", "delivered"]


def test_an_agent_that_calls_one_tool_again_and_again_is_named(bursar: Command, tmp_path: Path) -> None:
    (tmp_path / "slow.yaml").write_text("answers: [{tool_calls: [{name: search, arguments: {query: more}}]}]")
    looping = run_id(bursar("run", "agents.py:slow", "Find it.", "--tenant", "acme", "--steps", "8"))
    bursar("alerts", "deliver")
    (line,) = bursar("alerts", "ls", "--kind", "run.loop", "--json").json
    assert (line["data"]["run_id"], line["data"]["model"]) == (looping, "search")


def test_alerts_are_listed_with_who_was_told_and_without_the_tokens_of_urls(
    bursar: Command, receiver: Receiver
) -> None:
    assert bursar("alerts", "ls").out == "no alerts\n"
    receiver.otherwise = answer(500)
    bursar("run", "agents.py:own", "Hello.", "--tenant", "acme")
    said = bursar("alerts", "ls", "--tenant", "acme", "--kind", "limit.percent")
    shown = " ".join(said.out.split())
    assert "acme has used 50 %" in shown
    assert "(waiting: answered 500)" in shown
    assert "s3cret" not in said.out + bursar("alerts", "ls", "--json").out
    assert bursar("alerts", "ls", "--tenant", "poor").out == "no alerts\n"


def test_what_is_due_can_be_sent_by_a_command_alone(bursar: Command, receiver: Receiver) -> None:
    bursar("run", "agents.py:own", "Hello.", "--tenant", "acme")
    bursar("budget", "set", "acme", "--steps", "1", "--per", "month")
    host = receiver.url.rpartition("/")[0]
    assert bursar("alerts", "deliver", "--dry-run").out == f"would send 1 alert to {host}\n"
    assert len(receiver.received) == 1
    assert bursar("alerts", "deliver").out == "1 alert delivered, 0 failed\n"
    assert json.loads(receiver.received[1].body)["data"]["percent"] == 100
    assert bursar("alerts", "deliver", "--json").json == {"delivered": 0, "failed": 0}


def test_a_webhook_can_be_tried_out(bursar: Command, receiver: Receiver) -> None:
    assert bursar("alerts", "test", "--dry-run").code == Exit.OK
    assert receiver.received == []
    said = bursar("alerts", "test")
    assert said.code == Exit.OK
    assert "answered 204" in said.out
    assert json.loads(receiver.received[0].body)["type"] == "test"
    receiver.otherwise = answer(404)
    assert bursar("alerts", "test", "--tenant", "acme", "--json").json[0]["delivered"] is False
    assert bursar("alerts", "test").code == Exit.ERROR


def test_a_webhook_without_its_secret_is_refused_before_anything_runs(
    bursar: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOOK_SECRET")
    said = bursar("run", "agents.py:own", "Hello.", "--tenant", "acme")
    assert said.code == Exit.ERROR
    assert "tenants.acme.webhooks[0].secret_env" in said.err
    (line,) = [one for one in bursar("doctor", "--json").json if one["subject"] == "webhook"]
    assert (line["state"], line["next_step"]) == ("fail", "export HOOK_SECRET=...")
