"""A process tells by itself, goes on whatever fails, and does not wait for long at its end."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bursar.budget import Ledger
from bursar.budget.alerts.endpoints import Endpoint
from bursar.budget.alerts.outbox import Alert, tell
from bursar.budget.errors import LedgerUnavailable
from bursar.budget.windows import to_us, utc_now
from bursar.runtime import alerting
from bursar.runtime.alerting import telling
from tests.support.ledger import new_store
from tests.support.receiver import Receiver, silence

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ONCE_S = 3600.0


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(new_store(tmp_path))) as ledger:
        yield ledger


def happened(ledger: Ledger, key: str) -> None:
    one = Alert(key=key, kind="run.loop", tenant="acme", path="acme", message=key, data={})
    with ledger.store.write() as connection:
        tell(connection, [one], to_us(utc_now()))


def to(receiver: Receiver) -> list[Endpoint]:
    return [Endpoint(url=receiver.url, secret=SECRET, tenant="acme")]


async def test_alerts_are_sent_while_the_process_goes_on(ledger: Ledger) -> None:
    with Receiver() as receiver:
        async with telling(ledger.alerts, to(receiver), rng=random.Random(1), period_s=0.02):
            for count in (1, 2):
                happened(ledger, f"number {count}")
                await asyncio.to_thread(receiver.wait_for, count)


async def test_what_was_not_sent_yet_is_sent_at_the_end(ledger: Ledger) -> None:
    with Receiver() as receiver:
        async with telling(ledger.alerts, to(receiver), rng=random.Random(1), period_s=ONCE_S):
            happened(ledger, "late")
        assert len(receiver.received) == 1


@pytest.mark.parametrize("error", [LedgerUnavailable("gone"), ZeroDivisionError()])
async def test_a_round_that_fails_is_in_the_log_and_the_next_one_tells(
    ledger: Ledger, error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sweep, failures = ledger.alerts.sweep, [error]

    def fail_once() -> int:
        if failures:
            raise failures.pop()
        return sweep()

    monkeypatch.setattr(ledger.alerts, "sweep", fail_once)
    happened(ledger, "one")
    with Receiver() as receiver:
        async with telling(ledger.alerts, to(receiver), rng=random.Random(1), period_s=0.02):
            await asyncio.to_thread(receiver.wait_for, 1)
    assert "no alerts" in caplog.text


async def test_a_receiver_that_never_answers_does_not_keep_the_process_from_ending(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerting, "LAST_S_MAX", 0.2)
    happened(ledger, "one")
    free = threading.Event()
    with Receiver(otherwise=silence(free)) as receiver:
        began = time.monotonic()
        async with telling(ledger.alerts, to(receiver), rng=random.Random(1), period_s=ONCE_S):
            pass
        assert time.monotonic() - began < 10  # an attempt may take 15 s
        free.set()
    (line,) = [line for line in ledger.alerts.ls()[0].deliveries if line.endpoint == receiver.url]
    assert (line.state, line.attempts) == ("waiting", 1)
