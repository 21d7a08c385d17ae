"""Paid embeddings and rerank: the same way to a provider as a chat call, with a reservation, a settle and a replay.

An embedding model is asked by `Attempts` like any other, as one whose answer has no output tokens and holds vectors.
They are kept in the call's reply in single precision, which is what providers compute: the first answer and its replay
are the same numbers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from bursar.budget.errors import UsageError
from bursar.budget.refusal import Refusal
from bursar.budget.reservations import Call
from bursar.runtime.attempt import Ask, Attempts, PaidReply
from bursar.runtime.context import RunContext
from bursar.runtime.models.catalog import Catalog, Model
from bursar.runtime.models.causes import Failure
from bursar.runtime.models.embeddings import packed, unpacked
from bursar.runtime.models.provider import (
    EmbedRequest,
    Embeds,
    ModelReply,
    ModelRequest,
    NotSent,
    RerankRequest,
    Reranks,
)
from bursar.runtime.models.tokens import TokenCounter
from bursar.runtime.routing.allow import Policy, forbidden
from bursar.runtime.stop import LimitReached, ModelCallFailed

__all__ = ["INPUTS_MAX", "PaidEmbeddings", "PaidRanking", "PaidVectors"]

INPUTS_MAX = 2_048
"""Texts in one call: what OpenAI takes, and what keeps a stored reply within some megabytes."""

SEARCH_CHUNKS_MAX = 100
"""Documents, or pieces of long ones, that providers bill as one search."""

CHUNK_TOKENS = 400
"""From how many tokens on, with the query, a document is billed as several: Cohere says 500, by its own tokenizer."""

Stop = Callable[[RunContext, Refusal], Awaitable[LimitReached]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PaidVectors:
    """One vector for each input, and what they were charged."""

    vectors: Sequence[Sequence[float]]
    paid: PaidReply


@dataclass(frozen=True, slots=True, kw_only=True)
class PaidRanking:
    """Places of documents with their scores, the best first, and what each search was charged."""

    results: Sequence[tuple[int, float]]
    paid: Sequence[PaidReply]


class PaidEmbeddings:
    """Makes paid embeddings and searches with the attempts of one ledger."""

    def __init__(
        self,
        catalog: Catalog,
        attempts: Attempts,
        counter: TokenCounter,
        policy: Callable[[RunContext], Policy],
        stop: Stop,
    ) -> None:
        """`policy` is what a run's tenant allows; `stop` makes a refusal stick, and gives what is raised for it."""
        self._catalog, self._attempts, self._counter = catalog, attempts, counter
        self._policy, self._stop = policy, stop

    async def embed(
        self,
        run: RunContext,
        model: str,
        inputs: Sequence[str],
        *,
        call_id: str,
        node: str = "-",
        dimensions: int | None = None,
        exclusive: bool = False,
    ) -> PaidVectors:
        """A vector for each of 1 to INPUTS_MAX texts, by a model of `kind: embedding` in bursar.yaml.

        Another model is never asked instead, since vectors of two models do not mix. Replayed where `call_id` was
        settled before; where it is under way an `exclusive` one raises CallInFlight. Raises LimitReached,
        ModelCallFailed (also for a model that the tenant may not use) and LedgerUnavailable as a chat call does,
        UsageError for a model that is none of the kind.
        """
        _require_some(inputs, "inputs")
        counted = sum(map(self._counter.count_text, inputs))
        asked, ask = _Embedding(inputs, dimensions), Ask(tier="", node=node, messages=(), exclusive=exclusive)
        paid = await self._paid(run, self._catalog.of_kind(model, "embedding"), asked, counted, call_id, ask)
        return PaidVectors(vectors=unpacked(paid.message["vectors"]), paid=paid)

    async def rerank(
        self,
        run: RunContext,
        model: str,
        query: str,
        documents: Sequence[str],
        *,
        call_id: str,
        node: str = "-",
        top_n: int | None = None,
    ) -> PaidRanking:
        """1 to INPUTS_MAX documents in order of what they say of a query: the `top_n` best, or all.

        A model of `kind: rerank` with a fee for each search is asked in parts that are one search each. Raises as
        `embed` does.
        """
        found: list[tuple[int, float]] = []
        paid: list[PaidReply] = []
        async for part, reply in self._searches(run, model, query, documents, call_id, node):
            found += [(part[place], score) for place, score in reply.message["results"]]
            paid.append(reply)
        return PaidRanking(results=sorted(found, key=lambda one: -one[1])[:top_n], paid=paid)

    async def _searches(
        self, run: RunContext, model: str, query: str, documents: Sequence[str], call_id: str, node: str
    ) -> AsyncIterator[tuple[range, PaidReply]]:
        _require_some(documents, "documents")
        asked = self._catalog.of_kind(model, "rerank")
        in_query = self._counter.count_text(query)
        tokens = [in_query + self._counter.count_text(document) for document in documents]
        by_search = asked.price is not None and asked.price.request_usd > 0
        for part in _one_search_each(tokens) if by_search else [range(len(documents))]:
            search = _Search(query, [documents[place] for place in part])
            counted = sum(tokens[place] for place in part)
            ask = Ask(tier="", node=node, messages=())
            yield part, await self._paid(run, asked, search, counted, f"{call_id}:{part.start}", ask)

    async def _paid(
        self, run: RunContext, model: Model, asked: _Embedding | _Search, counted: int, call_id: str, ask: Ask
    ) -> PaidReply:
        if why := forbidden(model, self._policy(run), None, "any"):
            raise ModelCallFailed(f"{why}; nothing was sent", next_step=f"ask for a model of {run.scope.tenant}'s own")
        call = Call(
            id=call_id, scope=run.scope, epoch=run.epoch, node=ask.node, model=model.name, reason="named by the call"
        )
        only = replace(model, provider=_AsModel(model.provider, asked))
        made = await self._attempts.run(run, ask, call, only, counted, None, alone=True)
        if isinstance(made, Refusal):
            raise await self._stop(run, made)
        if isinstance(made, Failure) and not made.attempts and (kept := await self._attempts.replay(run, call)):
            return kept
        if isinstance(made, Failure):
            text = f"model {model.name} did not answer: {made.words()}"
            raise ModelCallFailed(text, failures=[made], next_step="bursar doctor")
        return made


class _Asked(Protocol):
    async def of(self, provider: object, request: ModelRequest) -> ModelReply: ...


@dataclass(frozen=True, slots=True)
class _AsModel:
    """A provider that is asked one thing, as if it were a chat model."""

    provider: object
    asked: _Asked

    async def complete(self, request: ModelRequest) -> ModelReply:
        return await self.asked.of(self.provider, request)

    async def stream(self, request: ModelRequest) -> AsyncIterator[Mapping[str, Any] | ModelReply]:
        yield await self.complete(request)

    async def aclose(self) -> None:
        """It holds nothing open of its own."""


@dataclass(frozen=True, slots=True)
class _Embedding:
    inputs: Sequence[str]
    dimensions: int | None

    async def of(self, provider: object, request: ModelRequest) -> ModelReply:
        if not isinstance(provider, Embeds):
            raise _cannot("embeddings")
        made = await provider.embed(
            EmbedRequest(
                model=request.model,
                inputs=self.inputs,
                timeout_s=request.timeout_s,
                dimensions=self.dimensions,
                tenant=request.tenant,
            )
        )
        message = {"role": "assistant", "content": None, "vectors": packed(made.vectors)}
        return ModelReply(message=message, usage=made.usage, finish_reason="stop")


@dataclass(frozen=True, slots=True)
class _Search:
    query: str
    documents: Sequence[str]

    async def of(self, provider: object, request: ModelRequest) -> ModelReply:
        if not isinstance(provider, Reranks):
            raise _cannot("rerank")
        made = await provider.rerank(
            RerankRequest(
                model=request.model,
                query=self.query,
                documents=self.documents,
                timeout_s=request.timeout_s,
                tenant=request.tenant,
            )
        )
        message = {"role": "assistant", "content": None, "results": [[*one] for one in made.results]}
        return ModelReply(message=message, usage=made.usage, finish_reason="stop")


def _require_some(texts: Sequence[str], what: str) -> None:
    if not 1 <= len(texts) <= INPUTS_MAX:
        raise UsageError(f"{len(texts)} {what}: expected 1 to {INPUTS_MAX} in one call", next_step="ask in parts")


def _cannot(what: Literal["embeddings", "rerank"]) -> NotSent:
    return NotSent(f"the provider has no {what}")


def _one_search_each(tokens: Sequence[int]) -> Iterator[range]:
    """Runs of documents that are billed as one search; `tokens` are those of each document and the query."""
    start = chunks = 0
    for place, count in enumerate(tokens):
        more = -(-count // CHUNK_TOKENS)
        if chunks and chunks + more > SEARCH_CHUNKS_MAX:
            yield range(start, place)
            start, chunks = place, 0
        chunks += more
    yield range(start, len(tokens))
