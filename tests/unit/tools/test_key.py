"""A tool's call has an idempotency key, and nothing else has."""

from __future__ import annotations

import asyncio

import pytest

from bursar.budget.errors import UsageError
from bursar.tools import idempotency_key, keyed, tool
from bursar.tools.result import ToolResult


def test_there_is_none_outside_of_a_call() -> None:
    with pytest.raises(UsageError, match="outside of a run's tool call"):
        idempotency_key()


def test_a_test_may_give_one() -> None:
    with keyed("test-1"):
        assert idempotency_key() == "test-1"
    with pytest.raises(UsageError):
        idempotency_key()


async def test_calls_side_by_side_have_their_own() -> None:
    @tool(effect="none")
    def plain() -> str:
        """Plain."""
        return idempotency_key()

    async def called(key: str) -> str:
        with keyed(key):
            return (await plain.call({})).content

    assert await asyncio.gather(*map(called, "abc")) == ["a", "b", "c"]


async def test_a_check_says_what_came_of_a_call_by_its_key() -> None:
    async def later(key: str) -> dict[str, str]:
        return {"paid": key}

    @tool(check=lambda key: f"paid {key}")
    def first() -> None:
        """First."""

    @tool(check=later)
    def second() -> None:
        """Second."""

    @tool(check=lambda _: None)
    def third() -> None:
        """Third."""

    results = [await one.happened("k") for one in (first, second, third)]
    assert results == [ToolResult("paid k"), ToolResult('{"paid":"k"}'), None]


def test_a_check_of_what_has_no_effect_is_refused() -> None:
    with pytest.raises(UsageError, match="no effect that could be in doubt"):

        @tool(effect="none", check=lambda key: None)
        def look() -> None:
            """Look."""
