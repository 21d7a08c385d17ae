"""Leave for an action, asked of a person as a LangGraph interrupt.

More at a limit is not asked for so: LangGraph finds a task's answers by their order, and the answer to a question that
is not asked again would be taken for the next one's. `bursar.runtime.execution` asks once the graph has stopped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from langgraph.errors import GraphInterrupt
from langgraph.types import interrupt

from bursar.runtime.context import RunContext

__all__ = ["APPROVAL_KEYS", "ask_for_approval", "digest_of"]

APPROVAL_KEYS = frozenset({"reason", "words", "tool", "args", "tool_call_id", "digest", "allowed"})
"""The keys of an approval's payload; a graph's own question has others."""


def ask_for_approval(run: RunContext, name: str, arguments: Mapping[str, Any], call_id: str) -> Mapping[str, Any]:
    """Interrupt before an action; returns the decision: approve, edit, reject or respond."""
    question = {
        "reason": "approval",
        "words": f"{run.scope.agents[-1]} wants to call {name}",
        "tool": name,
        "args": dict(arguments),
        "tool_call_id": call_id,
        "digest": digest_of(name, arguments),
        "allowed": ["approve", "edit", "reject", "respond"],
    }
    try:
        decision: Mapping[str, Any] = interrupt(question)
    except GraphInterrupt:
        run.tell("interrupt", text=name)
        raise
    return decision


def digest_of(name: str, arguments: Mapping[str, Any]) -> str:
    """What a decision is bound to: the exact action, as 64 hexadecimal digits."""
    text = json.dumps([name, arguments], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
