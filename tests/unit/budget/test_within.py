"""A run within another: both pay, and neither goes on once one of them may not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bursar.budget.admission import ToolQuote
from bursar.budget.errors import NotFoundError, UsageError
from bursar.budget.ledger import Ledger
from bursar.budget.limits import Limits
from bursar.budget.refusal import Refusal
from bursar.budget.reservations import Call, Reservation
from bursar.budget.scope import Scope

KEY = Scope(tenant="acme", agents=("gateway",), run_id="key_1")
RUN = Scope(tenant="acme", agents=("support",), run_id="run_1", within=KEY.run_path)


@pytest.fixture
def ledger(store_url: str) -> Iterator[Ledger]:
    """A ledger with an open run that may call two tools."""
    opened = Ledger.open(store_url)
    opened.gates.open(KEY, Limits(tool_calls=2, steps=None, cost_usd=None, seconds=None))
    yield opened
    opened.close()


def tool_call(scope: Scope, number: int, epoch: int = 0) -> Call:
    return Call(id=f"call_{number}", scope=scope, epoch=epoch, node="-")


def test_a_run_draws_on_the_one_that_it_is_within(ledger: Ledger) -> None:
    ledger.gates.open(RUN, Limits())
    epoch = ledger.gates.hold(RUN.run_path, "worker", 10).epoch
    assert isinstance(ledger.charge(tool_call(RUN, 0, epoch), ToolQuote()), Reservation)
    assert isinstance(ledger.charge(tool_call(KEY, 1), ToolQuote()), Reservation)
    refused = ledger.charge(tool_call(RUN, 2, epoch), ToolQuote())
    assert isinstance(refused, Refusal)
    assert (refused.path, refused.limit) == (KEY.run_path, 2)
    assert ledger.reports.spent(RUN.run_path).tool_calls == 1


def test_what_is_within_a_cancelled_run_is_refused_and_what_is_beside_it_is_not(ledger: Ledger) -> None:
    beside = Scope(tenant="acme", agents=("support",), run_id="run_2")
    for scope in (RUN, beside):
        ledger.gates.open(scope, Limits())
    ledger.gates.cancel(KEY.run_path, author="dana")
    refused = ledger.charge(tool_call(RUN, 0), ToolQuote())
    assert isinstance(refused, Refusal)
    assert (refused.cause, refused.path) == ("cancelled", KEY.run_path)
    assert isinstance(ledger.charge(tool_call(beside, 0), ToolQuote()), Reservation)


def test_a_run_is_within_no_run_of_another_tenant_and_in_none_that_was_never_opened(ledger: Ledger) -> None:
    with pytest.raises(UsageError):
        Scope(tenant="globex", agents=("support",), run_id="run_1", within=KEY.run_path)
    nowhere = Scope(tenant="acme", agents=("support",), run_id="run_1", within="acme/gateway/key_2")
    ledger.gates.open(nowhere, Limits())
    with pytest.raises(NotFoundError):
        ledger.charge(tool_call(nowhere, 0), ToolQuote())
