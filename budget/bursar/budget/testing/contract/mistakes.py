"""What cannot be is said in words and changes nothing, and a clock that goes back opens no limit."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest

from bursar.budget import Amounts, Ledger, Limits, Price, Replay, Reservation, Scope, ToolQuote
from bursar.budget.amounts import DIMENSIONS
from bursar.budget.errors import NotFoundError, ReservationError, UsageError
from bursar.budget.money import NANOUSD_MAX
from bursar.budget.testing.contract.steps import journaled, posted, refused, settled
from bursar.budget.testing.plain import SUPPORT, Clock, a_call, a_quote, reserved, tokens
from bursar.budget.usage import TOKENS_MAX

__all__ = ["MistakeRules"]


class MistakeRules:
    """What holds of bad input."""

    # --- Settling what is not there -----------------------------------------------------------------------------------

    def test_what_was_never_reserved_cannot_be_dispatched_settled_or_released(self, ledger: Ledger) -> None:
        made_up = replace(reserved(ledger, a_call()), id=9_999)
        before = journaled(ledger)
        with pytest.raises(ReservationError):
            ledger.dispatch(made_up)
        with pytest.raises(ReservationError, match="there is no reservation 9999"):
            ledger.settle(made_up, usage=tokens(1), outcome="exact", reply="hello")
        with pytest.raises(ReservationError, match="there is no reservation 9999"):
            ledger.release(made_up, note="never sent")
        assert journaled(ledger) == before

    def test_no_tenant_is_given_the_reply_of_another_by_naming_its_run(self, ledger: Ledger) -> None:
        settled(ledger, a_call())
        with pytest.raises(NotFoundError, match="never opened"):
            ledger.reserve(a_call(scope=replace(SUPPORT, tenant="zeta")), a_quote())

    # --- Amounts ------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("amount", [-1, 0.5, math.nan, math.inf, True, "5", NANOUSD_MAX + 1, 2**70])
    def test_no_limit_and_no_grant_is_set_to_what_is_no_amount(self, ledger: Ledger, amount: Any) -> None:
        line = ledger.budgets.set("acme", limit={"steps": 1}, author="dana")
        for name in DIMENSIONS:
            expected = f"{name} {amount!r}: expected a whole number from 0 to {NANOUSD_MAX}"
            with pytest.raises(UsageError) as of_limit:
                ledger.budgets.set("acme", limit={name: amount}, author="dana")
            with pytest.raises(UsageError) as of_grant:
                ledger.budgets.grant("acme", Amounts(**{name: amount}), author="dana", note="")
            assert f"limit {expected}" in str(of_limit.value)
            assert f"grant {expected}" in str(of_grant.value)
        assert ledger.budgets.ls() == [line]

    @pytest.mark.parametrize("count", [-1, 0.5, 1.0, math.nan, True, 2**70])
    def test_no_call_and_no_slice_is_admitted_for_what_is_no_count(self, ledger: Ledger, count: Any) -> None:
        for name in ("input_tokens", "max_output_tokens", "min_output_tokens"):
            with pytest.raises(ValueError, match="expected a whole number from 0"):
                replace(a_quote(), **{name: count})
        with pytest.raises(ValueError, match="expected a whole number from 0"):
            ToolQuote(tool_calls=count)
        for name in DIMENSIONS:
            with pytest.raises(ValueError, match="expected a whole number from 0"):
                ledger.slices.open(SUPPORT, 0, Amounts(**{name: count}), seconds=60)

    @pytest.mark.parametrize("text", ["a\0b", "a\ud800b"], ids=["NUL", "half a surrogate pair"])
    def test_no_text_that_a_provider_says_keeps_a_call_from_being_settled_or_released(
        self, ledger: Ledger, text: str
    ) -> None:
        sent, never_sent = reserved(ledger, a_call("sent")), reserved(ledger, a_call("never sent"))
        ledger.settle(sent, usage=tokens(1), outcome="exact", reply=text, note=text)
        ledger.release(never_sent, note=text)
        assert posted(ledger).tokens == 1
        assert isinstance(ledger.reserve(a_call("sent"), a_quote()), Replay)

    @pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf, 1e30])
    def test_a_slice_is_held_for_a_time_above_zero_that_ends(self, ledger: Ledger, seconds: float) -> None:
        with pytest.raises(UsageError, match="above zero"):
            ledger.slices.open(SUPPORT, 0, Amounts(1), seconds=seconds)

    def test_a_limit_may_be_as_large_as_the_ledger_can_hold(self, ledger: Ledger) -> None:
        ledger.budgets.set("acme", limit=dict.fromkeys(DIMENSIONS, NANOUSD_MAX), author="dana")
        settled(ledger, a_call())
        assert set(ledger.budgets.ls("acme")[0].limit.values()) == {NANOUSD_MAX}

    @pytest.mark.parametrize(("count", "nanousd"), [(0, 0), (1, 1), (10, 1), (11, 2)])
    def test_what_costs_a_part_of_a_nano_usd_is_rounded_up_once(self, ledger: Ledger, count: int, nanousd: int) -> None:
        tenth = Price(
            id="test:tenth",
            source="a test",
            effective=date(2026, 11, 20),
            input_usd_per_mtok=Decimal("0.0001"),
            output_usd_per_mtok=Decimal("0.0001"),
        )
        made = reserved(ledger, a_call(), a_quote(price=tenth))
        assert ledger.settle(made, usage=tokens(count), outcome="exact").nanousd == nanousd

    def test_the_largest_count_that_is_believed_is_booked_in_full(self, ledger: Ledger) -> None:
        ledger.budgets.set("acme", limit={"nanousd": 10**9}, author="dana")
        ledger.settle(reserved(ledger, a_call()), usage=tokens(TOKENS_MAX, TOKENS_MAX), outcome="exact")
        assert posted(ledger) == Amounts(2_000 * TOKENS_MAX, 2 * TOKENS_MAX, 1)
        assert refused(ledger, a_call("call_2")).remaining == 0

    # --- Names --------------------------------------------------------------------------------------------------------

    def test_a_tenant_that_nobody_knows_can_reserve_nothing(self, ledger: Ledger) -> None:
        nobody = Scope(tenant="nobody", agents=("support",), run_id="run_1")
        with pytest.raises(NotFoundError, match="nobody/support/run_1 was never opened"):
            ledger.reserve(a_call(scope=nobody), a_quote())
        with pytest.raises(NotFoundError, match="there is no budget for nobody"):
            ledger.budgets.grant("nobody", Amounts(steps=1), author="dana", note="")
        assert ledger.budgets.ls("nobody") == []

    @pytest.mark.parametrize(
        ("wrong", "expected"),
        [
            ({"per": "year"}, "per 'year'"),
            ({"per": "rolling-0h"}, "per 'rolling-0h'"),
            ({"zone": "Mars/Base"}, "zone 'Mars/Base': expected an IANA name"),
            ({"mode": "firm"}, "mode 'firm': expected hard or soft"),
        ],
        ids=str,
    )
    def test_a_window_a_zone_or_a_mode_that_nobody_knows_is_named(
        self, ledger: Ledger, wrong: dict[str, Any], expected: str
    ) -> None:
        with pytest.raises(UsageError) as caught:
            ledger.budgets.set("acme", limit={"steps": 1}, author="dana", **wrong)
        assert expected in str(caught.value)
        assert ledger.budgets.ls() == []

    def test_a_text_that_cannot_be_kept_is_said_so(self, ledger: Ledger) -> None:
        with pytest.raises(UsageError, match="cannot keep a text"):
            ledger.budgets.set("acme", limit={"steps": 1}, author="a\ud800b")

    @pytest.mark.parametrize("name", ["a\0b", "a\nb", "a\ud800b"], ids=ascii)
    def test_no_name_has_control_characters(self, ledger: Ledger, name: str) -> None:
        with pytest.raises(UsageError, match="name without"):
            Scope(tenant=name, agents=("support",), run_id="run_1")
        with pytest.raises(UsageError, match="a budget belongs to"):
            ledger.budgets.set(name, limit={"steps": 1}, author="dana")

    # --- A clock that goes back ---------------------------------------------------------------------------------------

    def test_a_clock_that_goes_back_into_a_window_that_was_used_up_finds_it_used_up(
        self, ledger: Ledger, clock: Clock
    ) -> None:
        ledger.budgets.set("acme", per="day", limit={"steps": 1}, author="dana")
        today, tomorrow = clock.now, clock.now + timedelta(days=1)
        for day in (today, tomorrow):
            clock.now = day
            settled(ledger, a_call(f"of {day}"))
        for day in (today, tomorrow):
            clock.now = day
            assert refused(ledger, a_call("one more")).window == f"{day:%Y-%m-%d}"

    def test_a_clock_that_goes_back_frees_nothing_of_a_rolling_window(self, ledger: Ledger, clock: Clock) -> None:
        ledger.budgets.set("acme", per="rolling-24h", limit={"steps": 1}, author="dana")
        settled(ledger, a_call())
        clock.advance(hours=-6)
        refused(ledger, a_call("before it was made"))
        clock.advance(hours=6 + 19)
        refused(ledger, a_call("19 hours later"))

    def test_a_limit_that_is_lowered_holds_in_later_windows_that_a_clock_was_in_already(
        self, ledger: Ledger, clock: Clock
    ) -> None:
        ledger.budgets.set("acme", per="day", limit={"steps": 10}, author="dana")
        clock.advance(days=1)
        settled(ledger, a_call())
        clock.advance(days=-1)
        ledger.budgets.set("acme", per="day", limit={"steps": 1}, author="dana")
        clock.advance(days=1)
        assert refused(ledger, a_call("one more")).limit == 1

    def test_a_limit_that_is_lowered_holds_in_later_windows_of_a_zone_that_was_left(
        self, ledger: Ledger, clock: Clock
    ) -> None:
        ledger.budgets.set("acme", per="day", limit={"steps": 10}, author="dana")
        ledger.budgets.set("acme", per="day", zone="Pacific/Kiritimati", limit={}, author="dana")
        ledger.budgets.set("acme", per="day", zone="UTC", limit={"steps": 1}, author="dana")
        clock.advance(days=1)
        settled(ledger, a_call())
        assert refused(ledger, a_call("one more")).limit == 1

    def test_a_clock_that_goes_back_loses_neither_a_call_nor_a_hold(self, ledger: Ledger, clock: Clock) -> None:
        hold = ledger.gates.hold(SUPPORT.run_path, "worker", 60)
        sent, left = (reserved(ledger, a_call(name, epoch=hold.epoch)) for name in ("sent", "left"))
        ledger.dispatch(sent)
        clock.advance(hours=-1)
        assert ledger.reap() == 0
        assert ledger.settle(sent, usage=tokens(40, 10), outcome="exact") == posted(ledger)
        ledger.dispatch(left)
        assert isinstance(reserved(ledger, a_call("later", epoch=hold.epoch)), Reservation)

    def test_a_clock_that_goes_back_gives_a_run_no_more_time_than_it_had(self, ledger: Ledger, clock: Clock) -> None:
        run_2 = Scope(tenant="acme", agents=("support",), run_id="run_2")
        ledger.gates.open(run_2, Limits(seconds=10))
        hold = ledger.gates.hold(run_2.run_path, "worker", 1_000)
        clock.advance(hours=-1)
        reserved(ledger, a_call(scope=run_2, epoch=hold.epoch))
        clock.advance(hours=1, seconds=10)
        assert refused(ledger, a_call("late", scope=run_2, epoch=hold.epoch)).cause == "deadline"
