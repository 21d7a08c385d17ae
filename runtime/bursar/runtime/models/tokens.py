"""Token counts without a network: tiktoken with the encoding files that litellm's wheel carries."""

from __future__ import annotations

import importlib.util
import json
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bursar.budget.errors import ConfigError

if TYPE_CHECKING:
    from tiktoken import Encoding

__all__ = ["IMAGE_TOKENS", "TokenCounter", "compact_json"]

IMAGE_TOKENS = 5_000
"""What one image is counted as, whatever its size: Claude reads at most 4,800 tokens for one, OpenAI's models up to
about 1,500 (gpt-4o-mini, which bills an image as 48,000, aside)."""

MESSAGE_TOKENS = 4
"""What a message costs beside its text, role included; with the next, OpenAI's published counting."""

ANSWER_TOKENS = 3
"""What the opening of the answer costs."""

CACHE_ENTRIES_MAX = 16_384
SHORT_CHARACTERS = 512
CHUNK_CHARACTERS = 32_768

_CALL_KEYS = {"name", "arguments"}

_FILES = {
    "cl100k_base": "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
    "o200k_base": "fb374d419588a4632f3f557e76b4b70aebbca790",
}
"""The names under which tiktoken looks for an encoding's file."""


class TokenCounter:
    """Counts tokens in one encoding.

    A text is counted once and then remembered, so that a conversation costs only what is new in it. The encoding is
    loaded at the first count, which raises ConfigError where its file is missing. May be shared by threads.
    """

    def __init__(self, encoding: str = "o200k_base") -> None:
        if encoding not in _FILES:
            raise ConfigError(f"unknown encoding {encoding!r}; expected one of {', '.join(_FILES)}", key="encoding")
        self._name = encoding
        self._counts: OrderedDict[str | bytes, int] = OrderedDict()
        self._calls: dict[tuple[str, str], int] = {}

    def count_text(self, text: str) -> int:
        """Tokens of a text."""
        # A long text is remembered by its digest, so that the memory is bounded and holds no documents.
        key = text if len(text) <= SHORT_CHARACTERS else _digest(text)
        count = self._counts.pop(key, None)
        if count is None:
            count = sum(len(tokens) for tokens in self._encoded(text))
        self._counts[key] = count
        if len(self._counts) > CACHE_ENTRIES_MAX:
            self._counts.popitem(last=False)
        return count

    def count_once(self, text: str) -> int:
        """Tokens of a text that does not come again, such as a piece of an answer: it is not remembered."""
        return sum(len(tokens) for tokens in self._encoded(text))

    def count_request(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] = (),
        response_format: Mapping[str, Any] | None = None,
    ) -> int:
        """Input tokens of a request in the shape of OpenAI's chat completions.

        Tools and the schema of the answer count as their compact JSON: providers write both into the prompt.
        """
        offered = self.count_text(compact_json(tools)) if tools else 0
        asked = self.count_text(compact_json(response_format)) if response_format is not None else 0
        return ANSWER_TOKENS + offered + asked + sum(map(self._message, messages))

    def cut(self, text: str, tokens: int) -> str:
        """The beginning of a text, at most so many tokens long."""
        kept: list[int] = []
        for chunk in self._encoded(text):
            kept += chunk[: tokens - len(kept)]
            if len(kept) == tokens:
                return self._encoding.decode(kept, errors="ignore")
        return text

    def _message(self, message: Mapping[str, Any]) -> int:
        count = MESSAGE_TOKENS + self._content(message.get("content"))
        if name := message.get("name"):
            count += 1 + self.count_text(name)
        if blocks := message.get("thinking_blocks"):
            count += sum(map(self._thought, blocks))
        elif thoughts := message.get("reasoning_content"):
            count += self.count_text(thoughts)
        return count + sum(map(self._call, message.get("tool_calls") or ()))

    def _call(self, call: Mapping[str, Any]) -> int:
        function = call.get("function", call)
        arguments = function.get("arguments")
        if function.keys() != _CALL_KEYS or not isinstance(arguments, str) or len(arguments) > SHORT_CHARACTERS:
            return self.count_text(compact_json(function))
        # Remembered by its parts: a conversation's calls are not written as JSON again at each of its steps.
        key = (function["name"], arguments)
        count = self._calls.get(key)
        if count is None:
            if len(self._calls) >= CACHE_ENTRIES_MAX:
                self._calls.clear()
            count = self._calls[key] = self.count_text(compact_json(function))
        return count

    def _content(self, content: str | Sequence[Mapping[str, Any]] | None) -> int:
        if content is None:
            return 0
        return self.count_text(content) if isinstance(content, str) else sum(map(self._part, content))

    def _part(self, part: Mapping[str, Any]) -> int:
        if part.get("type") == "text":
            return self.count_text(part["text"])
        return IMAGE_TOKENS if part.get("type") == "image_url" else self.count_text(compact_json(part))

    def _thought(self, block: Mapping[str, Any]) -> int:
        """A block of earlier thinking; its signature is not read, and what is encrypted is no shorter than its text."""
        return self.count_text(block.get("thinking") or block.get("data") or "")

    def _encoded(self, text: str) -> list[list[int]]:
        # tiktoken's regular expression overflows its stack on about a million blanks.
        chunks = (text[start : start + CHUNK_CHARACTERS] for start in range(0, len(text), CHUNK_CHARACTERS))
        return [self._encoding.encode_ordinary(chunk) for chunk in chunks]

    @cached_property
    def _encoding(self) -> Encoding:
        # Set for good, as litellm does on import: to take it back could meet litellm's import in another thread.
        if "TIKTOKEN_CACHE_DIR" not in os.environ:
            os.environ["TIKTOKEN_CACHE_DIR"] = str(_bundled_files())
        folder = Path(os.environ["TIKTOKEN_CACHE_DIR"])
        if not (folder / _FILES[self._name]).is_file():
            raise ConfigError(
                f"TIKTOKEN_CACHE_DIR={folder} has no file {_FILES[self._name]}, which holds the encoding {self._name}",
                next_step="unset TIKTOKEN_CACHE_DIR, or pip install --force-reinstall litellm",
            )
        import tiktoken

        return tiktoken.get_encoding(self._name)


def compact_json(value: object) -> str:
    """JSON without spaces, as it is counted."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _bundled_files() -> Path:
    """The encoding files in litellm's wheel, found without importing it."""
    spec = importlib.util.find_spec("litellm")
    if spec is None or spec.origin is None:
        raise ConfigError("the encoding files come with litellm, which is missing", next_step="pip install litellm")
    return Path(spec.origin).parent / "litellm_core_utils" / "tokenizers"
