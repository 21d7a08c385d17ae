"""How a limit stops a graph: an exception that LangChain's retry, fallback and tool middleware let through."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.exceptions import ModelError
from langgraph.errors import GraphBubbleUp

from bursar.budget.errors import BursarError
from bursar.budget.refusal import Refusal
from bursar.runtime.models.causes import Cause, Failure, chief

__all__ = ["LimitReached", "ModelCallFailed", "NoRunError"]


class LimitReached(GraphBubbleUp, ModelError):
    """The ledger refused a reservation, so nothing was sent; the run is stopped until more is granted.

    A GraphBubbleUp, because a RuntimeError is retried or answered by LangChain's middleware and cancels siblings in
    flight; a ModelError, because LangChain's summarizer retries every other, with pauses of seconds. A bare
    `except Exception` still catches it; that changes nothing, since the ledger keeps the stop.
    """

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        super().__init__(refusal.words())

    @property
    def is_paused(self) -> bool:
        """Whether a person holds the run up: it is not at its end, and gives no last answer."""
        return self.refusal.cause == "paused"


class ModelCallFailed(BursarError):
    """No model that may take the call answered it."""

    def __init__(self, message: str, *, failures: Sequence[Failure] = (), next_step: str | None = None) -> None:
        """`failures` are those of single models, in the order in which they were tried."""
        self.failures = tuple(failures)
        super().__init__(message, next_step=next_step)

    @property
    def cause(self) -> Cause | None:
        """Why it failed, which says the HTTP status too; None where no model was tried."""
        return chief(self.failures)

    @property
    def retry_after_s(self) -> float | None:
        """When it may go better: the shortest time that one of the models asked for; None where none did."""
        asked = [one.error.retry_after_s for one in self.failures if one.error.retry_after_s is not None]
        return min(asked, default=None)


class NoRunError(BursarError):
    """A model was called without a run around it."""
