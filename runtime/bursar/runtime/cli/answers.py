"""The commands that answer what a run asks, ready to be pasted whatever an agent wrote."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["answers"]

QUOTED_MAX = 300
"""How long the arguments are at most that a printed command repeats."""

_GRANTS = {
    "nanousd": "--usd 1",
    "tokens": "--tokens 100000",
    "steps": "--steps 20",
    "tool_calls": "--tool-calls 50",
    "seconds": "--seconds 600",
}


def answers(escalation: int, allowed: Sequence[str], payload: Mapping[str, Any]) -> list[str]:
    """A command for each decision that is allowed; the likeliest first, the one that lets nothing be done last."""
    commands = {
        "approve": f"approve {escalation}",
        "grant": f"grant {escalation} {_more(payload)}",
        "edit": f"edit {escalation} --args {_quoted(payload.get('args', {}))}",
        "respond": f'respond {escalation} "..."',
        "reject": f'reject {escalation} --reason "..."',
        "downgrade": f"downgrade {escalation}",
        "stop": f"stop {escalation}",
    }
    return [f"bursar inbox {line}" for kind, line in commands.items() if kind in (allowed or ["respond"])]


def _more(payload: Mapping[str, Any]) -> str:
    """Of what the limit that was reached is about."""
    refusal = payload.get("refusal")
    dimension = refusal.get("dimension") if isinstance(refusal, Mapping) else None
    return _GRANTS.get(str(dimension), _GRANTS["nanousd"])


def _quoted(arguments: Mapping[str, Any]) -> str:
    """Arguments as one word of a shell; none where they are too long to edit so."""
    text = json.dumps(arguments)
    return shlex.quote(text) if len(text) <= QUOTED_MAX else "'{...}'"
