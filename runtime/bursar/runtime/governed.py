"""`govern(graph)`: limits and the rest for a LangGraph graph of a team's own, declared beside it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, get_args

from langgraph.graph import StateGraph
from langgraph.pregel import Pregel

from bursar.agents.agent import Agent, OnLimit
from bursar.budget.errors import UsageError
from bursar.budget.limits import Limits

__all__ = ["AnyGraph", "Governed", "Migration", "govern", "plain_name"]

AnyGraph: TypeAlias = Pregel[Any, Any, Any, Any] | StateGraph[Any, Any, Any, Any]
"""What LangGraph runs: a compiled graph, what LangChain's `create_agent` makes, an `@entrypoint`, or a graph that is
still to be compiled."""

Migration = Callable[[dict[str, Any]], Mapping[str, Any]]
"""From the state's values as an older version kept them to those that the present one expects."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_UNFIT = re.compile(r"[^a-z0-9_.-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Governed:
    """A graph and what is declared of it; made by `govern`."""

    graph: Pregel[Any, Any, Any, Any]
    name: str
    """The ledger accounts for the graph under it."""

    limits: Limits
    on_limit: OnLimit | None
    """None leaves it to the tenant."""

    max_output_tokens: int
    """The most that one model call may write where it names no bound itself."""

    version: str = ""
    """Of the graph's state; runs begun by another one go on by `migrate`."""

    migrate: Mapping[str, Migration] = field(default_factory=dict)
    """What becomes of a state of another version, by that version."""


def govern(
    graph: AnyGraph,
    *,
    name: str | None = None,
    limits: Limits | None = None,
    on_limit: OnLimit | None = None,
    max_output_tokens: int | None = None,
    version: str | None = None,
    migrate: Mapping[str, Migration] | None = None,
) -> Governed:
    """Declare what holds for every run of a LangGraph graph, which stays as it is but for where its models come from.

    `limits` are those of a run, which may tighten them; without them those of an Agent that declares none. `version`
    names the shape of the graph's state, and `migrate` says for each earlier one how its values become the present
    ones, for runs that were begun by it. Raises UsageError for what cannot be.
    """
    if not isinstance(graph, (StateGraph, Pregel)):
        raise UsageError(f"govern needs a LangGraph graph, not {type(graph).__name__}", next_step="govern(graph)")
    compiled = graph if isinstance(graph, Pregel) else graph.compile()
    named = name or plain_name(compiled.name or "")
    if not _NAME.fullmatch(named):
        raise UsageError(
            f"govern: name={name!r}, expected 1 to 63 lower-case letters, digits, _ . or -, "
            "beginning with a letter or digit"
        )
    if limits is not None and not isinstance(limits, Limits):
        raise UsageError(f"govern {named}: limits={limits!r}, expected Limits(...)")
    if on_limit not in (None, *get_args(OnLimit)):
        raise UsageError(f"govern {named}: on_limit={on_limit!r}, expected one of {', '.join(get_args(OnLimit))}")
    defaults = Agent(name="defaults", instructions="-")
    bound = defaults.max_output_tokens if max_output_tokens is None else max_output_tokens
    if type(bound) is not int or bound < 1:
        raise UsageError(f"govern {named}: max_output_tokens={bound!r}, expected a whole number from 1 up")
    steps = dict(migrate or {})
    _check_versions(named, version, steps)
    return Governed(
        graph=compiled,
        name=named,
        limits=limits or defaults.limits,
        on_limit=on_limit,
        max_output_tokens=bound,
        version=version or "",
        migrate=steps,
    )


def plain_name(name: str) -> str:
    """A name under which the ledger can account for a graph that is called so."""
    return _UNFIT.sub("-", name.lower()).strip("-_.")[:63] or "graph"


def _check_versions(name: str, version: str | None, migrate: Mapping[str, Migration]) -> None:
    if version is not None and (not isinstance(version, str) or not version.strip()):
        raise UsageError(f'govern {name}: version={version!r}, expected a text, such as version="2"')
    if migrate and version is None:
        raise UsageError(f"govern {name}: migrate is given, and no version", next_step='version="2"')
    for before, how in migrate.items():
        if not isinstance(before, str) or not callable(how) or before == version:
            raise UsageError(
                f"govern {name}: migrate={dict(migrate)!r}, expected functions by earlier versions",
                next_step='migrate={"1": from_the_first}',
            )
