"""The shapes in which graphs ask people, read into one, and what each is answered with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, get_args

from sqlalchemy import RowMapping

from bursar.budget.errors import UsageError
from bursar.budget.windows import to_us
from bursar.runtime.escalations.records import Asked, Decision, Reason

if TYPE_CHECKING:
    from langgraph.types import Interrupt as GraphInterrupt  # half of what listing the inbox would cost

__all__ = ["MARK", "answer", "each_part", "graph_id", "questions"]

MARK = "bursar"
"""The key by which a question of `ask_person` is known; its value is the reason."""

_KEYS = {MARK, "words", "payload", "allowed", "form", "amount_nanousd", "evidence", "node"}
_REASONS = set(get_args(Reason)) - {"budget"}  # only the ledger's refusal asks for more, never a graph
_CALL_KEYS = {"type", "tool_call_id", "name", "args", "description"}


def questions(found: GraphInterrupt) -> list[Asked]:
    """What a graph's interrupt asks: several actions are decided each on its own.

    Known are `ask_person`'s, LangChain's `HITLRequest` and tool approval, AG-UI's `Interrupt`; any other value is a
    question that any answer answers which fits the schema it was asked with.
    """
    try:
        known = _known(found)
    except (AttributeError, KeyError, TypeError):  # it only looks like one of these
        known = []
    return known or [_plain(found, str(found.value), _schema(found))]


def _known(found: GraphInterrupt) -> list[Asked]:
    value = found.value
    if isinstance(value, Mapping):
        if value.keys() == _KEYS and value[MARK] in _REASONS:
            return [_ours(found.id, value)]
        if value.keys() == {"action_requests", "review_configs"}:
            return _batch(found.id, value)
        if value.keys() == _CALL_KEYS and value["type"] == "tool_approval":
            return [_call(found)]
        if {"id", "reason"} <= value.keys() <= _AG_UI_KEYS:
            return [_ag_ui(found)]
    return []


def graph_id(interrupt_id: str) -> str:
    """The id of the graph's interrupt of which a question is a part."""
    return interrupt_id.partition(":")[0]


def each_part(decisions: Mapping[str, Decision], asked: Sequence[str]) -> Iterator[tuple[str, Decision]]:
    """The decisions by the id of what each is on, where some are LangChain's on all that one interrupt asks.

    Raises UsageError where there are more or fewer of them than it asks.
    """
    for key, decision in decisions.items():
        parts = [one for one in asked if ":" in one and graph_id(one) == graph_id(key)]
        if not parts or not isinstance(decision, Mapping) or decision.keys() != {"decisions"}:
            yield key, decision
            continue
        given = decision["decisions"]
        if not isinstance(given, list) or len(given) != len(parts):
            said = len(given) if isinstance(given, list) else type(given).__name__
            raise UsageError(f"interrupt {key} asks for {len(parts)} decisions, not {said}")
        yield from zip(parts, given, strict=True)


def answer(rows: Sequence[RowMapping], decisions: Sequence[Decision]) -> Any:
    """What a graph's interrupt is answered with, once all that it asks is decided; in the order of its questions."""
    kind = rows[0]["kind"]
    if kind == "bursar":
        return {**decisions[0], "asked": rows[0]["digest"]}
    if kind == "call":
        return _for_langchain(decisions[0])
    if kind == "batch":
        return {"decisions": [_for_langchain(one) for one in decisions]}
    return decisions[0]


def _ours(interrupt_id: str, value: Mapping[str, Any]) -> Asked:
    known = {key: value[key] for key in ("words", "payload", "allowed", "form", "amount_nanousd", "evidence", "node")}
    return Asked(id=interrupt_id, kind="bursar", reason=value[MARK], **known)


def _batch(interrupt_id: str, value: Mapping[str, Any]) -> list[Asked]:
    configs = {one["action_name"]: one for one in value["review_configs"]}
    asked = []
    for place, action in enumerate(value["action_requests"]):
        config = configs.get(action["name"], {})
        asked.append(
            Asked(
                id=f"{interrupt_id}:{place}",
                kind="batch",
                reason="approval",
                words=str(action.get("description") or f"wants to call {action['name']}"),
                payload={"tool": action["name"], "args": action["args"]},
                allowed=list(config.get("allowed_decisions", ("approve", "reject"))),
                form=config.get("args_schema"),
            )
        )
    return asked


def _call(found: GraphInterrupt) -> Asked:
    value = found.value
    types, form = _per_call(_schema(found) or {})
    return Asked(
        id=found.id,
        kind="call",
        reason="approval",
        words=value["description"] or f"wants to call {value['name']}",
        payload={"tool": value["name"], "args": value["args"], "tool_call_id": value["tool_call_id"]},
        allowed=types,
        form=form,
    )


def _per_call(schema: Mapping[str, Any]) -> tuple[list[str], Mapping[str, Any] | None]:
    """The types of decision that LangChain's answer schema allows, and the schema of edited arguments."""
    definitions = schema.get("$defs", {})
    branches = [_resolved(one, definitions) for one in schema.get("oneOf", [schema])]
    types, form = [], None
    for branch in branches:
        properties = branch.get("properties", {})
        types.append(properties.get("type", {}).get("const", "approve"))
        if "edited_action" in properties:
            edited = _resolved(properties["edited_action"], definitions)
            form = {**_resolved(edited["properties"]["args"], definitions), "$defs": definitions}
    return types, form


def _resolved(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref")
    return definitions[reference.rpartition("/")[2]] if reference else schema


_AG_UI_KEYS = {
    *("id", "reason", "message", "metadata", "subagentRunId", "subagent_run_id"),
    *("toolCallId", "tool_call_id", "responseSchema", "response_schema", "expiresAt", "expires_at"),
}


def _ag_ui(found: GraphInterrupt) -> Asked:
    value = found.value
    schema = value.get("responseSchema") or value.get("response_schema") or _schema(found)
    expires = value.get("expiresAt") or value.get("expires_at")
    return Asked(
        id=found.id,
        kind="plain",
        reason="question",
        words=str(value.get("message") or value["reason"]),
        payload={"value": _as_json(value)},
        form=schema,
        expires_us=None if expires is None else _moment(expires),
    )


def _moment(text: object) -> int | None:
    """An ISO 8601 moment with its zone; what is none sets no deadline, as AG-UI leaves its form open."""
    try:
        at = datetime.fromisoformat(str(text))
        return None if at.tzinfo is None else to_us(at.astimezone(UTC))
    except (ValueError, OverflowError):
        return None


def _plain(found: GraphInterrupt, words: str, form: Mapping[str, Any] | None) -> Asked:
    payload = {"value": _as_json(found.value)}
    return Asked(id=found.id, kind="plain", reason="question", words=words, payload=payload, form=form)


def _as_json(value: Any) -> Any:
    """A graph's own value as JSON has it; what that has not, keys too, as Python writes it."""
    if isinstance(value, Mapping):
        return {str(key): _as_json(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(one) for one in value]
    return value if value is None or isinstance(value, (str, int, float)) else str(value)


def _schema(found: GraphInterrupt) -> Mapping[str, Any] | None:
    return found.response_schema if isinstance(found.response_schema, dict) else None


def _for_langchain(decision: Mapping[str, Any]) -> Mapping[str, Any]:
    if decision["type"] == "edit":
        return {"type": "edit", "edited_action": {"name": decision["tool"], "args": decision["args"]}}
    return {key: decision[key] for key in ("type", "message") if decision.get(key)}
