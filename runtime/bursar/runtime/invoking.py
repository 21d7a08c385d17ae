"""One invocation of a run's graph: audited, at every step on disk, and heard in LangGraph's own stream where wanted."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import merge_configs
from langgraph.pregel._loop import PregelLoop
from langgraph.types import Command, GraphOutput
from langgraph.types import Interrupt as GraphInterrupt

from bursar.runtime.audit import AUDIT
from bursar.runtime.context import RunContext
from bursar.runtime.work import Work

__all__ = ["VERSION_KEY", "invoke"]

VERSION_KEY = "bursar_version"
"""In a checkpoint's metadata: the version of the graph that wrote it, where it has one."""


class _Written:
    """The write of a checkpoint that nobody keeps."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()

    def result(self) -> None:
        return None


# At "sync", LangGraph 1.2 waits for a write after each step, also of a graph within that is compiled with
# `checkpointer=False`, where none is ever begun: it fails there for want of this attribute.
PregelLoop._put_checkpoint_fut = _Written()  # type: ignore[assignment]  # all that is asked of a future there


async def invoke(work: Work, run: RunContext, given: Any | Command[Any], config: RunnableConfig) -> GraphOutput[Any]:
    """The graph's state when it ended or waits, and what it asks."""
    version = {VERSION_KEY: work.version} if work.version else {}
    audited = merge_configs(config, {"callbacks": [AUDIT], "metadata": version})
    how: dict[str, Any] = {"context": work.context, "durability": "sync", "version": "v2"}
    if not work.modes:
        ended: GraphOutput[Any] = await work.graph.ainvoke(given, audited, **how)
        return ended
    value, interrupts = None, list[GraphInterrupt]()
    modes = dict.fromkeys([*work.modes, "values"])
    async for part in work.graph.astream(given, audited, stream_mode=list(modes), subgraphs=True, **how):
        if part["type"] in work.modes:
            run.tell("graph", data=part)
        if part["type"] == "values" and not part["ns"]:
            value = part["data"]
            interrupts += part.get("interrupts", ())
    return GraphOutput(value=value, interrupts=tuple(interrupts))
