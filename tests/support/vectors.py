"""Embeddings and rerank of the TrueProvider: vectors and scores that a test can work out, on the true bill."""

from __future__ import annotations

import hashlib
import struct
import time
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.support.bill import Bill, Billed
from tests.support.tokens import Tokens

__all__ = ["DIMENSIONS", "embeddings", "rerank", "vector_of"]

DIMENSIONS = 4


def vector_of(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """What a text is embedded as: numbers that single precision holds exactly."""
    return [byte / 256 for byte in hashlib.sha256(text.encode()).digest()[:dimensions]]


async def embeddings(request: Request, bill: Bill, tokens: Tokens) -> Response:
    """`POST /v1/embeddings`, in numbers or base64 as it is asked for."""
    with bill.request() as number:
        body = await request.json()
        read = sum(len(tokens.split(text)) for text in body["input"])
        _charge(bill, f"embd-{number}", body, request.headers, read)
        vectors = [vector_of(text, body.get("dimensions") or DIMENSIONS) for text in body["input"]]
        data = [
            {"object": "embedding", "index": place, "embedding": _written(vector, body.get("encoding_format"))}
            for place, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": read, "total_tokens": read}
        return JSONResponse({"object": "list", "model": body["model"], "data": data, "usage": usage})


async def rerank(request: Request, bill: Bill, tokens: Tokens) -> Response:
    """`POST /v1/rerank`: a document scores by how many words of the query it holds; with searches and tokens."""
    with bill.request() as number:
        body = await request.json()
        wanted = body["query"].split()
        read = sum(len(tokens.split(body["query"] + text)) for text in body["documents"])
        _charge(bill, f"rerank-{number}", body, request.headers, read)
        scores = [sum(word in text.split() for word in wanted) / len(wanted) for text in body["documents"]]
        results = [{"index": place, "relevance_score": score} for place, score in enumerate(scores)]
        searches = -(-len(body["documents"]) // 100)
        usage = {"prompt_tokens": read, "total_tokens": read}
        meta = {"billed_units": {"search_units": searches}}
        return JSONResponse({"id": f"rerank-{number}", "results": results, "usage": usage, "meta": meta})


def _written(vector: list[float], encoding: object) -> list[float] | str:
    return b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode() if encoding == "base64" else vector


def _charge(bill: Bill, id: str, body: Mapping[str, Any], headers: Mapping[str, str], read: int) -> None:
    bill.charge(
        Billed(
            request_id=id,
            model=body["model"],
            key=headers.get("authorization", "").removeprefix("Bearer "),
            input_tokens=read,
            output_tokens=0,
            at_ns=time.time_ns(),
            headers={},
            digest="",
        )
    )
