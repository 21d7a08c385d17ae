"""Token counts: offline, exact for OpenAI's counting, and never twice for the same text."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bursar.budget.errors import ConfigError
from bursar.runtime.models import tokens
from bursar.runtime.models.tokens import CHUNK_CHARACTERS, IMAGE_TOKENS, TokenCounter
from tests.support.tokens import tokens_for

COUNTER = TokenCounter()
CALL = {"id": "call_1", "type": "function", "function": {"name": "find_order", "arguments": '{"order_id": "1001"}'}}


def plain(text: str) -> int:
    return len(tokens_for("real").split(text))


@settings(deadline=None)  # the first count loads the encoding
@given(st.text(max_size=300))
def test_a_text_counts_what_tiktoken_says(text: str) -> None:
    assert COUNTER.count_text(text) == plain(text)
    assert COUNTER.count_text(text) == plain(text), "and the same from memory"


def test_a_request_counts_as_openai_published_it() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Settle refund requests."},
        {"role": "user", "content": [{"type": "text", "text": "Refund order 1001"}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "delivered: false"},
    ]
    tools = [{"type": "function", "function": {"name": "find_order", "parameters": {"type": "object"}}}]
    body = {"messages": messages, "tools": tools}
    assert COUNTER.count_request(messages, tools) == tokens_for("real").prompt(body)
    messages[1]["name"] = "dana"
    assert COUNTER.count_request(messages, tools) == tokens_for("real").prompt(body) + 1 + plain("dana")


def test_an_image_counts_as_a_constant_however_its_address_is_written() -> None:
    def shown(url: str) -> int:
        return COUNTER.count_request([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}])

    assert shown("https://example.com/a.png") == shown("data:image/png;base64," + "A" * 10_000)
    assert shown("https://example.com/a.png") > IMAGE_TOKENS


def test_thoughts_that_go_back_to_the_model_and_the_schema_of_its_answer_are_counted() -> None:
    said = {"role": "assistant", "content": "hello"}
    plainly = COUNTER.count_request([said])
    thought = {"type": "thinking", "thinking": "Let me see.", "signature": "c2ln" * 100}
    blocks = {**said, "reasoning_content": "Let me see.", "thinking_blocks": [thought]}
    assert COUNTER.count_request([blocks]) == plainly + plain("Let me see.")
    assert COUNTER.count_request([{**said, "reasoning_content": "Let me see."}]) == plainly + plain("Let me see.")
    hidden = {**said, "thinking_blocks": [{"type": "redacted_thinking", "data": "RW5j" * 10}]}
    assert COUNTER.count_request([hidden]) == plainly + plain("RW5j" * 10)
    schema = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}}
    assert COUNTER.count_request([said], response_format=schema) == plainly + plain(tokens.compact_json(schema))


@pytest.mark.parametrize("text", [" " * 1_000_000, "a" * 200_000, "\ud800 lone half", "<|endoftext|>"])
def test_no_text_is_too_strange_to_count(text: str) -> None:
    assert 0 < COUNTER.count_text(text) <= len(text.encode("utf-8", "surrogatepass"))


def test_only_new_texts_are_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[str] = []
    original = TokenCounter._encoded

    def noted(self: TokenCounter, text: str) -> list[list[int]]:
        encoded.append(text)
        return original(self, text)

    monkeypatch.setattr(TokenCounter, "_encoded", noted)
    counter = TokenCounter()
    history = [{"role": "user", "content": f"message {n} " * 100} for n in range(20)]
    counter.count_request(history)
    assert len(encoded) == 20
    counter.count_request([*history, {"role": "user", "content": "one more"}])
    assert encoded[20:] == ["one more"]


def test_the_memory_is_bounded_and_forgets_the_least_used_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "CACHE_ENTRIES_MAX", 3)
    counter = TokenCounter()
    for text in ["a", "b", "c", "a", "d"]:
        counter.count_text(text)
    assert [*counter._counts] == ["c", "a", "d"]


@settings(deadline=None)  # the first count loads the encoding
@given(st.text(max_size=200), st.integers(min_value=0, max_value=60))
def test_a_cut_text_is_a_beginning_of_at_most_so_many_tokens(text: str, bound: int) -> None:
    cut = COUNTER.cut(text, bound)
    assert text.startswith(cut)
    assert (cut == text) == (plain(text) <= bound)


def test_a_cut_reaches_into_later_chunks() -> None:
    text = "word " * CHUNK_CHARACTERS
    assert COUNTER.count_text(COUNTER.cut(text, 10_000)) == pytest.approx(10_000, abs=2)


def test_an_unknown_encoding_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"p50k_base.*cl100k_base, o200k_base"):
        TokenCounter("p50k_base")


def test_a_folder_without_the_file_says_what_to_do_and_downloads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    with pytest.raises(ConfigError, match="unset TIKTOKEN_CACHE_DIR"):
        TokenCounter().count_text("anything")


def test_counting_needs_neither_litellm_nor_an_import_of_tiktoken_beforehand() -> None:
    program = (
        "import sys; from bursar.runtime.models.tokens import TokenCounter;"
        "assert 'tiktoken' not in sys.modules; print(TokenCounter('cl100k_base').count_text('hello world'));"
        "assert 'litellm' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("2\n", "")
