"""Keys that a run hands out: they pay by the run, within its limits, and die with it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from bursar.agents import Agent
from bursar.budget.limits import Limits
from bursar.budget.schema import pot
from bursar.runtime import Runtime, gateway_env
from bursar.runtime.config import parse_config
from bursar.runtime.context import current_run
from bursar.runtime.stop import NoRunError
from bursar.tools import tool
from tests.support.gateway import config_text
from tests.support.provider import Answer, Behaviour, TrueProvider

ASKS = [Answer(tool_calls=[("work", {})]), Answer(text="done")]
"""An agent that uses its tool, and then answers."""

CHILD = """
import json, os, urllib.request
body = {"model": "small", "messages": [{"role": "user", "content": "from a sub-process"}], "max_tokens": 16}
url = os.environ["OPENAI_BASE_URL"] + "/chat/completions"
key = "Bearer " + os.environ["OPENAI_API_KEY"]
request = urllib.request.Request(url, json.dumps(body).encode(), {"authorization": key})
print(json.load(urllib.request.urlopen(request))["choices"][0]["message"]["content"])
"""


def agent_with(work: Any, **settings: Any) -> Agent:
    return Agent(name="support", instructions="Work.", tools=[tool(effect="none")(work)], **settings)


@pytest.fixture
async def runtime(tmp_path: Path, true_provider: TrueProvider) -> AsyncIterator[Runtime]:
    """A runtime whose models are the provider's."""
    config = parse_config(config_text(true_provider.api_base), file=tmp_path / "bursar.yaml")
    async with Runtime.open(config, env={"HOUSE_KEY": "provider-secret-key"}) as opened:
        yield opened


def answer(body: dict[str, Any], calls_before: int) -> Answer:
    """The agent's own calls are scripted; a call by its tool is answered in one word."""
    if body["messages"][-1]["content"] in ("from a sub-process", "from a tool"):
        return Answer(text="yes")
    return ASKS[1 if body["messages"][-1]["role"] == "tool" else 0]


def ask(env: dict[str, str], **headers: str) -> httpx.Response:
    """One call by the environment that a run hands out."""
    return httpx.post(
        f"{env['OPENAI_BASE_URL']}/chat/completions",
        json={"model": "small", "messages": [{"role": "user", "content": "from a tool"}], "max_tokens": 16},
        headers={"authorization": f"Bearer {env['OPENAI_API_KEY']}", **headers},
        timeout=20,
        trust_env=False,
    )


async def test_a_sub_process_calls_models_by_the_run_that_started_it(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    true_provider.behaviour = Behaviour(script=answer)

    def work() -> str:
        """Work."""
        env = {**os.environ, **gateway_env()}
        done = subprocess.run([sys.executable, "-c", CHILD], env=env, capture_output=True, text=True, check=False)
        return done.stdout or done.stderr[-300:]

    run = await runtime.run(agent_with(work), "Begin.", tenant="acme")
    assert run.status == "succeeded"
    assert run.steps == true_provider.bill.calls == 3, "the sub-process's call is one of the run's"
    assert run.spent.nanousd == true_provider.bill.nanousd("1", "100")
    assert {call.key for call in true_provider.bill.entries} == {"provider-secret-key"}


async def test_a_run_is_stopped_for_good_by_a_call_of_its_sub_process(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    true_provider.behaviour = Behaviour(script=answer)
    seen: list[int] = []

    def work() -> str:
        """Work."""
        env = gateway_env()
        seen.extend(ask(env).status_code for _ in range(4))
        return "worked"

    run = await runtime.run(agent_with(work, on_limit="stop"), "Begin.", tenant="acme", limits=Limits(steps=3))
    assert seen == [200, 200, 402, 402]
    assert run.status == "stopped"
    assert true_provider.bill.calls == 3


async def test_a_runs_key_dies_with_the_run(runtime: Runtime, true_provider: TrueProvider) -> None:
    true_provider.behaviour = Behaviour(script=answer)
    kept: dict[str, str] = {}

    def work() -> str:
        """Work."""
        kept.update(gateway_env())
        assert kept == gateway_env(), "it is the same each time"
        return str(ask(kept).status_code)

    run = await runtime.run(agent_with(work), "Begin.", tenant="acme")
    assert run.status == "succeeded"
    calls = true_provider.bill.calls
    refused = ask(kept)
    assert refused.status_code == 401
    assert refused.json()["error"]["code"] == "invalid_api_key"
    assert true_provider.bill.calls == calls


async def test_a_runs_key_is_refused_once_another_worker_has_taken_the_run_over(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    true_provider.behaviour = Behaviour(script=answer)
    refused: list[httpx.Response] = []

    def work() -> str:
        """Work."""
        env, path = gateway_env(), current_run().scope.run_path
        with runtime.ledger.store.write() as connection:  # the holder has fallen silent
            connection.execute(update(pot).where(pot.c.path == path).values(lease_until_us=0))
        runtime.ledger.gates.hold(path, "another worker", 60)
        refused.append(ask(env))
        return "worked"

    await runtime.run(agent_with(work), "Begin.", tenant="acme")
    assert refused[0].status_code == 401
    assert true_provider.bill.calls == 1


async def test_a_key_of_a_run_cannot_be_had_outside_of_one() -> None:
    with pytest.raises(NoRunError):
        gateway_env()


async def test_a_run_is_told_nothing_of_others_by_the_gateway_of_its_process(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    """Metrics name tenants, and a sub-process of one run may look around."""
    true_provider.behaviour = Behaviour(script=answer)
    seen: list[int] = []

    def work() -> str:
        """Work."""
        url = gateway_env()["ANTHROPIC_BASE_URL"]
        seen.extend(httpx.get(f"{url}{path}", trust_env=False).status_code for path in ("/metrics", "/readyz"))
        return "worked"

    await runtime.run(agent_with(work, on_limit="stop"), "Begin.", tenant="acme")
    assert seen == [404, 404]
