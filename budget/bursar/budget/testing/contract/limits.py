"""Limits change while runs go on, and windows follow one another by themselves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from bursar.budget import Amounts, Ledger, Limits, Refusal, Scope, Wait
from bursar.budget.errors import UsageError
from bursar.budget.testing.contract.steps import Another, posted, refused, settled
from bursar.budget.testing.plain import FREE, Clock, a_call, a_quote, reserved, tokens
from bursar.budget.windows import to_us

__all__ = ["LimitRules"]


class LimitRules:
    """What holds of limits, grants and windows."""

    def test_a_changed_limit_keeps_what_was_used_and_holds_from_the_next_call_on(
        self, ledger: Ledger, another: Another
    ) -> None:
        admin = another()
        ledger.budgets.set("acme", limit={"steps": 1}, author="dana")
        settled(ledger, a_call())
        assert refused(ledger, a_call("call_2")).limit == 1
        line = admin.budgets.set("acme", limit={"steps": 2}, author="dana")
        assert line.posted.steps == 1
        settled(ledger, a_call("call_2"))
        admin.budgets.set("acme", limit={"steps": None}, author="dana")
        settled(ledger, a_call("call_3"))
        admin.budgets.set("acme", limit={"steps": 1}, author="dana")
        refusal = refused(ledger, a_call("call_4"))
        assert (refusal.limit, refusal.posted, refusal.remaining) == (1, 3, 0)

    def test_a_limit_that_is_new_counts_from_when_it_was_set(self, ledger: Ledger) -> None:
        settled(ledger, a_call())
        ledger.budgets.set("acme", limit={"steps": 1}, author="dana")
        settled(ledger, a_call("call_2"))
        assert refused(ledger, a_call("call_3")).posted == 1

    def test_several_budgets_of_a_tenant_hold_together(self, ledger: Ledger, clock: Clock) -> None:
        ledger.budgets.set("acme", per="hour", limit={"steps": 1}, author="dana")
        ledger.budgets.set("acme", per="day", limit={"steps": 2}, author="dana")
        settled(ledger, a_call())
        assert refused(ledger, a_call("call_2")).window == "2026-11-20T12+00:00"
        clock.advance(hours=1)
        settled(ledger, a_call("call_2"))
        clock.advance(hours=1)
        assert refused(ledger, a_call("call_3")).window == "2026-11-20"

    @pytest.mark.parametrize(("per", "length"), [("hour", 3600), ("day", 86400), ("week", 604800), ("month", 2592000)])
    def test_a_new_window_begins_by_itself_with_nothing_used(
        self, ledger: Ledger, clock: Clock, per: str, length: int
    ) -> None:
        line = ledger.budgets.set("acme", per=per, limit={"steps": 1}, author="dana")
        settled(ledger, a_call())
        refusal = refused(ledger, a_call("call_2"))
        assert line.resets_at is not None
        assert refusal.resets_us == to_us(line.resets_at) <= to_us(clock.now) + length * 1_000_000
        clock.now = line.resets_at
        settled(ledger, a_call("call_2"))
        assert refused(ledger, a_call("call_3")).cause == "limit"

    def test_a_call_is_booked_in_the_window_in_which_it_was_reserved(self, ledger: Ledger, clock: Clock) -> None:
        line = ledger.budgets.set("acme", per="day", limit={"steps": 1}, author="dana")
        made = reserved(ledger, a_call())
        assert line.resets_at is not None
        clock.now = line.resets_at
        ledger.settle(made, usage=tokens(40, 10), outcome="exact", reply="hello")
        settled(ledger, a_call("call_2"))

    def test_a_grant_raises_the_present_window_only(self, ledger: Ledger, clock: Clock) -> None:
        ledger.budgets.set("acme", per="day", limit={"steps": 1}, author="dana")
        line = ledger.budgets.grant("acme", Amounts(steps=1), author="dana", note="one more today")
        assert line.limit["steps"] == 2
        settled(ledger, a_call())
        settled(ledger, a_call("call_2"))
        assert line.resets_at is not None
        clock.now = line.resets_at
        settled(ledger, a_call("call_3"))
        assert refused(ledger, a_call("call_4")).limit == 1

    def test_a_free_model_needs_no_money(self, ledger: Ledger) -> None:
        ledger.budgets.set("acme", limit={"nanousd": 0}, author="dana")
        made = reserved(ledger, a_call(), a_quote(price=FREE))
        assert ledger.settle(made, usage=tokens(40, 10), outcome="exact").nanousd == 0

    def test_a_model_without_a_price_is_refused_where_money_is_limited(self, ledger: Ledger) -> None:
        reserved(ledger, a_call(), a_quote(price=None))
        ledger.budgets.set("acme", limit={"nanousd": 10**18}, author="dana")
        refusal = ledger.reserve(a_call("call_2"), a_quote(price=None))
        assert isinstance(refusal, Refusal)
        assert (refusal.cause, refusal.detail) == ("unpriced", "small-1")

    # --- Hard, soft, rolling, shared ----------------------------------------------------------------------------------

    def test_a_limit_below_what_is_used_is_taken_as_it_is_and_admits_nothing(self, ledger: Ledger) -> None:
        ledger.budgets.set("acme", limit={"steps": 5}, author="dana")
        for number in range(3):
            settled(ledger, a_call(f"call_{number}"))
        in_flight = reserved(ledger, a_call("in flight"))
        line = ledger.budgets.set("acme", limit={"steps": 2}, author="dana")
        assert (line.limit["steps"], line.posted.steps, line.held.steps) == (2, 3, 1)
        assert refused(ledger, a_call("next")).remaining == 0
        ledger.settle(in_flight, usage=tokens(40, 10), outcome="exact")
        assert posted(ledger).steps == 4

    def test_a_soft_limit_counts_and_refuses_nothing(self, ledger: Ledger) -> None:
        ledger.budgets.set("acme", limit={"steps": 1}, author="dana", mode="soft")
        for number in range(3):
            settled(ledger, a_call(f"call_{number}"))
        line = ledger.budgets.set("acme", limit={}, author="dana", mode="hard")
        assert (line.posted.steps, line.limit["steps"]) == (3, 1)
        assert refused(ledger, a_call("call_3")).path == "acme"

    def test_what_a_grant_gave_and_nobody_used_is_taken_back_when_it_ends(self, ledger: Ledger, clock: Clock) -> None:
        ledger.budgets.set("acme", limit={"steps": 1}, author="dana")
        until = clock.now + timedelta(hours=1)
        ledger.budgets.grant("acme", Amounts(steps=5), author="dana", note="the fair", expires_at=until)
        for number in range(2):
            settled(ledger, a_call(f"call_{number}"))
        reserved(ledger, a_call("in flight"))
        clock.now = until
        assert ledger.reserve(a_call("after the fair"), a_quote()) == Wait("acme"), "what is used or held stays"
        assert ledger.budgets.grants("acme")[0].taken == Amounts(steps=3)

    def test_what_was_revoked_can_be_spent_by_nobody(self, ledger: Ledger, another: Another) -> None:
        ledger.budgets.set("acme", limit={"steps": 0}, author="dana")
        ledger.budgets.grant("acme", Amounts(steps=2), author="dana", note="")
        settled(ledger, a_call())
        number = ledger.budgets.grants("acme")[0].id
        assert another().budgets.revoke(number, author="eve", note="not needed") == Amounts(steps=1)
        assert refused(ledger, a_call("call_2")).limit == 1
        with pytest.raises(UsageError, match=f"grant {number} ended"):
            ledger.budgets.revoke(number, author="eve", note="again")

    def test_a_rolling_limit_frees_what_has_left_its_window_and_nothing_before(
        self, ledger: Ledger, clock: Clock
    ) -> None:
        ledger.budgets.set("acme", per="rolling-60m", limit={"steps": 2}, author="dana")
        settled(ledger, a_call())
        clock.advance(minutes=30)
        settled(ledger, a_call("call_2"))
        clock.advance(minutes=30)
        assert refused(ledger, a_call("call_3")).window == "rolling-60m"
        clock.advance(minutes=1)
        settled(ledger, a_call("call_3"))
        assert refused(ledger, a_call("call_4")).posted == 2

    def test_an_organisation_bounds_its_tenants_together_and_their_calls_have_to_name_it(self, ledger: Ledger) -> None:
        ledger.budgets.set("org:globex", limit={"steps": 1}, author="dana", oversubscribed=True)
        for tenant in ("north", "south"):
            ledger.budgets.set(tenant, limit={"steps": 1}, author="dana", organisation="globex")
        north, south, alone = (
            Scope(tenant=tenant, agents=("support",), run_id=f"run of {tenant}", organisation=organisation)
            for tenant, organisation in (("north", "globex"), ("south", "globex"), ("south", None))
        )
        for scope in (north, south):
            ledger.gates.open(scope, Limits.unlimited())
        settled(ledger, a_call(scope=north))
        assert refused(ledger, a_call(scope=south)).path == "org:globex"
        with pytest.raises(UsageError, match="south belongs to org:globex"):
            ledger.reserve(a_call(scope=alone), a_quote())

    @pytest.mark.parametrize(("changes_on", "hours"), [("2026-03-29", 23), ("2026-10-25", 25)])
    def test_a_day_has_the_hours_that_it_has_where_the_tenant_is(
        self, ledger: Ledger, clock: Clock, changes_on: str, hours: int
    ) -> None:
        clock.now = datetime.fromisoformat(changes_on).replace(tzinfo=ZoneInfo("Europe/Paris"))
        ledger.budgets.set("acme", per="day", zone="Europe/Paris", limit={"steps": 1}, author="dana")
        settled(ledger, a_call())
        begin = clock.now.astimezone(UTC)
        clock.now = begin + timedelta(hours=hours, microseconds=-1)
        assert refused(ledger, a_call("call_2")).window == changes_on
        clock.now = begin + timedelta(hours=hours)
        settled(ledger, a_call("call_2"))
