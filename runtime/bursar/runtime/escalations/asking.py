"""Asking a person from within a graph, as a LangGraph interrupt.

More at a limit is not asked for so: LangGraph finds a task's answers by their order, and the answer to a question that
is not asked again would be taken for the next one's. `bursar.runtime.execution` asks once the graph has stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langgraph.errors import GraphInterrupt
from langgraph.types import interrupt

from bursar.runtime.context import RunContext, node_name
from bursar.runtime.escalations.digest import digest_of
from bursar.runtime.escalations.kinds import MARK
from bursar.runtime.escalations.records import Reason

__all__ = ["ask_person"]


def ask_person(
    run: RunContext,
    *,
    reason: Reason,
    words: str,
    payload: Mapping[str, Any],
    allowed: Sequence[str],
    form: Mapping[str, Any] | None = None,
    amount_nanousd: int | None = None,
    evidence: Sequence[Mapping[str, Any]] = (),
) -> Mapping[str, Any]:
    """Interrupt until people have decided; returns their decision, one of the `allowed` types.

    `payload` is what is decided on, plain JSON; for an action it has `tool` and `args`. `form` is the JSON Schema of
    edited arguments, or of a response. A decision on another payload than this is none: it is asked anew.
    """
    digest = digest_of(payload)
    question = {
        MARK: reason,
        "words": words,
        "payload": {**payload, "digest": digest},
        "allowed": list(allowed),
        "form": form,
        "amount_nanousd": amount_nanousd,
        "evidence": list(evidence),
        "node": node_name(),
    }
    try:
        decision: Mapping[str, Any] = interrupt(question)
        while decision.get("asked", digest) != digest:
            decision = interrupt(question)
    except GraphInterrupt:
        run.tell("interrupt", text=words)
        raise
    return {key: value for key, value in decision.items() if key != "asked"}
