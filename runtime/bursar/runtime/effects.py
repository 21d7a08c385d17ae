"""Tools act at most once: each call is journaled before and after, and what is in doubt is asked for, not repeated."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any

from langgraph.errors import GraphBubbleUp, GraphInterrupt

from bursar.budget.refusal import Refusal
from bursar.budget.reservations import Call
from bursar.runtime.context import RunContext
from bursar.runtime.escalations.asking import ask_person
from bursar.runtime.ledger_thread import LedgerThread
from bursar.tools.approval import verdict_on
from bursar.tools.declared import Tool
from bursar.tools.journal import Done, EffectId, EffectJournal, Fresh, InDoubt
from bursar.tools.key import keyed
from bursar.tools.result import ToolResult, describe_error

__all__ = ["Effects"]

_log = logging.getLogger("bursar.runtime")

LEFT_IN_DOUBT = "it is not known whether this was done: it was cut off, and a person has left it so. Do not repeat it"
"""What the model is told of a call that nobody settles."""


class Effects:
    """Lets the tools of one process act."""

    def __init__(
        self,
        journal: EffectJournal,
        ledger: LedgerThread,
        stop: Callable[[RunContext, Refusal], Awaitable[BaseException]],
        *,
        random_hex: Callable[[int], str] = secrets.token_hex,
    ) -> None:
        """`stop` turns a refusal into what is raised for it."""
        self._journal = journal
        self._ledger = ledger
        self._stop = stop
        self._random_hex = random_hex
        self._going_on: dict[EffectId, Future[ToolResult]] = {}

    async def act(
        self, run: RunContext, tool: Tool, arguments: Mapping[str, Any], call: Call
    ) -> tuple[ToolResult, bool]:
        """What came of the call, and whether that is known. A tool that only reads is simply called.

        Interrupts where only a person can know. Raises LimitReached where the run may not act, LedgerUnavailable where
        that cannot be written down.
        """
        if tool.effect == "none":
            with run.entered(), keyed(call.id):
                return await tool.call(arguments), True
        its, attempt = EffectId.of(call), self._random_hex(8)
        begun = await self._begun(run, tool, call, its, attempt)
        while isinstance(begun, InDoubt):
            if not await self._settled(run, tool, arguments, its, begun):
                return ToolResult(LEFT_IN_DOUBT, is_error=True), False
            begun = await self._begun(run, tool, call, its, attempt)
        if isinstance(begun, Done):
            return begun.result, True
        return await self._acted(run, tool, arguments, its, attempt, begun.key), True

    async def _begun(
        self, run: RunContext, tool: Tool, call: Call, its: EffectId, attempt: str
    ) -> Fresh | Done | InDoubt:
        try:
            begun = await run.ledger.do(
                self._journal.begin,
                call,
                tool.name,
                attempt=attempt,
                forked_from=run.lineage.runs if run.lineage else (),
            )
        except BaseException:  # it may be written down, and surely is not acted on
            self._ledger.keep(self._journal.withdraw, its, attempt=attempt)
            raise
        if isinstance(begun, Refusal):
            raise await self._stop(run, begun)
        return begun

    async def _acted(
        self, run: RunContext, tool: Tool, arguments: Mapping[str, Any], its: EffectId, attempt: str, key: str
    ) -> ToolResult:
        try:
            with run.entered(), keyed(key):
                result = await tool.call(arguments, late=partial(self._goes_on, its, attempt))
        except GraphInterrupt:  # the tool itself asks a person, and runs again from its top
            await run.ledger.record(partial(self._journal.withdraw, its, attempt=attempt), None)
            raise
        await run.ledger.record(partial(self._finish, its, attempt, result), None)
        return result

    async def _settled(
        self, run: RunContext, tool: Tool, arguments: Mapping[str, Any], its: EffectId, doubt: InDoubt
    ) -> bool:
        """Whether the doubt is settled: by the call itself, by the tool's check, or by a person."""
        going_on = self._going_on.get(its)
        if going_on is not None:
            ended = asyncio.wrap_future(going_on)
            await asyncio.wait([ended])
            ended.exception()  # what it raised is no news to anybody here
            return True
        failed = None
        if tool.effect_check is not None and not doubt.asked:
            failed = await self._checked(run, tool, its, doubt)
            if failed is None:
                return True
        await run.ledger.do(self._journal.doubt, its, attempt=doubt.attempt)
        decision = _ask(run, tool, arguments, doubt, failed)
        if decision["type"] == "reject":
            return False
        result = ToolResult(str(decision.get("message") or "")) if decision["type"] == "respond" else None
        await run.ledger.do(self._journal.settle, its, replace(doubt, asked=True), result=result, by="person")
        return True

    async def _checked(self, run: RunContext, tool: Tool, its: EffectId, doubt: InDoubt) -> str | None:
        """Settle it by the tool's own check; why that failed, or None."""
        try:
            with run.entered(), keyed(doubt.key):
                result = await tool.happened(doubt.key)
        except GraphBubbleUp:
            raise
        except Exception as error:  # a team's own check may raise anything
            return describe_error(error)
        await run.ledger.do(self._journal.settle, its, doubt, result=result, by="check")
        return None

    def _goes_on(self, its: EffectId, attempt: str, call: Future[ToolResult]) -> None:
        """Remember a plain function whose call was cancelled; it cannot be stopped, and says itself how it ended."""
        if call.cancelled():
            self._ledger.keep(self._journal.withdraw, its, attempt=attempt)
            return
        self._going_on[its] = call
        call.add_done_callback(partial(self._ended, its, attempt))

    def _ended(self, its: EffectId, attempt: str, call: Future[ToolResult]) -> None:
        with contextlib.suppress(RuntimeError):  # the runtime is closed, and it stays in doubt
            if call.exception() is None:
                self._ledger.keep(self._finish, its, attempt, call.result())
        self._going_on.pop(its, None)

    def _finish(self, its: EffectId, attempt: str, result: ToolResult) -> None:
        if not self._journal.finish(its, result, attempt=attempt):
            _log.warning("effect %s of run %s ended after it was settled otherwise", its.key, its.run_id)


def _ask(
    run: RunContext, tool: Tool, arguments: Mapping[str, Any], doubt: InDoubt, failed: str | None
) -> Mapping[str, Any]:
    return ask_person(
        run,
        reason="in_doubt",
        words=f"{tool.name} was cut off, and nobody knows whether it happened",
        # Not an action to be approved as such: the answer is about this attempt.
        payload={
            "tool": tool.name,
            "arguments": dict(arguments),
            "idempotency_key": doubt.key,
            "attempt": doubt.attempt,
        },
        allowed=["approve", "respond", "reject"],
        amount_nanousd=verdict_on(tool.approval, arguments)["amount_nanousd"],
        evidence=[{"check": f"its own check failed: {failed}"}] if failed else (),
    )
