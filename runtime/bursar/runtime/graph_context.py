"""The context of a graph's run (LangGraph's `context=`): kept with the run as JSON, and given in every execution."""

from __future__ import annotations

from typing import Any

from langgraph.pregel import Pregel
from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from bursar.budget.errors import UsageError

__all__ = ["read_context", "written_context"]

_NEXT_STEP = "give data alone, of the types that context_schema names, and make clients and the like in the nodes"


def written_context(graph: Pregel[Any, Any, Any, Any], context: Any) -> str:
    """A context as JSON; raises UsageError where the graph declares none, and for one that does not fit or last."""
    if graph.context_schema is None:
        raise UsageError("context: the graph declares none", next_step="StateGraph(State, context_schema=...)")
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(graph.context_schema)
        return adapter.dump_json(adapter.validate_python(context)).decode()
    except (PydanticUserError, PydanticSerializationError, ValidationError, ValueError) as error:
        raise UsageError(f"context cannot be kept with the run: {error}", next_step=_NEXT_STEP) from error


def read_context(graph: Pregel[Any, Any, Any, Any], text: str) -> Any:
    """What `written_context` wrote, as the graph has it now; raises UsageError where it does not fit any more."""
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(graph.context_schema or Any)
        return adapter.validate_json(text)
    except (PydanticUserError, ValidationError) as error:
        raise UsageError(f"the run's context does not fit the graph's context_schema: {error}") from error
