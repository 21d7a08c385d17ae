"""bursar.yaml: the mail server and the people that it reaches, and no password in any message."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bursar.budget.alerts.mailboxes import Mailbox, Smtp
from bursar.budget.errors import ConfigError
from tests.unit.runtime.config_texts import MINIMAL, mistakes, parse

SERVER = "smtp: {host: smtp.example.com, sender: bursar@example.com, user: bursar, password_env: SMTP_PASSWORD}\n"
PEOPLE = "tenants: {acme: {people: {dana: {email: dana@example.com}, lee: {}}}}\n"


def test_people_with_an_address_are_told_by_the_server() -> None:
    smtp = Smtp(host="smtp.example.com", sender="bursar@example.com", user="bursar", password="hunter2")
    assert parse(MINIMAL + SERVER + PEOPLE).endpoints({"SMTP_PASSWORD": "hunter2"}) == [
        Mailbox(address="dana@example.com", person="dana", tenant="acme", smtp=smtp)
    ]
    assert parse(MINIMAL + PEOPLE).endpoints({}) == [], "without a server nobody is"


def test_a_password_that_is_not_there_is_named_by_its_variable_at_its_place() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(MINIMAL + SERVER + PEOPLE).endpoints({})
    assert 'smtp.password_env = "SMTP_PASSWORD": the environment variable SMTP_PASSWORD is not set' in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            SERVER.replace("smtp.example.com", "smtp.example.com, security: none"),
            "none is for a server on this",
        ),
        (SERVER.replace("bursar@example.com", "Bursar"), "expected an e-mail address such as dana@example.com"),
        (SERVER.replace(", password_env: SMTP_PASSWORD", ""), "expected it where user is given, and only there"),
        (PEOPLE.replace("dana@example.com", '"dana@example.com\\nBcc: x@y.z"'), "expected an e-mail address such as"),
    ],
)
def test_what_no_mail_can_be_sent_by_is_refused_when_it_is_read(text: str, expected: str) -> None:
    assert expected in "\n".join(mistakes(MINIMAL + text))


def test_without_a_mail_server_nothing_of_mail_is_imported() -> None:
    code = (
        "import sys, bursar.runtime.config, bursar.runtime.alerting, bursar.budget.alerts.courier;"
        "print([name for name in ('smtplib', 'bursar.budget.alerts.mail') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
