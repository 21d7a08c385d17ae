"""Which checkpoints go when, by a tenant's retention, and which runs can still go on."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt

from bursar.budget.errors import ConflictError
from bursar.memory import CheckpointSaver
from bursar.runtime import Runtime
from bursar.runtime.cli.exits import Exit
from bursar.runtime.retention import Pruned, _prune, prune_due
from bursar.runtime.runs.run import Run
from tests.acceptance.support import model_of, opened, write_config
from tests.support.checkpoints import execute
from tests.support.provider import TrueProvider
from tests.unit.runtime.cli_project import command, make_project

RETENTION = {"checkpoints": "30d", "history": "1d"}
TENANTS: dict[str, Any] = {"acme": {"retention": RETENTION}, "globex": {}}


def graph() -> Any:
    builder: Any = StateGraph(MessagesState)
    builder.add_node("say", lambda _: {"messages": [("ai", "hello " * 200)]})
    builder.add_node("ask", lambda _: {"messages": [("human", interrupt("may I?"))]})
    builder.add_edge(START, "say")
    builder.add_edge("say", "ask")
    return builder


@pytest.fixture(params=["sqlite", "postgresql"])
def config(request: pytest.FixtureRequest, tmp_path: Path, true_provider: TrueProvider) -> Iterator[Path]:
    models = {"house": model_of(true_provider)}
    if request.param == "sqlite":
        yield write_config(tmp_path, models, tenants=TENANTS)
        return
    server = request.getfixturevalue("postgres")
    with server.database() as name:
        yield write_config(tmp_path, models, tenants=TENANTS, database=server.url(name))


async def waiting(runtime: Runtime, tenant: str) -> Run:
    return await runtime.run(graph(), {"messages": [("human", "go")]}, tenant=tenant)


async def ended(runtime: Runtime, tenant: str) -> Run:
    run = await waiting(runtime, tenant)
    return await runtime.resume(run.id, {run.interrupts[0].id: "yes"}, by="dana")


def swept(runtime: Runtime, days: float, **options: Any) -> list[tuple[str, str]]:
    """What a sweep so many days later does."""
    now = datetime.now(UTC) + timedelta(days=days)
    return [
        (one.run_id, one.what)
        for one in prune_due(runtime.ledger.store, runtime._checkpointer, runtime.config, now, **options)
    ]


def kept(runtime: Runtime, run: Run) -> int:
    saver: CheckpointSaver = runtime._checkpointer.for_tenant(run.tenant)
    return len(list(saver.list({"configurable": {"thread_id": run.id}})))


async def test_what_is_due_goes_and_a_waiting_run_goes_on_after_it(config: Path) -> None:
    async with opened(config) as runtime:
        waits, over, stays = (
            await waiting(runtime, "acme"),
            await ended(runtime, "acme"),
            await ended(runtime, "globex"),
        )
        assert swept(runtime, 0.5) == []
        assert sorted(swept(runtime, 2, dry_run=True)) == sorted([(waits.id, "history"), (over.id, "history")])
        assert kept(runtime, waits) == 3
        assert sorted(swept(runtime, 2)) == sorted([(waits.id, "history"), (over.id, "history")])
        assert [kept(runtime, one) for one in (waits, over, stays)] == [1, 1, 4]
        assert swept(runtime, 2) == []
        assert swept(runtime, 31) == [(over.id, "checkpoints")]
        assert swept(runtime, 31) == []
        assert [kept(runtime, one) for one in (waits, over, stays)] == [1, 0, 4]
        done = await runtime.resume(waits.id, {waits.interrupts[0].id: "yes"}, by="dana")
        assert done.status == "succeeded"
        assert len(done.value["messages"]) == 3


async def test_a_run_whose_checkpoints_are_gone_does_not_begin_anew(config: Path) -> None:
    async with opened(config) as runtime:
        run = await waiting(runtime, "acme")
        execute(runtime.ledger.store.url, "UPDATE run SET status = 'failed'")
        assert swept(runtime, 31) == [(run.id, "checkpoints")]
        with pytest.raises(ConflictError, match=r"cannot go on: its checkpoints were deleted on .* start a new one"):
            await runtime.resume(run.id, by="dana")
        assert runtime._records.row(run.id)["status"] == "failed"


async def test_a_run_that_is_pruned_while_it_is_resumed_does_not_begin_anew(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder: Any = StateGraph(MessagesState)
    builder.add_node("fail", lambda _: 1 / 0)
    builder.add_edge(START, "fail")
    async with opened(config) as runtime:
        run = await runtime.run(builder, {"messages": [("human", "go")]}, tenant="acme")
        look = runtime._engine._input

        async def late(row: Any, work: Any) -> Any:
            assert swept(runtime, 31) == [(run.id, "checkpoints")]
            return await look(row, work)

        monkeypatch.setattr(runtime._engine, "_input", late)
        with pytest.raises(ConflictError, match="its checkpoints were deleted"):
            await runtime.resume(run.id, by="dana")
        assert (await runtime.get(run.id)).status == "failed"


async def test_a_run_that_changed_since_it_was_looked_up_keeps_its_checkpoints(config: Path) -> None:
    async with opened(config) as runtime:
        run = await ended(runtime, "acme")
        due = Pruned(tenant="acme", run_id=run.id, what="checkpoints")
        saver, changed_us = runtime._checkpointer.for_tenant("acme"), runtime._records.row(run.id)["changed_us"]
        assert not _prune(runtime.ledger.store, saver, due, changed_us - 1, datetime.now(UTC))
        assert kept(runtime, run) == 4


async def test_a_damaged_run_is_left_as_it_is_and_the_others_are_pruned(
    config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(config) as runtime:
        damaged, whole = await waiting(runtime, "acme"), await waiting(runtime, "acme")
        number = f"(SELECT id FROM checkpoint_thread WHERE thread_id = '{damaged.id}')"
        url = runtime.config.checkpoints_url({})
        execute(url, f"UPDATE checkpoint SET body = substr(body, 2) WHERE thread = {number}")
        assert swept(runtime, 2) == [(whole.id, "history")]
    assert f"run {damaged.id} of tenant acme is not pruned" in caplog.text


def test_the_command_says_what_it_deletes_and_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(make_project(tmp_path))
    bursar = command(capsys)
    missing = bursar("db", "prune")
    assert missing.code == Exit.USAGE
    assert "no tenant has a retention" in missing.err
    file = tmp_path / "bursar.yaml"
    file.write_text(file.read_text().replace("acme: {", "acme: {retention: {history: 1m, checkpoints: 1d}, "))
    bursar("run", "agents.py:support", "Order 1001 never came.", "--tenant", "acme")
    older = "UPDATE run SET status = 'failed', changed_us = changed_us - {}"
    assert bursar("db", "prune").out == "nothing is due\n"
    execute(f"sqlite:///{tmp_path}/bursar.db", older.format(120_000_000))
    assert bursar("db", "prune", "--dry-run").out == "acme: earlier checkpoints of 1 run would be deleted\n"
    assert [one["what"] for one in bursar("db", "prune", "--json").json["pruned"]] == ["history"]
    execute(f"sqlite:///{tmp_path}/bursar.db", older.format(86_400_000_000))
    assert bursar("db", "prune").out == "acme: checkpoints of 1 run deleted\n"


async def test_a_worker_prunes_by_itself(config: Path) -> None:
    def much_later() -> datetime:
        return datetime.now(UTC) + timedelta(days=2)

    async with opened(config) as runtime:
        run = await waiting(runtime, "acme")
    async with opened(config, clock=much_later) as runtime:
        await runtime.work(once=True)
        assert kept(runtime, run) == 1
        assert (await runtime.get(run.id)).status == "interrupted"
