"""The vector that every limit, hold and posting is measured in."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DIMENSIONS", "Amounts"]

DIMENSIONS = ("nanousd", "tokens", "steps", "tool_calls")
"""The dimensions of an amount, in the order in which they are checked and shown."""


@dataclass(frozen=True, slots=True)
class Amounts:
    """Money, tokens, steps and tool calls, held or spent together."""

    nanousd: int = 0
    """Integer of 1e-9 USD."""

    tokens: int = 0
    """Input and output tokens together."""

    steps: int = 0
    """Model calls that were sent and may have been billed."""

    tool_calls: int = 0
    """Tool executions."""

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(
            self.nanousd + other.nanousd,
            self.tokens + other.tokens,
            self.steps + other.steps,
            self.tool_calls + other.tool_calls,
        )

    def __sub__(self, other: Amounts) -> Amounts:
        return Amounts(
            self.nanousd - other.nanousd,
            self.tokens - other.tokens,
            self.steps - other.steps,
            self.tool_calls - other.tool_calls,
        )

    def __bool__(self) -> bool:
        return bool(self.nanousd or self.tokens or self.steps or self.tool_calls)
