"""Answers of models, and the pieces that they may come in."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from bursar.budget.amounts import Amounts
from bursar.budget.usage import Usage
from bursar.runtime.service.answered import Answered, Sent

__all__ = ["Delta", "answered", "calls_of", "chunked", "deltas", "messages", "usages"]

Delta = dict[str, Any]

_words = st.text(min_size=1, max_size=12)
_names = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True)
_arguments = st.dictionaries(_names, st.one_of(_words, st.integers(), st.none(), st.lists(st.booleans())), max_size=3)


@st.composite
def messages(draw: st.DrawFn) -> dict[str, Any]:
    """A message that thinks, says or calls something."""
    thought, said = draw(st.none() | _words), draw(st.none() | _words)
    count = draw(st.integers(min_value=int(thought is None and said is None), max_value=3))
    calls = [
        {"id": f"call-{n}", "type": "function", "function": {"name": draw(_names), "arguments": _json(draw)}}
        for n in range(count)
    ]
    thoughts: dict[str, Any] = {}
    if thought:
        thoughts["reasoning_content"] = thought
        if draw(st.booleans()):
            thoughts["thinking_blocks"] = [{"type": "thinking", "thinking": thought, "signature": draw(_words)}]
    return {"role": "assistant", "content": said, **thoughts} | ({"tool_calls": calls} if calls else {})


def _json(draw: st.DrawFn) -> str:
    return json.dumps(draw(_arguments), ensure_ascii=draw(st.booleans()))


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Counts that include each other as `Usage` says."""
    tokens = st.integers(min_value=0, max_value=10_000)
    fresh, read, written, output = draw(tokens), draw(tokens), draw(tokens), draw(tokens)
    return Usage(
        input_tokens=fresh + read + written,
        output_tokens=output,
        cache_read_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=draw(st.integers(min_value=0, max_value=written)),
        reasoning_tokens=draw(st.integers(min_value=0, max_value=output)),
    )


def answered(message: dict[str, Any], usage: Usage | None = None, finish_reason: str | None = None) -> Answered:
    """A call's answer."""
    return Answered(
        id="call_77",
        sent=Sent(model="house", tier="small", reason="first of tier"),
        message=message,
        finish_reason=finish_reason or ("tool_calls" if message.get("tool_calls") else "stop"),
        usage=usage,
        posted=Amounts(),
        money_left=None,
    )


def chunked(text: str, draw: st.DrawFn) -> list[str]:
    """A text cut into pieces."""
    cuts = sorted(draw(st.sets(st.integers(min_value=0, max_value=len(text)), max_size=4)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@st.composite
def deltas(draw: st.DrawFn, message: dict[str, Any]) -> list[Delta]:
    """The message in pieces, as a provider streams it: with a number for each call, or with none."""
    parts = _thoughts(message, draw)
    parts += [{"content": one} for one in chunked(message["content"] or "", draw)]
    numbered = draw(st.booleans())
    for place, call in enumerate(message.get("tool_calls") or ()):
        index = {"index": place} if numbered else {}
        first, *rest = chunked(call["function"]["arguments"], draw)
        begun = {"id": call["id"], "type": "function", "function": {**call["function"], "arguments": first}}
        parts.append({"tool_calls": [{**index, **begun}]})
        parts += [{"tool_calls": [{**index, "function": {"arguments": one}}]} for one in rest]
    return parts


def _thoughts(message: dict[str, Any], draw: st.DrawFn) -> list[Delta]:
    """The thoughts in pieces; Claude's come twice, and their signature last."""
    pieces = chunked(message.get("reasoning_content") or "", draw)
    if "thinking_blocks" not in message:
        return [{"reasoning_content": one} for one in pieces]
    [block] = message["thinking_blocks"]
    told = [{"reasoning_content": one, "thinking_blocks": [{"type": "thinking", "thinking": one}]} for one in pieces]
    return [*told, {"thinking_blocks": [{"type": "thinking", "thinking": "", "signature": block["signature"]}]}]


def calls_of(message: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Id, name and arguments of each call."""
    calls = message.get("tool_calls") or ()
    return [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in calls]
