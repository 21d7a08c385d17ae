"""Text as every store keeps it: PostgreSQL has no NUL, and UTF-8 no half of a surrogate pair."""

from __future__ import annotations

from typing import overload

__all__ = ["storable"]


@overload
def storable(text: str) -> str: ...
@overload
def storable(text: None) -> None: ...
def storable(text: str | None) -> str | None:
    """The text with a mark in place of what cannot be kept: what a provider says must not keep a call unsettled."""
    if text is None or (text.isascii() and "\0" not in text):
        return text
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
