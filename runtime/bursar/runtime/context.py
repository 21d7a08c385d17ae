"""The run around a call: found by context variable, or by the run's id in LangGraph's config."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from langgraph.config import get_config
from langgraph.runtime import get_runtime

from bursar.agents.agent import Agent, OnLimit
from bursar.budget.amounts import Amounts
from bursar.budget.scope import Scope
from bursar.runtime.events import Event, EventKind
from bursar.runtime.side_loop import SideLoop
from bursar.runtime.stop import NoRunError

if TYPE_CHECKING:
    from bursar.runtime.fork import Forked
    from bursar.runtime.paid_call import PaidCalls
    from bursar.runtime.run_ledger import RunLedger

__all__ = ["RUN_KEY", "RunContext", "current_run", "digest_of", "node_name", "task_id"]

RUN_KEY = "bursar_run"
"""The key of the run's id in LangGraph's `configurable`."""

_current: ContextVar[RunContext | None] = ContextVar("bursar_run", default=None)
_active: dict[str, RunContext] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """All that a call needs to know of the run that it is made for."""

    scope: Scope
    epoch: int
    thread_id: str
    on_limit: OnLimit
    max_output_tokens: int
    tiers: tuple[str, ...] | None
    """The tiers that the tenant may use; None = all."""

    deadline: datetime | None
    """When the run is cut off: its working time is used up, or it had to end by then."""

    seconds: int | None
    """The whole working time that the run is given."""

    now: Callable[[], datetime]
    calls: PaidCalls
    ledger: RunLedger
    side_loop: SideLoop
    until: datetime | None = None
    """By when the run has to end, whether it works or waits."""

    emit: Callable[[Event], None] | None = None
    on_delta: Callable[[Mapping[str, Any]], None] | None = None
    """Where pieces of an agent's answers go while they arrive; None = nobody listens."""

    kept_back: Mapping[str, Amounts] = field(default_factory=dict)
    """What calls must leave for last answers, by the path of the run."""

    tier: str | None = None
    """Which answers every call, whatever its node asks for; None = the node's own."""

    lineage: Forked | None = None
    """Whose calls and effects are the run's own too, where it is a fork."""

    sticky: bool = True
    """Whether a limit stops the run for good; a gateway's standing key is refused call by call."""

    ordinals: Counter[tuple[str, int, str]] = field(default_factory=Counter)
    ended: threading.Event = field(default_factory=threading.Event)
    """Set once the run is not executed here any more: a thread that outlives it may not spend for it."""

    @property
    def gives_last_answer(self) -> bool:
        """Whether an agent gives one last answer at a limit."""
        return self.on_limit in ("finalize", "downgrade")

    def child(self, agent: Agent, name: str) -> RunContext:
        """The context of an agent that is used as a tool here: it spends from this run, within its own limits."""
        return replace(self, scope=self.scope.child(agent.name, name), on_limit=agent.on_limit or self.on_limit)

    def keeping(self, last_answer: Amounts) -> RunContext:
        """The context of all that an agent sets to work, which must leave it enough for a last answer of its own."""
        return replace(self, kept_back=self.to_keep(last_answer))

    def to_keep(self, last_answer: Amounts) -> Mapping[str, Amounts]:
        """What is kept back when this run's own last answer is, too; it draws on every run around it."""
        return {path: self.kept_back.get(path, Amounts()) + last_answer for path in self.scope.run_paths}

    def call_id(self, digest: str = "") -> str:
        """The id of the next call of the present LangGraph task, the same when the task is run again.

        Calls are told apart by the digest of their content, so that calls made side by side in one task find their own
        replies again in whatever order they come; equal ones are counted. A task that makes one call only needs none.
        """
        task, attempt = _task()
        ordinal = self.ordinals[task, attempt, digest]
        self.ordinals[task, attempt, digest] += 1
        return f"{self.thread_id}:{task}:{digest}:{ordinal}"

    def tell(self, kind: EventKind, **what: Any) -> None:
        """Tell whoever listens to the run what happened."""
        if self.emit is not None:
            self.emit(Event(kind=kind, run_id=self.scope.run_id, agent=self.scope.agents[-1], **what))

    def require_going_on(self) -> None:
        """Raise NoRunError where the run is not executed here any more."""
        if self.ended.is_set():
            raise NoRunError(
                f"a model was called for run {self.scope.run_id}, which has ended here; nothing was sent",
                next_step="wait in the node or tool for the threads and tasks that it starts",
            )

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Make this the run of everything that is called within."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    @contextlib.contextmanager
    def registered(self) -> Iterator[None]:
        """Let calls that carry LangGraph's config, but not our context variable, find this run by its id."""
        _active[self.scope.run_id] = self
        try:
            with self.entered():
                yield
        finally:
            self.ended.set()
            del _active[self.scope.run_id]


def current_run(metadata: Mapping[str, Any] | None = None) -> RunContext:
    """The run that a call is made for; `metadata` is that of the call's LangChain config.

    Raises NoRunError where there is none: nothing may be sent then.
    """
    found = _current.get() or _active.get(str((metadata or {}).get(RUN_KEY)))
    if found is None:
        raise NoRunError(
            "a model was called without a run around it, so nothing bounds its cost; nothing was sent",
            next_step="call it inside `await runtime.run(graph, ..., tenant=...)`",
        )
    return found


def node_name() -> str:
    """The name of the LangGraph node that is being run, `-` outside of one."""
    try:
        return str(get_config()["metadata"].get("langgraph_node", "-"))
    except RuntimeError:
        return "-"


def task_id() -> str:
    """The id of the present LangGraph task: the same when the task is run again, `-` outside of one."""
    return _task()[0]


def digest_of(content: Mapping[str, Any]) -> str:
    """What tells a request from every other: 16 hexadecimal digits."""
    text = json.dumps(content, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _task() -> tuple[str, int]:
    try:
        info = get_runtime().execution_info
    except (RuntimeError, KeyError, AttributeError):
        return "-", 1
    return (info.task_id, info.node_attempt) if info is not None else ("-", 1)
