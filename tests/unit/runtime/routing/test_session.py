"""What a conversation ties to the model that wrote it."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial
from typing import Any

from bursar.runtime.routing.allow import Policy
from bursar.runtime.routing.choice import Situation, choose
from bursar.runtime.routing.session import Authors, is_open, portable, priced
from tests.unit.runtime.routing.house import ASKED, CATALOG, asked, exchange, left
from tests.unit.runtime.routing.test_choice import LADDER

ANSWER = {"role": "assistant", "content": "It came on Monday.", "model": "mini"}


def test_an_exchange_is_open_from_the_first_result_until_the_assistant_speaks_again() -> None:
    assert not is_open(ASKED)
    assert not is_open(exchange("mini", answered=False))
    assert is_open(exchange("mini"))
    assert is_open([*exchange("mini"), {"role": "user", "content": "Answer now."}])
    assert not is_open([*exchange("mini"), ANSWER])


def test_who_made_a_tool_call_is_remembered_for_programs_that_do_not_say_so() -> None:
    authors = Authors()
    assert authors.of("run_1", exchange("mini")) == "mini"
    assert authors.of("run_1", exchange(None)) is None
    authors.learn("run_1", exchange(None)[1], "big")
    assert authors.of("run_1", exchange(None)) == "big"
    assert authors.of("run_2", exchange(None)) is None


def test_the_name_of_the_writer_is_never_sent() -> None:
    assert portable(ASKED, "mini") is ASKED
    assert [message.keys() for message in portable(exchange("mini"), "mini")] == [
        {"role", "content"},
        {"role", "content", "tool_calls"},
        {"role", "tool_call_id", "content"},
    ]


def test_what_only_its_writer_can_read_never_goes_to_another_model() -> None:
    blocks = [{"type": "thinking", "thinking": "...", "signature": "sig"}]
    call = {"id": "1", "type": "function", "function": {}, "extra_content": {"google": {"thought_signature": "sig"}}}
    content = [{"type": "redacted_thinking", "data": "sig"}, {"type": "text", "text": "I look."}]
    said = {"role": "assistant", "content": content, "tool_calls": [call], "thinking_blocks": blocks, "model": "big"}
    (own,) = portable([said], "big")
    assert own == {key: value for key, value in said.items() if key != "model"}
    (other,) = portable([said], "mini")
    assert "sig" not in str(other)
    assert other["content"] == [{"type": "text", "text": "I look."}]
    assert other["tool_calls"] == [{"id": "1", "type": "function", "function": {}}]


def test_a_switch_pays_where_the_other_model_saves_more_than_the_warm_cache_is_worth() -> None:
    big, mid, mini = (CATALOG.model(name).price for name in ("big", "mid", "mini"))
    assert big is not None
    assert mid is not None
    assert mini is not None
    talk = [{"role": "user", "content": "word " * 4_000}, ANSWER, {"role": "user", "content": "And?"}]
    to_mid = priced(big, mid, talk, 4_000)
    # 3,999 of 4,000 tokens are read from the cache at $0.30, and would be read anew at $1; then 4 tokens are written.
    assert (to_mid.stay_nanousd, to_mid.go_nanousd) == (1_262_700, 4_016_000)
    assert not to_mid.pays
    assert priced(big, mini, talk, 4_000).pays is False
    short = [*ASKED, ANSWER, {"role": "user", "content": "word " * 4_000}]
    assert priced(big, mid, short, 4_000).pays


def _turn(rng: random.Random, messages: list[dict[str, Any]], model: str) -> list[dict[str, Any]]:
    """The conversation after a model's answer: a tool call with its result, or a text and the next question."""
    if rng.random() < 0.6:
        return [*messages, *exchange(model, words=rng.randrange(300))[1:]]
    said = {"role": "assistant", "content": "word " * rng.randrange(1, 60), "model": model}
    return [*messages, said, {"role": "user", "content": "word " * rng.randrange(1, 200)}]


def _wished(tier: str, _: object) -> tuple[str, str]:
    return tier, f"auto: {tier}"


def test_in_six_thousand_turns_no_tool_exchange_is_ever_switched_without_need() -> None:
    """Sessions of 30 turns under a falling budget, spills and a restless classifier; and how often they switch."""
    rng = random.Random(7)
    policy = Policy(tenant="acme", ladder=LADDER)
    turns = switches = unsafe = unguarded = broken = 0
    for _ in range(200):
        tier = rng.choice(["small", "standard", "frontier", "auto"])
        messages: list[dict[str, Any]] = list(ASKED)
        author: str | None = None
        before: str | None = None
        for turn in range(30):
            wish = rng.choice(["small", "standard", "frontier"])
            now = Situation(
                left=left(100 - 3 * turn + rng.randrange(10)),
                in_flight={"llama": rng.randrange(3)},
                author=author,
                auto=partial(_wished, wish),
            )
            tokens = min(8_000, 40 + 250 * turn)
            first = choose(asked(tier, messages=messages), tokens, CATALOG, policy, now).candidates[0].model.name
            alone = replace(now, author=None)
            plain = choose(asked(tier, messages=messages), tokens, CATALOG, policy, alone).candidates[0].model.name
            turns += 1
            switches += author not in (None, first)
            unguarded += before not in (None, plain)
            broken += before not in (None, plain) and is_open(messages)
            unsafe += author not in (None, first) and is_open(messages)
            author, before = first, plain
            messages = _turn(rng, messages[-8:], first)
    assert (turns, unsafe) == (6_000, 0)
    assert switches < unguarded / 2  # beside a choice that knows nothing of sessions
    assert broken > 400
