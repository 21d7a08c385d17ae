"""The types that a graph's own state declares: those may be read back from its checkpoints, and no others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from langgraph._internal._serde import build_serde_allowlist
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph.state import CompiledStateGraph
from langgraph.pregel import Pregel

__all__ = ["with_declared_types"]

Saver = TypeVar("Saver", bound=BaseCheckpointSaver[Any])


def with_declared_types(saver: Saver, graph: Pregel[Any, Any, Any, Any]) -> Saver:
    """The saver for one graph, with the types of its schemas and channels allowed, and those of the graphs in it.

    LangGraph does the same by itself, but only where LANGGRAPH_STRICT_MSGPACK was set before it was imported.
    """
    channels, schemas = dict(graph.channels), list(_schemas(graph))
    for name, inner in graph.get_subgraphs(recurse=True):
        if isinstance(inner, Pregel):
            channels |= {f"{name}|{channel}": of for channel, of in inner.channels.items()}
            schemas += _schemas(inner)
    return saver.with_allowlist(build_serde_allowlist(schemas=schemas, channels=channels))  # type: ignore[return-value]


def _schemas(graph: Pregel[Any, Any, Any, Any]) -> Iterator[type[Any]]:
    if isinstance(graph, CompiledStateGraph):
        builder = graph.builder
        yield from (builder.state_schema, builder.input_schema, builder.output_schema)
        yield from (node.input_schema for node in builder.nodes.values())
