"""Embeddings and rerank of every provider over real HTTP: one request a call, vectors in order, usage as said."""

from __future__ import annotations

import struct
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from bursar.budget.usage import Usage
from bursar.runtime.models.litellm_sdk import LiteLLMProvider
from bursar.runtime.models.openai_sdk import OpenAIProvider
from bursar.runtime.models.provider import (
    BadReply,
    EmbedReply,
    EmbedRequest,
    Embeds,
    NotSent,
    ProviderError,
    RateLimited,
    RerankRequest,
    Reranks,
)
from tests.support.wire import Wire, http, served

pytestmark = [
    # litellm's own: it reads pydantic models in a way that pydantic 2.11 deprecated, and builds them as it answers.
    pytest.mark.filterwarnings("ignore:Accessing the 'model_.*fields' attribute:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Item '.*' on TypedDict class .* is using the `ReadOnly` qualifier:UserWarning"),
]

KEY = "sk-very-secret"
TEXTS = ("left", "right")
VECTORS = [[1.0, 0.0], [0.5, 0.25]]
TWO_TOKENS = Usage(input_tokens=2, output_tokens=0)


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with served() as wire:
        yield wire


def listed(*vectors: Any, **changes: Any) -> dict[str, Any]:
    """An answer in OpenAI's shape, the last vector first."""
    data = [{"object": "embedding", "index": place, "embedding": vector} for place, vector in enumerate(vectors)]
    usage = {"prompt_tokens": 2, "total_tokens": 2}
    return {"object": "list", "model": "m", "data": data[::-1], "usage": usage, **changes}


def base64_of(vector: list[float]) -> str:
    return b64encode(struct.pack("<2f", *vector)).decode()


ANSWERS: Mapping[str, tuple[str, Mapping[str, Any], Usage | None]] = {
    "openai": ("text-embedding-3-small", listed(*map(base64_of, VECTORS)), TWO_TOKENS),
    "azure": ("text-embedding-3-small", listed(*VECTORS), TWO_TOKENS),
    "mistral": ("mistral-embed", listed(*VECTORS), TWO_TOKENS),
    "cohere": (
        "embed-v4.0",
        {"id": "r1", "embeddings": {"float": VECTORS}, "texts": TEXTS, "meta": {"billed_units": {"input_tokens": 2}}},
        TWO_TOKENS,
    ),
    "gemini": ("gemini-embedding-001", {"embeddings": [{"values": vector} for vector in VECTORS]}, None),
}
RANKED = [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.2}]
RANKINGS: Mapping[str, tuple[str, Mapping[str, Any], Usage]] = {
    "openai": (
        "bge-reranker",
        {"results": RANKED, "usage": {"prompt_tokens": 7, "total_tokens": 7}},
        Usage(input_tokens=7, output_tokens=0),
    ),
    "cohere": (
        "rerank-v3.5",
        {"id": "r1", "results": RANKED, "meta": {"billed_units": {"search_units": 1}}},
        Usage(input_tokens=0, output_tokens=0, searches=1),
    ),
    "jina_ai": (
        "jina-reranker-v2",
        {"results": RANKED, "usage": {"total_tokens": 7}},
        Usage(input_tokens=7, output_tokens=0),
    ),
}


def provider_of(name: str, url: str) -> OpenAIProvider | LiteLLMProvider:
    return OpenAIProvider(KEY, f"{url}/v1") if name == "openai" else LiteLLMProvider(name, KEY, url)


async def embedded(wire: Wire, name: str = "openai", model: str = "m", **changes: Any) -> EmbedReply:
    provider = provider_of(name, wire.url)
    assert isinstance(provider, Embeds)
    try:
        return await provider.embed(EmbedRequest(**{"model": model, "inputs": TEXTS, "timeout_s": 30, **changes}))
    finally:
        await provider.aclose()


@pytest.mark.parametrize("name", ANSWERS)
async def test_vectors_come_in_the_order_of_the_texts_with_what_the_provider_said_it_used(
    wire: Wire, name: str
) -> None:
    model, answer, usage = ANSWERS[name]
    wire.answer = http(200, answer)
    reply = await embedded(wire, name, model)
    assert [[*vector] for vector in reply.vectors] == VECTORS
    assert reply.usage == usage
    assert len(wire.asked) == 1


async def test_a_server_that_knows_no_base64_answers_in_numbers(wire: Wire) -> None:
    wire.answer = http(200, listed(*VECTORS))
    reply = await embedded(wire, dimensions=2, extra={"user": "dana"})
    assert [[*vector] for vector in reply.vectors] == VECTORS
    ((_, body),) = wire.asked
    assert body == {
        "model": "m",
        "input": [*TEXTS],
        "encoding_format": "base64",
        "dimensions": 2,
        "user": "dana",
    }


@pytest.mark.parametrize(
    "answer",
    [
        listed(VECTORS[0]),
        listed(VECTORS[0], [1.0]),
        listed([], []),
        listed(VECTORS[0], "no base64!"),
        listed(VECTORS[0], ["one", "two"]),
        listed(VECTORS[0], [1e300, 0.0]),
        listed(*VECTORS, data=None),
        listed(*VECTORS, usage={"prompt_tokens": -2}),
        [],
    ],
    ids=str,
)
async def test_an_answer_without_a_vector_for_each_text_is_none(wire: Wire, answer: Any) -> None:
    wire.answer = http(200, answer if isinstance(answer, dict) else b"[]")
    with pytest.raises(BadReply):
        await embedded(wire)


async def test_usage_that_the_provider_does_not_give_is_none(wire: Wire) -> None:
    wire.answer = http(200, listed(*VECTORS, usage=None))
    assert (await embedded(wire)).usage is None


@pytest.mark.parametrize("name", ["openai", "mistral"])
async def test_a_refusal_is_told_apart_as_for_chat(wire: Wire, name: str) -> None:
    wire.answer = http(429, {"error": {"message": f"slow down, {KEY}"}})
    with pytest.raises(RateLimited) as caught:
        await embedded(wire, name)
    assert KEY not in str(caught.value)
    assert len(wire.asked) == 1


async def test_a_refusal_of_litellm_s_own_is_raised_and_not_logged(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    provider = LiteLLMProvider("anthropic", KEY, wire.url)
    with pytest.raises(ProviderError):
        await provider.rerank(RerankRequest(model="claude", query="which?", documents=TEXTS, timeout_s=30))
    await provider.aclose()
    assert (caplog.text, wire.asked) == ("", [])


@pytest.mark.parametrize("name", ["model", "input", "encoding_format"])
async def test_extra_parameters_cannot_escape_the_reservation(wire: Wire, name: str) -> None:
    with pytest.raises(NotSent, match=name):
        await embedded(wire, extra={name: "more"})
    assert wire.asked == []


async def test_a_model_that_would_be_asked_once_for_each_text_is_not_asked_for_several(wire: Wire) -> None:
    with pytest.raises(NotSent, match="one at a time"):
        await embedded(wire, "bedrock", "amazon.titan-embed-text-v2:0")
    assert wire.asked == []


@pytest.mark.parametrize("name", RANKINGS)
async def test_documents_are_ranked_and_billed_as_the_provider_said(wire: Wire, name: str) -> None:
    model, answer, usage = RANKINGS[name]
    wire.answer = http(200, answer)
    provider = provider_of(name, wire.url)
    assert isinstance(provider, Reranks)
    reply = await provider.rerank(RerankRequest(model=model, query="which?", documents=TEXTS, timeout_s=30, top_n=2))
    await provider.aclose()
    assert (reply.results, reply.usage) == ([(1, 0.9), (0, 0.2)], usage)
    ((_, body),) = wire.asked
    assert (body["query"], body["documents"], body["top_n"]) == ("which?", [*TEXTS], 2)


@pytest.mark.parametrize(
    "results", [[{"index": 2, "relevance_score": 1.0}], [*RANKED, RANKED[0]], [{"index": 0}], None]
)
async def test_a_ranking_of_documents_that_were_not_given_is_none(wire: Wire, results: Any) -> None:
    wire.answer = http(200, {"results": results, "usage": {"total_tokens": 7}})
    provider = OpenAIProvider(KEY, f"{wire.url}/v1")
    with pytest.raises(BadReply):
        await provider.rerank(RerankRequest(model="m", query="which?", documents=TEXTS, timeout_s=30))
    await provider.aclose()
