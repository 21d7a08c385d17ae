"""A run that is submitted is a row, and any worker that can execute it does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bursar.agents import Agent
from bursar.budget.errors import ConflictError, NotFoundError, UsageError
from bursar.memory import CheckpointRefused
from bursar.runtime import Runtime
from bursar.runtime.events import Event
from bursar.runtime.runs.run import ENDED, Change, Run
from tests.acceptance.other_process import TARGET, clerk
from tests.acceptance.support import one_call, opened, write_config
from tests.support.provider import Answer, Behaviour, TrueProvider

helper = Agent(name="helper", instructions="Help.")


BOTH_STORES = pytest.mark.parametrize("config", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def config(tmp_path: Path, true_provider: TrueProvider, request: pytest.FixtureRequest) -> Iterator[Path]:
    """On SQLite, or on the store that a test asks for."""
    true_provider.behaviour = Behaviour(script=lambda _, calls: Answer(text=f"Answer {calls}."))
    tenants: dict[str, Any] = {name: {} for name in ("acme", "rival", "third")}
    if getattr(request, "param", "sqlite") == "sqlite":
        yield write_config(tmp_path, true_provider, tenants=tenants)
    else:
        server = request.getfixturevalue("postgres")
        with server.database() as database:
            yield write_config(tmp_path, true_provider, tenants=tenants, database=server.url(database))


@pytest.fixture
async def runtime(config: Path) -> AsyncIterator[Runtime]:
    async with opened(config) as runtime:
        yield runtime


async def changes(runtime: Runtime, run_id: str, *, after: int = 0) -> list[Change]:
    """How a run came to its end."""
    return [change async for change in runtime.follow(run_id, after=after)]


async def ended(runtime: Runtime, run_id: str) -> Run:
    """A run at its end, which somebody else brings about."""
    await changes(runtime, run_id)
    return await runtime.get(run_id)


async def test_a_submitted_run_waits_for_a_worker_and_sends_nothing(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    run = await runtime.submit(helper, "Help me.", tenant="acme")
    assert (run.status, run.stop_reason) == ("queued", "accepted")
    await asyncio.sleep(0.5)
    assert (await runtime.get(run.id)).status == "queued"
    assert true_provider.bill.requests == 0


@BOTH_STORES
async def test_a_worker_executes_it_to_its_end(runtime: Runtime) -> None:
    """And each state that it came through is told, with its cause."""
    run = await runtime.submit(helper, "Help me.", tenant="acme")
    await runtime.work(once=True)
    told = await changes(runtime, run.id)
    assert [(one.status, one.cause) for one in told] == [
        ("queued", "accepted"),
        ("running", "taken up"),
        ("succeeded", "the agent gave its answer"),
    ]
    assert [one.status for one in await changes(runtime, run.id, after=told[1].number)] == ["succeeded"]
    run = await runtime.get(run.id)
    assert (run.output, run.steps) == ("Answer 0.", 1)


async def test_a_worker_of_another_process_finds_the_agent_by_its_target(config: Path, runtime: Runtime) -> None:
    run = await runtime.submit(clerk, "Sign it.", tenant="acme", target=TARGET)
    async with opened(config) as other:
        await other.work(once=True)
    assert (await runtime.get(run.id)).status == "succeeded"


@pytest.mark.parametrize("source", [helper, one_call()], ids=["an agent", "a graph"])
async def test_a_worker_is_given_what_it_executes(config: Path, runtime: Runtime, source: object) -> None:
    given = "Help me." if source is helper else {"question": "Help me."}
    run = await runtime.submit(source, given, tenant="acme")  # type: ignore[arg-type]  # one of two sources
    async with opened(config) as other:
        await other.work(once=True)
        assert (await runtime.get(run.id)).status == "queued"
        await other.work(sources=[source], once=True)  # type: ignore[list-item]  # the same
    assert (await runtime.get(run.id)).status == "succeeded"


async def test_a_run_whose_agent_cannot_be_loaded_is_left_to_others(
    config: Path, runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    """The worker says so once, goes on with the rest, and the run is not lost."""
    lost = await runtime.submit(helper, "Help me.", tenant="acme", target="no_such_file.py:helper")
    found = await runtime.submit(clerk, "Sign it.", tenant="acme", target=TARGET)
    async with opened(config) as other:
        await other.work(once=True)
    assert (await runtime.get(found.id)).status == "succeeded"
    assert (await runtime.get(lost.id)).status == "queued"
    (said,) = [record.getMessage() for record in caplog.records if lost.id in record.getMessage()]
    assert "no_such_file.py" in said
    await runtime.work(once=True)
    assert (await runtime.get(lost.id)).status == "succeeded"


@BOTH_STORES
async def test_tenants_get_their_turns_in_fair_order(runtime: Runtime) -> None:
    """One that queued many runs first does not keep the others waiting."""
    for tenant, runs in (("acme", 4), ("rival", 2), ("third", 1)):
        for _ in range(runs):
            await runtime.submit(helper, "Help me.", tenant=tenant)
    order: list[str] = []

    def tell(event: Event) -> None:
        if event.run is not None:
            order.append(event.run.tenant)

    await runtime.work(concurrency=1, once=True, listener=tell)
    assert order == ["acme", "rival", "third", "acme", "rival", "acme", "acme"]


async def test_a_worker_executes_no_more_runs_at_once_than_it_may(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    true_provider.behaviour = Behaviour(script=lambda *_: Answer(text="Done."), latency_s=0.05)
    for _ in range(9):
        await runtime.submit(helper, "Help me.", tenant="acme")
    await runtime.work(concurrency=3, once=True)
    assert (true_provider.bill.calls, true_provider.bill.in_flight_max) == (9, 3)


@BOTH_STORES
async def test_a_queued_run_can_be_cancelled(runtime: Runtime, true_provider: TrueProvider) -> None:
    run = await runtime.submit(helper, "Help me.", tenant="acme")
    assert (await runtime.cancel(run.id, by="dana")).status == "cancelled"
    with pytest.raises(ConflictError, match="cancelled"):
        await runtime.cancel(run.id)
    await runtime.work(once=True)
    assert true_provider.bill.requests == 0
    assert [(one.status, one.by) for one in await changes(runtime, run.id)] == [("queued", ""), ("cancelled", "dana")]


async def test_what_cannot_be_written_down_is_not_accepted(runtime: Runtime) -> None:
    with pytest.raises(CheckpointRefused, match="not msgpack serializable: function"):
        await runtime.submit(one_call(), {"question": lambda: "Help me."}, tenant="acme")


async def test_only_a_runs_own_tenant_can_follow_it(runtime: Runtime) -> None:
    run = await runtime.submit(helper, "Help me.", tenant="acme")
    with pytest.raises(NotFoundError):
        await anext(runtime.follow(run.id, tenant="rival"))


async def test_an_option_that_there_is_not_is_an_error(runtime: Runtime) -> None:
    with pytest.raises(TypeError, match="tennant"):
        await runtime.submit(helper, "Help me.", tennant="acme")  # type: ignore[call-arg]


@pytest.mark.parametrize("deadline", [timedelta(0), timedelta(seconds=-1)])
async def test_a_deadline_is_to_come(runtime: Runtime, deadline: timedelta) -> None:
    with pytest.raises(UsageError, match="deadline"):
        await runtime.submit(helper, "Help me.", tenant="acme", deadline=deadline)


def test_the_states_in_which_a_run_is_over_are_known() -> None:
    assert set(ENDED) == {"succeeded", "stopped", "failed", "cancelled"}
