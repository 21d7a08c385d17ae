"""A budget may not give away more than it has, unless it says so; it is checked when a limit is set, in one place."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from bursar.budget import Ledger, Store
from bursar.budget.audit.verify import verify
from bursar.budget.budgets import BudgetLine
from bursar.budget.errors import UsageError
from bursar.budget.testing import Clock, audit


@pytest.fixture
def ledger(store_url: str, clock: Clock) -> Iterator[Ledger]:
    with closing(Ledger(Store(store_url), clock=clock)) as ledger:
        yield ledger
        audit(ledger.store)
        assert not verify(ledger.store).findings


def give(ledger: Ledger, path: str, steps: int, **how: Any) -> BudgetLine:
    return ledger.budgets.set(path, limit={"steps": steps}, author="dana", **how)


def test_parts_may_sum_up_to_all_of_the_whole_and_no_more(ledger: Ledger) -> None:
    give(ledger, "acme", 10)
    give(ledger, "acme/support", 6)
    give(ledger, "acme/sales", 4)
    with pytest.raises(UsageError) as caught:
        give(ledger, "acme/sales", 5)
    assert str(caught.value) == (
        "acme has 10 steps per total, and its parts would be given 11 steps: acme/support 6 steps, acme/sales 5 steps"
        " -> raise acme, lower a part, or bursar budget set acme --per total --oversubscribe"
    )
    assert {line.path: line.limit["steps"] for line in ledger.budgets.ls()} == {
        "acme": 10,
        "acme/support": 6,
        "acme/sales": 4,
    }


def test_a_whole_may_be_lowered_below_its_parts_which_then_can_be_lowered_and_not_raised(ledger: Ledger) -> None:
    give(ledger, "acme", 10)
    give(ledger, "acme/support", 8)
    give(ledger, "acme", 5)
    give(ledger, "acme/support", 7)
    with pytest.raises(UsageError, match="acme has 5 steps per total, and its parts would be given 8"):
        give(ledger, "acme/support", 8)


@pytest.mark.parametrize(
    ("whole", "parts"),
    [
        ("org:globex", ["acme", "rival"]),
        ("acme", ["acme/team:red", "acme/team:blue"]),
        ("acme", ["acme/user:dana", "acme/user:eve"]),
        ("acme", ["acme/support", "acme/sales"]),
        ("acme/team:red", ["acme/team:red/user:dana", "acme/team:red/user:eve"]),
        ("acme/support", ["acme/support/node:draft", "acme/support/node:review"]),
    ],
)
def test_every_whole_has_its_parts(ledger: Ledger, whole: str, parts: list[str]) -> None:
    organisation = {"organisation": "globex"} if whole == "org:globex" else {}
    give(ledger, whole, 10)
    give(ledger, parts[0], 6, **organisation)
    with pytest.raises(UsageError, match=f"{whole} has 10 steps per total, and its parts would be given 11"):
        give(ledger, parts[1], 5, **organisation)
    give(ledger, whole, 10, oversubscribed=True)
    give(ledger, parts[1], 5, **organisation)


def test_teams_users_and_agents_each_share_out_the_whole(ledger: Ledger) -> None:
    give(ledger, "acme", 10)
    for path in ("acme/team:red", "acme/user:dana", "acme/support"):
        give(ledger, path, 10)


@pytest.mark.parametrize(
    ("whole", "part"),
    [({"mode": "soft"}, {}), ({}, {"mode": "soft"}), ({"per": "day"}, {}), ({"oversubscribed": True}, {})],
    ids=["a soft whole", "a soft part", "another period", "oversubscribed"],
)
def test_only_hard_limits_of_one_period_are_compared(
    ledger: Ledger, whole: dict[str, Any], part: dict[str, Any]
) -> None:
    give(ledger, "acme", 1, **whole)
    give(ledger, "acme/support", 5, **part)


def test_a_tenant_joins_and_leaves_an_organisation_with_all_its_budgets(ledger: Ledger) -> None:
    give(ledger, "org:globex", 10, per="day")
    give(ledger, "acme", 99, per="day")
    give(ledger, "acme", 9, per="month", organisation="globex")
    assert [line.parent for line in ledger.budgets.ls("acme")] == ["org:globex", "org:globex"]
    assert give(ledger, "acme", 9, per="hour").parent == "org:globex"
    with pytest.raises(UsageError, match="org:globex has 10 steps per day"):
        give(ledger, "acme", 100, per="day")
    give(ledger, "acme", 9, per="month", organisation="")
    assert {line.parent for line in ledger.budgets.ls("acme")} == {None}
    give(ledger, "acme", 98, per="day")


def test_only_a_tenant_belongs_to_an_organisation(ledger: Ledger) -> None:
    with pytest.raises(UsageError, match="only a tenant belongs to one, not acme/support"):
        give(ledger, "acme/support", 1, organisation="globex")


def test_parts_that_are_given_at_the_same_time_do_not_come_to_more_than_the_whole(
    ledger: Ledger, store_url: str
) -> None:
    give(ledger, "org:globex", 10)
    for number in range(8):
        give(ledger, f"tenant_{number}", 0, organisation="globex")

    def take(number: int) -> bool:
        with closing(Ledger(Store(store_url))) as one:
            try:
                give(one, f"tenant_{number}", 3)
            except UsageError:
                return False
            return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(take, range(8))) == 3
