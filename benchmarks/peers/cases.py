"""What is measured, and what a side must be able to do to take part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

__all__ = [
    "INPUT_USD_PER_MTOK",
    "OUTPUT_USD_PER_MTOK",
    "QUESTION",
    "QUESTION_TOKENS",
    "STREAM",
    "Case",
    "Side",
    "Stream",
    "cases",
    "nanousd",
]

Whose = Literal["tenant", "run"]

INPUT_USD_PER_MTOK = 1
OUTPUT_USD_PER_MTOK = 100
"""With 100 tokens of output, a call costs a cent."""

QUESTION = "Where is order 1001?"
QUESTION_TOKENS = 14
"""As the upstream bills it."""


def nanousd(input_tokens: int, output_tokens: int) -> int:
    """What the upstream charges, in 1e-9 USD."""
    return (input_tokens * INPUT_USD_PER_MTOK + output_tokens * OUTPUT_USD_PER_MTOK) * 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Calls under one limit."""

    name: str
    calls: int
    in_turn: bool = False
    """One call after another, in the place of all at once."""

    whose: Whose
    """Who has the limit: a tenant (in LiteLLM a key), or a run (an agent's session)."""

    limit_nanousd: int = 50_000_000
    """As it stands, worth four calls, and a fifth with an answer that is two tokens shorter."""

    steps: int | None = None
    """Limits the number of calls in the place of money."""

    max_tokens: int | None = 100
    priced: bool = True
    figure: Literal["spent / limit", "calls admitted"] = "spent / limit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Answers that their reader leaves in the middle."""

    calls: int = 5
    max_tokens: int = 400
    read_tokens: int = 40


STREAM = Stream()


class Side(Protocol):
    """One way to keep a budget in front of the upstream."""

    name: str

    async def spend(self, case: Case) -> None:
        """Make the calls of a case, under a limit that nothing was spent of; a refusal is no error."""

    async def abort(self, stream: Stream) -> int:
        """Leave each stream in the middle, and return the nano-USD that the books have for them afterwards."""

    async def call(self, calls: int, at_once: int) -> None:
        """Make short calls that fit their limits amply, so many at once."""

    def cpu_s(self) -> float:
        """CPU seconds, user and system, that this side's processes used since they began; the caller's too."""


_WHOSE: Mapping[Whose, str] = {"tenant": "a tenant's", "run": "a run's"}


def cases(*, many: int) -> list[Case]:
    """What is asked of a limit; `many` is the larger number of calls at once."""
    at_once = [
        Case(name=f"{_WHOSE[whose]} limit of $0.05, {calls} calls at once", calls=calls, whose=whose)
        for whose in _WHOSE
        for calls in (50, many)
    ]
    return [
        Case(name="a run's limit of $0.05, 10 calls in turn", calls=10, in_turn=True, whose="run"),
        *at_once,
        Case(name="a tenant's limit of $0.001, 50 calls at once", calls=50, whose="tenant", limit_nanousd=1_000_000),
        Case(name="a run's limit of 10 calls, 50 at once", calls=50, whose="run", steps=10, figure="calls admitted"),
        Case(
            name="a tenant's limit of $0.05, 50 calls, no max_tokens",
            calls=50,
            whose="tenant",
            max_tokens=None,
            figure="calls admitted",
        ),
        Case(
            name="a tenant's limit of $0.001, 30 calls, no price",
            calls=30,
            whose="tenant",
            limit_nanousd=1_000_000,
            priced=False,
            figure="calls admitted",
        ),
    ]
