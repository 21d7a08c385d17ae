"""`embedding_model` and `reranker`: LangChain's interfaces to models whose every call the run around it pays for."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.embeddings import Embeddings

from bursar.runtime.context import current_run, digest_of, node_name
from bursar.runtime.paid_embedding import PaidRanking

__all__ = ["BursarEmbeddings", "BursarReranker", "embedding_model", "reranker"]

BATCH = 256
"""Texts in one call: a failure repeats no more than these, and their vectors stay some megabytes in the ledger."""


def embedding_model(model: str, *, dimensions: int | None = None) -> BursarEmbeddings:
    """LangChain's embeddings by a model of `kind: embedding` in bursar.yaml.

    It may be made anywhere, at import too. Calling it needs a run around it, as with `chat_model`; without one it
    raises NoRunError and sends nothing. At a limit it raises LimitReached.
    """
    return BursarEmbeddings(model, dimensions)


def reranker(model: str, *, top_n: int | None = None) -> BursarReranker:
    """LangChain's document compressor by a model of `kind: rerank` in bursar.yaml; called as `embedding_model` is."""
    return BursarReranker(model=model, top_n=top_n)


class BursarEmbeddings(Embeddings):
    """See `embedding_model`."""

    def __init__(self, model: str, dimensions: int | None = None) -> None:
        self.model, self.dimensions = model, dimensions

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """A vector for each text."""
        return current_run().side_loop.run(self.aembed_documents(texts)) if texts else []

    def embed_query(self, text: str) -> list[float]:
        """The vector of a text."""
        return self.embed_documents([text])[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """A vector for each text."""
        batches = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
        return [vector for batch in batches for vector in await self._embedded(batch)]

    async def aembed_query(self, text: str) -> list[float]:
        """The vector of a text."""
        return (await self.aembed_documents([text]))[0]

    async def _embedded(self, texts: Sequence[str]) -> list[list[float]]:
        run = current_run()
        call_id = run.call_id(digest_of({"model": self.model, "dimensions": self.dimensions, "texts": texts}))
        made = await run.calls.embeddings.embed(
            run, self.model, texts, call_id=call_id, node=node_name(), dimensions=self.dimensions
        )
        return [[*vector] for vector in made.vectors]


class BursarReranker(BaseDocumentCompressor):
    """See `reranker`."""

    model: str
    """The model's name in bursar.yaml."""

    top_n: int | None = None
    """How many documents are kept; None keeps all."""

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """The documents, the best first, with `relevance_score` in their metadata."""
        return current_run().side_loop.run(self.acompress_documents(documents, query)) if documents else []

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """The documents, the best first, with `relevance_score` in their metadata."""
        ranking = await self._ranked([document.page_content for document in documents], query) if documents else None
        return [
            documents[place].model_copy(update={"metadata": {**documents[place].metadata, "relevance_score": score}})
            for place, score in (ranking.results if ranking else ())
        ]

    async def _ranked(self, texts: Sequence[str], query: str) -> PaidRanking:
        run = current_run()
        call_id = run.call_id(digest_of({"model": self.model, "query": query, "texts": texts}))
        return await run.calls.embeddings.rerank(
            run, self.model, query, texts, call_id=call_id, node=node_name(), top_n=self.top_n
        )
