"""Who executes a run: this process, under a hold on the run that other processes respect.

A hold ends by itself when its process falls silent; whoever takes the run over then has a higher epoch, and the ledger
refuses every reservation of a lower one.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from langgraph.types import Command

from bursar.budget.errors import ConflictError, LedgerError, LedgerUnavailable
from bursar.budget.gate import Hold
from bursar.budget.limits import COUNT_MAX
from bursar.budget.scope import Scope
from bursar.memory import CheckpointSaver
from bursar.runtime.config import Config
from bursar.runtime.context import RunContext
from bursar.runtime.decisions import Decision, grant, in_words
from bursar.runtime.events import Event
from bursar.runtime.execution import Ending, execute, graph_config
from bursar.runtime.lease import Lease, terms_of
from bursar.runtime.ledger_thread import LedgerThread
from bursar.runtime.paid_call import PaidCalls
from bursar.runtime.run_ledger import RunLedger
from bursar.runtime.runs.records import Record, Records, interrupts_as_json, run_path
from bursar.runtime.runs.run import Interrupt, Run
from bursar.runtime.side_loop import SideLoop
from bursar.runtime.tenants import organisation_of, tiers_of
from bursar.runtime.work import Work

__all__ = ["Engine", "Listener", "Resumption", "ended_after_cancel"]

Listener = Callable[[Event], None]

STANDING_WAIT_S = 2.0
"""The longest that a call outside of any execution waits for the ledger: its caller can come again."""

_log = logging.getLogger("bursar.runtime")

_GONE = Ending(status="interrupted", cause="its caller went away; resume it to go on", interrupts=None)
_CLOSED = Ending(status="interrupted", cause="the runtime was closed; resume it to go on", interrupts=None)
_AWAY = Ending(status="interrupted", cause="the ledger could not be used; resume it to go on", interrupts=None)
_CANCELLED = Ending(status="cancelled", cause="somebody cancelled it")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumption:
    """How a run goes on: from the state in which it was looked at, with decisions on its interrupts."""

    changed_us: int
    """When the run had last changed when the decisions were checked."""

    questions: Sequence[Interrupt]
    """What was open then."""

    new: Mapping[str, Decision]
    kept: Mapping[str, Decision]
    """Earlier decisions, also such as the graph has not taken in yet; a decision is final."""

    by: str

    @property
    def decisions(self) -> Mapping[str, Decision]:
        """All of them."""
        return {**self.new, **self.kept}

    @property
    def stops(self) -> bool:
        """Whether a person says that the run ends at its limit."""
        return any(one.reason == "budget" and self.new.get(one.id, {}).get("type") == "stop" for one in self.questions)


class Engine:
    """Executes runs in this process; one task for each, all on the caller's event loop."""

    def __init__(
        self,
        config: Config,
        ledger: LedgerThread,
        records: Records,
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
        self._calls = calls
        self._side_loop = side_loop
        self._checkpoints = checkpoints
        self._holder = holder
        self._clock = clock
        self._taken: set[str] = set()
        self._ledgers: dict[str, RunLedger] = {}
        self._executing: dict[str, tuple[asyncio.Task[Ending], asyncio.Event]] = {}

    async def begin(self, run_id: str, work: Work, given: Any, listener: Listener | None = None) -> Run:
        """Execute a run that was just admitted."""
        with self._alone(run_id):
            row, hold = await self._held(run_id, None)
            return await self._execute(row, hold, work, given, listener)

    async def resume(self, run_id: str, work: Work, resumption: Resumption, listener: Listener | None = None) -> Run:
        """Go on with a run.

        Raises ConflictError where it is executed already, here or elsewhere, where it changed meanwhile, or where it
        has ended.
        """
        with self._alone(run_id):
            row, hold = await self._held(run_id, resumption.changed_us)
            try:
                await self._fence(row, hold)
                if resumption.stops:
                    ending = Ending(status="stopped", cause=row["stop_reason"], output=row["output"])
                    return await self._ledger.do(self._end, row, hold, ending)
                given = await self._input(row, work, resumption.decisions)
                hold = await self._ledger.do(self._carry_out, row, hold, resumption)
            except BaseException:
                self._ledger.soon(self._gates.let_go, run_path(row), hold.epoch)
                raise
            return await self._execute(row, hold, work, given, listener)

    async def cancel(self, run_id: str, by: str) -> None:
        """End a run whose gate is closed: wait for its end where it is executed here, and write it where nobody does.

        Whoever executes it elsewhere hears of it with the next sign of life.
        """
        if run_id in self._executing:
            task, ended = self._executing[run_id]
            task.cancel()
            await ended.wait()
            return
        with suppress(ConflictError), self._alone(run_id):
            row, hold = await self._held(run_id, None)
            ending = Ending(status="cancelled", cause=f"cancelled by {by}", output=row["output"])
            await self._ledger.do(self._end, row, hold, ending)

    async def stay_alive(self) -> None:
        """Renew this process's holds, hear of cancellations, give up what others left open; until cancelled."""
        while True:
            await asyncio.sleep(self._config.lease_s / 3)
            try:
                if self._executing:
                    await self._ledger.do(self._gates.renew, self._holder, self._config.lease_s)
                    for run_id in await self._ledger.do(self._gates.cancelled, self._holder):
                        if run_id in self._executing:
                            self._executing[run_id][0].cancel()
                for kept in list(self._ledgers.values()):
                    await kept.keep()
                await self._ledger.do(self._ledger.ledger.reap)
            except LedgerError as error:
                _log.warning("%s", error)
            except Exception:  # whatever it is, the other runs still need their signs of life
                _log.exception("a sign of life failed")

    async def close(self) -> None:
        """Break off what is executed; it can be resumed."""
        executing = list(self._executing.values())
        for task, _ in executing:
            task.cancel()
        for _, ended in executing:
            await ended.wait()
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

    async def _held(self, run_id: str, changed_us: int | None) -> tuple[Record, Hold]:
        """`_take`; where the caller goes away meanwhile, what was taken is let go."""
        future = self._ledger.soon(self._take, run_id, changed_us)
        try:
            return await asyncio.shield(asyncio.wrap_future(future))
        except asyncio.CancelledError:
            self._ledger.soon(self._let_go, future)
            raise

    def _let_go(self, taken: Future[tuple[Record, Hold]]) -> None:
        # On the ledger's thread, so after the take.
        if not taken.cancelled() and taken.exception() is None:
            row, hold = taken.result()
            self._gates.let_go(run_path(row), hold.epoch)

    def _take(self, run_id: str, changed_us: int | None) -> tuple[Record, Hold]:
        """Hold a run, and close what earlier holders left open."""
        path = run_path(self._records.row(run_id))
        hold = self._gates.hold(path, self._holder, self._config.lease_s)
        row = self._records.row(run_id)
        if changed_us not in (None, row["changed_us"]):
            self._gates.let_go(path, hold.epoch)
            raise ConflictError(f"run {run_id} changed meanwhile", next_step=f"bursar runs show {run_id}")
        if hold.epoch > 1:
            self._ledger.ledger.reap(run_id)
        return row, hold

    def _carry_out(self, row: Record, hold: Hold, resumption: Resumption) -> Hold:
        """Grant what was granted, and write the decisions down; returns the hold, with the time granted too."""
        if row["status"] == "stopped":
            self._gates.reopen(run_path(row), author=resumption.by)
        said = ["resumed"]
        for asked in resumption.questions:
            given = resumption.new.get(asked.id)
            if given is None:
                continue
            said.append(f"{in_words(given)} on: {asked.words}")
            if asked.reason == "budget":
                self._grant(row, asked, given, resumption.by)
                hold = self._gates.hold(run_path(row), self._holder, self._config.lease_s)
        self._records.change(
            row["id"],
            "running",
            cause="; ".join(said),
            author=resumption.by,
            interrupts=interrupts_as_json([one for one in resumption.questions if one.id not in resumption.decisions]),
            decisions=json.dumps(resumption.decisions, default=str),
        )
        return hold

    def _grant(self, row: Record, asked: Interrupt, given: Mapping[str, Any], by: str) -> None:
        refusal = asked.payload["refusal"]
        grant(
            self._ledger.ledger,
            refusal["path"],
            run_path(row),
            given,
            by=by,
            note=f"for {row['id']}",
            per=refusal["per"],
            key=asked.id,  # a crash before the decision is written down must not grant it twice
        )

    async def _fence(self, row: Record, hold: Hold) -> None:
        """Whoever held the run before writes no checkpoint any more."""
        await self._checkpoints.for_tenant(row["tenant"]).afence(row["id"], hold.epoch)

    async def _input(self, row: Record, work: Work, decisions: Mapping[str, Decision]) -> Any:
        """What the graph goes on with: answers to what it asks now, or nothing; or its first input, before its first
        checkpoint.
        """
        snapshot = await work.graph.aget_state(graph_config(row["id"], row["tenant"]))
        if not snapshot.created_at:
            return work.serde.loads_typed((row["input_type"], row["input"]))
        if not snapshot.next and row["status"] == "stopped":
            raise ConflictError(f"run {row['id']} has given its last answer; start a new one")
        answers = {one.id: decisions[one.id] for one in snapshot.interrupts if one.id in decisions}
        if answers:
            return Command(resume=answers)
        return None  # at the graph's end too: whoever executed it died before it wrote the ending down

    async def _execute(self, row: Record, hold: Hold, work: Work, given: Any, listener: Listener | None) -> Run:
        run_id = row["id"]
        context = self._context(row, hold, listener)
        context.tell("started")
        task = asyncio.create_task(_executed(work, context, given))
        ended = asyncio.Event()
        self._executing[run_id] = (task, ended)
        self._ledgers[run_id] = context.ledger
        try:
            ending = await self._ending(task, run_path(row))
            await context.ledger.end()
            return await context.ledger.do(self._end, row, hold, ending)
        except asyncio.CancelledError:
            context.ledger.break_up()
            self._ledger.keep(self._end, row, hold, _GONE)
            raise
        except LedgerUnavailable:
            context.ledger.break_up()
            self._ledger.keep(self._end, row, hold, _AWAY)
            raise
        except BaseException:
            context.ledger.break_up()
            self._ledger.keep(self._gates.let_go, run_path(row), hold.epoch)
            raise
        finally:
            del self._executing[run_id], self._ledgers[run_id]
            ended.set()

    def standing(self, scope: Scope, *, tiers: tuple[str, ...] | None) -> RunContext:
        """The context of calls that no execution makes, such as those by a gateway's key.

        Nobody holds their run, whose gate must be open, and a limit refuses them one by one; where the tenant says
        `downgrade`, lower tiers are asked before that.
        """
        tenant = self._config.tenants.get(scope.tenant)
        return RunContext(
            scope=scope,
            epoch=0,
            thread_id=scope.run_id,
            on_limit="downgrade" if tenant is not None and tenant.on_limit == "downgrade" else "stop",
            max_output_tokens=COUNT_MAX,
            tiers=tiers,
            deadline=None,
            seconds=None,
            now=self._clock,
            calls=self._calls,
            ledger=RunLedger(self._ledger, wait_s=min(self._config.ledger.wait_s, STANDING_WAIT_S), tell=_nobody),
            side_loop=self._side_loop,
            sticky=False,
        )

    def _context(self, row: Record, hold: Hold, listener: Listener | None) -> RunContext:
        scope = Scope(
            tenant=row["tenant"],
            agents=(row["agent"],),
            run_id=row["id"],
            organisation=organisation_of(self._config, row["tenant"]),
            team=row["team"],
            user=row["user"],
            within=row["within"],
        )
        return RunContext(
            scope=scope,
            epoch=hold.epoch,
            thread_id=row["id"],
            on_limit=row["on_limit"],
            max_output_tokens=row["max_output_tokens"],
            tiers=tiers_of(self._config, row["tenant"]),
            deadline=hold.deadline,
            seconds=hold.seconds,
            now=self._clock,
            calls=self._calls,
            ledger=self._run_ledger(scope, hold, listener),
            side_loop=self._side_loop,
            emit=listener,
            on_delta=_teller(row["id"], listener) if listener else None,
        )

    def _run_ledger(self, scope: Scope, hold: Hold, listener: Listener | None) -> RunLedger:
        settings = self._config.ledger
        lease = None
        if settings.when_unreachable == "lease":
            lease = Lease(self._ledger.ledger.slices, scope, hold.epoch, terms_of(settings), clock=self._clock)

        def tell(kind: Literal["away", "back"], words: str) -> None:
            if listener is not None:
                listener(Event(kind=kind, run_id=scope.run_id, agent=scope.agents[-1], text=words))

        return RunLedger(self._ledger, wait_s=settings.wait_s, tell=tell, lease=lease)

    async def _ending(self, task: asyncio.Task[Ending], path: str) -> Ending:
        """How the execution ended; where the caller is cancelled, the execution is too, and the run can be resumed."""
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            await ended_after_cancel(task)
            raise
        if not task.cancelled():
            return task.result()
        return _CANCELLED if await self._ledger.do(self._gates.is_cancelled, path) else _CLOSED

    def _end(self, row: Record, hold: Hold, ending: Ending) -> Run:
        """Write down how the execution ended, unless another worker has the run now."""
        if self._gates.let_go(run_path(row), hold.epoch):
            looked: dict[str, Any] = (
                {} if ending.interrupts is None else {"interrupts": interrupts_as_json(ending.interrupts)}
            )
            self._records.change(row["id"], ending.status, cause=ending.cause, output=ending.output, **looked)
        return self._records.show(self._records.row(row["id"]), ending.value, ending.error)


async def _executed(work: Work, context: RunContext, given: Any) -> Ending:
    await context.ledger.begin()
    await context.calls.begin(context)
    return await execute(work, context, given)


async def ended_after_cancel(task: asyncio.Future[Any]) -> None:
    """Cancel a task and wait for its end, however often the waiting itself is cancelled (anyio does so)."""
    task.cancel()
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([task])


def _nobody(kind: Literal["away", "back"], words: str) -> None:
    """Whoever calls hears of it by the error."""


def _teller(run_id: str, listener: Listener) -> Callable[[Mapping[str, Any]], None]:
    def tell(delta: Mapping[str, Any]) -> None:
        if delta.get("content"):
            listener(Event(kind="token", run_id=run_id, text=str(delta["content"])))

    return tell
