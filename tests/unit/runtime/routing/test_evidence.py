"""A classifier reads what users ask for, and never more than a page of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar.runtime.routing.evidence import TEXT_MAX, text_of


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def test_the_newest_request_comes_first_and_only_users_are_read() -> None:
    messages = [
        {"role": "system", "content": "You are terse."},
        user("Which order?"),
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "tool", "content": "order 1001", "tool_call_id": "1"},
        user([{"type": "text", "text": "Refund it"}, {"type": "text", "text": "now."}]),
    ]
    assert text_of(messages) == "Refund it\nnow.\nWhich order?"


def test_of_a_long_request_the_beginning_and_the_end_are_read() -> None:
    text = text_of([user("Sum this up: " + "x" * 50_000 + " in one word."), user("earlier")][:1])
    assert len(text) == TEXT_MAX
    assert text.startswith("Sum this up:")
    assert text.endswith("in one word.")


@given(st.lists(st.builds(user, st.text(max_size=3 * TEXT_MAX) | st.lists(st.text(max_size=50))), max_size=5))
def test_what_is_read_is_bounded_and_reads_the_same_again(messages: list[dict[str, Any]]) -> None:
    text = text_of(messages)
    assert len(text) <= TEXT_MAX
    assert text_of([user(text)]) == text


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "https://a/b.png"}}],
        [{"type": "input_audio", "input_audio": {}}],
        None,
        7,
        [7],
        {"type": "text"},
    ],
)
def test_a_request_that_is_not_all_text_is_not_read(content: Any) -> None:
    assert text_of([user("before"), user(content)]) == ""


def test_without_a_user_there_is_nothing_to_read() -> None:
    assert text_of([]) == text_of([{"role": "system", "content": "You are terse."}]) == ""
