"""The gateway's headers: what a caller says of its call, and what the answer says of its cost."""

from __future__ import annotations

import re
from collections.abc import Mapping

from bursar.budget.money import usd
from bursar.runtime.service.answered import Answered, Sent
from bursar.runtime.service.caller import Attribution, Caller
from bursar.runtime.service.errors import BadRequest

__all__ = ["attribution", "idempotency_key", "of_answer", "of_sent", "token_of"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_NAME_WORDS = "at most 64 letters, digits, `_`, `.` and `-`, the first a letter or a digit"

IDEMPOTENCY_KEY_CHARACTERS_MAX = 255

REASON_CHARACTERS_MAX = 256


def token_of(headers: Mapping[str, str]) -> str:
    """The key that a caller shows: OpenAI's `Authorization: Bearer`, or Anthropic's `x-api-key`; empty for none."""
    kind, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "").strip()


def attribution(headers: Mapping[str, str], caller: Caller) -> Attribution:
    """Where the call says that it belongs; raises BadRequest for what is no name, and for a foreign agent."""
    agent = _name(headers, "x-bursar-agent")
    if agent is not None and caller.agent is not None and agent != caller.agent:
        raise BadRequest(
            f"x-bursar-agent: this key belongs to agent {caller.agent}, and pays for no other",
            code="foreign_agent",
            param="x-bursar-agent",
        )
    node = _name(headers, "x-bursar-node")
    return Attribution(session=_name(headers, "x-bursar-run"), agent=agent, node=node or "-")


def idempotency_key(headers: Mapping[str, str]) -> str | None:
    """The Idempotency-Key; raises BadRequest for one that is too long."""
    key = headers.get("idempotency-key")
    if key is not None and len(key) > IDEMPOTENCY_KEY_CHARACTERS_MAX:
        text = f"idempotency-key: expected at most {IDEMPOTENCY_KEY_CHARACTERS_MAX} characters, not {len(key)}"
        raise BadRequest(text, code="invalid_header", param="idempotency-key")
    return key or None


def of_sent(call_id: str, sent: Sent) -> dict[str, str]:
    """What can be said before the answer is whole."""
    return {
        "x-bursar-call": call_id,
        "x-bursar-model": _plain(sent.model),
        "x-bursar-tier": _plain(sent.tier),
        "x-bursar-reason": _plain(sent.reason),
    }


def of_answer(answered: Answered) -> dict[str, str]:
    """What a whole answer came to."""
    headers = of_sent(answered.id, answered.sent)
    headers["x-bursar-cost-usd"] = format(usd(answered.posted.nanousd), "f")
    if answered.money_left is not None:
        headers["x-bursar-remaining-usd"] = format(usd(answered.money_left.left_nanousd), "f")
    if answered.replayed:
        headers["x-bursar-replayed"] = "true"
    if answered.run is not None:
        headers["x-bursar-run"], headers["x-bursar-status"] = answered.run
    return headers


def _name(headers: Mapping[str, str], header: str) -> str | None:
    value = headers.get(header)
    if value is None or not value.strip():
        return None
    if not _NAME.fullmatch(value.strip()):
        raise BadRequest(f"{header}: expected {_NAME_WORDS}", code="invalid_header", param=header)
    return value.strip()


def _plain(text: str) -> str:
    """Text that any header can carry."""
    return text[:REASON_CHARACTERS_MAX].encode("ascii", "replace").decode() if text.isprintable() else "-"
