"""litellm passes as a client of the gateway, by OpenAI's API and by Anthropic's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bursar.budget import Limits
from tests.support.gateway import Gateway, config_text
from tests.support.processes import Child
from tests.support.provider import Answer, Behaviour, TrueProvider

ASKED = [{"role": "user", "content": "Where is order 1001?"}]
ANSWER = "Order 1001 is in Lyon; it will come on Tuesday."
TOOLS = [{"type": "function", "function": {"name": "find_order", "parameters": {"type": "object"}}}]

CALLS: dict[str, dict[str, Any]] = {
    "asks": {},
    "streams": {"stream": True},
    "uses tools": {"tools": TOOLS},
    "streams tools": {"tools": TOOLS, "stream": True},
    "is refused": {},
}
"""What litellm is asked to do, one after another with one key."""

Answers = dict[str, dict[str, Any]]


def clerk(body: dict[str, Any], _: int) -> Answer:
    """Looks the order up where it may, or answers."""
    return Answer(tool_calls=[("find_order", {"order_id": "1001"})]) if body.get("tools") else Answer(text=ANSWER)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answers]:
    """What litellm was answered by each API, in one process; each API's key pays for all but one of its calls."""
    with (
        TrueProvider(Behaviour(script=clerk)) as provider,
        Gateway(tmp_path_factory.mktemp("gateway"), config_text(provider.api_base)) as gateway,
    ):
        calls = []
        for api, base in (("openai", f"{gateway.url}/v1"), ("anthropic", gateway.url)):
            key = gateway.key(limits=Limits(steps=len(CALLS) - 1, cost_usd=None))
            given = {"model": f"{api}/small", "api_base": base, "api_key": key, "messages": ASKED, "max_tokens": 100}
            calls += [{**given, **call} for call in CALLS.values()]
        with Child("-W", "ignore", "-m", "tests.acceptance.litellm_caller", json.dumps(calls)) as litellm:
            found = json.loads(litellm.line(100))
        assert provider.bill.requests == 2 * (len(CALLS) - 1)
    by_openai, by_anthropic = found[: len(CALLS)], found[len(CALLS) :]
    return {
        "openai": dict(zip(CALLS, by_openai, strict=True)),
        "anthropic": dict(zip(CALLS, by_anthropic, strict=True)),
    }


@pytest.mark.parametrize("api", ["openai", "anthropic"])
def test_every_call_is_answered_or_refused_in_words(api: str, answers: dict[str, Answers]) -> None:
    told = answers[api]
    for call in ("asks", "streams"):
        assert told[call]["text"] == ANSWER
    assert told["asks"]["output_tokens"] > 5
    for call in ("uses tools", "streams tools"):
        assert told[call]["called"] == [["find_order", {"order_id": "1001"}]]
    assert told["is refused"]["status"] == 402
    assert "0 steps left of 4 steps" in told["is refused"]["words"]
