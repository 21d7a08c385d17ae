"""The types that a graph's own state declares: those may be read back from its checkpoints, and no others."""

from __future__ import annotations

from typing import Any

from langgraph._internal._serde import build_serde_allowlist
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph.state import CompiledStateGraph

__all__ = ["with_declared_types"]


def with_declared_types(saver: AsyncSqliteSaver, graph: CompiledStateGraph[Any, Any, Any, Any]) -> AsyncSqliteSaver:
    """The saver for one graph, with the types of its schemas and channels allowed.

    LangGraph does the same by itself, but only where LANGGRAPH_STRICT_MSGPACK was set before it was imported.
    """
    builder = graph.builder
    schemas = [builder.state_schema, builder.input_schema, builder.output_schema]
    schemas += [node.input_schema for node in builder.nodes.values()]
    declared = build_serde_allowlist(schemas=schemas, channels=builder.channels)
    return saver.with_allowlist(declared)  # type: ignore[return-value]  # declared for the base class
