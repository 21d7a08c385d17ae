"""Text that others wrote, made harmless for a terminal or a mail."""

from __future__ import annotations

import re

__all__ = ["plain"]

_STEERS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and newline, DEL, C1
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks that reorder a line
    r"\u2028\u2029\ud800-\udfff]"  # separators, and halves of a surrogate pair
)


def plain(text: str) -> str:
    """The text with every character written out that could steer a terminal or reorder its line."""
    return _STEERS.sub(lambda found: ascii(found[0])[1:-1], text)
