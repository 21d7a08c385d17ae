"""Those who may decide are told, by signed webhook and by e-mail, before the command that asks them has ended."""

from __future__ import annotations

from pathlib import Path

import pytest
from standardwebhooks import Webhook

from bursar.runtime.cli.exits import Exit
from tests.support.mail_server import MailServer
from tests.support.receiver import Receiver
from tests.unit.runtime.cli_project import Command, command, make_project, run_id

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

TOLD = """
    people:
      dana: {{roles: [lead], email: dana@acme.example}}
      kim: {{email: kim@acme.example}}
      lee: {{roles: [lead]}}
    escalations: {{rules: [{{levels: [{{roles: [lead]}}]}}]}}
    webhooks: [{{url: '{url}', secret_env: HOOK_SECRET}}]
"""
MAIL = "smtp: {{host: 127.0.0.1, port: {port}, security: none, sender: bursar@acme.example}}\n"


@pytest.fixture
def bursar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.chdir(make_project(tmp_path))
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    return command(capsys)


def configure(receiver: Receiver, server: MailServer) -> None:
    config = Path("bursar.yaml")
    acme = 'acme: {budgets: [{usd: "5", per: month, zone: Europe/Paris}]}'
    told = "acme:" + TOLD.format(url=receiver.url)
    config.write_text(config.read_text().replace(acme, told) + MAIL.format(port=server.port))


def test_who_may_decide_is_told_by_webhook_and_mail_and_of_the_decision_too(bursar: Command) -> None:
    with Receiver() as receiver, MailServer() as server:
        configure(receiver, server)
        said = bursar("run", "agents.py:support", "Refund order 1001, it never came.", "--tenant", "acme")
        assert said.code == Exit.WAITS
        (posted,) = (Webhook(SECRET).verify(one.body, one.headers) for one in receiver.received)
        assert posted["type"] == "escalation.opened"
        assert posted["data"]["run_id"] == run_id(said)
        assert posted["data"]["next"] == "bursar inbox show 1"
        assert posted["data"]["may_decide"] == ["dana", "lee"]
        assert "1001" not in receiver.received[0].body.decode(), "arguments stay in the inbox"
        (mail,) = server.received
        assert mail["To"] == "dana@acme.example", "kim may not decide, and lee has no address"
        assert "Next: bursar inbox show 1" in mail.get_content()
        assert "://" not in mail.get_content()

        assert bursar("inbox", "approve", "1", "--by", "lee").code == Exit.OK
        kinds = [Webhook(SECRET).verify(one.body, one.headers)["type"] for one in receiver.received]
        assert kinds == ["escalation.opened", "escalation.decided"]
        assert "lee: approve on: support wants to call refund" in server.received[-1]["Subject"]
        assert bursar("alerts", "test", "--tenant", "acme").code == Exit.OK
        assert {one["To"] for one in server.received} == {"dana@acme.example", "kim@acme.example"}
