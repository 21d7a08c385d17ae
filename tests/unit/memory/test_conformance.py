"""LangGraph's own suite for savers, on every store."""

from __future__ import annotations

from collections.abc import AsyncIterator

from langgraph.checkpoint.conformance import checkpointer_test, validate

from bursar.memory import CheckpointSaver, open_checkpoints


async def test_the_saver_keeps_the_whole_contract(checkpoints_url: str) -> None:
    @checkpointer_test(name="Bursar")
    async def saver() -> AsyncIterator[CheckpointSaver]:
        async with open_checkpoints(checkpoints_url) as opened:
            yield opened

    report = await validate(saver)
    failures = [failure for result in report.results.values() for failure in result.failures]
    assert not failures
    assert all(result.detected for result in report.results.values())
    assert sum(result.tests_passed for result in report.results.values()) >= 70
