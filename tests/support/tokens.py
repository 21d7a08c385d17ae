"""How the provider counts: real tokens with o200k_base, or fixed numbers where a benchmark must not pay for it."""

from __future__ import annotations

import codecs
import functools
import importlib.util
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol
from unittest import mock

import tiktoken
from tiktoken_ext import openai_public  # type: ignore[import-untyped]  # tiktoken types its main package only

__all__ = ["Counting", "FixedTokens", "RealTokens", "Tokens", "compact", "tokens_for"]

Counting = Literal["real", "fixed"]


class Tokens(Protocol):
    """A way to count."""

    output_floor: int
    """Every answer is worth at least this many tokens."""

    def prompt(self, body: Mapping[str, Any]) -> int:
        """Tokens of a request's messages and tools."""

    def split(self, text: str) -> list[str]:
        """The text, one part per token; their sum is the text."""

    def filler(self, count: int) -> str:
        """Some text of `count` tokens."""


class RealTokens:
    """OpenAI's counting: every message costs its content, its tool calls and 4; the answer's opening 3."""

    output_floor = 0

    def __init__(self, encoding: tiktoken.Encoding) -> None:
        self._encoding = encoding

    def prompt(self, body: Mapping[str, Any]) -> int:
        tools = self._count(compact(body["tools"])) if body.get("tools") else 0
        return 3 + tools + sum(4 + self._message(message) for message in body["messages"])

    def split(self, text: str) -> list[str]:
        # A token may end inside a character: its bytes then show up with the next one.
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        tokens = self._encoding.encode_ordinary(text)
        return [decoder.decode(self._encoding.decode_single_token_bytes(token)) for token in tokens]

    def filler(self, count: int) -> str:
        return " token" * count

    def _message(self, message: Mapping[str, Any]) -> int:
        calls = [call["function"] for call in message.get("tool_calls") or ()]
        return self._count(_text(message.get("content"))) + sum(self._count(compact(call)) for call in calls)

    def _count(self, text: str) -> int:
        return len(self._encoding.encode_ordinary(text))


class FixedTokens:
    """Every prompt is worth 100 tokens and every answer at least 50, whatever they say."""

    output_floor = 50

    def prompt(self, body: Mapping[str, Any]) -> int:
        return 100

    def split(self, text: str) -> list[str]:
        return [text] if text else []

    def filler(self, count: int) -> str:
        return "ok"


@functools.cache
def tokens_for(counting: Counting) -> Tokens:
    """The counter of that name; the real one takes about half a second to load, once."""
    return RealTokens(_o200k_base()) if counting == "real" else FixedTokens()


def compact(value: object) -> str:
    """JSON without spaces."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _o200k_base() -> tiktoken.Encoding:
    # Neither tiktoken's registry nor the environment keeps a trace of this: code under test must find its own way.
    with mock.patch.dict(os.environ, TIKTOKEN_CACHE_DIR=str(_litellm_tokenizers())):
        return tiktoken.Encoding(**openai_public.o200k_base())


def _litellm_tokenizers() -> Path:
    spec = importlib.util.find_spec("litellm")
    if spec is None or spec.origin is None:
        raise RuntimeError("litellm's wheel carries the token tables; install the project's dependencies")
    return Path(spec.origin).parent / "litellm_core_utils" / "tokenizers"


def _text(content: object) -> str:
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content if isinstance(content, str) else ""
