"""Slices: calls admitted in memory out of what the ledger holds for them."""

from __future__ import annotations

import pytest

from bursar.budget import Amounts, Ledger, Refusal, Replay, Reservation, Scope, ToolQuote, Wait
from bursar.budget.errors import ReservationError, UsageError
from bursar.budget.slices import Slice
from bursar.budget.testing.plain import NANO_PER_TOKEN, SUPPORT, Clock, a_call, a_quote, tokens

__all__ = ["SliceRules"]

CALL = 100 * NANO_PER_TOKEN
"""What `a_quote` may cost at most."""


def sliced(ledger: Ledger, calls: int = 3, *, seconds: float = 60, batch: int = 100, scope: Scope = SUPPORT) -> Slice:
    taken = ledger.slices.open(scope, 0, Amounts(nanousd=calls * CALL), seconds=seconds, batch=batch)
    assert isinstance(taken, Slice), taken
    return taken


def admitted(one: Slice, name: str) -> Reservation:
    made = one.reserve(a_call(name), a_quote())
    assert isinstance(made, Reservation), made
    return made


def spent(ledger: Ledger) -> Amounts:
    return ledger.budgets.ls("acme")[0].posted


def held(ledger: Ledger) -> Amounts:
    return ledger.budgets.ls("acme")[0].held


class SliceRules:
    """What holds of slices."""

    @pytest.fixture
    def bounded(self, ledger: Ledger) -> Ledger:
        """acme may spend what ten calls may cost."""
        ledger.budgets.set("acme", limit={"nanousd": 10 * CALL}, author="dana")
        return ledger

    def test_a_slice_is_held_in_every_scope_before_anything_is_admitted_by_it(self, bounded: Ledger) -> None:
        sliced(bounded, 3)
        assert held(bounded).nanousd == 3 * CALL
        assert bounded.budgets.ls("acme", runs=True)[-1].held.nanousd == 3 * CALL

    def test_a_slice_that_does_not_fit_is_refused_and_one_that_calls_in_flight_block_has_to_wait(
        self, bounded: Ledger
    ) -> None:
        assert isinstance(bounded.slices.open(SUPPORT, 0, Amounts(nanousd=11 * CALL), seconds=1), Refusal)
        sliced(bounded, 8)
        assert isinstance(bounded.slices.open(SUPPORT, 0, Amounts(nanousd=3 * CALL), seconds=1), Wait)

    def test_a_slice_admits_no_more_than_it_holds_and_leaves_the_rest_to_the_ledger(self, bounded: Ledger) -> None:
        one = sliced(bounded, 2)
        admitted(one, "a")
        admitted(one, "b")
        assert one.reserve(a_call("c"), a_quote()) is None
        assert one.left == Amounts(tokens=-200, steps=-2)

    def test_what_a_call_did_not_use_is_there_for_the_next(self, bounded: Ledger) -> None:
        one = sliced(bounded, 1)
        one.settle(admitted(one, "a"), usage=tokens(10, 0), outcome="exact", reply="said")
        capped = one.reserve(a_call("b"), a_quote())
        assert isinstance(capped, Reservation)
        assert capped.max_output_tokens == 40

    def test_settled_calls_are_written_in_batches_with_the_replies_and_amounts_of_each(self, bounded: Ledger) -> None:
        one = sliced(bounded, 3, batch=2)
        one.settle(admitted(one, "a"), usage=tokens(10, 5), outcome="exact", reply="first")
        assert spent(bounded).nanousd == 0
        one.settle(admitted(one, "b"), usage=tokens(20, 5), outcome="exact", reply="second")
        assert spent(bounded) == Amounts(40 * NANO_PER_TOKEN, 40, 2, 0)
        assert held(bounded).nanousd == 3 * CALL - 40 * NANO_PER_TOKEN
        bill = bounded.reports.bill("run_1")
        assert [one.posted.tokens for one in bill.attempts if one.kind == "model"] == [15, 25]
        replay = bounded.reserve(a_call("a"), a_quote())
        assert isinstance(replay, Replay)
        assert replay.reply == "first"

    def test_a_call_settled_before_is_replayed_whether_it_was_written_or_not(self, bounded: Ledger) -> None:
        made = bounded.reserve(a_call("early"), a_quote())
        assert isinstance(made, Reservation)
        bounded.dispatch(made)
        bounded.settle(made, usage=tokens(1), outcome="exact", reply="from the ledger")
        one = sliced(bounded)
        one.settle(admitted(one, "late"), usage=tokens(1), outcome="exact", reply="from the slice")
        for call, reply in (("early", "from the ledger"), ("late", "from the slice")):
            replay = one.reserve(a_call(call), a_quote())
            assert isinstance(replay, Replay)
            assert replay.reply == reply

    def test_a_closed_slice_gives_back_what_nobody_used_and_admits_nothing(self, bounded: Ledger) -> None:
        one = sliced(bounded)
        one.settle(admitted(one, "a"), usage=tokens(10, 0), outcome="exact", reply="said")
        one.close()
        assert (spent(bounded).tokens, held(bounded)) == (10, Amounts())
        assert one.reserve(a_call("b"), a_quote()) is None

    def test_a_slice_cannot_be_closed_under_a_call_in_flight_nor_a_call_settled_twice(self, bounded: Ledger) -> None:
        one = sliced(bounded)
        made = admitted(one, "a")
        with pytest.raises(ReservationError, match="in flight"):
            one.close()
        one.settle(made, usage=tokens(1), outcome="exact")
        with pytest.raises(ReservationError, match="not in flight"):
            one.settle(made, usage=tokens(1), outcome="exact")

    def test_a_call_that_was_not_billed_leaves_no_trace_in_the_slice(self, bounded: Ledger) -> None:
        one = sliced(bounded, 1)
        one.release(admitted(one, "a"))
        assert one.left.nanousd == CALL
        assert admitted(one, "a").attempt == 1

    def test_a_call_that_is_tried_again_by_the_ledger_is_written_beside_what_the_slice_kept_of_it(
        self, bounded: Ledger
    ) -> None:
        part = sliced(bounded, 1)
        part.settle(admitted(part, "call_1"), usage=None, outcome="unknown")
        assert part.reserve(a_call("call_1"), a_quote()) is None
        again = bounded.reserve(a_call("call_1"), a_quote())
        assert isinstance(again, Reservation)
        bounded.settle(again, usage=tokens(10, 10), outcome="exact", reply="hello")
        part.close()
        attempts = [one for one in bounded.reports.bill(SUPPORT.run_id).attempts if one.kind == "model"]
        assert [(one.attempt, one.outcome) for one in attempts] == [(0, "exact"), (1, "unknown")]
        assert spent(bounded).nanousd == CALL + 20 * NANO_PER_TOKEN

    def test_a_slice_whose_process_fell_silent_is_charged_in_full_as_unknown(
        self, bounded: Ledger, clock: Clock
    ) -> None:
        sliced(bounded, 3, seconds=60)
        clock.advance(seconds=61)
        assert bounded.reap() == 1
        assert (spent(bounded).nanousd, held(bounded).nanousd) == (3 * CALL, 0)

    def test_what_comes_late_from_a_slice_that_was_given_up_replaces_what_was_charged_for_it(
        self, bounded: Ledger, clock: Clock
    ) -> None:
        one = sliced(bounded, 3, seconds=60)
        made = admitted(one, "a")
        clock.advance(seconds=61)
        bounded.reap()
        one.settle(made, usage=tokens(10, 0), outcome="exact", reply="late")
        one.flush()
        assert spent(bounded).nanousd == 3 * CALL
        one.close()
        assert spent(bounded).nanousd == 10 * NANO_PER_TOKEN

    def test_a_slice_is_over_at_its_time(self, bounded: Ledger, clock: Clock) -> None:
        one = sliced(bounded, seconds=60)
        clock.advance(seconds=60)
        assert one.reserve(a_call("a"), a_quote()) is None

    def test_a_dimension_that_is_limited_but_not_in_the_slice_admits_nothing(self, bounded: Ledger) -> None:
        bounded.budgets.set("acme/support", limit={"tokens": 10**6, "tool_calls": 5}, author="dana")
        one = sliced(bounded)
        assert one.reserve(a_call("a"), a_quote()) is None
        assert one.reserve(a_call("b"), ToolQuote()) is None

    def test_a_call_of_another_scope_or_of_a_node_with_a_budget_is_left_to_the_ledger(self, bounded: Ledger) -> None:
        bounded.budgets.set("acme/support/node:model", limit={"steps": 1}, author="dana")
        one = sliced(bounded)
        assert one.reserve(a_call("a"), a_quote()) is None
        other = Scope(tenant="acme", agents=("support",), run_id="run_2")
        assert one.reserve(a_call("b", scope=other), a_quote()) is None

    def test_a_slice_of_nothing_is_refused_in_words(self, bounded: Ledger) -> None:
        with pytest.raises(UsageError, match="above zero"):
            bounded.slices.open(SUPPORT, 0, Amounts(), seconds=60)

    def test_a_run_that_was_cancelled_gets_no_slice(self, bounded: Ledger) -> None:
        bounded.gates.cancel(SUPPORT.run_path, author="dana")
        refusal = bounded.slices.open(SUPPORT, 0, Amounts(nanousd=CALL), seconds=60)
        assert isinstance(refusal, Refusal)
        assert refusal.cause == "cancelled"

    def test_a_slice_that_follows_another_knows_what_both_it_and_the_ledger_have_settled(self, bounded: Ledger) -> None:
        first = sliced(bounded)
        first.settle(admitted(first, "a"), usage=tokens(1), outcome="exact", reply="of the first")
        made = bounded.reserve(a_call("b"), a_quote())
        assert isinstance(made, Reservation)
        bounded.dispatch(made)
        bounded.settle(made, usage=tokens(1), outcome="exact", reply="of the ledger")
        first.close()
        second = bounded.slices.open(SUPPORT, 0, Amounts(nanousd=CALL), seconds=60, after=first)
        assert isinstance(second, Slice)
        replays = [second.reserve(a_call(name), a_quote()) for name in ("a", "b")]
        assert [one.reply for one in replays if isinstance(one, Replay)] == ["of the first", "of the ledger"]
