"""What a chat completion's body asks of the runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bursar.runtime.attempt import Ask
from bursar.runtime.service.names import Offer

__all__ = ["asked"]

_SENT_ON = ("top_p", "seed", "presence_penalty", "frequency_penalty", "logit_bias", "parallel_tool_calls", "verbosity")
"""What the provider is told as it stands; none of it can make a call cost more than was reserved."""


def asked(chat: Mapping[str, Any], offer: Offer, *, node: str, digest: str | None, exclusive: bool) -> Ask:
    """The question in a body that was validated, to the tier or model that it names."""
    stop = chat.get("stop")
    return Ask(
        tier=offer.tier,
        model=offer.model,
        node=node,
        messages=chat["messages"],
        tools=chat.get("tools") or (),
        tool_choice=chat.get("tool_choice"),
        stop=[stop] if isinstance(stop, str) else stop,
        temperature=chat.get("temperature"),
        response_format=chat.get("response_format"),
        reasoning_effort=chat.get("reasoning_effort"),
        max_reasoning_tokens=chat.get("max_reasoning_tokens"),
        max_output_tokens=chat.get("max_completion_tokens") or chat.get("max_tokens"),
        extra={key: chat[key] for key in _SENT_ON if chat.get(key) is not None},
        digest=digest,
        exclusive=exclusive,
    )
