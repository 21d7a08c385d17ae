"""Anything that can serve as a tool becomes one, and what says nothing about its effect is the worst case."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.tools import StructuredTool, ToolException
from langgraph.errors import GraphBubbleUp

from bursar.budget.errors import UsageError
from bursar.tools import ToolArgumentsError, ToolResult, as_tool, tool


def lookup(type: str, limit: int = 3) -> dict[str, Any]:
    """Look something up."""
    if type == "stop":
        raise GraphBubbleUp
    if type == "fail":
        raise ToolException("nothing there")
    return {"type": type, "limit": limit}


def langchain_tool(**options: Any) -> StructuredTool:
    return StructuredTool.from_function(lookup, **options)


def test_a_tool_stays_itself() -> None:
    made = tool(lookup)
    assert as_tool(made) is made


def test_a_plain_function_is_the_worst_case() -> None:
    made = as_tool(lookup)
    assert (made.name, made.effect, made.approval) == ("lookup", "irreversible", "always")


def test_a_langchain_tool_is_the_worst_case_with_the_same_parameters() -> None:
    made = as_tool(langchain_tool())
    assert (made.name, made.description) == ("lookup", "Look something up.")
    assert (made.effect, made.approval) == ("irreversible", "always")
    assert made.parameters == tool(lookup).parameters


@pytest.mark.parametrize(
    ("metadata", "approval"),
    [({"effect": "none"}, "never"), ({"effect": "none", "approval": "always"}, "always")],
)
def test_a_langchain_tool_says_its_effect_in_its_metadata(metadata: dict[str, str], approval: str) -> None:
    made = as_tool(langchain_tool(metadata=metadata))
    assert (made.effect, made.approval) == ("none", approval)


def test_a_wrong_label_in_the_metadata_is_refused() -> None:
    with pytest.raises(UsageError, match="tool 'lookup': effect='harmless'"):
        as_tool(langchain_tool(metadata={"effect": "harmless"}))


async def test_a_langchain_tool_is_checked_and_called_like_any_other() -> None:
    made = as_tool(langchain_tool())
    with pytest.raises(ToolArgumentsError, match="limit: expected"):
        made.check('{"type": "x", "limit": "many"}')
    assert await made.call(made.check('{"type": "x"}')) == ToolResult('{"type":"x","limit":3}')


async def test_an_argument_cannot_pass_for_a_langchain_tool_call() -> None:
    made = as_tool(langchain_tool())
    assert await made.call(made.check('{"type": "tool_call"}')) == ToolResult('{"type":"tool_call","limit":3}')


async def test_a_langchain_tool_fails_and_stops_like_any_other() -> None:
    made = as_tool(langchain_tool())
    assert await made.call({"type": "fail"}) == ToolResult(
        "The tool failed: ToolException: nothing there", is_error=True
    )
    with pytest.raises(GraphBubbleUp):
        await made.call({"type": "stop"})


async def test_a_langchain_tool_with_a_bare_json_schema_works() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}

    async def weather(city: str) -> str:
        return f"rain in {city}"

    made = as_tool(StructuredTool(name="weather", description="Weather.", args_schema=schema, coroutine=weather))
    assert made.parameters == {**schema, "additionalProperties": False}
    assert await made.call(made.check({"city": "Oslo"})) == ToolResult("rain in Oslo")


@pytest.mark.parametrize("source", [3, "lookup", dict, None])
def test_anything_else_is_refused_with_what_was_expected(source: Any) -> None:
    with pytest.raises(UsageError, match="expected a function, an object made by @tool or a LangChain tool"):
        as_tool(source)
