"""A tool's result is text within its cap, or an error that says what to do."""

from __future__ import annotations

import datetime
import tracemalloc
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pytest

from bursar.tools.result import ToolResult, failed, returned

CAP = 65_536


@dataclass
class Order:
    order_id: str
    placed: datetime.date


class Colour(StrEnum):
    RED = "red"


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("value", "content"),
    [
        ("plain text", "plain text"),
        ("", ""),
        (Colour.RED, "red"),
        (None, "null"),
        (3, "3"),
        ({"a": [1, None, "ü"]}, '{"a":[1,null,"ü"]}'),
        (Order("7", datetime.date(2026, 11, 2)), '{"order_id":"7","placed":"2026-11-02"}'),
        (float("nan"), '"NaN"'),
        ("half \ud800 a pair", "half ? a pair"),
    ],
)
def test_text_stays_and_anything_else_becomes_json(value: Any, content: str) -> None:
    result = returned(value, CAP)
    assert result == ToolResult(content, is_error=False)
    assert type(result.content) is str


def cyclic() -> Any:
    loop: dict[str, Any] = {}
    loop["again"] = loop
    return loop


@pytest.mark.parametrize("value", [object(), cyclic(), {"a": {1: lambda: 3}}, b"\xff", ValueError("x")])
def test_what_json_cannot_hold_is_an_error_that_names_the_reason(value: Any) -> None:
    result = returned(value, CAP)
    assert result.is_error
    assert result.content.startswith("The result cannot be passed on: PydanticSerializationError: ")


@pytest.mark.parametrize(
    ("value", "size"), [("x" * 65_537, "65,537"), (["x" * 65_533], "65,537"), ("ü" * 32_769, "65,538")]
)
def test_a_result_over_the_cap_tells_its_size_the_cap_and_to_ask_for_less(value: Any, size: str) -> None:
    result = returned(value, CAP)
    assert result.is_error
    assert f"at least {size} bytes" in result.content
    assert "at most 65,536 are passed on. Ask for less" in result.content


@pytest.mark.parametrize(("value", "copies"), [("x" * 50_000_000, 0), (["x" * 50_000_000], 1)])
def test_fifty_megabytes_are_refused_without_a_second_copy(value: Any, copies: int) -> None:
    """Text is measured in place; anything else is written once, and never decoded."""
    tracemalloc.start()
    try:
        assert returned(value, CAP).is_error
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < copies * 50_000_000 + 1_000_000


def test_a_failure_is_class_and_message() -> None:
    assert failed(LookupError("gone")) == ToolResult("The tool failed: LookupError: gone", is_error=True)


def test_a_failure_whose_own_message_fails_is_still_told() -> None:
    assert failed(Unspeakable()).content == "The tool failed: Unspeakable (its message cannot be shown)"
