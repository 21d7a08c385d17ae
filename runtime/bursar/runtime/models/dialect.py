"""What each provider understands of a request in OpenAI's shape: cache marks, earlier thoughts, images, thinking.

What one provider needs, another refuses, bills or drops without a word. So it is taken out, or the call is refused,
before anything is sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from bursar.runtime.models.provider import Message, ModelRequest, NotSent

__all__ = ["OPENAI", "OPENAI_COMPATIBLE", "Dialect", "dialect_of"]

EFFORT_TOKENS: Mapping[str, int] = {"minimal": 1_024, "low": 1_024, "medium": 2_048, "high": 4_096}
"""What an effort is in tokens, for models that are given tokens; any other word is as much as `high`."""

MARK = {"type": "ephemeral"}
_SIGNED = "__thought__"
"""What litellm puts between the id of a call and Gemini's signature."""

_STATE = frozenset({"reasoning_content", "thinking_blocks", "cache_control"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What one provider understands."""

    cache_marks: bool = False
    """Whether it caches up to `cache_control` marks; any other caches by itself, and some would refuse them."""

    own_marks: bool = False
    """Whether marks that the caller made are sent on, though none are made here."""

    thoughts: frozenset[str] = frozenset()
    """Which of `reasoning_content` and `thinking_blocks` an earlier answer's message may carry."""

    signed_calls: bool = False
    """Whether tool calls carry the provider's signatures, which it wants back."""

    effort: bool = True
    """Whether it can be told how hard to think."""

    thinking_tokens_min: int | None = None
    """The least number of tokens to think with that it takes; None where it takes no number."""

    text_only: bool = False
    """Whether it reads nothing but text."""

    addresses: tuple[str, ...] | None = None
    """How the addresses of images begin that it takes; litellm would fetch any other, and files, from here.

    An image that it is given has to be one: litellm would make a document or a film of anything else, and of those
    nobody knows how long they are. None: whatever is asked is passed on.
    """

    def messages(self, request: ModelRequest) -> list[Message]:
        """The request's messages as this provider takes them; raises NotSent for what it cannot read."""
        messages = [self._message(message) for message in request.messages]
        return _marked(messages, going_on=bool(request.tools)) if self.cache_marks else messages

    def thinking(self, request: ModelRequest) -> dict[str, Any]:
        """The parameters that ask for thinking, always less than the output that was reserved."""
        effort, cap = request.reasoning_effort if self.effort else None, request.max_reasoning_tokens
        given = {"reasoning_effort": effort} if effort is not None else {}
        if self.thinking_tokens_min is None or effort == "none" or (effort is None and cap is None):
            return given
        wanted = request.max_output_tokens * 3 // 4  # the rest is for the answer
        if effort is not None:
            wanted = min(wanted, EFFORT_TOKENS.get(effort, EFFORT_TOKENS["high"]))
        tokens = wanted if cap is None else min(wanted, cap)
        if tokens < self.thinking_tokens_min:
            return {}
        return {**given, "thinking": {"type": "enabled", "budget_tokens": tokens}}

    def _message(self, message: Message) -> Message:
        content, calls = message.get("content"), message.get("tool_calls")
        if isinstance(content, list):
            message = {**message, "content": [self._part(part) for part in content]}
        if not _STATE.isdisjoint(message):
            message = {key: value for key, value in message.items() if key not in _STATE or self._takes(key)}
        if blocks := message.get("thinking_blocks"):
            message = {**message, "thinking_blocks": [block for block in blocks if _is_whole(block)]}
        if not self.signed_calls and (calls or "tool_call_id" in message):
            message = _unsigned(message)
        return message

    def _part(self, part: Any) -> Any:
        if not isinstance(part, Mapping):
            return part
        kind = part.get("type")
        if self.text_only and kind != "text":
            raise NotSent(f"the provider reads nothing but text, no {kind}")
        if kind == "file" and not _is_enclosed(part):
            raise NotSent(
                "nobody knows how long a file is that is named by an id or an address; put it into the message"
            )
        if self.addresses is not None and kind == "image_url" and not _is_image(part):
            raise NotSent("an image_url has to be an image: data:image/..., without a format of its own")
        if not all(self._reads(address, kind) for address in _addresses(part)):
            raise NotSent(
                "the provider would have this fetched from here first; put it into the message as a data: URL"
            )
        if "cache_control" in part and not self._takes("cache_control"):
            return {key: value for key, value in part.items() if key != "cache_control"}
        return part

    def _reads(self, address: str, kind: object) -> bool:
        if self.addresses is None:
            return True
        return address.startswith(self.addresses) and (kind == "image_url" or not address.startswith("http"))

    def _takes(self, key: str) -> bool:
        return key in self.thoughts or (key == "cache_control" and (self.cache_marks or self.own_marks))


_ALOUD = frozenset({"reasoning_content"})

OPENAI = Dialect()
OPENAI_COMPATIBLE = Dialect(thoughts=_ALOUD, own_marks=True)

_CLAUDE = Dialect(
    cache_marks=True, thoughts=_ALOUD | {"thinking_blocks"}, thinking_tokens_min=1_024, addresses=("data:",)
)
_GEMINI = Dialect(thoughts=_ALOUD, signed_calls=True, thinking_tokens_min=0, addresses=("data:",))
"""Without marks: litellm would make a cache of its own for them, by requests that nobody reserved."""

_BY_PROVIDER: Mapping[str, Dialect] = {
    "anthropic": replace(_CLAUDE, addresses=("data:", "https:")),
    "gemini": _GEMINI,
    "vertex_ai": _GEMINI,
    "bedrock": Dialect(cache_marks=True, addresses=("data:",)),  # where there is no cache, litellm takes marks away
    "deepseek": Dialect(thoughts=_ALOUD, text_only=True),
    "mistral": Dialect(addresses=("data:", "http:", "https:")),
    "openrouter": OPENAI_COMPATIBLE,
}
_MAGISTRAL = replace(_BY_PROVIDER["mistral"], effort=False)
"""It always thinks; asked how hard, litellm would write a prompt of its own into the call."""


def dialect_of(provider: str, model: str) -> Dialect:
    """What a model understands, by litellm's name of its provider; Gemini 3 takes an effort, but no number."""
    if provider in ("bedrock", "vertex_ai", "azure_ai") and "claude" in model:
        return _CLAUDE
    if provider == "mistral" and "magistral" in model:
        return _MAGISTRAL
    known = _BY_PROVIDER.get(provider, OPENAI)
    return replace(known, thinking_tokens_min=None) if known is _GEMINI and "gemini-3" in model else known


def _addresses(part: Mapping[str, Any]) -> Iterator[str]:
    """Where to find what a part is about, if that is not in the part itself."""
    kind = part.get("type")
    about = part.get(str(kind)) if kind != "text" else None
    for value in about.values() if isinstance(about, Mapping) else [about]:
        if isinstance(value, str) and "://" in value:
            yield value


def _is_image(part: Mapping[str, Any]) -> bool:
    """Whether it is an image, or the address of one."""
    about = part.get("image_url")
    about = about if isinstance(about, Mapping) else {"url": about}
    return "format" not in about and str(about.get("url")).startswith(("data:image/", "http"))


def _is_enclosed(part: Mapping[str, Any]) -> bool:
    """Whether a file's content stands in the message, where it is counted."""
    about = part.get("file")
    return isinstance(about, Mapping) and str(about.get("file_data")).startswith("data:") and "file_id" not in about


def _marked(messages: list[Message], *, going_on: bool) -> list[Message]:
    """The messages with marks at the end of what stays the same: after the system's, and after all where it goes on.

    Nothing is marked where the caller has marked something.
    """
    if any(map(_has_mark, messages)):
        return messages
    roles = [message.get("role") for message in messages]
    system = [place for place, role in enumerate(roles) if role in ("system", "developer")]
    ends = {*system[-1:], *([len(messages) - 1] if going_on or "assistant" in roles else [])}
    return [_with_mark(message) if place in ends else message for place, message in enumerate(messages)]


def _has_mark(message: Message) -> bool:
    content = message.get("content")
    return "cache_control" in message or (
        isinstance(content, list) and any("cache_control" in part for part in content)
    )


def _with_mark(message: Message) -> Message:
    content = message.get("content")
    if isinstance(content, list) and content:
        return {**message, "content": [*content[:-1], {**content[-1], "cache_control": MARK}]}
    if isinstance(content, str) and content:
        return {**message, "content": [{"type": "text", "text": content, "cache_control": MARK}]}
    return message


def _is_whole(block: Mapping[str, Any]) -> bool:
    """Whether Claude takes a block back: not one that another model thought, or that broke off."""
    return bool(block.get("signature") or block.get("data"))


def _unsigned(message: Message) -> Message:
    """Without Gemini's signatures, which litellm writes into the ids of calls too: longer than OpenAI takes them."""
    if _SIGNED in (answered := message.get("tool_call_id") or ""):
        return {**message, "tool_call_id": answered.partition(_SIGNED)[0]}
    calls = message.get("tool_calls") or ()
    if not any("provider_specific_fields" in call or _SIGNED in (call.get("id") or "") for call in calls):
        return message
    return {**message, "tool_calls": [_plain_call(call) for call in calls]}


def _plain_call(call: Mapping[str, Any]) -> Mapping[str, Any]:
    kept = {key: value for key, value in call.items() if key != "provider_specific_fields"}
    return {**kept, "id": (call.get("id") or "").partition(_SIGNED)[0]}
