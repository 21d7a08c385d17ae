"""What an agent can do: functions with a schema, a declared effect and a capped result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bursar.tools.adapt import as_tool
    from bursar.tools.approval import Approval, above
    from bursar.tools.arguments import ToolArgumentsError
    from bursar.tools.declared import Effect, Tool, tool
    from bursar.tools.key import idempotency_key, keyed
    from bursar.tools.person import ask_human
    from bursar.tools.result import ToolResult

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

_HOMES = {
    "Approval": "approval",
    "Effect": "declared",
    "Tool": "declared",
    "ToolArgumentsError": "arguments",
    "ToolResult": "result",
    "above": "approval",
    "as_tool": "adapt",
    "ask_human": "person",
    "idempotency_key": "key",
    "keyed": "key",
    "tool": "declared",
}


def __getattr__(name: str) -> Any:
    # Loaded when first named: the journal of effects is read without LangChain.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
