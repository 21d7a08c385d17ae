"""Stock clients pass: only their base URL and their key are the gateway's."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import anthropic
import httpx
import openai
import pytest
from anthropic import Anthropic, AsyncAnthropic
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from bursar.budget import Limits
from tests.support.gateway import Gateway, config_text
from tests.support.provider import Answer, Behaviour, Fault, TrueProvider

QUESTION = "Where is order 1001?"
ANSWER = "Order 1001 is in Lyon; it will come on Tuesday."
ASKED: Any = [{"role": "user", "content": QUESTION}]
ONE_STEP = Limits(steps=1, cost_usd=None)


class Order(BaseModel):
    """An order."""

    order_id: str
    city: str


ORDER = Order(order_id="1001", city="Lyon")
PARAMETERS = {"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]}
FUNCTION = {"name": "find_order", "description": "Look an order up.", "parameters": PARAMETERS}


def clerk(body: dict[str, Any], _: int) -> Answer:
    """Looks the order up where it may, then answers: in JSON where it has to."""
    if body.get("tools") and body["messages"][-1]["role"] != "tool":
        return Answer(tool_calls=[("find_order", {"order_id": "1001"})])
    return Answer(text=ORDER.model_dump_json() if body.get("response_format") else ANSWER)


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


@pytest.fixture
def client(gateway: Gateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key()) as client:
        yield client


@pytest.fixture
async def async_client(gateway: Gateway) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key()) as client:
        yield client


@pytest.fixture
def claude(gateway: Gateway) -> Iterator[Anthropic]:
    with Anthropic(base_url=gateway.url, api_key=gateway.key()) as client:
        yield client


class TestOpenAI:
    def test_asks(self, client: OpenAI, true_provider: TrueProvider) -> None:
        answer = client.chat.completions.create(model="small", messages=ASKED)
        assert answer.choices[0].message.content == ANSWER
        assert answer.usage is not None
        assert [(answer.usage.prompt_tokens, answer.usage.completion_tokens)] == [
            (entry.input_tokens, entry.output_tokens) for entry in true_provider.bill.entries
        ]

    def test_is_told_what_it_cost(self, client: OpenAI) -> None:
        answer = client.chat.completions.with_raw_response.create(model="small", messages=ASKED)
        usage = answer.parse().usage
        assert usage is not None
        cost = usage.prompt_tokens + 100 * usage.completion_tokens
        assert float(answer.headers["x-bursar-cost-usd"]) == pytest.approx(cost / 1e6)

    def test_streams(self, client: OpenAI) -> None:
        chunks = list(
            client.chat.completions.create(
                model="small", messages=ASKED, stream=True, stream_options={"include_usage": True}
            )
        )
        said = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
        assert "".join(said) == ANSWER
        assert len(said) > 5
        assert chunks[-1].usage is not None

    def test_adds_a_stream_up(self, client: OpenAI) -> None:
        with client.chat.completions.stream(model="small", messages=ASKED, tools=_tools()) as stream:
            message = stream.get_final_completion().choices[0].message
        assert message.tool_calls is not None
        assert message.tool_calls[0].function.arguments == '{"order_id":"1001"}'

    def test_uses_tools(self, client: OpenAI) -> None:
        first = client.chat.completions.create(model="small", messages=ASKED, tools=_tools()).choices[0]
        assert first.finish_reason == "tool_calls"
        assert first.message.tool_calls is not None
        found = {"role": "tool", "tool_call_id": first.message.tool_calls[0].id, "content": ORDER.model_dump_json()}
        asked = [*ASKED, first.message, found]
        second = client.chat.completions.create(model="small", messages=asked, tools=_tools())
        assert second.choices[0].message.content == ANSWER

    def test_parses_structured_outputs(self, client: OpenAI) -> None:
        answer = client.chat.completions.parse(model="small", messages=ASKED, response_format=Order)
        assert answer.choices[0].message.parsed == ORDER

    async def test_asks_asynchronously(self, async_client: AsyncOpenAI) -> None:
        answer = await async_client.chat.completions.create(model="small", messages=ASKED)
        assert answer.choices[0].message.content == ANSWER

    async def test_streams_asynchronously(self, async_client: AsyncOpenAI) -> None:
        stream = await async_client.chat.completions.create(model="small", messages=ASKED, stream=True)
        said = [choice.delta.content or "" async for chunk in stream for choice in chunk.choices]
        assert "".join(said) == ANSWER

    def test_lists_the_models(self, client: OpenAI) -> None:
        assert "small" in [model.id for model in client.models.list()]


class TestOpenAIResponses:
    def test_asks(self, client: OpenAI, true_provider: TrueProvider) -> None:
        answer = client.responses.create(model="small", input=QUESTION, instructions="Be brief.")
        assert (answer.output_text, answer.status) == (ANSWER, "completed")
        assert answer.usage is not None
        assert [(answer.usage.input_tokens, answer.usage.output_tokens)] == [
            (entry.input_tokens, entry.output_tokens) for entry in true_provider.bill.entries
        ]

    def test_streams(self, client: OpenAI) -> None:
        with client.responses.stream(model="small", input=QUESTION) as stream:
            said = [event.delta for event in stream if event.type == "response.output_text.delta"]
            answer = stream.get_final_response()
        assert "".join(said) == answer.output_text == ANSWER
        assert len(said) > 5

    def test_uses_tools(self, client: OpenAI) -> None:
        tools: Any = [{"type": "function", **FUNCTION}]
        first = client.responses.create(model="small", input=QUESTION, tools=tools)
        [call] = first.output
        assert call.type == "function_call"
        assert json.loads(call.arguments) == {"order_id": "1001"}
        found = {"type": "function_call_output", "call_id": call.call_id, "output": ORDER.model_dump_json()}
        asked: Any = [*ASKED, *first.output, found]
        assert client.responses.create(model="small", input=asked, tools=tools).output_text == ANSWER

    def test_parses_structured_outputs(self, client: OpenAI) -> None:
        assert client.responses.parse(model="small", input=QUESTION, text_format=Order).output_parsed == ORDER

    async def test_streams_asynchronously(self, async_client: AsyncOpenAI) -> None:
        async with async_client.responses.stream(model="small", input=QUESTION) as stream:
            assert (await stream.get_final_response()).output_text == ANSWER

    def test_is_answered_again_for_nothing(self, client: OpenAI, true_provider: TrueProvider) -> None:
        once = {"Idempotency-Key": "order-1001"}
        first = client.responses.create(model="small", input=QUESTION, extra_headers=once)
        with client.responses.stream(model="small", input=QUESTION, extra_headers=once) as stream:
            again = stream.get_final_response()
        assert (again.id, again.output_text) == (first.id, first.output_text)
        assert true_provider.bill.requests == 1

    def test_is_told_what_is_not_kept_here(self, client: OpenAI) -> None:
        with pytest.raises(openai.BadRequestError, match="responses are not kept here") as refused:
            client.responses.create(model="small", input=QUESTION, previous_response_id="resp_1")
        assert refused.value.param == "previous_response_id"


class TestAnthropic:
    def test_asks(self, claude: Anthropic, true_provider: TrueProvider) -> None:
        answer = claude.messages.create(model="small", max_tokens=100, system="Be brief.", messages=ASKED)
        assert (answer.content[0].to_dict()["text"], answer.stop_reason) == (ANSWER, "end_turn")
        assert [(answer.usage.input_tokens, answer.usage.output_tokens)] == [
            (entry.input_tokens, entry.output_tokens) for entry in true_provider.bill.entries
        ]

    def test_asks_with_a_bearer_token(self, gateway: Gateway) -> None:
        with Anthropic(base_url=gateway.url, auth_token=gateway.key()) as claude:
            assert claude.messages.create(model="small", max_tokens=100, messages=ASKED).stop_reason == "end_turn"

    def test_streams(self, claude: Anthropic) -> None:
        with claude.messages.stream(model="small", max_tokens=100, messages=ASKED) as stream:
            said = list(stream.text_stream)
            answer = stream.get_final_message()
        assert "".join(said) == ANSWER
        assert len(said) > 5
        assert answer.usage.output_tokens > 5

    def test_uses_tools(self, claude: Anthropic) -> None:
        tools: Any = [{"name": "find_order", "description": "Look an order up.", "input_schema": PARAMETERS}]
        with claude.messages.stream(model="small", max_tokens=100, messages=ASKED, tools=tools) as stream:
            first = stream.get_final_message()
        [call] = first.content
        assert (call.type, first.stop_reason) == ("tool_use", "tool_use")
        assert call.to_dict()["input"] == {"order_id": "1001"}
        found = {"type": "tool_result", "tool_use_id": call.to_dict()["id"], "content": ORDER.model_dump_json()}
        asked: Any = [*ASKED, first.to_param(), {"role": "user", "content": [found]}]
        second = claude.messages.create(model="small", max_tokens=100, messages=asked, tools=tools)
        assert second.content[0].to_dict()["text"] == ANSWER

    def test_parses_structured_outputs(self, claude: Anthropic) -> None:
        answer = claude.messages.parse(model="small", max_tokens=100, messages=ASKED, output_format=Order)
        assert answer.parsed_output == ORDER

    async def test_asks_asynchronously(self, gateway: Gateway) -> None:
        async with AsyncAnthropic(base_url=gateway.url, api_key=gateway.key()) as claude:
            answer = await claude.messages.create(model="small", max_tokens=100, messages=ASKED)
        assert answer.stop_reason == "end_turn"

    async def test_streams_asynchronously(self, gateway: Gateway) -> None:
        async with (
            AsyncAnthropic(base_url=gateway.url, api_key=gateway.key()) as claude,
            claude.messages.stream(model="small", max_tokens=100, messages=ASKED) as stream,
        ):
            assert "".join([said async for said in stream.text_stream]) == ANSWER

    def test_counts_tokens_as_the_provider_bills_them(self, claude: Anthropic, true_provider: TrueProvider) -> None:
        counted = claude.messages.count_tokens(model="small", messages=ASKED).input_tokens
        assert true_provider.bill.requests == 0
        claude.messages.create(model="small", max_tokens=100, messages=ASKED)
        assert true_provider.bill.entries[0].input_tokens == counted


class TestLangChain:
    @pytest.fixture(params=["chat completions", "responses"])
    def model(self, request: pytest.FixtureRequest, gateway: Gateway) -> Iterator[ChatOpenAI]:
        with httpx.Client() as http:
            yield ChatOpenAI(
                model="small",
                base_url=f"{gateway.url}/v1",
                api_key=gateway.key(),  # type: ignore[arg-type]  # text is taken, too
                use_responses_api=request.param == "responses",
                http_client=http,
            )

    def test_invokes(self, model: ChatOpenAI) -> None:
        answer = model.invoke(QUESTION)
        assert answer.text == ANSWER
        assert answer.usage_metadata is not None
        assert answer.usage_metadata["output_tokens"] > 5

    def test_streams(self, model: ChatOpenAI) -> None:
        said = [str(chunk.text) for chunk in model.stream(QUESTION)]
        assert "".join(said) == ANSWER
        assert len(said) > 5

    def test_binds_tools(self, model: ChatOpenAI) -> None:
        @tool
        def find_order(order_id: str) -> str:
            """Look an order up."""
            return ORDER.model_dump_json()

        bound = model.bind_tools([find_order])
        first = bound.invoke(QUESTION)
        [call] = first.tool_calls
        assert (call["name"], call["args"]) == ("find_order", {"order_id": "1001"})
        assert bound.invoke([("user", QUESTION), first, find_order.invoke(call)]).text == ANSWER

    def test_gives_structured_output(self, model: ChatOpenAI) -> None:
        assert model.with_structured_output(Order, method="json_schema").invoke(QUESTION) == ORDER


class TestCurl:
    @pytest.mark.parametrize(
        ("path", "body"),
        [
            ("/v1/chat/completions", {"model": "small", "messages": ASKED}),
            ("/v1/responses", {"model": "small", "input": QUESTION}),
            ("/v1/messages", {"model": "small", "max_tokens": 100, "messages": ASKED}),
        ],
    )
    @pytest.mark.parametrize("streamed", [False, True])
    def test_asks(self, path: str, body: dict[str, Any], streamed: bool, gateway: Gateway) -> None:
        shown = _curl(gateway, path, {**body, "stream": streamed}, f"Authorization: Bearer {gateway.key()}")
        if streamed:
            events = [json.loads(line[6:]) for line in shown.splitlines() if line.startswith("data: {")]
            assert len(events) > 5
        else:
            assert ANSWER in shown

    def test_is_refused_in_words(self, gateway: Gateway) -> None:
        shown = json.loads(_curl(gateway, "/v1/messages", {}, "x-api-key: bsr_nobody"))
        assert shown["error"]["type"] == "authentication_error"


class TestRefusals:
    """A refusal is an exception that can be read; a budget's is not asked for again, a rate's is waited for."""

    def test_a_budget_s_refusal_is_not_asked_for_again(self, gateway: Gateway, true_provider: TrueProvider) -> None:
        key, shown = gateway.made_key(limits=ONE_STEP)
        with _counted(gateway, shown) as (client, requests):
            client.chat.completions.create(model="small", messages=ASKED)
            requests.clear()
            with pytest.raises(openai.APIStatusError, match=r"refused: .* 0 steps left of 1 step") as refused:
                client.chat.completions.create(model="small", messages=ASKED)
        assert (refused.value.status_code, refused.value.code) == (402, "budget_exceeded")
        assert f"bursar budget grant acme/gateway/{key.id} --steps 20" in refused.value.message
        assert len(requests) == 1
        assert true_provider.bill.requests == 1

    def test_nor_by_anthropic_s_client(self, gateway: Gateway, true_provider: TrueProvider) -> None:
        with Anthropic(base_url=gateway.url, api_key=gateway.key(limits=ONE_STEP)) as claude:
            claude.messages.create(model="small", max_tokens=100, messages=ASKED)
            before = _requests(gateway, "/v1/messages")
            with pytest.raises(anthropic.APIStatusError, match="0 steps left of 1 step") as refused:
                claude.messages.create(model="small", max_tokens=100, messages=ASKED)
        assert (refused.value.status_code, refused.value.type) == (402, "billing_error")
        assert isinstance(refused.value.body, dict)
        assert refused.value.body["limit"] == 1
        assert _requests(gateway, "/v1/messages") == before + 1
        assert true_provider.bill.requests == 1

    def test_an_answer_that_breaks_off_is_told_in_its_stream(
        self, client: OpenAI, claude: Anthropic, true_provider: TrueProvider
    ) -> None:
        true_provider.behaviour = Behaviour(faults=[Fault("broken_stream")] * 3)
        with pytest.raises(openai.APIError, match="its answer broke off"):
            list(client.chat.completions.create(model="small", messages=ASKED, stream=True))
        last = list(client.responses.create(model="small", input=QUESTION, stream=True))[-1]
        assert last.type == "response.failed"
        assert last.response.error is not None
        assert "its answer broke off" in last.response.error.message
        with pytest.raises(anthropic.APIStatusError, match="its answer broke off"):
            list(claude.messages.create(model="small", max_tokens=100, messages=ASKED, stream=True))

    def test_a_rate_s_refusal_is_waited_for_as_long_as_it_says(
        self, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waits: list[float] = []
        monkeypatch.setattr("openai._base_client.time", SimpleNamespace(**vars(time) | {"sleep": waits.append}))
        with _counted(gateway, gateway.key(requests_per_minute=1)) as (client, requests):
            client.chat.completions.create(model="small", messages=ASKED)
            with pytest.raises(openai.RateLimitError) as refused:
                client.chat.completions.create(model="small", messages=ASKED)
        assert len(requests) == 1 + 1 + client.max_retries
        assert len(waits) == client.max_retries
        assert all(1 <= wait <= 60 for wait in waits)
        assert int(refused.value.response.headers["retry-after"]) == pytest.approx(waits[-1], abs=1)

    def test_a_model_that_is_not_there_is_one_with_its_neighbours(self, client: OpenAI) -> None:
        with pytest.raises(openai.NotFoundError, match="use one of small"):
            client.chat.completions.create(model="smal", messages=ASKED)

    def test_a_foreign_key_is_told_nothing(self, gateway: Gateway) -> None:
        with (
            OpenAI(base_url=f"{gateway.url}/v1", api_key="sk-foreign") as client,
            pytest.raises(openai.AuthenticationError, match="The key is missing or not valid"),
        ):
            client.responses.create(model="small", input=QUESTION)


def _tools() -> Any:
    return [{"type": "function", "function": FUNCTION}]


@contextmanager
def _counted(gateway: Gateway, key: str) -> Iterator[tuple[OpenAI, list[httpx.Request]]]:
    """A client with this key, and the requests that it sends."""
    requests: list[httpx.Request] = []
    with httpx.Client(event_hooks={"request": [requests.append]}) as http:
        yield OpenAI(base_url=f"{gateway.url}/v1", api_key=key, http_client=http), requests


def _requests(gateway: Gateway, path: str) -> int:
    """How many requests to a path the gateway has answered."""
    with gateway.client() as http:
        lines = http.get("/metrics").text.splitlines()
    counted = [line for line in lines if line.startswith("bursar_requests_total") and f'path="{path}"' in line]
    return sum(int(float(line.rpartition(" ")[2])) for line in counted)


def _curl(gateway: Gateway, path: str, body: dict[str, Any], header: str) -> str:
    command = ["curl", "-sSN", gateway.url + path, "-H", header, "-H", "Content-Type: application/json"]
    shown = subprocess.run([*command, "-d", json.dumps(body)], capture_output=True, text=True, check=True, timeout=20)
    return shown.stdout
