"""The limits of a run that is under way, and holding it up, in the ledger: on each kind of store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from bursar.budget import Amounts, Ledger, Limits, Refusal
from bursar.budget.audit.verify import verify
from bursar.budget.errors import NotFoundError
from bursar.budget.retune import limits_of, pause, retune
from bursar.budget.testing import NOON, SUPPORT, a_call, a_quote, reserved
from bursar.budget.windows import to_us

RUN = SUPPORT.run_path
NOW = to_us(NOON)


@pytest.fixture
def ledger(store_url: str) -> Iterator[Ledger]:
    with closing(Ledger.open(store_url, clock=lambda: NOON)) as one:
        one.gates.open(SUPPORT, Limits(steps=2, tokens=1_000, cost_usd=None, tool_calls=None, seconds=60))
        yield one


def changed(ledger: Ledger, limits: Limits) -> Any:
    with ledger.store.write() as connection:
        return retune(connection, RUN, limits, NOW, author="dana", note="why not")


def held_up(ledger: Ledger, *, on: bool) -> bool:
    with ledger.store.write() as connection:
        return pause(connection, RUN, NOW, on=on, author="dana")


def cause(ledger: Ledger, call: str) -> str | None:
    made = ledger.reserve(a_call(call), a_quote())
    return made.cause if isinstance(made, Refusal) else None


def test_a_limit_that_is_written_down_takes_the_place_of_the_old_one_and_of_grants(ledger: Ledger) -> None:
    ledger.budgets.grant(RUN, Amounts(steps=5), author="kim", note="")
    retuned = changed(ledger, Limits(steps=3))
    assert (retuned.before["steps"], retuned.after["steps"]) == (7, 3)
    assert retuned.before | {"steps": 3} == retuned.after
    with ledger.store.read() as connection:
        assert limits_of(connection, RUN) == retuned.after
    assert not verify(ledger.store).findings


def test_what_is_the_same_is_no_change_and_is_not_journaled(ledger: Ledger) -> None:
    entries = verify(ledger.store).entries
    retuned = changed(ledger, Limits(steps=2, seconds=60))
    assert retuned.before == retuned.after
    assert verify(ledger.store).entries == entries


def test_a_stop_ends_where_its_limit_is_raised_and_not_where_it_is_lowered(ledger: Ledger) -> None:
    refusal = Refusal(cause="limit", kind="run", path=RUN, dimension="steps", limit=2)
    ledger.gates.stop(RUN, refusal)
    changed(ledger, Limits(tokens=500))
    assert ledger.gates.stopped(RUN) == refusal
    changed(ledger, Limits(steps=None))
    assert ledger.gates.stopped(RUN) is None


def test_a_paused_run_gets_no_reservation_keeps_what_it_has_and_is_not_stopped(ledger: Ledger) -> None:
    under_way = reserved(ledger, a_call("call_1"), a_quote())
    assert held_up(ledger, on=True)
    assert not held_up(ledger, on=True)
    assert cause(ledger, "call_2") == "paused"
    assert ledger.check(under_way) is None
    assert ledger.gates.stopped(RUN) is None
    refusal = ledger.gates.refused(RUN)
    assert refusal is not None
    assert refusal.words() == (
        "refused: run run_1 is paused by dana. Nothing was sent. -> bursar runs retune run_1 --resume"
    )
    assert held_up(ledger, on=False)
    assert cause(ledger, "call_2") is None
    assert ledger.gates.refused(RUN) is None
    assert not verify(ledger.store).findings


def test_a_run_that_is_not_there(ledger: Ledger) -> None:
    with pytest.raises(NotFoundError), ledger.store.write() as connection:
        retune(connection, "acme/support/run_9", Limits(steps=1), NOW, author="dana")
