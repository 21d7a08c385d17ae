"""Runs that an earlier version left waiting go on: each folder `tests/golden/runs-*` was written by one version."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bursar.budget.testing import audit
from bursar.runtime import Runtime
from tests.support.kept_runs import SOURCES, paid, runs_of, unpacked, write_config
from tests.support.processes import REPOSITORY

VERSIONS = sorted((REPOSITORY / "tests" / "golden").glob("runs-*"))

pytestmark = pytest.mark.parametrize("kept", VERSIONS, ids=lambda kept: kept.name)


@pytest.fixture
async def runtime(kept: Path, tmp_path: Path) -> AsyncIterator[Runtime]:
    unpacked(kept, tmp_path)
    paid.clear()
    async with Runtime.open(write_config(tmp_path)) as runtime:
        yield runtime
        audit(runtime.ledger.store)


async def _decided(runtime: Runtime, run_id: str, decision: object) -> None:
    (asked,) = await runtime.escalations.ls(run_id=run_id)
    await runtime.escalations.decide(asked.id, decision, by="dana")
    await runtime.work(once=True, sources=list(SOURCES.values()))


async def test_an_agent_that_waits_for_an_approval(kept: Path, runtime: Runtime) -> None:
    run_id = runs_of(kept)["approval"]
    before = await runtime.get(run_id)
    await _decided(runtime, run_id, {"type": "approve"})
    after = await runtime.get(run_id)
    assert (before.status, after.status, after.output) == ("interrupted", "succeeded", "Done: paid ann.")
    assert (paid, before.steps, after.steps) == (["ann"], 1, 2)


async def test_a_graph_of_ones_own_that_asks(kept: Path, runtime: Runtime) -> None:
    run_id = runs_of(kept)["question"]
    await _decided(runtime, run_id, "three")
    assert (await runtime.get(run_id)).status == "succeeded"


async def test_an_effect_that_is_in_doubt(kept: Path, runtime: Runtime) -> None:
    """Somebody knows that it happened: it is not done again."""
    run_id = runs_of(kept)["in doubt"]
    await _decided(runtime, run_id, {"type": "respond", "message": "sent ann"})
    after = await runtime.get(run_id)
    assert (after.status, after.output, paid) == ("succeeded", "Done: sent ann.", [])


async def test_a_stopped_run_that_is_granted_more(kept: Path, runtime: Runtime) -> None:
    run_id = runs_of(kept)["stopped"]
    assert (await runtime.get(run_id)).status == "stopped"
    await runtime.grant(run_id, by="dana", steps=5)
    run = await runtime.resume(run_id, by="dana", source=SOURCES["stopped"])
    assert (run.status, run.output, run.steps) == ("succeeded", "Done: found ann.", 2)
