"""What a provider of anybody's own raises: only a ProviderError can say that a call was not billed."""

from __future__ import annotations

from pathlib import Path

import pytest

from bursar.agents import Agent
from bursar.budget import Limits
from bursar.budget.errors import BursarError, UsageError
from bursar.runtime.models.provider import ModelReply, ModelRequest, NotSent, RequestRefused
from bursar.runtime.models.sim import SimProvider
from tests.acceptance.support import opened, write_config

AGENT = Agent(name="clerk", instructions="Answer.")
MODELS = {"house": {"provider": "sim", "scenario": "echo", "retries": 2}}


@pytest.mark.parametrize(
    ("error", "steps"), [(UsageError, 1), (BursarError, 1), (ValueError, 1), (NotSent, 0), (RequestRefused, 0)]
)
async def test_a_call_stays_charged_unless_a_provider_error_says_that_it_was_not_billed(
    error: type[Exception], steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []

    async def complete(_: SimProvider, request: ModelRequest) -> ModelReply:
        sent.append(request)
        raise error("the answer's log probabilities cannot be read")

    monkeypatch.setattr(SimProvider, "complete", complete)
    async with opened(write_config(tmp_path, MODELS)) as runtime:
        run = await runtime.run(AGENT, "hi", tenant="acme", limits=Limits(cost_usd=None))
        assert (run.status, len(sent)) == ("failed", 1)
    async with opened(write_config(tmp_path, MODELS)) as runtime:
        assert (await runtime.get(run.id)).spent.steps == steps
