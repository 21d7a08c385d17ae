"""One execution of a run: the graph inside the run's context, and what its end means."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphBubbleUp, GraphRecursionError, is_invalid_resume
from langgraph.types import Command
from langgraph.types import Interrupt as GraphInterrupt

from bursar.budget.errors import BursarError, LedgerError, LedgerUnavailable
from bursar.budget.gate import overdue
from bursar.budget.refusal import Refusal
from bursar.memory import EPOCH_KEY, TENANT_KEY, CheckpointsUnavailable
from bursar.runtime.context import RUN_KEY, RunContext
from bursar.runtime.escalations.kinds import questions
from bursar.runtime.escalations.records import Asked
from bursar.runtime.invoking import invoke
from bursar.runtime.runs.run import RunStatus
from bursar.runtime.stop import LimitReached
from bursar.runtime.work import Work

__all__ = ["Ending", "at_rest", "execute", "graph_config"]

_log = logging.getLogger("bursar.runtime")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How an execution ended."""

    status: RunStatus
    cause: str
    """For people; never empty."""

    output: str | None = None
    value: Any = None
    interrupts: Sequence[Asked] | None = ()
    """The questions that are open now; None where nobody looked, and those that were open still are."""

    error: BaseException | None = None
    is_paused: bool = False
    """Whether it waits because a person holds it up; it goes on once nobody does."""


def graph_config(run_id: str, tenant: str, epoch: int | None = None) -> RunnableConfig:
    """LangGraph's config of a run: its thread is the run itself, and its tenant's.

    With `epoch`, checkpoints are written only while nobody has taken the run over since.
    """
    configurable: dict[str, Any] = {"thread_id": run_id, TENANT_KEY: tenant, RUN_KEY: run_id}
    return {"configurable": configurable if epoch is None else {**configurable, EPOCH_KEY: epoch}}


async def execute(work: Work, run: RunContext, given: Any | Command[Any]) -> Ending:
    """Execute the graph until it ends, waits, or is stopped. Only a cancellation and LedgerError are raised.

    What the run was charged is the ledger's to say, whatever happens here.
    """
    config = graph_config(run.scope.run_id, run.scope.tenant, run.epoch)
    try:
        with run.registered():
            async with asyncio.timeout(_seconds_left(run)):
                result = await invoke(work, run, given, config)
    except TimeoutError as error:
        if run.deadline is None or _seconds_left(run):
            return await _failed(work, config, error)
        deadline = await run.ledger.do(run.ledger.gates.deadline, run.scope.run_path)
        if deadline is None or deadline > run.now():  # it was given more time meanwhile
            anew = replace(run, deadline=deadline, ordinals=Counter(), ended=threading.Event())
            return await execute(work, anew, None)
        return await _out_of_time(work, run, config)
    except LimitReached as reached:
        first = await run.ledger.do(run.ledger.gates.stopped, run.scope.run_path)
        return await _stopped(work, run, config, first or reached.refusal)
    except LedgerError:
        raise
    except CheckpointsUnavailable as error:  # where they are, the ledger is, or is beside them
        raise LedgerUnavailable(error.message, next_step=error.next_step) from error
    except (GraphBubbleUp, GraphRecursionError, BursarError) as error:
        return await _failed(work, config, error)
    except Exception as error:
        _log.debug("run %s failed", run.scope.run_id, exc_info=error)
        # A program that calls models by HTTP is refused by an exception of its client's.
        if (first := await run.ledger.do(run.ledger.gates.refused, run.scope.run_path)) is not None:
            return await _stopped(work, run, config, first)
        return await _failed(work, config, error)
    return await _ended(work, run, result.value, result.interrupts)


async def _ended(work: Work, run: RunContext, value: Any, interrupts: Sequence[GraphInterrupt]) -> Ending:
    output = work.output(value)
    if interrupts:
        asked = _asked(interrupts)
        cause = "; ".join(one.words for one in asked)
        return Ending(status="interrupted", cause=cause, output=output, value=value, interrupts=asked)
    # A program can swallow the stop, but not undo it; and it is the first refusal that says why.
    refused = await run.ledger.do(run.ledger.gates.stopped, run.scope.run_path)
    said = work.stopped(value)
    why = refused.words(final=bool(said)) if refused else said
    if why:
        return Ending(status="stopped", cause=why, output=output, value=value)
    return Ending(status="succeeded", cause="the agent gave its answer", output=output, value=value)


async def _out_of_time(work: Work, run: RunContext, config: RunnableConfig) -> Ending:
    path = run.scope.run_path
    refusal = Refusal(cause="deadline", kind="run", path=path, dimension="seconds", limit=run.seconds)
    if run.until is not None and run.now() >= run.until:
        refusal = overdue(path, run.until)
    await run.ledger.do(run.ledger.gates.stop, path, refusal)
    run.tell("limit", text=refusal.words())
    return await _stopped(work, run, config, refusal)


async def _stopped(work: Work, run: RunContext, config: RunnableConfig, refusal: Refusal) -> Ending:
    """Stopped at a limit; where the run's policy is to escalate, it waits for a person instead."""
    value, questions = await _at_rest(work, config)
    if refusal.cause == "paused":
        cause, output = f"paused by {refusal.detail}", work.output(value)
        return Ending(
            status="interrupted", cause=cause, output=output, value=value, interrupts=questions, is_paused=True
        )
    status: RunStatus = "cancelled" if refusal.cause == "cancelled" else "stopped"
    if run.on_limit == "escalate" and refusal.cause in ("limit", "deadline") and not refusal.is_overdue:
        status, questions = "interrupted", [*questions, _for_more(run, refusal, work.output(value))]
    cause = refusal.words()
    return Ending(status=status, cause=cause, output=work.output(value), value=value, interrupts=questions)


async def _failed(work: Work, config: RunnableConfig, error: BaseException) -> Ending:
    cause = str(error) if isinstance(error, BursarError) else f"{type(error).__name__}: {error}"
    try:
        value, questions = await _at_rest(work, config)
    except BursarError:  # the checkpoints themselves may be what failed
        return Ending(status="failed", cause=cause, interrupts=None, error=error)
    status: RunStatus = "interrupted" if is_invalid_resume(error) else "failed"  # the graph asks again
    return Ending(status=status, cause=cause, output=work.output(value), value=value, interrupts=questions, error=error)


async def at_rest(work: Work, config: RunnableConfig) -> Ending:
    """A run that waits for what it asked at its last checkpoint."""
    value, questions = await _at_rest(work, config)
    cause = "; ".join(one.words for one in questions)
    return Ending(status="interrupted", cause=cause, output=work.output(value), value=value, interrupts=questions)


async def _at_rest(work: Work, config: RunnableConfig) -> tuple[Any, list[Asked]]:
    """State and open questions at the last checkpoint: what was done is not lost."""
    snapshot = await work.graph.aget_state(config)
    return snapshot.values, _asked(snapshot.interrupts)


def _for_more(run: RunContext, refusal: Refusal, output: str | None) -> Asked:
    words = refusal.words()
    run.tell("interrupt", text=words)
    return Asked(
        id=f"more-{run.scope.run_id}-{run.epoch}",  # another question in each execution
        kind="more",
        reason="budget",
        words=words,
        payload={"refusal": refusal.to_record(), "output": output},
        allowed=["grant", "downgrade", "stop"],
    )


def _seconds_left(run: RunContext) -> float | None:
    if run.deadline is None:
        return None
    return max(0.0, (run.deadline - run.now()).total_seconds())


def _asked(interrupts: Sequence[GraphInterrupt]) -> list[Asked]:
    return [asked for one in interrupts for asked in questions(one)]
