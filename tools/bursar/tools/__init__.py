"""What an agent can do: functions with a schema, a declared effect and a capped result."""

from __future__ import annotations

from bursar.tools.adapt import as_tool
from bursar.tools.approval import Approval, above
from bursar.tools.arguments import ToolArgumentsError
from bursar.tools.ask_human import ask_human
from bursar.tools.key import idempotency_key, keyed
from bursar.tools.result import ToolResult
from bursar.tools.tool import Effect, Tool, tool

__all__ = [
    "Approval",
    "Effect",
    "Tool",
    "ToolArgumentsError",
    "ToolResult",
    "above",
    "as_tool",
    "ask_human",
    "idempotency_key",
    "keyed",
    "tool",
]
