"""Spending that is over at once: tool calls of a scope, as many as are asked for, or none."""

from __future__ import annotations

import itertools

from bursar.budget import Call, Ledger, Limits, Replay, Reservation, Scope, ToolQuote

__all__ = ["Spender"]


class Spender:
    """Charges tool calls to a scope, whose run it opens without a limit."""

    def __init__(self, ledger: Ledger, scope: Scope, *, node: str = "tool") -> None:
        ledger.gates.open(scope, Limits.unlimited())
        self._ledger, self._scope, self._node = ledger, scope, node
        self._numbers = itertools.count()

    def __call__(self, tool_calls: int = 1) -> bool:
        """Whether so many were admitted, and so charged, in one call."""
        call = Call(id=f"spent {next(self._numbers)}", scope=self._scope, epoch=0, node=self._node)
        made = self._ledger.charge(call, ToolQuote(tool_calls=tool_calls))
        assert not isinstance(made, Replay)
        return isinstance(made, Reservation)
