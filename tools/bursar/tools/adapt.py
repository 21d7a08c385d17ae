"""Anything that can serve as a tool, made one."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import ToolCall
from langchain_core.tools import BaseTool

from bursar.budget.errors import UsageError
from bursar.tools.declared import Tool, default_approval, tool
from bursar.tools.schema import openai_function

__all__ = ["as_tool"]


def as_tool(source: Any) -> Tool:
    """A Tool as it is; a plain function or a LangChain tool as the worst case: irreversible, approved each time.

    A LangChain tool says otherwise in its metadata: `{"effect": "none", "approval": "never"}`.
    Raises UsageError for anything else, and for what cannot be described to a model.
    """
    if isinstance(source, Tool):
        return source
    if isinstance(source, BaseTool):
        return _from_langchain(source)
    if callable(source) and not isinstance(source, type):
        return tool(source)
    raise UsageError(
        f"{source!r} is no tool: expected a function, an object made by @tool or a LangChain tool",
        next_step="put @tool above the function's def line",
    )


def _from_langchain(source: BaseTool) -> Tool:
    labels = source.metadata or {}
    effect = labels.get("effect", "irreversible")

    async def invoke(**arguments: Any) -> Any:
        # A whole ToolCall, so that no argument called "type" is taken for one; with no id the plain value comes back.
        return await source.ainvoke(ToolCall(name=source.name, args=arguments, id=None, type="tool_call"))

    return Tool(
        **openai_function(source, source.name),
        function=invoke,
        effect=effect,
        approval=labels.get("approval") or default_approval(effect),
    )
