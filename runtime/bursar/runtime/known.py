"""What a process can execute: agents and graphs that it was given, has begun runs of, or finds by a run's target."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from bursar.agents.agent import Agent
from bursar.agents.load import load_agent
from bursar.budget.errors import BursarError, UsageError
from bursar.memory import CheckpointSaver
from bursar.runtime.governed import Governed
from bursar.runtime.runs.records import Record
from bursar.runtime.work import Source, Work, work_of

__all__ = ["Known"]

BEGUN_MAX = 10_000
"""Of how many runs a process remembers the graph without being given it again."""

WORKS_MAX = 1_000
"""So many agents and graphs are kept compiled."""

_log = logging.getLogger("bursar.runtime")


class Known:
    """The agents and graphs of a process, each compiled once for as long as it is the newest of its name."""

    def __init__(self, checkpointer: CheckpointSaver) -> None:
        self._checkpointer = checkpointer
        self._works: dict[str, Work] = {}
        self._begun: dict[str, Work] = {}
        self._given: dict[str, Work] = {}
        self._loaded: dict[str, Source] = {}
        self._refused: set[str] = set()

    def ready(self, source: Source, name: str | None) -> Work:
        """The source as a graph."""
        key = name or getattr(source, "name", None) or ""
        known = self._works.get(key)
        if known is None or known.source is not source:
            known = self._works[key] = work_of(source, self._checkpointer, name=name)
            _bounded(self._works, WORKS_MAX)
        return known

    def give(self, sources: Iterable[Source]) -> None:
        """Know these, by their own names, whoever began a run of them."""
        for source in sources:
            work = self.ready(source, None)
            self._given[work.name] = work

    def remember(self, run_id: str, work: Work) -> None:
        """Keep what a run executes, of the newest runs of this process."""
        self._begun[run_id] = work
        _bounded(self._begun, BEGUN_MAX)

    def may_have(self, row: Record) -> bool:
        """Whether it is worth a try to execute a run here; of its row `id`, `agent` and `target` are needed."""
        here = row["id"] in self._begun or row["agent"] in self._given or self._declared(row["agent"]) is not None
        return here or (row["target"] is not None and row["target"] not in self._refused)

    def find(self, row: Record) -> Work | None:
        """What a run executes, or None where it cannot be loaded here; that is logged, and not tried again."""
        try:
            return self.of(row)
        except BursarError as error:
            _log.warning("run %s is left to other workers: %s", row["id"], error)
            if row["target"]:
                self._refused.add(row["target"])
            return None

    def of(self, row: Record, source: Source | None = None) -> Work:
        """What a run executes: as given, as it was begun here, as its agent is known here, or as its target says.

        Raises UsageError where nobody here knows it, or another made the run.
        """
        if source is None and row["id"] in self._begun:
            return self._begun[row["id"]]
        work = self._given.get(row["agent"]) or self._declared(row["agent"]) if source is None else None
        if work is None:
            source = source or self._load(row)
            work = self.ready(source, None if isinstance(source, (Agent, Governed)) else row["agent"])
        if work.name != row["agent"]:
            raise UsageError(f"run {row['id']} was made by agent {row['agent']}, not by {work.name}")
        return work.within(row["context"])

    def _declared(self, name: str) -> Work | None:
        named = self._works.get(name)
        # Never a plain graph: most of them have the same name, LangGraph.
        return named if named is not None and named.is_declared else None

    def _load(self, row: Record) -> Source:
        target = row["target"]
        if not target:
            raise UsageError(
                f"this process does not know agent {row['agent']} of run {row['id']}",
                next_step=f"runtime.resume({row['id']!r}, ..., source=the_agent)",
            )
        if target not in self._loaded:
            self._loaded[target] = load_agent(target)
        return self._loaded[target]


def _bounded(kept: dict[str, Work], most: int) -> None:
    """Forget the oldest."""
    while len(kept) > most:
        del kept[next(iter(kept))]
