"""When an agent's run asks a person of its own accord."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bursar.agents.tier import Judge
from bursar.budget.errors import UsageError

__all__ = ["Escalate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Escalate:
    """What goes to a person, beside approvals and limits. Raises UsageError for what cannot be."""

    failures: int | None = None
    """After so many failed tool calls in a row, or failed model calls in a row; None = never."""

    verify: Judge | Callable[[Mapping[str, Any]], bool] | None = None
    """A model, or a function of the last answer's message (OpenAI's shape), that says whether the answer will do. One
    that will not goes to a person; None = every answer will do."""

    def __post_init__(self) -> None:
        count = self.failures
        if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
            raise UsageError(f"Escalate: failures={count!r}, expected a whole number from 1 up, or None")
        if self.verify is not None and not isinstance(self.verify, Judge) and not callable(self.verify):
            raise UsageError(f"Escalate: verify={self.verify!r}, expected a Judge or a function of the answer")
