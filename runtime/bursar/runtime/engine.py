"""Who executes a run: this process, under a hold on the run that other processes respect.

A hold ends by itself when its process falls silent; whoever takes the run over then has a higher epoch, and the ledger
refuses every reservation of a lower one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any, ParamSpec

from langgraph.types import Command

from bursar.budget.errors import BursarError, ConflictError, LedgerError, LedgerUnavailable, UsageError
from bursar.budget.gate import Hold, Sign
from bursar.memory import CheckpointSaver, CheckpointsUnavailable
from bursar.runtime.accepting import NewRun
from bursar.runtime.changed_graph import fit
from bursar.runtime.config import Config
from bursar.runtime.context import RunContext
from bursar.runtime.contexts import Contexts, Listener
from bursar.runtime.escalations.escalations import Escalations
from bursar.runtime.escalations.records import Decision
from bursar.runtime.execution import Ending, at_rest, execute, graph_config
from bursar.runtime.holds import Holds
from bursar.runtime.ledger_thread import LedgerThread
from bursar.runtime.paid_call import PaidCalls
from bursar.runtime.retention import require_kept
from bursar.runtime.run_ledger import RunLedger
from bursar.runtime.runs.records import Record, Records, run_path
from bursar.runtime.runs.run import Run
from bursar.runtime.side_loop import SideLoop
from bursar.runtime.work import Work

__all__ = ["Engine", "ended_after_cancel", "whatever_happens"]

HEAR_S = 0.5
"""How often a process asks whether others have cancelled what it executes."""

_log = logging.getLogger("bursar.runtime")

P = ParamSpec("P")

SKEW_S = 60.0
"""How far the clocks of workers may be apart before one gives up what another holds."""

TAKEOVERS_MAX = 5
"""A run of which so many holders died at the same checkpoint is not tried again: it may be what kills them."""

_CANCELLED = Ending(status="cancelled", cause="somebody cancelled it")


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """What becomes of a run whose execution is broken off, by the side that does so."""

    gone: Ending
    closed: Ending
    away: Ending


_ITS_CALLERS = Broken(
    gone=Ending(status="interrupted", cause="its caller went away; resume it to go on", interrupts=None),
    closed=Ending(status="interrupted", cause="the runtime was closed; resume it to go on", interrupts=None),
    away=Ending(status="interrupted", cause="the ledger could not be used; resume it to go on", interrupts=None),
)

_LET_GO = Ending(status="queued", cause="its worker was shut down", interrupts=None)

_A_WORKERS = Broken(
    gone=_LET_GO,
    closed=_LET_GO,
    away=Ending(status="queued", cause="its worker could not use the ledger", interrupts=None),
)


class Engine:
    """Executes runs in this process; one task for each, all on the caller's event loop."""

    def __init__(
        self,
        config: Config,
        ledger: LedgerThread,
        records: Records,
        escalations: Escalations,
        calls: PaidCalls,
        side_loop: SideLoop,
        checkpoints: CheckpointSaver,
        *,
        holder: str,
        clock: Callable[[], datetime],
    ) -> None:
        self._config = config
        self._ledger = ledger
        self._gates = ledger.ledger.gates
        self._records = records
        self._escalations = escalations
        self.contexts = Contexts(config, ledger, calls, side_loop, clock)
        self._side_loop = side_loop
        self._checkpoints = checkpoints
        self.holder = holder
        self._holds = Holds(records, escalations, ledger.ledger, holder, config.lease_s, clock)
        self._taken: set[str] = set()
        self._ledgers: dict[str, RunLedger] = {}
        self._executing: dict[str, _Execution] = {}

    async def submit(self, new: NewRun) -> Run:
        """Accept a run for whoever can execute it."""
        return await self._ledger.do(self._holds.submit, new)

    async def begin(self, new: NewRun, listener: Listener | None = None) -> Run:
        """Accept a run and execute it."""
        with self._alone(new.scope.run_id):
            row, hold = await self._held(partial(self._holds.end, ending=_ITS_CALLERS.gone), self._holds.accept, new)

            async def go(context: RunContext) -> Ending:
                return await _executed(new.work, context, new.given)

            return await self._execute(row, hold, go, listener)

    async def take_up(
        self, run_id: str, work: Work, silent: Sign | None = None, listener: Listener | None = None
    ) -> Run:
        """Execute a run that is queued, or whose holder gave its last sign of life.

        Raises ConflictError where somebody else has taken it up.
        """
        with self._alone(run_id):
            row, hold = await self._held(partial(self._holds.end, ending=_LET_GO), self._holds.claim, run_id, silent)

            async def go(context: RunContext) -> Ending:
                try:
                    await self._fence(row, hold)
                    poisoned = await self._poisoned(row, work) if silent is not None else None
                    await self._fit(row, work, hold)
                    given = poisoned or await self._input(row, work)
                except CheckpointsUnavailable as error:
                    return Ending(status="queued", cause=str(error), interrupts=None, error=error)
                return await _executed(work, context, given)

            return await self._execute(row, hold, go, listener, _A_WORKERS)

    async def settle_cancelled(self, run_id: str, silent: Sign) -> None:
        """Write the end of a run that was cancelled, and whose holder did not live to hear of it."""
        with self._alone(run_id):
            row, hold = await self._held(partial(self._holds.end, ending=_LET_GO), self._holds.claim, run_id, silent)
            await self._ledger.do(
                self._holds.end, row, hold, replace(_CANCELLED, output=row["output"], interrupts=None)
            )

    async def resume(
        self, run_id: str, work: Work, decisions: Mapping[str, Decision], by: str, listener: Listener | None = None
    ) -> Run:
        """Decide on what a run waits on, all or nothing, and go on with it.

        Raises ConflictError where it is executed already, here or elsewhere, where it has ended, or where somebody has
        decided before; NotAllowedError and UsageError for decisions, and UsageError where it waits and nothing is
        decided.
        """
        with self._alone(run_id):
            row, hold = await self._held(self._holds.let_go, self._holds.take, run_id)
            try:
                require_going_on(row)
                await self._fence(row, hold)
                await self._fit(row, work, hold)  # before anything is decided for what cannot go on
                waited = row["status"] == "interrupted"
                row, hold = await self._ledger.do(self._holds.decide, row, decisions, by, work.tools)
                if decisions and waited and row["status"] != "queued":  # stopped, or not all is decided
                    await self._ledger.do(self._holds.let_go, row, hold)
                    return await self._ledger.do(self._records.show, row)
                given = await self._input(row, work)
                if isinstance(given, Ending) and row["status"] == "interrupted":
                    raise _waits(row, given)
                await self._ledger.do(self._holds.resume, row, by)
            except BaseException:
                await self._ledger.do(self._holds.let_go, row, hold)
                raise

            async def go(context: RunContext) -> Ending:
                return await _executed(work, context, given)

            return await self._execute(row, hold, go, listener)

    async def cancel(self, run_id: str, by: str) -> None:
        """End a run: at once where it waits, with its execution where it is executed here.

        Whoever executes it elsewhere is refused every further call, and hears of it within a second.
        """
        if await self._ledger.do(self._holds.cancel, run_id, by):
            return
        if run_id in self._executing:
            execution = self._executing[run_id]
            execution.task.cancel()
            await execution.ended.wait()
            return
        with suppress(ConflictError), self._alone(run_id):
            row, hold = await self._held(self._holds.let_go, self._holds.take, run_id)
            ending = Ending(status="cancelled", cause=f"cancelled by {by}", output=row["output"])
            await self._ledger.do(self._holds.end, row, hold, ending)

    async def stay_alive(self) -> None:
        """Renew this process's holds, and give up what others left open; until cancelled."""
        while True:
            await asyncio.sleep(self._config.lease_s / 3)
            with whatever_happens("a sign of life"):  # the other runs still need theirs
                if self._executing:
                    await self._ledger.do(self._gates.renew, self.holder, self._config.lease_s)
                for kept in list(self._ledgers.values()):
                    await kept.keep()
                await self._ledger.do(self._ledger.ledger.reap, skew_s=SKEW_S)

    async def hear(self) -> None:
        """Break off what others cancel; until cancelled."""
        while True:
            await asyncio.sleep(HEAR_S)
            with whatever_happens("hearing of cancellations"):
                for run_id in await self._ledger.do(self._gates.cancelled, self.holder) if self._executing else ():
                    if run_id in self._executing:
                        self._executing[run_id].task.cancel()

    async def close(self) -> None:
        """Break off what is executed; it can be resumed."""
        executing = list(self._executing.values())
        for one in executing:
            one.task.cancel()
        for one in executing:
            await one.ended.wait()
        await self._side_loop.cancel()

    @contextmanager
    def _alone(self, run_id: str) -> Iterator[None]:
        """Let nobody else take the run up in this process; the hold on it is the process's."""
        if run_id in self._taken:
            raise ConflictError(f"run {run_id} is being executed already", next_step=f"bursar runs show {run_id}")
        self._taken.add(run_id)
        try:
            yield
        finally:
            self._taken.remove(run_id)

    async def _held(
        self, undo: Callable[[Record, Hold], Any], take: Callable[P, tuple[Record, Hold]], *args: P.args, **kw: P.kwargs
    ) -> tuple[Record, Hold]:
        """Take a run; where the caller goes away meanwhile, what was taken is given up."""
        future = self._ledger.soon(take, *args, **kw)
        try:
            return await asyncio.shield(asyncio.wrap_future(future))
        except asyncio.CancelledError:
            self._ledger.soon(_undone, future, undo)
            raise

    async def _fence(self, row: Record, hold: Hold) -> None:
        """Whoever held the run before writes no checkpoint any more."""
        await self._checkpoints.for_tenant(row["tenant"]).afence(row["id"], hold.epoch)

    async def _fit(self, row: Record, work: Work, hold: Hold) -> None:
        """Bring what a run was into the shape that its graph has now."""
        said = await fit(work, graph_config(row["id"], row["tenant"], hold.epoch))
        if said:
            await self._ledger.do(self._records.note, row["id"], said)

    async def _poisoned(self, row: Record, work: Work) -> Ending | None:
        """The end of a run that has come no further in so many take-overs; None where it may be tried again."""
        snapshot = await work.graph.aget_state(graph_config(row["id"], row["tenant"]))
        checkpoint = str(snapshot.config["configurable"].get("checkpoint_id", ""))
        times = await self._ledger.do(self._records.taken_over, row["id"], checkpoint)
        if times < TAKEOVERS_MAX:
            return None
        cause = f"its worker died {times} times in a row without any progress, so it is not tried again"
        return Ending(status="failed", cause=cause, output=work.output(snapshot.values), interrupts=None)

    async def _input(self, row: Record, work: Work) -> Any:
        """What the graph goes on with: answers to what it asks now, or nothing; before its first checkpoint its input.

        An `Ending` where it does nothing but ask what is still open.
        """
        require_kept(row)
        config = graph_config(row["id"], row["tenant"])
        snapshot = await work.graph.aget_state(config)
        if not snapshot.created_at:
            return work.serde.loads_typed((row["input_type"], row["input"]))
        if not snapshot.next and row["status"] == "stopped":
            raise ConflictError(f"run {row['id']} has given its last answer; start a new one")
        if not snapshot.interrupts:
            return None  # at the graph's end too: whoever executed it died before it wrote the ending down
        pending = {one.id for one in snapshot.interrupts}
        answers = await self._ledger.do(self._escalations.answers, row["id"], pending)
        if not answers and all(task.interrupts or task.result is not None for task in snapshot.tasks):
            return await at_rest(work, config)
        return Command(resume=answers)  # never None: LangGraph would take an answer to one thing for another's

    async def _execute(
        self,
        row: Record,
        hold: Hold,
        go: Callable[[RunContext], Coroutine[Any, Any, Ending]],
        listener: Listener | None,
        broken: Broken = _ITS_CALLERS,
    ) -> Run:
        run_id = row["id"]
        context = self.contexts.of_run(row, hold, listener)
        context.tell("started")
        execution = _Execution(task=asyncio.create_task(go(context)))
        self._executing[run_id] = execution
        self._ledgers[run_id] = context.ledger
        try:
            ending = await self._ending(execution.task, run_path(row), broken)
            await context.ledger.end()
            return await context.ledger.do(self._holds.end, row, hold, ending)
        except asyncio.CancelledError:
            context.ledger.break_up()
            self._ledger.keep(self._holds.end, row, hold, broken.gone)
            raise
        except LedgerUnavailable:
            context.ledger.break_up()
            self._ledger.keep(self._holds.end, row, hold, broken.away)
            raise
        except BaseException:
            context.ledger.break_up()
            self._ledger.keep(self._gates.let_go, run_path(row), hold.epoch)
            raise
        finally:
            del self._executing[run_id], self._ledgers[run_id]
            execution.ended.set()

    async def _ending(self, task: asyncio.Task[Ending], path: str, broken: Broken) -> Ending:
        """How the execution ended; where the caller is cancelled, the execution is too, and the run can be resumed."""
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            await ended_after_cancel(task)
            raise
        if task.cancelled():
            return _CANCELLED if await self._ledger.do(self._gates.is_cancelled, path) else broken.closed
        error = task.exception()
        if isinstance(error, BursarError) and not isinstance(error, LedgerError):  # before the graph was executed
            return Ending(status="failed", cause=str(error), interrupts=None, error=error)
        return task.result()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Execution:
    task: asyncio.Task[Ending]
    ended: asyncio.Event = field(default_factory=asyncio.Event)


def require_going_on(row: Record) -> None:
    """Raise ConflictError for a run that has come to its end."""
    if row["status"] in ("succeeded", "cancelled"):
        raise ConflictError(f"run {row['id']} has ended ({row['status']}); start a new one")


def _waits(row: Record, ending: Ending) -> UsageError:
    asked = ", ".join(one.id for one in ending.interrupts or ())
    return UsageError(f"run {row['id']} waits: {ending.cause}", next_step=f"resume it with a decision for {asked}")


async def _executed(work: Work, context: RunContext, given: Any) -> Ending:
    if isinstance(given, Ending):
        return given
    await context.ledger.begin()
    await context.calls.begin(context)
    return await execute(work, context, given)


def _undone(taken: Future[tuple[Record, Hold]], undo: Callable[[Record, Hold], Any]) -> None:
    # On the ledger's thread, so after the take.
    if not taken.cancelled() and taken.exception() is None:
        undo(*taken.result())


@contextmanager
def whatever_happens(what: str) -> Iterator[None]:
    """Go on after any error: the next time may do better."""
    try:
        yield
    except LedgerError as error:
        _log.warning("%s", error)
    except Exception:
        _log.exception("%s failed", what)


async def ended_after_cancel(task: asyncio.Future[Any]) -> None:
    """Cancel a task and wait for its end, however often the waiting itself is cancelled (anyio does so)."""
    task.cancel()
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([task])
