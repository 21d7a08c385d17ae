"""Whether a decision fits what was asked; known from the escalation alone, without the agent's code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jsonschema.exceptions import best_match
from referencing.exceptions import Unresolvable
from sqlalchemy import RowMapping

from bursar.budget.errors import UsageError
from bursar.runtime.escalations.digest import action_digest
from bursar.runtime.escalations.granting import amounts_of, seconds_of
from bursar.runtime.escalations.records import Decision
from bursar.tools.arguments import schema_validator

__all__ = ["fitted", "in_words", "type_of"]


def type_of(decision: Decision) -> str | None:
    """The type of a decision; None for an answer that has none."""
    return decision.get("type") if isinstance(decision, Mapping) else None


def fitted(row: RowMapping, decision: Decision) -> Decision:
    """The decision as it is kept; an edit with the digest of the edited action. Raises UsageError where it is none."""
    allowed, form = json.loads(row["allowed"]), json.loads(row["form"] or "null")
    what, payload = f"escalation {row['id']}", json.loads(row["payload"])
    _require_json(what, decision)
    if not allowed:
        return _answer(what, decision, form)
    kind = type_of(decision)
    if kind not in allowed:
        words = f"{what}: {in_words(decision)} is no decision on it; it takes {', '.join(allowed)}"
        raise UsageError(words, next_step=f"bursar inbox show {row['id']}")
    if kind == "edit":
        return _edit(decision, payload, form)
    if kind == "grant":
        _require_some(row, decision)
    if kind == "respond" and "message" not in decision:
        raise UsageError(f"{what}: a response needs a message", next_step='{"type": "respond", "message": "..."}')
    if kind == "respond" and "tool" not in payload:
        _answer(what, decision["message"], form)
    return dict(decision)


def _require_some(row: RowMapping, decision: Mapping[str, Any]) -> None:
    if not amounts_of(decision) and not seconds_of(decision):
        raise UsageError("a grant of nothing", next_step=f"bursar inbox show {row['id']}")


def in_words(decision: Decision) -> str:
    """A decision as histories keep it: `reject (message: it was delivered)`."""
    if type_of(decision) is None:
        return json.dumps(decision, default=str)
    details = ", ".join(
        f"{key}: {value if isinstance(value, str) else json.dumps(value, default=str)}"
        for key, value in decision.items()
        if key not in ("type", "tool", "digest")
    )
    return f"{decision['type']} ({details})" if details else str(decision["type"])


def _require_json(what: str, decision: Decision) -> None:
    try:
        json.dumps(decision, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{what}: a decision is plain JSON: {error}") from None


def _answer(what: str, answer: Any, form: Mapping[str, Any] | None) -> Any:
    if form is not None and (wrong := _complaint(form, answer)):
        raise UsageError(f"{what}: the answer does not fit the form: {wrong}")
    return answer


def _edit(decision: Mapping[str, Any], payload: Mapping[str, Any], form: Mapping[str, Any] | None) -> Decision:
    """The edited action; as we write it, or as LangChain does, with `edited_action`."""
    tool, edited = payload["tool"], decision.get("edited_action") or {}
    args = edited.get("args", decision.get("args")) if isinstance(edited, Mapping) else None
    if not isinstance(args, Mapping):
        raise UsageError(f"edit of {tool}: expected its arguments", next_step='{"type": "edit", "args": {...}}')
    if edited.get("name", tool) != tool:
        raise UsageError(f"edit of {tool}: expected the same tool, not {edited['name']}")
    if form is not None and (wrong := _complaint(form, args)):
        raise UsageError(f"edit of {tool}: {wrong}")
    return {"type": "edit", "tool": tool, "args": args, "digest": action_digest(tool, args)}


def _complaint(form: Mapping[str, Any], value: Any) -> str:
    """What does not fit, with the key; empty where all does."""
    try:
        found = best_match(schema_validator("-", form).iter_errors(value))
    except (UsageError, RecursionError, Unresolvable):  # it never leads to the network
        return "nothing can be checked by it, as it is no JSON Schema of its own"
    if found is None:
        return ""
    return f"{found.json_path.removeprefix('$.')}: {found.message}" if found.path else found.message
