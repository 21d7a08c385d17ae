"""Embeddings and rerank as they cross the wire, in the shapes of OpenAI and Cohere, and vectors as they are kept."""

from __future__ import annotations

import math
import sys
from array import array
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any

from bursar.budget.pricing.usage_shapes import embedding, rerank
from bursar.runtime.models.failures import excerpt
from bursar.runtime.models.provider import (
    BadReply,
    EmbedReply,
    EmbedRequest,
    NotSent,
    RerankReply,
    RerankRequest,
)

__all__ = ["embedding_body", "packed", "ranking_of", "rerank_body", "unpacked", "vectors_of"]

_RESERVED = frozenset({"model", "input", "query", "documents", "encoding_format"})
"""What the call was counted by, and how its answer is read; `extra` may not change it behind the reservation."""

Vector = Sequence[float]


def embedding_body(request: EmbedRequest) -> dict[str, Any]:
    """The request's body; raises NotSent where `extra` would escape the reservation.

    Vectors are asked for in base64, as OpenAI's own clients do: a fifth of the bytes. A server that does not know it
    answers with numbers, which are read as well.
    """
    body = {"model": request.model, "input": [*request.inputs], "encoding_format": "base64"}
    return {**_checked(request.extra), **body, **_given(dimensions=request.dimensions)}


def rerank_body(request: RerankRequest) -> dict[str, Any]:
    """The request's body; raises NotSent where `extra` would escape the reservation."""
    body = {"model": request.model, "query": request.query, "documents": [*request.documents]}
    return {**_checked(request.extra), **body, **_given(top_n=request.top_n)}


def vectors_of(answer: Any, inputs: int) -> EmbedReply:
    """The vectors of so many inputs in an answer, as parsed JSON; raises BadReply for any other number of them."""
    try:
        found = {one.get("index", place): _vector(one["embedding"]) for place, one in enumerate(answer["data"])}
        vectors = [found[place] for place in range(inputs)]
        usage = embedding(answer)
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise BadReply(f"expected {inputs} embeddings: {excerpt(str(error) or repr(error))}") from None
    if len(set(map(len, vectors))) > 1 or len(found) != inputs or not all(map(_is_usable, vectors)):
        raise BadReply(f"expected {inputs} embeddings of one length and finite numbers")
    return EmbedReply(vectors=vectors, usage=usage)


def ranking_of(answer: Any, documents: int) -> RerankReply:
    """The scores in an answer, as parsed JSON, the best first; raises BadReply for places that no document has."""
    try:
        results = [(int(one["index"]), float(one["relevance_score"])) for one in answer["results"]]
        usage = rerank(answer)
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise BadReply(f"expected a ranking of {documents} documents: {excerpt(str(error) or repr(error))}") from None
    places = {place for place, _ in results}
    if len(places) != len(results) or not places <= set(range(documents)):
        raise BadReply(f"expected a ranking of {documents} documents, each at most once")
    return RerankReply(results=sorted(results, key=lambda result: -result[1]), usage=usage)


def packed(vectors: Sequence[Vector]) -> dict[str, Any]:
    """Vectors as they are kept: single precision in base64, 5.4 bytes a number where JSON takes about 20."""
    data = b"".join(map(_bytes, vectors))
    return {"dimensions": len(vectors[0]) if vectors else 0, "base64": b64encode(data).decode()}


def unpacked(kept: Mapping[str, Any]) -> list[Vector]:
    """What `packed` was given, in single precision."""
    numbers, dimensions = _floats(kept["base64"]), kept["dimensions"]
    return [numbers[start : start + dimensions] for start in range(0, len(numbers), dimensions or 1)]


def _vector(found: Any) -> Vector:
    return _floats(found) if isinstance(found, str) else array("f", found)


def _floats(text: str) -> array[float]:
    numbers = array("f")
    numbers.frombytes(b64decode(text, validate=True))
    return _little_endian(numbers)


def _bytes(vector: Vector) -> bytes:
    return _little_endian(array("f", vector)).tobytes()


def _little_endian(numbers: array[float]) -> array[float]:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _is_usable(vector: Vector) -> bool:
    return len(vector) > 0 and math.isfinite(sum(vector))  # the sum of numbers in single precision cannot overflow


def _checked(extra: Mapping[str, Any]) -> Mapping[str, Any]:
    if taken := sorted(_RESERVED & extra.keys()):
        raise NotSent(f"extra: {', '.join(taken)} would change what was reserved; use the request's own fields")
    return extra


def _given(**optional: Any) -> dict[str, Any]:
    return {key: value for key, value in optional.items() if value is not None}
