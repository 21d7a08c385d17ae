"""Embeddings and rerank are paid like chat calls: reserved, settled to the nano-dollar, replayed, and limited."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

from bursar.budget import Limits
from bursar.budget.errors import UsageError
from bursar.runtime import Runtime, embedding_model, reranker
from bursar.runtime.context import current_run
from bursar.runtime.paid_embedding import INPUTS_MAX, SEARCH_CHUNKS_MAX
from bursar.runtime.runs.run import Run
from bursar.runtime.stop import ModelCallFailed, NoRunError
from tests.acceptance.support import Texts, model_of, opened, write_config
from tests.support.provider import TrueProvider
from tests.support.vectors import vector_of

TEXTS = ["a late parcel", "a broken lamp", "a late lamp"]
MONEY = Limits(cost_usd="0.10")


@pytest.fixture
async def runtime(tmp_path: Path, true_provider: TrueProvider) -> AsyncIterator[Runtime]:
    plain = {"input_usd_per_mtok": "1", "output_usd_per_mtok": "0"}
    vectors = model_of(true_provider, kind="embedding", price=plain)
    models = {
        "house": model_of(true_provider),
        "vectors": vectors,
        "simulated": {"provider": "sim", "scenario": "echo", "kind": "embedding"},
        "unpriced": {key: value for key, value in vectors.items() if key != "price"},
        "gone": vectors | {"api_base": f"{true_provider.url}/elsewhere"},
        "order": model_of(true_provider, kind="rerank", price=plain),
        "search": model_of(
            true_provider, kind="rerank", price={**plain, "input_usd_per_mtok": "0", "request_usd": "0.002"}
        ),
    }
    async with opened(write_config(tmp_path, models, tiers={"small": ["house"]})) as runtime:
        yield runtime


async def ran(runtime: Runtime, node: Callable[[Texts], Any], limits: Limits = MONEY) -> Run:
    """A run of a graph of this one node."""
    return await runtime.run(graph_of(node), {"question": ""}, tenant="acme", limits=limits)


def graph_of(node: Any) -> StateGraph[Texts, None, Texts, Texts]:
    graph = StateGraph(Texts)
    graph.add_node("work", node)
    graph.add_edge(START, "work")
    graph.add_edge("work", END)
    return graph


async def test_vectors_come_in_the_order_of_the_texts_and_cost_what_the_provider_counted(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    found: list[list[float]] = []

    async def node(state: Texts) -> Texts:
        found.extend(await embedding_model("vectors").aembed_documents(TEXTS))
        return {}

    run = await ran(runtime, node)
    assert found == [vector_of(text) for text in TEXTS]
    assert (true_provider.bill.calls, run.status, run.steps) == (1, "succeeded", 1)
    assert run.spent.nanousd == true_provider.bill.nanousd("1", "0") > 0
    assert not runtime.ledger.reports.bill(run.id).held


def test_a_call_outside_of_a_run_sends_nothing(true_provider: TrueProvider) -> None:
    with pytest.raises(NoRunError):
        embedding_model("vectors").embed_query("hi")
    with pytest.raises(NoRunError):
        reranker("order").compress_documents([Document("hi")], "hi")
    assert true_provider.bill.requests == 0


async def test_synchronous_nodes_and_fewer_dimensions_work_too(runtime: Runtime, true_provider: TrueProvider) -> None:
    found: list[Any] = []

    def node(state: Texts) -> Texts:
        found.append(embedding_model("vectors", dimensions=2).embed_query(TEXTS[0]))
        found.append(embedding_model("vectors").embed_documents([]))
        return {}

    await ran(runtime, node)
    assert found == [vector_of(TEXTS[0], 2), []]
    assert true_provider.bill.calls == 1


async def test_a_resumed_node_gets_the_same_vectors_again_for_free(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    found: list[Any] = []

    async def node(state: Texts) -> Texts:
        found.append(await embedding_model("vectors").aembed_documents(TEXTS))
        found.append(await reranker("order").acompress_documents([Document(text) for text in TEXTS], "late"))
        interrupt({"go on?": True})
        return {}

    run = await ran(runtime, node)
    done = await runtime.resume(run.id, {run.interrupts[0].id: True})
    assert (done.status, true_provider.bill.calls, done.spent) == ("succeeded", 2, run.spent)
    assert found[:2] == found[2:]


async def test_at_a_limit_no_more_texts_are_embedded(runtime: Runtime, true_provider: TrueProvider) -> None:
    async def node(state: Texts) -> Texts:
        for text in TEXTS:
            await embedding_model("vectors").aembed_query(text)
        return {}

    run = await ran(runtime, node, Limits(steps=2))
    assert (run.status, true_provider.bill.requests) == ("stopped", 2)


async def test_documents_come_best_first_with_their_scores(runtime: Runtime) -> None:
    found: list[Document] = []

    async def node(state: Texts) -> Texts:
        given = [Document(text, metadata={"from": place}) for place, text in enumerate(TEXTS)]
        found.extend(await reranker("order", top_n=2).acompress_documents(given, "late lamp"))
        return {}

    await ran(runtime, node)
    assert [one.page_content for one in found] == ["a late lamp", "a late parcel"]
    assert [one.metadata for one in found] == [{"from": 2, "relevance_score": 1.0}, {"from": 0, "relevance_score": 0.5}]


@pytest.mark.parametrize(("documents", "searches"), [(SEARCH_CHUNKS_MAX, 1), (SEARCH_CHUNKS_MAX + 1, 2)])
async def test_what_is_billed_by_the_search_is_asked_in_parts_of_one_search_each(
    runtime: Runtime, true_provider: TrueProvider, documents: int, searches: int
) -> None:
    best: list[Document] = []

    async def node(state: Texts) -> Texts:
        given = [Document("old")] * (documents - 1) + [Document("a late lamp")]
        best.extend(await reranker("search", top_n=1).acompress_documents(given, "late lamp"))
        return {}

    run = await ran(runtime, node)
    assert (true_provider.bill.calls, run.steps) == (searches, searches)
    assert run.spent.nanousd == searches * 2_000_000
    assert [one.page_content for one in best] == ["a late lamp"]


async def test_a_model_of_another_kind_is_refused_with_those_that_would_do(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    caught: list[UsageError] = []

    async def node(state: Texts) -> Texts:
        with pytest.raises(UsageError, match="there is no embedding model 'house'") as error:
            await embedding_model("house").aembed_query("hi")
        caught.append(error.value)
        return {}

    await ran(runtime, node)
    assert "use one of gone, simulated, unpriced, vectors" in str(caught[0])
    assert true_provider.bill.requests == 0


@pytest.mark.parametrize("allowed", [{"models": ["house"]}, {"data": "local_only"}], ids=["models", "data"])
async def test_a_tenant_s_models_and_data_bound_embeddings_too(
    tmp_path: Path, true_provider: TrueProvider, allowed: dict[str, Any]
) -> None:
    async def node(state: Texts) -> Texts:
        with pytest.raises(ModelCallFailed, match="nothing was sent"):
            await embedding_model("vectors").aembed_query("hi")
        return {"texts": ["refused"]}

    models = {"house": model_of(true_provider), "vectors": model_of(true_provider, kind="embedding", local=False)}
    file = write_config(tmp_path, models, tiers={"small": ["house"]}, tenants={"acme": allowed})
    async with opened(file) as runtime:
        assert (await ran(runtime, node)).status == "succeeded"
    assert true_provider.bill.requests == 0


async def test_a_provider_without_embeddings_is_asked_nothing_and_holds_nothing(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    async def node(state: Texts) -> Texts:
        with pytest.raises(ModelCallFailed, match="the provider has no embeddings"):
            await embedding_model("simulated").aembed_query("hi")
        return {}

    run = await ran(runtime, node)
    assert (run.spent.nanousd, runtime.ledger.reports.bill(run.id).held.nanousd) == (0, 0)


async def test_an_unpriced_model_is_refused_where_money_is_limited(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    async def node(state: Texts) -> Texts:
        await embedding_model("unpriced").aembed_query("hi")
        return {}

    run = await ran(runtime, node)
    assert (run.status, true_provider.bill.requests) == ("stopped", 0)
    assert "no price" in (run.stop_reason or "")


async def test_a_failure_is_told_by_its_cause_and_another_model_is_not_asked(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    causes: list[str] = []

    async def node(state: Texts) -> Texts:
        with pytest.raises(ModelCallFailed) as caught:
            await embedding_model("gone").aembed_query("hi")
        causes.extend(failure.cause.name for failure in caught.value.failures)
        return {}

    run = await ran(runtime, node)
    assert (causes, run.spent.nanousd, true_provider.bill.calls) == (["model_missing"], 0, 0)


@pytest.mark.parametrize("texts", [[], ["hi"] * (INPUTS_MAX + 1)], ids=["none", "too many"])
async def test_a_call_is_of_some_texts_and_not_of_any_number(
    runtime: Runtime, true_provider: TrueProvider, texts: list[str]
) -> None:
    async def node(state: Texts) -> Texts:
        run = current_run()
        with pytest.raises(UsageError, match=f"{len(texts)} inputs: expected 1 to {INPUTS_MAX}"):
            await run.calls.embeddings.embed(run, "vectors", texts, call_id="one")
        with pytest.raises(UsageError, match=f"{len(texts)} documents"):
            await run.calls.embeddings.rerank(run, "order", "which?", texts, call_id="two")
        return {}

    assert (await ran(runtime, node)).status == "succeeded"
    assert true_provider.bill.requests == 0
