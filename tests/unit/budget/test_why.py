"""What a call drew on, and which refusals stopped a run, on both stores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from bursar.budget import Amounts, Ledger, Limits, Refusal, Scope
from bursar.budget.errors import NotFoundError
from bursar.budget.testing import NOON, PRICE, SUPPORT, Clock, a_call, a_quote, reserved, tokens
from bursar.budget.usage import Usage


@pytest.fixture
def ledger(store_url: str) -> Iterator[Ledger]:
    """A ledger with budgets above run_1 of acme's agent support."""
    ledger = Ledger.open(store_url, clock=Clock())
    ledger.budgets.set("acme", limit={"nanousd": 10**9}, per="month", author="dana")
    ledger.budgets.set("acme", limit={"tokens": 500}, per="rolling-24h", author="dana")
    ledger.gates.open(SUPPORT, Limits(steps=3, tokens=None, tool_calls=None, cost_usd=None))
    yield ledger
    ledger.close()


def stopped(ledger: Ledger, scope: Scope, *, limit: int) -> Refusal:
    refusal = Refusal(cause="limit", kind="tenant", path="acme", dimension="tokens", limit=limit, needed=limit + 1)
    ledger.gates.stop(scope.run_path, refusal)
    return refusal


def test_a_call_is_found_by_its_id_and_by_its_number_with_what_it_drew_on(ledger: Ledger) -> None:
    call = a_call("run_1:task::0")
    ledger.settle(reserved(ledger, call), usage=None, outcome="unknown")
    ledger.settle(reserved(ledger, call), usage=tokens(40), outcome="exact", reply="hello")
    ledger.settle(reserved(ledger, a_call("run_1:task::1")), usage=tokens(40), outcome="exact", reply="hello")
    (first, _), (second, draws) = ledger.reports.attempts("run_1:task::0")
    assert [(one.attempt, one.outcome) for one in (first, second)] == [(0, "unknown"), (1, "exact")]
    assert {(draw.path, draw.per): [*draw.limit.values()] for draw in draws} == {
        ("acme", "month"): [10**9, None, None, None],
        ("acme", "rolling-24h"): [None, 500, None, None],
        ("acme/support/run_1", "total"): [None, None, 3, None],
    }
    assert ledger.reports.attempts(str(second.id)) == [(second, draws)]


def test_a_run_s_bill_says_what_the_providers_caches_saved(ledger: Ledger) -> None:
    cached = replace(PRICE, id="cached", cache_read_usd_per_mtok=PRICE.input_usd_per_mtok / 10)
    usage = Usage(input_tokens=40, output_tokens=5, cache_read_tokens=30)
    for number in range(2):
        made = reserved(ledger, a_call(f"run_1:task::{number}"), a_quote(price=cached))
        ledger.settle(made, usage=usage, outcome="exact", reply="hello")
    bill = ledger.reports.bill("run_1")
    assert bill.saved_nanousd == 2 * 30 * 900
    assert bill.posted.nanousd + bill.saved_nanousd == 2 * PRICE.cost(usage)


@pytest.mark.parametrize("call", ["run_1:task::9", "run_2:task::0", "17", "9" * 40, "", "٣"])
def test_a_call_that_is_unknown_has_no_explanation(ledger: Ledger, call: str) -> None:
    with pytest.raises(NotFoundError, match="knows no call"):
        ledger.reports.attempts(call)


def test_a_refusal_that_stopped_a_run_is_found_at_every_path_above_it(ledger: Ledger) -> None:
    other = Scope(tenant="acme", agents=("sales",), run_id="run_2")
    ledger.gates.open(other, Limits.unlimited())
    first, second = stopped(ledger, SUPPORT, limit=7), stopped(ledger, other, limit=8)
    assert [stop.refusal for stop in ledger.reports.stops("acme")] == [second, first]
    [stop] = ledger.reports.stops("acme/support")
    assert (stop.at, stop.run_path, stop.words) == (NOON, SUPPORT.run_path, first.words())
    assert ledger.reports.stop(stop.id) == stop
    assert stop.id.startswith("acme#")
    assert ledger.reports.stops("acm") == ledger.reports.stops("rival") == []


def test_a_refusal_that_no_longer_stops_its_run_is_kept_in_full(ledger: Ledger) -> None:
    refusal = stopped(ledger, SUPPORT, limit=7)
    ledger.budgets.grant("acme", Amounts(nanousd=100), per="month", author="dana", note="")
    [stop] = ledger.reports.stops("acme")
    assert (stop.words, stop.refusal) == (refusal.words(), refusal)


@pytest.mark.parametrize("id", ["acme#1", "acme#999", "rival#1", "acme#", "#1", "acme#1.5", "acme#-1", "acme#²"])
def test_an_entry_that_is_no_refusal_is_not_found(ledger: Ledger, id: str) -> None:
    with pytest.raises(NotFoundError, match="the journal has no refusal"):
        ledger.reports.stop(id)


def test_a_runs_tokens_are_summed_on_both_stores(ledger: Ledger) -> None:
    ledger.settle(reserved(ledger, a_call("a"), a_quote()), usage=tokens(40, 10), outcome="exact", reply="hello")
    assert ledger.reports.usage("run_1") == tokens(40, 10)
    assert ledger.reports.usage("run_9") == tokens(0)
    assert ledger.reports.bill("run_1").posted == ledger.reports.spent(SUPPORT.run_path) == Amounts(50_000, 50, 1)
