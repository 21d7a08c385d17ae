"""What a classifier reads of a request: a bounded text, in the users' own words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from bursar.runtime.models.provider import Message

__all__ = ["TEXT_MAX", "text_of"]

TEXT_MAX = 2_000
"""Characters that are read, so that a classifier takes as long for a book as for a page."""

MESSAGES_MAX = 1_000
"""How many messages are looked through, the newest first."""


def text_of(messages: Sequence[Message]) -> str:
    """The users' messages, the newest first, up to TEXT_MAX characters; of a longer one its beginning and its end.

    Empty where there is none, and where a message that is read holds more than text: what an image asks for, no text
    can tell. What the system, the assistant and tools say is not read: it says who works and not what is wanted.
    """
    parts: list[str] = []
    room = TEXT_MAX
    for message in islice(reversed(messages), MESSAGES_MAX):
        if message.get("role") != "user":
            continue
        text = _text(message.get("content"))
        if text is None:
            return ""
        parts.append(_cut(text, room))
        room -= len(parts[-1]) + 1
        if room <= 0:
            break
    return "\n".join(parts)


def _text(content: Any) -> str | None:
    """A message's text; None where there is anything else in it."""
    if isinstance(content, str):
        return content
    texts = list(_texts(content if isinstance(content, Sequence) else [content]))
    return None if None in texts else "\n".join(filter(None, texts))


def _texts(parts: Sequence[Any]) -> Iterator[str | None]:
    for part in parts:
        text = part.get("text") if isinstance(part, Mapping) else part
        yield text if isinstance(text, str) else None


def _cut(text: str, room: int) -> str:
    """Three quarters of the room for the beginning, one for the end: a question stands before or behind its matter."""
    if len(text) <= room:
        return text
    end = room // 4
    return f"{text[: room - end - 1]}\n{text[len(text) - end :]}"
