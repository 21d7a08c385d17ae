"""What a model thought before it answered, whole or in pieces: shown, and kept for the next turn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["Thoughts"]


class Thoughts:
    """The thoughts of one answer.

    `reasoning_content` is their text, which vLLM calls `reasoning`. `thinking_blocks` are Claude's, each with the
    signature without which the next turn would be refused.
    """

    def __init__(self) -> None:
        self._text: list[str] = []
        self._blocks: list[dict[str, Any]] = []

    def add(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """Take a message, or a delta of one; return what of it are thoughts. Raises TypeError for what are none."""
        text = said.get("reasoning_content") or said.get("reasoning")
        blocks = said.get("thinking_blocks")
        if text:
            self._text.append(text)
        for block in blocks or ():
            self._add_block(block)
        found = {"reasoning_content": text, "thinking_blocks": blocks}
        return {key: value for key, value in found.items() if value}

    def whole(self) -> dict[str, Any]:
        """All of them, as keys of the answer's message; empty where there are none."""
        found: dict[str, Any] = {"reasoning_content": "".join(self._text), "thinking_blocks": self._blocks}
        return {key: value for key, value in found.items() if value}

    def _add_block(self, block: Mapping[str, Any]) -> None:
        """A piece goes on with the block before it, until that one is signed."""
        last = self._blocks[-1] if self._blocks else None
        if last is None or block.get("type") != "thinking" or last["type"] != "thinking" or last.get("signature"):
            self._blocks.append(dict(block))
            return
        last["thinking"] = (last.get("thinking") or "") + (block.get("thinking") or "")
        if signature := block.get("signature"):
            last["signature"] = signature
