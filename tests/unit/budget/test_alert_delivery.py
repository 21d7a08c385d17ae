"""An alert reaches every endpoint that is to be told, at least once and under the same id, whatever goes wrong."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import insert, select, update
from standardwebhooks import Webhook, WebhookVerificationError

from bursar.budget import Ledger, Store
from bursar.budget.alerts import webhooks
from bursar.budget.alerts.alerts import LOG, AlertLine, Delivered, DeliveryLine
from bursar.budget.alerts.delivery import LEASE_US
from bursar.budget.alerts.endpoints import Endpoint, check_url
from bursar.budget.alerts.outbox import Alert, tell
from bursar.budget.alerts.webhooks import ATTEMPTS_MAX, DELAYS_S, delay_us
from bursar.budget.errors import ConfigError, UsageError
from bursar.budget.schema import alert, delivery
from bursar.budget.testing import Clock
from bursar.budget.windows import to_us, utc_now
from tests.support.processes import Child
from tests.support.receiver import Receiver, answer, garbage, silence

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ANOTHER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"

on_sqlite = pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
"""For what has nothing to do with the kind of store."""


@pytest.fixture
def clock() -> Clock:
    return Clock(utc_now())  # the library compares a signature's time with the true one


@pytest.fixture
def ledger(store_url: str, clock: Clock) -> Iterator[Ledger]:
    with closing(Ledger(Store(store_url), clock=clock)) as ledger:
        yield ledger


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def happened(ledger: Ledger, clock: Clock, key: str = "one", *, tenant: str = "acme", kind: Any = "run.loop") -> None:
    one = Alert(key=key, kind=kind, tenant=tenant, path=tenant, message=f"{key} happened", data={"repeats": 5})
    with ledger.store.write() as connection:
        tell(connection, [one], to_us(clock()))


def to(url: str, *, tenant: str = "acme", secret: str = SECRET, **how: Any) -> Endpoint:
    return Endpoint(url=url, secret=secret, tenant=tenant, **how)


def deliver(ledger: Ledger, *endpoints: Endpoint) -> Delivered:
    return ledger.alerts.deliver(endpoints, rng=random.Random(1))


def lines_to(ledger: Ledger, url: str) -> list[DeliveryLine]:
    return [line for one in ledger.alerts.ls() for line in one.deliveries if line.endpoint == url]


# --- What arrives -----------------------------------------------------------------------------------------------------


@on_sqlite
def test_what_arrives_is_signed_so_that_the_library_of_the_specification_believes_it(
    ledger: Ledger, clock: Clock, receiver: Receiver
) -> None:
    happened(ledger, clock)
    assert deliver(ledger, to(receiver.url)) == Delivered(1, 0)
    (got,) = receiver.received
    assert Webhook(SECRET).verify(got.body, got.headers) == {
        "type": "run.loop",
        "timestamp": clock().isoformat(),
        "data": {"scope": "acme", "run_id": None, "message": "one happened", "repeats": 5},
    }
    with pytest.raises(WebhookVerificationError):
        Webhook(ANOTHER).verify(got.body, got.headers)
    assert got.headers["content-type"] == "application/json"
    assert "." not in got.id


def test_what_was_delivered_is_not_sent_again(ledger: Ledger, clock: Clock, receiver: Receiver) -> None:
    happened(ledger, clock)
    assert [deliver(ledger, to(receiver.url)) for _ in range(3)] == [Delivered(1, 0), Delivered(0, 0), Delivered(0, 0)]
    (line,) = lines_to(ledger, receiver.url)
    assert line == DeliveryLine(endpoint=receiver.url, state="delivered", attempts=1, next_at=None, note="answered 204")


@on_sqlite
def test_an_endpoint_hears_of_its_tenant_and_of_the_kinds_it_asked_for_alone(
    ledger: Ledger, clock: Clock, receiver: Receiver
) -> None:
    happened(ledger, clock, "loop")
    happened(ledger, clock, "burn", kind="run.burn_rate")
    happened(ledger, clock, "theirs", tenant="globex")
    deliver(ledger, to(receiver.url, kinds=["run.burn_rate"]))
    assert [json.loads(got.body)["data"]["message"] for got in receiver.received] == ["burn happened"]


def test_tenants_that_name_the_same_url_are_each_told_with_their_own_secret(
    ledger: Ledger, clock: Clock, receiver: Receiver
) -> None:
    for tenant in ("acme", "globex"):
        happened(ledger, clock, tenant, tenant=tenant)
    deliver(ledger, to(receiver.url), to(receiver.url, tenant="globex", secret=ANOTHER))
    for got in receiver.received:
        whose = {"acme": SECRET, "globex": ANOTHER}[json.loads(got.body)["data"]["scope"]]
        Webhook(whose).verify(got.body, got.headers)
    assert len(receiver.received) == 2


def test_an_alert_that_was_committed_after_one_with_a_higher_id_is_told_all_the_same(
    ledger: Ledger, clock: Clock, receiver: Receiver
) -> None:
    happened(ledger, clock, "second")
    with ledger.store.write() as connection:
        connection.execute(update(alert).values(id=2))
    deliver(ledger, to(receiver.url))
    with ledger.store.write() as connection:
        row = {"id": 1, "key": "first", "at_us": to_us(clock()), "kind": "run.loop", "tenant": "acme", "path": "acme"}
        connection.execute(insert(alert).values({**row, "payload": '{"type":"run.loop","data":{}}'}))
    deliver(ledger, to(receiver.url))
    assert len({got.id for got in receiver.received}) == 2


@on_sqlite
def test_an_endpoint_that_is_new_is_told_of_the_last_three_days(
    ledger: Ledger, clock: Clock, receiver: Receiver
) -> None:
    happened(ledger, clock, "old")
    clock.advance(days=2)
    happened(ledger, clock, "newer")
    clock.advance(days=2)
    deliver(ledger, to(receiver.url))
    assert [json.loads(got.body)["data"]["message"] for got in receiver.received] == ["newer happened"]


# --- Receivers that are down, slow or hostile -------------------------------------------------------------------------


@on_sqlite
@pytest.mark.parametrize(
    ("reply", "note"),
    [
        (answer(500), "answered 500"),
        (answer(404), "answered 404"),
        (answer(302, location="http://127.0.0.1:1/elsewhere"), "answered 302"),
        (garbage, "RemoteProtocolError"),
    ],
)
def test_what_fails_is_tried_again_later_under_the_same_id(
    ledger: Ledger, clock: Clock, receiver: Receiver, reply: Any, note: str
) -> None:
    receiver.then = [reply]
    happened(ledger, clock)
    assert deliver(ledger, to(receiver.url)) == Delivered(0, 1)
    assert lines_to(ledger, receiver.url)[0].note == note
    assert deliver(ledger, to(receiver.url)) == Delivered(0, 0)
    clock.advance(seconds=6)
    assert deliver(ledger, to(receiver.url)) == Delivered(1, 0)
    first, second = receiver.received
    assert (first.id, first.body) == (second.id, second.body)
    assert int(second.headers["webhook-timestamp"]) - int(first.headers["webhook-timestamp"]) == 6


@on_sqlite
def test_a_receiver_that_is_down_is_tried_again(ledger: Ledger, clock: Clock) -> None:
    happened(ledger, clock)
    url = Receiver.nobody()
    assert deliver(ledger, to(url)) == Delivered(0, 1)
    (line,) = lines_to(ledger, url)
    assert (line.state, line.attempts, line.note) == ("waiting", 1, "ConnectError")


@on_sqlite
def test_a_receiver_that_never_answers_costs_one_timeout_and_keeps_nobody_else_waiting(
    ledger: Ledger, clock: Clock, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "TIMEOUT_S", 0.3)
    for number in range(3):
        happened(ledger, clock, f"number {number}")
    released = threading.Event()
    with Receiver(otherwise=silence(released)) as slow:
        assert deliver(ledger, to(slow.url), to(receiver.url)) == Delivered(3, 1)
        released.set()
        assert len(slow.received) == 1
        assert lines_to(ledger, slow.url)[-1].note == "no answer within 0.3 s"
    assert len(receiver.received) == 3


@on_sqlite
def test_nothing_of_what_a_receiver_says_is_kept_but_its_status(
    ledger: Ledger, clock: Clock, receiver: Receiver
) -> None:
    receiver.then = [answer(500, x_note="<script>")]
    happened(ledger, clock)
    deliver(ledger, to(receiver.url))
    with ledger.store.read() as connection:
        kept = str(connection.execute(select(delivery)).mappings().all())
    assert "script" not in kept
    assert "instructions" not in kept


@on_sqlite
def test_the_schedule_is_that_of_the_specification_and_ends(
    ledger: Ledger, clock: Clock, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.otherwise = answer(503)
    happened(ledger, clock)
    for wait_s in (0, *DELAYS_S):
        clock.advance(seconds=wait_s * 1.2)
        deliver(ledger, to(receiver.url))
    (line,) = lines_to(ledger, receiver.url)
    assert (line.state, line.attempts) == ("failed", ATTEMPTS_MAX) == ("failed", len(receiver.received))
    clock.advance(days=10)
    assert deliver(ledger, to(receiver.url)) == Delivered(0, 0)
    assert "was given up: answered 503" in caplog.text


def test_a_delay_has_jitter_and_is_never_shorter_than_the_receiver_asked_for() -> None:
    rng = random.Random(1)
    for attempt, delay_s in enumerate(DELAYS_S, start=1):
        waits = [(delay_us(attempt, rng) or 0) / 1e6 for _ in range(100)]
        assert delay_s <= min(waits) < max(waits) <= delay_s * 1.2
    assert (delay_us(1, rng, retry_after_s=120) or 0) >= 120_000_000
    assert (delay_us(1, rng, retry_after_s=10**9) or 0) <= 1.2 * 86_400_000_000
    assert delay_us(ATTEMPTS_MAX, rng) is None


@on_sqlite
def test_retry_after_is_respected(ledger: Ledger, clock: Clock, receiver: Receiver) -> None:
    receiver.then = [answer(429, retry_after="600")]
    happened(ledger, clock)
    deliver(ledger, to(receiver.url))
    assert (lines_to(ledger, receiver.url)[0].next_at or clock()) >= clock() + timedelta(seconds=600)


def test_an_endpoint_that_wants_no_more_is_left_alone_until_a_test_succeeds(
    ledger: Ledger, clock: Clock, receiver: Receiver
) -> None:
    receiver.then = [answer(410)]
    happened(ledger, clock, "first")
    happened(ledger, clock, "second")
    assert ledger.alerts.due(to(receiver.url)) == 2
    assert deliver(ledger, to(receiver.url)) == Delivered(0, 1)
    happened(ledger, clock, "third")
    clock.advance(minutes=1)
    assert ledger.alerts.due(to(receiver.url)) == 0
    assert deliver(ledger, to(receiver.url)) == Delivered(0, 0)
    assert ledger.alerts.test(to(receiver.url)).delivered
    assert deliver(ledger, to(receiver.url)) == Delivered(2, 0)
    said = [json.loads(got.body)["data"]["message"] for got in receiver.received]
    assert said == ["first happened", "this is a test of the alerts of acme", "second happened", "third happened"]


def test_a_test_is_sent_once_to_the_endpoint_that_is_tested_and_to_no_other(
    ledger: Ledger, clock: Clock, receiver: Receiver
) -> None:
    with Receiver(otherwise=answer(500)) as broken:
        found = ledger.alerts.test(to(broken.url))
        assert (found.delivered, found.note) == (False, "answered 500")
        clock.advance(days=1)
        assert deliver(ledger, to(broken.url), to(receiver.url)) == Delivered(0, 0)
        Webhook(SECRET).verify(broken.received[0].body, broken.received[0].headers)


# --- Several processes, and such as die -------------------------------------------------------------------------------


def test_several_processes_that_deliver_at_once_send_each_alert_once(
    ledger: Ledger, clock: Clock, receiver: Receiver
) -> None:
    for number in range(20):
        happened(ledger, clock, f"number {number}")
    together = threading.Barrier(4)

    def work(_: int) -> int:
        with closing(Ledger(Store(ledger.store.url), clock=clock)) as own:
            together.wait()
            return sum(deliver(own, to(receiver.url)).delivered for _ in range(3))

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(work, range(4))) == 20
    assert set(Counter(got.id for got in receiver.received).values()) == {1}
    assert len(receiver.received) == 20


_DELIVERING = """
import sys
from bursar.budget import Ledger, Store
from bursar.budget.alerts.endpoints import Endpoint
ledger = Ledger(Store(sys.argv[1]))
print("ready")
ledger.alerts.deliver([Endpoint(url=sys.argv[2], secret=sys.argv[3], tenant="acme")])
"""


def test_a_process_that_is_killed_after_it_sent_leaves_the_alert_to_be_sent_again_under_the_same_id(
    ledger: Ledger, clock: Clock
) -> None:
    happened(ledger, clock)
    children: list[Child] = []
    # Killed by the receiver, so after the request has arrived and before its answer was written down.
    with Receiver(then=[lambda _: children[0].kill()]) as receiver:
        with Child("-c", _DELIVERING, ledger.store.url, receiver.url, SECRET) as child:
            children.append(child)
            child.wait()
        assert deliver(ledger, to(receiver.url)) == Delivered(0, 0)
        clock.advance(seconds=LEASE_US / 1e6 + 60)
        assert deliver(ledger, to(receiver.url)) == Delivered(1, 0)
        first, second = receiver.received
        assert first.id == second.id


def test_who_lost_its_claim_writes_nothing_down(ledger: Ledger, clock: Clock, receiver: Receiver) -> None:
    happened(ledger, clock)
    with closing(Ledger(Store(ledger.store.url), clock=clock)) as other:

        def meanwhile(handler: Any) -> None:
            clock.advance(seconds=LEASE_US / 1e6 + 1)
            deliver(other, to(receiver.url))
            answer(500)(handler)

        receiver.then = [meanwhile]
        deliver(ledger, to(receiver.url))
    assert [(line.state, line.attempts) for line in lines_to(ledger, receiver.url)] == [("delivered", 2)]


# --- The log ----------------------------------------------------------------------------------------------------------


def test_each_alert_is_one_line_of_json_in_the_log_of_one_process(
    ledger: Ledger, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    happened(ledger, clock)
    with closing(Ledger(Store(ledger.store.url), clock=clock)) as other:
        for one in (ledger, other, ledger):
            one.alerts.deliver()
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("bursar.alerts", logging.WARNING)
    assert json.loads(record.getMessage())["data"]["message"] == "one happened"
    assert lines_to(ledger, LOG)[0].state == "delivered"


def test_alerts_are_listed_the_newest_first_with_what_became_of_them(
    ledger: Ledger, clock: Clock, receiver: Receiver
) -> None:
    happened(ledger, clock, "one")
    clock.advance(minutes=1)
    happened(ledger, clock, "two", kind="run.burn_rate")
    happened(ledger, clock, "theirs", tenant="globex")
    deliver(ledger, to(receiver.url))

    def messages(found: list[AlertLine]) -> list[str]:
        return [one.data["message"] for one in found]

    assert messages(ledger.alerts.ls("acme")) == ["two happened", "one happened"]
    assert messages(ledger.alerts.ls("acme", kind="run.loop")) == ["one happened"]
    assert messages(ledger.alerts.ls(since=clock(), limit=1)) == ["theirs happened"]
    states = [(line.endpoint, line.state) for line in ledger.alerts.ls("acme")[0].deliveries]
    assert states == [(LOG, "delivered"), (receiver.url, "delivered")]


# --- What may be an endpoint ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com/a?b=c",
        "http://localhost:9/x",
        "http://127.0.0.2/x",
        "http://[::1]:8080/",
        "https://10.0.0.1/",
    ],
)
def test_an_endpoint_is_https_or_on_this_machine(url: str) -> None:
    check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/x",
        "http://169.254.169.254/latest/meta-data",
        "http://localhost.example.com/",
        "ftp://localhost/",
        "file:///etc/passwd",
        "https://user:token@example.com/",
        "https://",
        "hooks.example.com",
        "",
        "https://exa mple\x00.com/",
        "https://example.com/#part",
        "http://localhost\\@example.com/",
        "http://localhost:99999999/",
    ],
)
def test_no_other_url_is_taken_and_the_error_does_not_show_it(url: str) -> None:
    with pytest.raises(ConfigError, match="expected") as refused:
        check_url(url)
    assert url == "" or url not in str(refused.value).replace("https://hooks.example.com/bursar", "")


@pytest.mark.parametrize(
    "secret", ["", "hunter2", "whsec_", "whsec_c2hvcnQ=", "whsec_!!", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]
)
def test_a_secret_that_signs_nothing_is_refused_and_none_is_ever_shown(secret: str) -> None:
    with pytest.raises(ConfigError, match="24 to 64 random bytes") as refused:
        to("https://example.com/", secret=secret)
    assert not secret or secret == "whsec_" or secret not in str(refused.value)
    assert SECRET not in repr(to("https://example.com/"))


def test_a_kind_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"limit\.percent"):
        to("https://example.com/", kinds=["limit.percents"])


@on_sqlite
async def test_a_coroutine_is_told_to_await_and_nothing_is_sent(
    ledger: Ledger, clock: Clock, receiver: Receiver
) -> None:
    happened(ledger, clock)
    with pytest.raises(UsageError, match=r"await ledger\.alerts\.adeliver"):
        deliver(ledger, to(receiver.url))
    assert (await ledger.alerts.adeliver([to(receiver.url)])).delivered == 1


@on_sqlite
def test_the_callable_that_asks_the_store_is_the_callers_to_choose(ledger: Ledger, clock: Clock) -> None:
    happened(ledger, clock)
    asked: list[str] = []

    async def here(operation: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        asked.append(operation.__name__)
        return operation(*args, **kwargs)

    asyncio.run(ledger.alerts.adeliver(via=here))
    assert asked == ["_write_log"]
