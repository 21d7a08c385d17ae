"""A graph that is not the one which wrote a run's checkpoint: its state is migrated as declared, and nothing dropped.

LangGraph drops a channel that the graph lacks, and ends without a word where the node that comes next is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph._internal._constants import TASKS
from langgraph.checkpoint.base import BaseCheckpointSaver, Checkpoint, CheckpointMetadata, CheckpointTuple
from langgraph.pregel import Pregel
from langgraph.types import Send

from bursar.budget.errors import ConflictError, UsageError
from bursar.runtime.governed import Migration
from bursar.runtime.invoking import VERSION_KEY
from bursar.runtime.work import Work

__all__ = ["GraphChanged", "fit", "require_fit"]

_NEXT = "branch:to:"
_JOIN = "join:"


class GraphChanged(ConflictError):
    """The graph is not the one that the run's checkpoint was written by."""


async def fit(work: Work, config: RunnableConfig) -> str:
    """Make the run's newest checkpoint one that the graph can go on from; returns what was done to it, for people.

    Raises GraphChanged where something would be lost, and UsageError for a migration that does not fit the graph.
    """
    saver = _saver(work)
    found = await saver.aget_tuple(config)
    if found is None or (migrate := _migration(work, found)) is None:
        await require_fit(work, config)
        return ""
    migrated = _migrated(work, found, migrate, saver)
    _require_whole(work, work.graph, found._replace(checkpoint=migrated))
    await _put(saver, found, migrated, config, work.version)
    await _require_whole_within(work, work.graph, config)
    return f"its state was migrated from version {_version(found)} to {work.version}"


async def require_fit(work: Work, config: RunnableConfig) -> None:
    """Raise GraphChanged where the graph cannot go on from the run's newest checkpoint, and declares no migration."""
    found = await _saver(work).aget_tuple(config)
    if found is not None and _migration(work, found) is None:
        _require_whole(work, work.graph, found)
        await _require_whole_within(work, work.graph, config)


def _saver(work: Work) -> BaseCheckpointSaver[Any]:
    return cast("BaseCheckpointSaver[Any]", work.graph.checkpointer)


def _version(found: CheckpointTuple) -> str:
    return str(found.metadata.get(VERSION_KEY, ""))


def _migration(work: Work, found: CheckpointTuple) -> Migration | None:
    before = _version(found)
    return work.governed.migrate.get(before) if work.governed is not None and before != work.version else None


async def _require_whole_within(work: Work, graph: Pregel[Any, Any, Any, Any], config: RunnableConfig) -> None:
    """The same for the graphs in it that are under way."""
    subgraphs = {name: inner for name, inner in graph.get_subgraphs() if isinstance(inner, Pregel)}
    if not subgraphs:
        return
    for task in (await work.graph.aget_state(config)).tasks:
        inner, place = subgraphs.get(task.name), task.state
        if inner is None or not isinstance(place, dict):
            continue
        within: RunnableConfig = {"configurable": {**config["configurable"], **place["configurable"]}}
        found = await _saver(work).aget_tuple(within)
        if found is not None:
            _require_whole(work, inner, found)
            await _require_whole_within(work, inner, within)


def _require_whole(work: Work, graph: Pregel[Any, Any, Any, Any], found: CheckpointTuple) -> None:
    lost = list(dict.fromkeys(_lost(graph, found)))
    if not lost:
        return
    before = _version(found)
    was = f", and version {before!r} wrote it" if before else ""
    declared = f'govern(..., version="...", migrate={{{before!r}: a_function_of_the_state}})'
    raise GraphChanged(
        f"graph {work.name} has changed since the run's checkpoint was written{was}: it lacks {'; '.join(lost)}",
        next_step=f"run it with the graph as it was, declare {declared}, or fork it from an earlier checkpoint",
    )


def _lost(graph: Pregel[Any, Any, Any, Any], found: CheckpointTuple) -> Iterator[str]:
    """What of a checkpoint the graph would drop or never come to."""
    checkpoint = found.checkpoint
    values = checkpoint["channel_values"]
    for name in checkpoint["channel_versions"]:
        if name in graph.channels:
            continue
        if _is_state(name):
            yield f"the state's channel {name!r}"
        elif name in values:
            yield f"the edge {name.removeprefix(_JOIN)!r}" if name.startswith(_JOIN) else _next_node(name)
    yield from _lost_sends(graph, values.get(TASKS, ()))
    for _, name, value in found.pending_writes or ():
        if name == TASKS:
            yield from _lost_sends(graph, [value])
        elif name.startswith(_NEXT) and name not in graph.channels:
            yield _next_node(name)


def _lost_sends(graph: Pregel[Any, Any, Any, Any], sends: Iterable[object]) -> Iterator[str]:
    for send in sends:
        if isinstance(send, Send) and send.node not in graph.nodes:
            yield _next_node(send.node)


def _next_node(name: str) -> str:
    return f"node {name.removeprefix(_NEXT)!r}, which comes next"


def _is_state(channel: str) -> bool:
    """Whether a channel is a team's own, and none by which LangGraph leads from node to node."""
    return not channel.startswith(("__", _NEXT, _JOIN))


def _migrated(work: Work, found: CheckpointTuple, migrate: Migration, saver: BaseCheckpointSaver[Any]) -> Checkpoint:
    """The checkpoint with its values as the graph has them now."""
    checkpoint = found.checkpoint
    values, versions = checkpoint["channel_values"], checkpoint["channel_versions"]
    new = migrate({name: value for name, value in values.items() if _is_state(name)})
    if not isinstance(new, Mapping) or (unknown := sorted(set(new) - set(work.graph.channels))):
        what = f"unknown channels {', '.join(unknown)}" if isinstance(new, Mapping) else type(new).__name__
        raise UsageError(f"graph {work.name}: its migration to version {work.version} gave {what}, expected its state")
    newest: Any = max(versions.values(), default=None)
    fresh = saver.get_next_version(newest, None)
    return {
        **checkpoint,
        "channel_values": {name: value for name, value in values.items() if not _is_state(name)} | dict(new),
        "channel_versions": {name: of for name, of in versions.items() if not _is_state(name)}
        | dict.fromkeys(new, fresh),
    }


async def _put(
    saver: BaseCheckpointSaver[Any], found: CheckpointTuple, migrated: Checkpoint, config: RunnableConfig, version: str
) -> None:
    """Write a checkpoint in its own place, so that the tasks that come next, and what they wrote, stay the same."""
    parent = (found.parent_config or {}).get("configurable", {}).get("checkpoint_id")
    named = {**found.config["configurable"], **config["configurable"], "checkpoint_id": parent}
    values = migrated["channel_values"]
    fresh = {name: of for name, of in migrated["channel_versions"].items() if _is_state(name) and name in values}
    metadata = cast("CheckpointMetadata", {**found.metadata, VERSION_KEY: version})
    await saver.aput({"configurable": named}, migrated, metadata, fresh)
