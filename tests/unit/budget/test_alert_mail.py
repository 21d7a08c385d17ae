"""An alert reaches people by e-mail as it reaches a webhook: at least once, as text, to those that it is for."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from bursar.budget import Ledger, Store
from bursar.budget.alerts.alerts import Delivered
from bursar.budget.alerts.mail import SUBJECT_MAX
from bursar.budget.alerts.mailboxes import Mailbox, Smtp, check_address
from bursar.budget.alerts.outbox import Alert, tell
from bursar.budget.errors import ConfigError
from bursar.budget.testing import Clock
from bursar.budget.windows import to_us, utc_now
from tests.support.mail_server import MailServer, self_signed


@pytest.fixture
def clock() -> Clock:
    return Clock(utc_now())


@pytest.fixture
def ledger(store_url: str, clock: Clock) -> Iterator[Ledger]:
    with closing(Ledger(Store(store_url), clock=clock)) as ledger:
        yield ledger


@pytest.fixture
def server() -> Iterator[MailServer]:
    with MailServer() as server:
        yield server


on_sqlite = pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
"""For what has nothing to do with the kind of store."""


def happened(ledger: Ledger, message: str = "it happened", *, people: tuple[str, ...] = (), **data: Any) -> None:
    one = Alert(key=message, kind="run.loop", tenant="acme", path="acme", message=message, data=data, people=people)
    with ledger.store.write() as connection:
        tell(connection, [one], to_us(utc_now()))


def box(server: MailServer, person: str = "dana", **how: Any) -> Mailbox:
    how.setdefault("security", "none")
    smtp = Smtp(host="127.0.0.1", port=server.port, sender="bursar@example.com", **how)
    return Mailbox(address=f"{person}@example.com", person=person, tenant="acme", smtp=smtp)


def deliver(ledger: Ledger, *boxes: Mailbox) -> Delivered:
    return ledger.alerts.deliver(boxes, rng=random.Random(1))


def text_of(mail: EmailMessage) -> str:
    return str(mail.get_content()).replace("\r\n", "\n")


def test_an_alert_for_some_people_goes_to_them_alone_and_one_for_nobody_to_all(
    ledger: Ledger, server: MailServer
) -> None:
    happened(ledger, "for dana", people=("dana", "lee"))
    happened(ledger, "for a longer name", people=("dana2", "Dana"))
    happened(ledger, "for all")
    assert deliver(ledger, box(server), box(server, "kim")) == Delivered(3, 0)
    told = sorted((mail["To"], text_of(mail).splitlines()[0]) for mail in server.received)
    assert told == [
        ("dana@example.com", "for all"),
        ("dana@example.com", "for dana"),
        ("kim@example.com", "for all"),
    ]
    assert deliver(ledger, box(server), box(server, "kim")) == Delivered(0, 0)


@on_sqlite
def test_the_mail_is_a_text_with_the_command_that_goes_on_from_there(ledger: Ledger, server: MailServer) -> None:
    happened(ledger, "support wants to call refund", next="bursar inbox show 17")
    deliver(ledger, box(server))
    (mail,) = server.received
    assert mail.get_content_type() == "text/plain"
    assert (mail["From"], mail["To"]) == ("bursar@example.com", "dana@example.com")
    assert mail["Subject"] == "[bursar acme] support wants to call refund"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert text_of(mail).splitlines()[:3] == ["support wants to call refund", "", "Next: bursar inbox show 17"]


@on_sqlite
def test_what_an_agent_wrote_adds_no_header_and_steers_no_reader(ledger: Ledger, server: MailServer) -> None:
    happened(ledger, "pay\r\nBcc: all@example.com\r\n\r\n\x1b[2Jnow \u202eabc 你好 " + "x" * 3000)
    deliver(ledger, box(server))
    (mail,) = server.received
    assert mail["Bcc"] is None
    assert "x" * SUBJECT_MAX not in mail["Subject"]
    assert "Bcc: all@example.com" in mail["Subject"]
    assert "你好" in text_of(mail)
    assert "\x1b" not in text_of(mail)
    assert "\u202e" not in text_of(mail)


@on_sqlite
def test_an_attempt_that_fails_is_made_again_under_the_same_id(
    ledger: Ledger, server: MailServer, clock: Clock
) -> None:
    server.then = ["451 busy"]
    happened(ledger)
    assert deliver(ledger, box(server)) == Delivered(0, 1)
    (line,) = [line for one in ledger.alerts.ls() for line in one.deliveries if line.endpoint.startswith("mailto:")]
    assert (line.state, line.note) == ("waiting", "the address was refused: 451")
    clock.advance(seconds=10)
    assert deliver(ledger, box(server)) == Delivered(1, 0)
    happened(ledger, "another")
    deliver(ledger, box(server))
    first, second = server.received
    assert first["Message-ID"] != second["Message-ID"]


@on_sqlite
def test_an_address_that_is_refused_for_good_is_not_tried_again_but_told_of_the_next_alert(
    ledger: Ledger, server: MailServer
) -> None:
    server.then = ["550 no such user"]
    happened(ledger)
    assert deliver(ledger, box(server)) == Delivered(0, 1)
    (line,) = [line for one in ledger.alerts.ls() for line in one.deliveries if line.endpoint.startswith("mailto:")]
    assert (line.state, line.note) == ("failed", "the address was refused: 550")
    happened(ledger, "another")
    assert deliver(ledger, box(server)) == Delivered(1, 0)


@on_sqlite
def test_a_server_that_is_away_keeps_the_alert_waiting(ledger: Ledger, server: MailServer) -> None:
    gone = box(server)
    server.__exit__(None, None, None)
    happened(ledger)
    assert deliver(ledger, gone) == Delivered(0, 1)
    server.__enter__()


@on_sqlite
def test_the_login_goes_over_tls_alone_to_a_server_that_is_who_it_says(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = self_signed(tmp_path)
    login = {"security": "starttls", "user": "bursar", "password": "s3cret"}
    happened(ledger)
    with MailServer(certificate=certificate) as server:
        assert deliver(ledger, box(server, "kim", **login)) == Delivered(0, 1)
        assert (server.received, server.logins) == ([], []), "nobody vouches for its certificate"
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert deliver(ledger, box(server, **login)) == Delivered(1, 0)
        assert server.logins == [("bursar", "s3cret")]
        assert deliver(ledger, box(server, "lee", **{**login, "password": "wrong"})) == Delivered(0, 1)
    assert "s3cret" not in repr(box(server, **login))


@pytest.mark.parametrize(
    "address", ["dana", "dana@", "@example.com", "da na@example.com", "dana@example.com\nBcc: x@y", "a,b@c", "<a@b>"]
)
def test_an_address_that_two_servers_may_read_differently_is_refused(address: str) -> None:
    with pytest.raises(ConfigError):
        check_address(address)
