"""Of a hundred people who decide on one escalation at once one does, and the others are told who it was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from bursar.agents import Agent
from bursar.runtime import Runtime
from bursar.tools import tool
from tests.acceptance.support import write_config
from tests.support.processes import Child

PROCESSES, THREADS = 4, 25

done: list[str] = []


@tool(effect="irreversible", approval="always")
async def pay(to: str) -> str:
    """Pay somebody."""
    done.append(to)
    return "paid"


AGENT = Agent(name="cashier", instructions="Pay.", tools=[pay])


@pytest.fixture(params=["sqlite", "postgresql"])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A hundred people who may decide, on either store."""
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text(
        json.dumps({"answers": [{"tool_calls": [{"name": "pay", "arguments": {"to": "ann"}}]}, "Done."]})
    )
    people: dict[str, Any] = {f"person{number}": {} for number in range(PROCESSES * THREADS)}
    sections: dict[str, Any] = {"tenants": {"acme": {"people": people}}}
    with ExitStack() as stack:
        if request.param == "postgresql":
            server = request.getfixturevalue("postgres")
            sections["database"] = server.url(stack.enter_context(server.database()))
        yield write_config(tmp_path, {"demo": {"provider": "sim", "scenario": str(scenario)}}, **sections)


async def test_one_of_a_hundred_decides_and_the_others_are_told_who(config: Path) -> None:
    done.clear()
    async with Runtime.open(config) as runtime:
        run = await runtime.run(AGENT, "Pay ann.", tenant="acme")
        (asked,) = await runtime.escalations.ls(run_id=run.id)
        arguments = (str(asked.id), str(PROCESSES), str(THREADS))
        with Child("-m", "tests.acceptance.deciders", config, *arguments) as child:
            said = [json.loads(child.line(60)) for _ in range(PROCESSES * THREADS)]
        (winner,) = (one for one in said if one["error"] is None)
        assert {one["error"] for one in said if one is not winner} == {"ConflictError"}
        assert all(winner["by"] in one["words"] for one in said if one is not winner)
        decided = [one for one in await runtime.escalations.history(asked.id) if one.kind == "decided"]
        assert [one.author for one in decided] == [winner["by"]]
        async for _ in runtime.follow(run.id):
            pass
        assert (await runtime.get(run.id)).status == "succeeded"
        assert done == (["ann"] if winner["kind"] == "approve" else [])
