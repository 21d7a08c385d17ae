"""litellm passes as a client of the gateway, by two APIs; in a file of its own, since it takes seconds to import."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bursar.budget import Limits
from tests.support.gateway import Gateway, config_text
from tests.support.provider import Answer, Behaviour, TrueProvider

pytestmark = [
    # litellm's own: it reads pydantic models in a way that pydantic 2.11 deprecated, and builds them as it answers.
    pytest.mark.filterwarnings("ignore:Accessing the 'model_.*fields' attribute:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Item '.*' on TypedDict class .* is using the `ReadOnly` qualifier:UserWarning"),
]

ASKED = [{"role": "user", "content": "Where is order 1001?"}]
ANSWER = "Order 1001 is in Lyon; it will come on Tuesday."
TOOLS = [{"type": "function", "function": {"name": "find_order", "parameters": {"type": "object"}}}]


def clerk(body: dict[str, Any], _: int) -> Answer:
    """Looks the order up where it may, or answers."""
    return Answer(tool_calls=[("find_order", {"order_id": "1001"})]) if body.get("tools") else Answer(text=ANSWER)


@pytest.fixture(scope="module")
def litellm() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        import litellm

        patch.setattr(litellm, "disable_aiohttp_transport", True)
        yield litellm


@pytest.fixture(scope="module")
def server(_true_provider_server: TrueProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    with Gateway(folder, config_text(_true_provider_server.api_base)) as gateway:
        yield gateway


@pytest.fixture
def gateway(server: Gateway, true_provider: TrueProvider) -> Gateway:
    """The module's gateway, in front of a clerk with an empty bill."""
    true_provider.behaviour = Behaviour(script=clerk)
    return server


@pytest.fixture(params=["openai", "anthropic"])
def asked(request: pytest.FixtureRequest, gateway: Gateway) -> dict[str, Any]:
    """What litellm is given: the model, the gateway's address and a key."""
    base = f"{gateway.url}/v1" if request.param == "openai" else gateway.url
    given = {"model": f"{request.param}/small", "api_base": base, "api_key": gateway.key(limits=Limits(steps=1))}
    return {**given, "messages": ASKED, "max_tokens": 100}


def test_asks(litellm: Any, asked: dict[str, Any]) -> None:
    answer = litellm.completion(**asked)
    assert answer.choices[0].message.content == ANSWER
    assert answer.usage.completion_tokens > 5


def test_streams(litellm: Any, asked: dict[str, Any]) -> None:
    said = [chunk.choices[0].delta.content or "" for chunk in litellm.completion(**asked, stream=True)]
    assert "".join(said) == ANSWER


@pytest.mark.parametrize("streamed", [False, True])
def test_uses_tools(streamed: bool, litellm: Any, asked: dict[str, Any]) -> None:
    # With tools litellm looks for MCP's among them, by a package that it does not install.
    answer = litellm.completion(**asked, tools=TOOLS, stream=streamed, _skip_mcp_handler=True)
    whole = litellm.stream_chunk_builder(list(answer)) if streamed else answer
    [call] = whole.choices[0].message.tool_calls
    assert call.function.name == "find_order"
    assert call.function.arguments.replace(" ", "") == '{"order_id":"1001"}'


def test_is_refused_in_words(litellm: Any, asked: dict[str, Any], true_provider: TrueProvider) -> None:
    litellm.completion(**asked)
    with pytest.raises(Exception, match="0 steps left of 1 step") as refused:
        litellm.completion(**asked)
    assert getattr(refused.value, "status_code", None) == 402
    assert true_provider.bill.requests == 1
