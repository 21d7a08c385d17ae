"""An agent is begun with a text or with messages, and says so of anything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bursar.agents import Agent
from bursar.budget.errors import UsageError
from bursar.runtime import Runtime
from bursar.runtime.config import starter_config

CLERK = Agent(name="clerk", instructions="Be brief.")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "bursar.yaml"
    path.write_text(starter_config())
    return path


@pytest.mark.parametrize("given", [None, 5, [], {}, {"messages": []}, {"messages": [("user", "hi")]}, ["hi"]])
async def test_what_is_neither_text_nor_messages_is_refused_before_the_run_exists(config: Path, given: Any) -> None:
    async with Runtime.open(config) as runtime:
        with pytest.raises(UsageError, match="begun with a text"):
            await runtime.run(CLERK, given, tenant="acme")
        assert runtime.ledger.budgets.ls("acme", runs=True)[-1].kind == "tenant"


async def test_a_conversation_goes_on_from_its_messages(config: Path) -> None:
    async with Runtime.open(config) as runtime:
        run = await runtime.run(CLERK, {"messages": [{"role": "user", "content": "hello"}]}, tenant="acme")
        assert run.status == "succeeded"
