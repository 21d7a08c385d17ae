"""Replies that are given again: paid once, and counted as what they saved."""

from __future__ import annotations

from bursar.budget import Ledger, Replay
from bursar.budget.reports.spend import Part
from bursar.budget.testing import NANO_PER_TOKEN, a_call, a_quote, reserved, tokens


def test_a_reply_given_again_is_counted_as_money_that_was_not_paid_twice(ledger: Ledger) -> None:
    made = reserved(ledger, a_call())
    ledger.dispatch(made)
    ledger.settle(made, usage=tokens(20, 10), outcome="exact", reply="said")
    for _ in range(3):
        assert isinstance(ledger.reserve(a_call(), a_quote()), Replay)
    [line] = ledger.reports.spend("tenant")
    assert line.waste.replayed == Part(3, 3 * 30 * NANO_PER_TOKEN)
    assert line.posted.nanousd == 30 * NANO_PER_TOKEN
