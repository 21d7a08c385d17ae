"""`POST /v1/embeddings`: a vector for each text."""

from __future__ import annotations

import sys
from array import array
from base64 import b64encode
from collections.abc import Sequence
from typing import Annotated, Literal

import orjson
from pydantic import Field
from starlette.responses import Response
from starlette.types import ASGIApp

from bursar.runtime.paid_embedding import INPUTS_MAX
from bursar.runtime.service.gateway import Gateway, Incoming
from bursar.runtime.service.headers import of_answer
from bursar.runtime.service.shapes import Body, Many, read_body

__all__ = ["EmbeddingsRequest", "create_embeddings"]


class EmbeddingsRequest(Body):
    """The body. Texts only: tokens of another model's making are counted by nobody here."""

    model: Annotated[str, Field(min_length=1)]
    """A model of `kind: embedding` in bursar.yaml."""

    input: str | Annotated[Many[str], Field(min_length=1, max_length=INPUTS_MAX)]
    dimensions: Annotated[int, Field(ge=1)] | None = None
    encoding_format: Literal["float", "base64"] | None = None
    user: str | None = None


async def create_embeddings(gateway: Gateway, request: Incoming) -> ASGIApp:
    """Embed texts."""
    asked = read_body(EmbeddingsRequest, request.body)
    vectors, answered = await gateway.calls.embed(
        request.caller,
        asked.model,
        [asked.input] if isinstance(asked.input, str) else asked.input,
        request.where,
        dimensions=asked.dimensions,
        idempotency_key=request.idempotency_key,
    )
    gateway.metrics.answered(request.caller, answered)
    as_text = asked.encoding_format == "base64"
    tokens = answered.usage.input_tokens if answered.usage else 0
    body = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": place, "embedding": _base64(vector) if as_text else list(vector)}
            for place, vector in enumerate(vectors)
        ],
        "model": answered.sent.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return Response(orjson.dumps(body), 200, of_answer(answered), "application/json")


def _base64(vector: Sequence[float]) -> str:
    """Little-endian single precision, as OpenAI's clients read it."""
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return b64encode(numbers.tobytes()).decode("ascii")
