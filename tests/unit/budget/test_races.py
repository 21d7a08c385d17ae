"""What two processes on one PostgreSQL server do at the same moment."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import Connection

from bursar.budget import Ledger, Limits, Scope, Store
from bursar.budget.errors import ConflictError, ReservationError
from bursar.budget.margin import Margins
from bursar.budget.reservations import give_up
from bursar.budget.testing import SUPPORT, Clock, a_call, reserved, tokens
from bursar.budget.testing.audit import audit
from tests.support.postgres import Postgres


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def ledgers(postgres: Postgres) -> Iterator[tuple[Ledger, Ledger]]:
    """Two processes' ledgers on one database."""
    clock = Clock()
    with ExitStack() as opened:
        url = opened.enter_context(postgres.migrated())
        stores = [opened.enter_context(closing(Store(url))) for _ in range(2)]
        yield Ledger(stores[0], clock=clock), Ledger(stores[1], clock=clock)
        audit(stores[0])


def test_a_call_that_is_sent_while_it_is_reaped_is_charged_or_not_sent_at_all(
    ledgers: tuple[Ledger, Ledger], pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, reaper = ledgers
    slow.gates.open(SUPPORT, Limits.unlimited())
    hold = slow.gates.hold(SUPPORT.run_path, "worker_1", lease_s=30)
    made = reserved(slow, a_call(epoch=hold.epoch))
    slow._clock.advance(seconds=31)  # type: ignore[attr-defined]
    sent: list[Future[None]] = []

    def after_it_was_sent(*given: Any) -> None:
        sent.append(pool.submit(slow.dispatch, made))
        wait(sent, timeout=5)
        give_up(*given)

    monkeypatch.setattr("bursar.budget.ledger.give_up", after_it_was_sent)
    assert reaper.reap() == 1
    assert sent[0].exception() is None
    (attempt,) = reaper.reports.bill(SUPPORT.run_id).attempts
    assert (attempt.outcome, attempt.posted) == ("unknown", made.held)


def test_a_call_that_is_reaped_while_it_is_sent_is_not_sent(
    ledgers: tuple[Ledger, Ledger], pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, reaper = ledgers
    slow.gates.open(SUPPORT, Limits.unlimited())
    hold = slow.gates.hold(SUPPORT.run_path, "worker_1", lease_s=30)
    made = reserved(slow, a_call(epoch=hold.epoch))
    slow._clock.advance(seconds=31)  # type: ignore[attr-defined]
    sent: list[Future[None]] = []

    def before_it_is_sent(*given: Any) -> None:
        give_up(*given)
        sent.append(pool.submit(slow.dispatch, made))

    monkeypatch.setattr("bursar.budget.ledger.give_up", before_it_is_sent)
    reaper.reap()
    with pytest.raises(ReservationError, match="no longer held"):
        sent[0].result()


def test_the_first_calls_of_a_model_are_settled_by_two_processes_at_once(
    ledgers: tuple[Ledger, Ledger], pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = Barrier(2, timeout=10)
    load = Margins._load

    def when_both_have_read(self: Margins, model: str, connection: Connection | None = None) -> Any:
        found = load(self, model, connection)
        if found.samples == 0 and model not in seen.setdefault(id(self), set()):
            seen[id(self)].add(model)
            both.wait()
        return found

    seen: dict[int, set[str]] = {}
    monkeypatch.setattr(Margins, "_load", when_both_have_read)

    def settle(ledger: Ledger, tenant: str) -> None:
        scope = Scope(tenant=tenant, agents=("support",), run_id=f"run_of_{tenant}")
        ledger.gates.open(scope, Limits.unlimited())
        made = reserved(ledger, a_call(scope=scope))
        ledger.settle(made, usage=tokens(2_000, 5), outcome="exact", reply="hello", counted_input_tokens=1_500)

    for done in [pool.submit(settle, ledger, tenant) for ledger, tenant in zip(ledgers, ("acme", "zeta"), strict=True)]:
        done.result()


def test_a_run_id_that_two_tenants_open_at_once_is_one_tenants_alone(
    ledgers: tuple[Ledger, Ledger], pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = Barrier(2, timeout=10)

    def when_both_may(connection: Connection, scope: Scope) -> bool:
        both.wait()
        return True

    monkeypatch.setattr("bursar.budget.gate._may_open", when_both_may)
    scopes = [Scope(tenant=tenant, agents=("support",), run_id="run_1") for tenant in ("acme", "zeta")]
    opened = [
        pool.submit(ledger.gates.open, scope, Limits.unlimited()) for ledger, scope in zip(ledgers, scopes, strict=True)
    ]
    refused = [error for one in opened if (error := one.exception()) is not None]
    assert [type(error) for error in refused] == [ConflictError]
    assert [line.kind for line in ledgers[0].budgets.ls(runs=True)] == ["run"]
