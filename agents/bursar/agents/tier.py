"""What a node may ask for: a tier by its name, `auto`, or a cascade."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from bursar.budget.errors import UsageError

__all__ = ["AUTO", "Accept", "Cascade", "Check", "Data", "Judge", "Tier"]

AUTO = "auto"
"""The tier that a classifier chooses (see `auto` in bursar.yaml)."""

Data = Literal[
    "any",  # the content may go to any model
    "local_only",  # the content may not leave the house: only local models are asked
]

Check = Literal[
    "schema",  # the answer obeys the call's response_format
    "tools",  # every tool call names an offered tool, with arguments that fit its schema
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """A model that says whether an answer will do; its call is paid by the run like any other."""

    tier: str = "small"
    question: str = "Does the answer do fully and correctly what was asked?"
    max_output_tokens: int = 1_024
    """Its answer is a word, but many a model thinks first, and of what thinking leaves no room for nothing comes."""


Accept = Check | Judge | Callable[[Mapping[str, Any]], bool]
"""How an answer is verified: a check, a judge, or a function of the answer's message (OpenAI's shape)."""


@dataclass(frozen=True, slots=True)
class Cascade:
    """Ask the cheap tier first; where its answer is not accepted, the stronger one sees the attempt and answers.

    Raises UsageError for a tier that is empty or named twice, and for what cannot accept an answer.
    """

    first: str
    then: str
    accept: Accept = field(kw_only=True)

    def __post_init__(self) -> None:
        for name in (self.first, self.then):
            if not isinstance(name, str) or not name.strip() or name == AUTO:
                raise UsageError(
                    f"Cascade: {name!r}, expected the name of a tier",
                    next_step='Cascade("small", "frontier", accept="schema")',
                )
        if self.first == self.then:
            raise UsageError(f"Cascade: {self.first!r} stands twice; the second tier must be another")
        if self.accept not in get_args(Check) and not isinstance(self.accept, Judge) and not callable(self.accept):
            expected = ", ".join(repr(name) for name in get_args(Check))
            raise UsageError(f"Cascade: accept={self.accept!r}, expected {expected}, a Judge or a function")

    @property
    def verifier(self) -> str:
        """How an answer is verified, in a word that is the same in every process."""
        if isinstance(self.accept, Judge):
            return f"judge {self.accept.tier}"
        return self.accept if isinstance(self.accept, str) else str(getattr(self.accept, "__qualname__", "function"))

    def words(self) -> str:
        """The cascade, in words that are the same in every process."""
        asks = f": {self.accept.question}" if isinstance(self.accept, Judge) else ""
        return f"{self.first}, then {self.then}, by {self.verifier}{asks}"


Tier = str | Cascade
