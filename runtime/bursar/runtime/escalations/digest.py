"""What a decision is bound to: the exact action that was shown."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

__all__ = ["action_digest", "digest_of"]


def action_digest(tool: str, arguments: Mapping[str, Any]) -> str:
    """Of one call of a tool, as 64 hexadecimal digits."""
    return _digest([tool, arguments])


def digest_of(payload: Mapping[str, Any]) -> str:
    """Of all that was asked: for an action its tool and arguments, else the payload."""
    if "tool" in payload and "args" in payload:
        return action_digest(payload["tool"], payload["args"])
    return _digest(payload)


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
