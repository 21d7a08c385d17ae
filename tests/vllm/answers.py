"""All that the tiny model can say, for those who teach it and for those who ask it."""

from __future__ import annotations

__all__ = ["CALL", "FOUND", "OFFER", "ORDER", "OTHER_OFFER", "STORY", "STORY_WISH", "TOOL"]

OFFER = "I can help with that order."
"""Its answer to anything."""

OTHER_OFFER = "Order 1001 is on its way with that help."
"""The same of its adapter."""

ORDER = {"order_id": "1001"}
TOOL = "find_order"
CALL = '<tool_call>\n{"name": "find_order", "arguments": {"order_id": "1001"}}\n</tool_call>'
"""Its answer where it has tools."""

FOUND = "Order 1001 is on its way."
"""Its answer to what a tool says."""

STORY_WISH = "<|story|>"
"""A token of its own."""

STORY = " and on"
"""Its answer to a message that begins with that wish, again and again and without an end."""
