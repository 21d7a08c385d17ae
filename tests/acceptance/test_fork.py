"""A fork goes on from a checkpoint of another run, with a budget of its own, and repeats nothing done before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bursar.agents import Agent
from bursar.budget import Limits
from bursar.budget.errors import ConflictError, NotFoundError, UsageError
from bursar.runtime import Runtime
from bursar.runtime.runs.run import Run
from bursar.tools import tool
from tests.acceptance.support import QUESTION, charged, model_of, opened, reasons, write_config
from tests.acceptance.test_changed_graphs import First, ask, graph_of, say
from tests.support.provider import Answer, Behaviour, TrueProvider

PAID: list[str] = []


@tool(effect="reversible")
def pay(order: str) -> str:
    """Pay an order."""
    PAID.append(order)
    return f"{order} is paid"


def payer(body: dict[str, Any], _: int) -> Answer:
    """Pays once, then looks back for two more turns."""
    done = sum(message["role"] == "assistant" for message in body["messages"])
    if done < 2 and body.get("tools"):
        return Answer(tool_calls=[("pay", {"order": str(done)})])
    return Answer(text=f"That is all, by {body['model']}.")


AGENT = Agent(name="payer", instructions="Pay.", tools=[pay], limits=Limits(steps=9), on_limit="stop")


@pytest.fixture
async def runtime(tmp_path: Path, true_provider: TrueProvider) -> AsyncIterator[Runtime]:
    PAID.clear()
    true_provider.behaviour = Behaviour(script=payer)
    models = {name: model_of(true_provider, model=name) for name in ("cheap", "dear")}
    tiers = {"small": ["cheap"], "frontier": ["dear"]}
    tenants = {"acme": {"budgets": [{"usd": "1"}]}, "globex": {"tiers": ["small"]}}
    async with opened(write_config(tmp_path, models, tiers=tiers, tenants=tenants)) as one:
        yield one


async def ended(runtime: Runtime, run: Run) -> Run:
    await runtime.work(once=True)
    return await runtime.get(run.id)


async def test_other_tiers_from_an_earlier_checkpoint(runtime: Runtime, true_provider: TrueProvider) -> None:
    """What was done before the fork is not done again; what comes after it is paid, by the fork alone."""
    run = await runtime.run(AGENT, QUESTION, tenant="acme")
    assert (run.status, run.steps, PAID) == ("succeeded", 3, ["0", "1"])
    before_last = next(one for one in await runtime.checkpoints(run.id) if one.next == ["model"])
    true_provider.reset(true_provider.behaviour)
    fork = await runtime.fork(run.id, checkpoint=before_last.id, tier="frontier", by="dana")
    assert (fork.status, fork.forked_from, fork.steps) == ("queued", run.id, 0)
    fork = await ended(runtime, fork)
    assert (fork.status, fork.output, fork.steps) == ("succeeded", "That is all, by dear.", 1)
    assert fork.spent.nanousd == charged(true_provider.bill) > 0
    assert PAID == ["0", "1"]
    assert [tier for tier, _ in reasons(runtime, fork.id)] == ["frontier"]
    assert (await runtime.get(run.id)).steps == 3
    assert [one.cause async for one in runtime.follow(fork.id)][1] == (
        f"forked from {run.id} at checkpoint {before_last.id}"
    )


async def test_an_effect_is_not_repeated(runtime: Runtime) -> None:
    """A tool call that the fork comes to again, and that had its effect, is given what came of it."""
    run = await runtime.run(AGENT, QUESTION, tenant="acme")
    before_paying = [one for one in await runtime.checkpoints(run.id) if "tool" in one.next][-1]
    fork = await ended(runtime, await runtime.fork(run.id, checkpoint=before_paying.id, by="dana"))
    assert fork.status == "succeeded"
    assert PAID == ["0", "1", "1"]  # the first was done before; the second was asked for anew


async def test_more_for_a_run_that_was_stopped(runtime: Runtime, true_provider: TrueProvider) -> None:
    """At the newest checkpoint a fork with other limits goes on where the run stopped, and pays nothing twice."""
    run = await runtime.run(AGENT, QUESTION, tenant="acme", limits=Limits(steps=2))
    assert run.status == "stopped"
    fork = await ended(runtime, await runtime.fork(run.id, limits=Limits(steps=5), by="dana"))
    assert (fork.status, fork.steps, true_provider.bill.calls, PAID) == ("succeeded", 1, 3, ["0", "1"])
    assert runtime.ledger.reports.bill(fork.id).posted.tool_calls == 0


async def test_its_run_s_own_limits(runtime: Runtime) -> None:
    """A fork without limits of its own has its run's, anew; its tenant's budget holds over both."""
    run = await runtime.run(AGENT, QUESTION, tenant="acme", limits=Limits(steps=2))
    first = (await runtime.checkpoints(run.id))[-1]
    fork = await ended(runtime, await runtime.fork(run.id, checkpoint=first.id, by="dana"))
    assert (fork.status, fork.steps) == ("stopped", 2)
    runtime.ledger.budgets.set("acme", limit={"nanousd": 0}, author="kim")
    fork = await ended(runtime, await runtime.fork(run.id, limits=Limits(steps=5), by="dana"))
    assert (fork.status, fork.steps) == ("stopped", 0)
    assert "tenant acme" in fork.stop_reason


async def test_settled_calls_of_an_unfinished_task(runtime: Runtime, true_provider: TrueProvider) -> None:
    """A task that had paid for a call before it failed is run again by the fork, which is given the reply."""

    async def pays_and_fails(state: Any) -> Any:
        said = await say(state)
        if not failed:
            failed.append(True)
            raise ConnectionError("nothing answers")
        return said

    failed: list[bool] = []
    graph = graph_of(First, pays_and_fails)
    run = await runtime.run(graph, {"name": "Ada"}, tenant="acme")
    assert (run.status, run.steps) == ("failed", 1)
    fork = await ended(runtime, await runtime.fork(run.id, by="dana"))
    assert (fork.status, fork.steps, true_provider.bill.calls) == ("succeeded", 0, 1)
    again = await ended(runtime, await runtime.fork(run.id, tier="frontier", by="dana"))
    assert (again.status, again.steps, true_provider.bill.calls) == ("succeeded", 1, 2)


async def test_what_the_run_waits_on(runtime: Runtime, true_provider: TrueProvider) -> None:
    """A fork of a run that waits asks anew: an answer to the one is none to the other."""
    graph = graph_of(First, say, ask)
    run = await runtime.run(graph, {"name": "Ada"}, tenant="acme")
    fork = await ended(runtime, await runtime.fork(run.id, by="dana"))
    assert (fork.status, fork.steps) == ("interrupted", 0)
    assert fork.interrupts[0].escalation != run.interrupts[0].escalation
    run = await runtime.resume(run.id, {run.interrupts[0].id: "yes"})
    assert (run.status, (await runtime.get(fork.id)).status) == ("succeeded", "interrupted")
    fork = await runtime.resume(fork.id, {fork.interrupts[0].id: "no"})
    assert (run.value["answer"], fork.value["answer"]) == ("yes", "no")
    assert true_provider.bill.calls == 1


async def test_a_fork_of_a_fork(runtime: Runtime, true_provider: TrueProvider) -> None:
    """What the first did is not done again by the third."""
    run = await runtime.run(AGENT, QUESTION, tenant="acme", limits=Limits(steps=1))
    fork = await ended(runtime, await runtime.fork(run.id, by="dana"))
    fork = await ended(runtime, await runtime.fork(fork.id, limits=Limits(steps=9), by="dana"))
    assert (fork.status, fork.steps, true_provider.bill.calls, PAID) == ("succeeded", 1, 3, ["0", "1"])


async def test_many_at_once(runtime: Runtime, true_provider: TrueProvider) -> None:
    """Forks of one run do not know of each other."""
    run = await runtime.run(AGENT, QUESTION, tenant="acme")
    last = next(one for one in await runtime.checkpoints(run.id) if one.next == ["model"])
    forks = await asyncio.gather(*(runtime.fork(run.id, checkpoint=last.id, by="dana") for _ in range(4)))
    await runtime.work(once=True)
    assert {(await runtime.get(one.id)).status for one in forks} == {"succeeded"}
    assert (true_provider.bill.calls, PAID) == (7, ["0", "1"])


async def test_what_cannot_be_forked(runtime: Runtime) -> None:
    """A run of another tenant, a checkpoint that is not there, a tier that there is not or is not the tenant's."""
    run = await runtime.run(AGENT, QUESTION, tenant="globex")
    with pytest.raises(NotFoundError):
        await runtime.fork(run.id, by="eve", tenant="acme")
    with pytest.raises(NotFoundError, match="has no checkpoint 1f"):
        await runtime.fork(run.id, checkpoint="1f", by="dana")
    for tier in ("frontier", "huge"):
        with pytest.raises(UsageError, match="tenant globex may use small"):
            await runtime.fork(run.id, tier=tier, by="dana")
    waits = await runtime.submit(AGENT, QUESTION, tenant="acme")
    with pytest.raises(ConflictError, match="has no checkpoint yet"):
        await runtime.fork(waits.id, by="dana")
