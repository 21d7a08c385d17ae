"""How a limit stops a graph: an exception that LangChain's retry, fallback and tool middleware let through."""

from __future__ import annotations

from langchain_core.exceptions import ModelError
from langgraph.errors import GraphBubbleUp

from bursar.budget.errors import BursarError
from bursar.budget.refusal import Refusal

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


class ModelCallFailed(BursarError):
    """Every model of the tier failed."""


class NoRunError(BursarError):
    """A model was called without a run around it."""
