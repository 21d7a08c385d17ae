"""What is asked of a person, as LangGraph interrupts: more at a limit, or leave for an action."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from langgraph.errors import GraphInterrupt
from langgraph.types import interrupt

from bursar.runtime.context import RunContext
from bursar.runtime.stop import Asked, LimitReached

__all__ = ["ask_for_approval", "ask_for_more", "digest_of"]


def ask_for_more(run: RunContext, stop: LimitReached) -> None:
    """Interrupt the run at a limit; returns once more was granted, and raises `stop` where a person says stop.

    Where the run's policy is not to escalate, `stop` is raised at once. Called again in the same task after a grant
    that was too small, it asks anew.
    """
    if run.on_limit != "escalate" or stop.refusal.cause not in ("limit", "stopped", "deadline"):
        raise stop
    refusal = stop.refusal
    run.tell("interrupt", text=refusal.words())
    question = {
        "reason": "budget",
        "words": refusal.words(),
        "refusal": refusal.to_record(),
        "allowed": ["grant", "stop"],
    }
    try:
        decision = interrupt(question)
    except GraphInterrupt as asked:
        raise Asked(*asked.args) from None
    if decision["type"] != "grant":
        raise stop


def ask_for_approval(run: RunContext, name: str, arguments: Mapping[str, Any], call_id: str) -> Mapping[str, Any]:
    """Interrupt before an action; returns the decision: approve, edit, reject or respond."""
    run.tell("interrupt", text=name)
    decision: Mapping[str, Any] = interrupt(
        {
            "reason": "approval",
            "words": f"{run.scope.agents[-1]} wants to call {name}",
            "tool": name,
            "args": dict(arguments),
            "tool_call_id": call_id,
            "digest": digest_of(name, arguments),
            "allowed": ["approve", "edit", "reject", "respond"],
        }
    )
    return decision


def digest_of(name: str, arguments: Mapping[str, Any]) -> str:
    """What a decision is bound to: the exact action, as 64 hexadecimal digits."""
    text = json.dumps([name, arguments], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
