"""Resuming a run whose graph has come to its end: nothing is asked again, and its state says so."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from bursar.agents import Agent
from bursar.budget import Limits
from bursar.budget.errors import ConflictError
from bursar.runtime import Runtime
from bursar.tools import tool

CONFIG = """
database: sqlite:///bursar.db
models: {searcher: {provider: sim, scenario: loop}, clerk: {provider: sim, scenario: echo}}
tiers: {search: [searcher], small: [clerk]}
tenants: {acme: {}}
"""


@tool(effect="none")
def search(query: str) -> str:
    """Search the web."""
    return f"nothing certain about {query}"


seeker = Agent(name="seeker", instructions="Search.", tools=[search], tier="search", limits=Limits(steps=3))
clerk = Agent(name="clerk", instructions="Answer.")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "bursar.yaml"
    file.write_text(CONFIG)
    return file


async def test_a_run_that_gave_its_last_answer_is_not_resumed_and_stays_as_it_was(config: Path) -> None:
    async with Runtime.open(config) as runtime:
        ended = await runtime.run(seeker, "Find it", tenant="acme", on_limit="finalize")
        await runtime.grant(ended.id, by="dana", steps=5)
        with pytest.raises(ConflictError, match="has given its last answer"):
            await runtime.resume(ended.id)
        after = await runtime.get(ended.id)
    assert (after.status, after.output, after.steps) == ("stopped", ended.output, 3)


async def test_a_process_that_died_after_the_last_checkpoint_left_only_the_ending_to_write(config: Path) -> None:
    async with Runtime.open(config) as runtime:
        ended = await runtime.run(clerk, "Good morning", tenant="acme")
    with sqlite3.connect(config.with_name("bursar.db")) as store:
        store.execute("UPDATE run SET status = 'running', stop_reason = NULL, output = NULL")
    store.close()
    async with Runtime.open(config) as runtime:
        again = await runtime.resume(ended.id, source=clerk)
    assert (again.status, again.output, again.spent) == ("succeeded", "Good morning", ended.spent)
