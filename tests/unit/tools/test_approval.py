"""A rule says which calls a person approves: by word, by the arguments, or above an amount that is compared exactly."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar.budget.errors import UsageError
from bursar.budget.money import NANO
from bursar.tools import Tool, above, tool
from bursar.tools.approval import Approval, verdict_on


def refunding(rule: Approval) -> Tool:
    @tool(effect="irreversible", approval=rule)
    def refund(order_id: str, amount_usd: float) -> str:
        """Pay an order back."""
        return "paid"

    return refund


@pytest.mark.parametrize(("rule", "asks"), [("always", True), ("never", False)])
def test_a_word_says_the_same_of_every_call(rule: Approval, asks: bool) -> None:
    assert verdict_on(rule, {"amount_usd": 1}) == {
        "asks": asks,
        "why": "",
        "amount_nanousd": None,
        "amount_argument": None,
    }


def test_a_function_of_the_arguments_says_it_of_each() -> None:
    rule = refunding(lambda arguments: arguments["order_id"].startswith("9")).approval
    assert [verdict_on(rule, {"order_id": order})["asks"] for order in ("1001", "9001")] == [False, True]


def test_a_function_cannot_change_the_arguments() -> None:
    def rule(arguments: Mapping[str, Any]) -> bool:
        arguments.pop("amount_usd")  # type: ignore[attr-defined]  # the mischief under test
        return False

    arguments = {"amount_usd": 1}
    assert not verdict_on(rule, arguments)["asks"]
    assert arguments == {"amount_usd": 1}


def test_a_function_that_fails_asks_a_person_and_says_so() -> None:
    verdict = verdict_on(lambda arguments: bool(arguments["amount"]), {})
    assert verdict["asks"]
    assert "KeyError" in verdict["why"]


@pytest.mark.parametrize(
    ("amount", "asks"),
    [(50, False), (50.0, False), ("50.00", False), (50.000000001, True), ("50.01", True), (0, False), (1e9, True)],
)
def test_above_means_more_than(amount: object, asks: bool) -> None:
    verdict = verdict_on(above("amount_usd", "50"), {"amount_usd": amount})
    assert verdict["asks"] is asks
    assert verdict["amount_nanousd"] == int(Decimal(str(amount)) * NANO)


@pytest.mark.parametrize("amount", [-1, "much", None, True, [], float("inf"), 0.0000000001])
def test_an_amount_that_cannot_be_read_asks_a_person(amount: object) -> None:
    verdict = verdict_on(above("amount_usd", "50"), {"amount_usd": amount})
    assert verdict["asks"]
    assert verdict["amount_nanousd"] is None


def test_an_amount_that_is_left_out_asks_a_person() -> None:
    assert verdict_on(above("amount_usd", "50"), {})["asks"]


@given(st.decimals(0, 10**6, places=2))
def test_cents_are_compared_as_they_are_written_however_json_wrote_them(limit: Decimal) -> None:
    """Also where no float is the amount, as with 0.1: the limit itself is not above it, and a cent more is."""
    rule = above("amount_usd", limit)
    assert not rule({"amount_usd": float(limit)})
    assert rule({"amount_usd": float(limit + Decimal("0.01"))})


@pytest.mark.parametrize("amount", [50.0, "much", -1, True])
def test_a_limit_is_written_exactly(amount: Any) -> None:
    with pytest.raises(UsageError, match="above"):
        above("amount_usd", amount)


def test_a_rule_above_an_amount_that_the_tool_is_not_given_is_refused() -> None:
    with pytest.raises(UsageError, match=r"names no parameter of it \(it has: order_id, amount_usd\)"):
        refunding(above("amount", "50"))


async def awaited(_: Mapping[str, Any]) -> bool:
    return False


@pytest.mark.parametrize("rule", ["sometimes", 50, ["never"], awaited])
def test_what_is_no_rule_is_refused(rule: Any) -> None:
    with pytest.raises(UsageError, match="approval="):
        refunding(rule)
