"""One live line while a run goes on: step, tier, model, spent of limit, and what is being done."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from bursar.budget.budgets import BudgetLine
from bursar.budget.errors import LedgerUnavailable
from bursar.budget.ledger import Ledger
from bursar.budget.money import format_usd
from bursar.runtime.cli.output import console
from bursar.runtime.cli.words import plain
from bursar.runtime.events import Event

__all__ = ["Progress"]

FRAMES_PER_S = 8

_MOVES = ("started", "reply", "failed", "result")
"""Events after which the balance may be another."""


class Progress:
    """Shown on a terminal's stderr and gone at the end; where stderr is no terminal, nothing is shown."""

    def __init__(self, ledger: Ledger, tenant: str) -> None:
        self._ledger = ledger
        self._tenant = tenant
        self._path = ""
        self._balance: BudgetLine | None = None
        self._where = ""
        self._doing = "starting"
        self._said = ""
        self._live = Live(self, console=console(stderr=True), transient=True, refresh_per_second=FRAMES_PER_S)
        self._spinner = Spinner("dots", style="cyan")

    def __enter__(self) -> Self:
        if self._live.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    async def tell(self, event: Event) -> None:
        """Take in what happened."""
        if not self._live.is_started:
            return
        if event.kind == "started":
            self._path = f"{self._tenant}/{event.agent}/{event.run_id}"
        if event.kind in _MOVES:
            await self._look()
        if event.kind == "call":
            self._where, self._said = f"{event.tier}/{event.model}", ""
        if event.kind == "token":
            self._said += event.text
        self._doing = self._what(event) or self._doing

    @staticmethod
    def _what(event: Event) -> str:
        return {
            "call": "asking the model",
            "failed": f"failed, trying on: {event.text}",
            "waiting": f"waiting for calls in flight of {event.text}",
            "pause": f"{event.model} is asked again in {event.text}",
            "tool": f"calling {event.text}",
            "away": "waiting for the ledger",
            "back": "going on",
            "limit": "reached a limit",
        }.get(event.kind, "")

    async def _look(self) -> None:
        try:
            lines = await asyncio.to_thread(self._ledger.budgets.ls, self._path, runs=True)
        except LedgerUnavailable:
            return  # the run bears it, and so does whoever watches
        self._balance = next((line for line in lines if line.path == self._path), None)

    def __rich__(self) -> Table:
        """What is shown now."""
        room = self._live.console.width - 3
        view = Table.grid(padding=(0, 1))
        view.add_row(self._spinner, _cut("  ".join(filter(None, [*self._spent(), self._where, self._doing])), room))
        if self._said:
            view.add_row("", _cut(self._said.replace("\n", " ")[-room:], room, style="dim"))
        return view

    def _spent(self) -> list[str]:
        if self._balance is None:
            return []
        posted, limit = self._balance.posted, self._balance.limit
        of_steps = "" if limit["steps"] is None else f" of {limit['steps']}"
        of_money = "" if limit["nanousd"] is None else f" of {format_usd(limit['nanousd'])}"
        step = posted.steps + 1 if limit["steps"] is None else min(posted.steps + 1, limit["steps"])
        return [f"step {step}{of_steps}", f"{format_usd(posted.nanousd)}{of_money}"]


def _cut(text: str, width: int, *, style: str = "") -> Text:
    cut = Text(plain(text), style=style, no_wrap=True)
    cut.truncate(max(8, width), overflow="ellipsis")
    return cut
