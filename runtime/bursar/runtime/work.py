"""What a run executes: an agent, or a LangGraph graph of one's own."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.messages import AIMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.graph import StateGraph
from langgraph.pregel import Pregel
from langgraph.types import StreamMode

from bursar.agents.agent import Agent, OnLimit
from bursar.budget.errors import UsageError
from bursar.budget.limits import Limits
from bursar.memory.declared import with_declared_types
from bursar.runtime.agent_graph import agent_graph, answer_in
from bursar.runtime.governed import AnyGraph, Governed, govern, plain_name
from bursar.runtime.graph_context import read_context
from bursar.runtime.tenant_cache import TenantCache

__all__ = ["Source", "Work", "work_of"]

Source = Agent | Governed | AnyGraph
"""What may be run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A graph ready to be executed, with the defaults of whoever declared it."""

    name: str
    source: Source
    graph: Pregel[Any, Any, Any, Any]
    agent: Agent | None
    governed: Governed | None = None
    """What is declared of the graph, where it is no agent's."""

    limits: Limits
    on_limit: OnLimit | None
    max_output_tokens: int

    context: Any = None
    """What the graph's nodes find as `runtime.context`."""

    modes: Sequence[StreamMode] = ()
    """Of LangGraph's own stream, what whoever listens wants to hear."""

    @property
    def version(self) -> str:
        """Of the graph's state; empty where none is declared."""
        return self.governed.version if self.governed is not None else ""

    def heard(self, mode: StreamMode | Sequence[StreamMode]) -> Work:
        """The same, for somebody who hears these modes of LangGraph's own stream."""
        return replace(self, modes=[mode] if isinstance(mode, str) else list(mode))

    def within(self, context: str | None) -> Work:
        """The same in the context that a run keeps; raises UsageError where the graph takes it no more."""
        return self if context is None else replace(self, context=read_context(self.graph, context))

    def bounded(self, limits: Limits | None) -> Limits:
        """A run's limits: those given tighten what was declared, and take the place of a graph's that has none."""
        if limits is None or not self.is_declared:
            return limits or self.limits
        return self.limits.tightened(limits)

    @property
    def is_declared(self) -> bool:
        """Whether an agent or `govern` says what holds for it, and its name is its own; most graphs are `LangGraph`."""
        return isinstance(self.source, (Agent, Governed))

    def require_nodes(self, names: Iterable[str]) -> None:
        """Raise UsageError for a name that is no node of the graph, or of a graph in it: nothing would be limited."""
        graphs = (self.graph, *(graph for _, graph in self.graph.get_subgraphs(recurse=True)))
        nodes = {
            name for graph in graphs if isinstance(graph, Pregel) for name in graph.nodes if not name.startswith("__")
        }
        for name in names:
            if name not in nodes:
                raise UsageError(f"node_limits: {self.name} has no node {name!r}; it has {', '.join(sorted(nodes))}")

    def begin(self, given: Any) -> Any:
        """The graph's input: for an agent a text, or messages in the shape of OpenAI's chat completions.

        Raises UsageError for what an agent cannot be begun with.
        """
        if self.agent is None:
            return given
        if isinstance(given, str):
            return {"messages": [{"role": "user", "content": given}]}
        messages = given.get("messages") if isinstance(given, Mapping) else None
        if not messages or not all(isinstance(one, Mapping) and "role" in one for one in messages):
            raise UsageError(
                f"agent {self.name} is begun with a text, not with {type(given).__name__}",
                next_step='"a text", or {"messages": [{"role": "user", "content": "..."}]}',
            )
        return given

    def output(self, value: Any) -> str | None:
        """What the graph's state says last."""
        if self.agent is not None:
            return answer_in(value or {})
        messages = value.get("messages") if isinstance(value, Mapping) else None
        last = messages[-1] if isinstance(messages, Sequence) and messages else None
        return str(last.text) if isinstance(last, AIMessage) and last.text else None

    def stopped(self, value: Any) -> str:
        """Why an agent's run reached a limit, as its own state says; empty while it did not."""
        return str((value or {}).get("stopped") or "") if self.agent is not None else ""

    @property
    def serde(self) -> SerializerProtocol:
        """How the graph's input and state are written down."""
        saver: BaseCheckpointSaver[Any] = self.graph.checkpointer  # type: ignore[assignment]  # set in work_of
        return saver.serde

    @property
    def tools(self) -> Collection[str] | None:
        """The tools of the agent and of those that it uses; None for a graph, which does not say."""
        if self.agent is None:
            return None
        return {spec["function"]["name"] for agent in self.agents for spec in agent.tool_specs}

    @property
    def agents(self) -> Iterator[Agent]:
        """The agent and every agent that it uses as a tool."""
        if self.agent is not None:
            yield from _family(self.agent)


def work_of(source: Source, checkpointer: BaseCheckpointSaver[Any], *, name: str | None = None) -> Work:
    """Make an agent or a graph ready; raises UsageError for anything else."""
    if isinstance(source, Agent):
        return Work(
            name=source.name,
            source=source,
            graph=agent_graph(source, checkpointer),
            agent=source,
            limits=source.limits,
            on_limit=source.on_limit,
            max_output_tokens=source.max_output_tokens,
        )
    if not isinstance(source, (Governed, StateGraph, Pregel)):
        raise UsageError(f"a run needs an Agent or a LangGraph graph, not {type(source).__name__}")
    governed = source if isinstance(source, Governed) else govern(source, name=name and plain_name(name))
    graph = governed.graph
    return Work(
        name=governed.name,
        source=source,
        graph=graph.copy(
            {
                "checkpointer": with_declared_types(checkpointer, graph),
                "cache": None if graph.cache is None else TenantCache(graph.cache),
            }
        ),
        agent=None,
        governed=governed,
        limits=governed.limits,
        on_limit=governed.on_limit,
        max_output_tokens=governed.max_output_tokens,
    )


def _family(agent: Agent) -> Iterator[Agent]:
    yield agent
    for tool in agent.tools:
        if isinstance(tool, Agent):
            yield from _family(tool)
