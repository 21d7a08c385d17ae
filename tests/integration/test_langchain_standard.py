"""`chat_model` passes the suites that LangChain has for every chat model, in front of the provider that bills."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from bursar.budget import Limits
from bursar.budget.scope import Scope
from bursar.runtime import Runtime
from bursar.runtime.chat import BursarChatModel
from tests.acceptance.support import write_config
from tests.support.provider import Answer, Behaviour, TrueProvider

NAMES = ("你好啊集团", "こんにちは株式会社")
"""What the suite wants to read in a tool's arguments, where it asks for it."""

PNG = bytes.fromhex("89504e470d0a1a0a")
"""How a picture begins; nobody here looks at the rest."""


class _Ours:
    """What both suites are told of the model."""

    chat_model_class = BursarChatModel

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"tier": "small"}

    supports_json_mode = True  # as every structured output, by a tool that must be called
    supports_image_inputs = True
    supports_image_urls = True
    supports_model_override = False  # which model of its tier answers is the tier's to say, within its allowance
    supports_image_tool_message = True
    supports_pdf_tool_message = False  # nothing tells before the call how many tokens a provider counts for one
    supports_audio_inputs = False  # the same
    supports_pdf_inputs = False  # the same
    supports_anthropic_inputs = True


class TestUnit(_Ours, ChatModelUnitTests):
    """What can be asked of the model where no run is around it."""

    @pytest.fixture
    def benchmark(self) -> Any:
        """In the place of a plugin that times code: it is run once."""
        return lambda timed: timed()

    @pytest.fixture
    def snapshot(self) -> None:
        """In the place of a plugin that keeps snapshots: a model that belongs to runs is not serialized."""


class TestInARun(_Ours, ChatModelIntegrationTests):
    """Calls by HTTP, paid by a run that is around each test."""

    @pytest.fixture(autouse=True)
    async def run_around(self, tmp_path: Path, true_provider: TrueProvider) -> AsyncIterator[None]:
        """The ledger says at the end what the provider billed, and that nothing is in flight."""
        true_provider.behaviour = Behaviour(script=_answer)
        async with Runtime.open(write_config(tmp_path, true_provider)) as runtime:
            scope = Scope(tenant="acme", agents=("suite",), run_id="run_suite")
            runtime.ledger.gates.open(scope, Limits(cost_usd="10"))
            with runtime.standing(scope, tiers=None).registered():
                yield
            bill = runtime.ledger.reports.bill("run_suite")
            assert bill.posted.steps == true_provider.bill.calls
            assert bill.held.steps == 0

    @pytest.fixture(autouse=True)
    def picture(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The suite's picture, which it fetches from the network, is one of ours."""
        monkeypatch.setattr(httpx, "get", lambda url, timeout: httpx.Response(200, content=PNG))

    @pytest.fixture
    def vcr(self) -> None:
        """In the place of a plugin that records HTTP."""

    @pytest.fixture
    def benchmark(self) -> None:
        """In the place of a plugin that times code."""


def _answer(body: dict[str, Any], _: int) -> Answer:
    """A model that calls a tool wherever it may, and otherwise says good morning."""
    last, choice = body["messages"][-1], body.get("tool_choice")
    if not body.get("tools") or last["role"] != "user":
        return Answer(text="Good morning to you.")
    tools = {tool["function"]["name"]: tool["function"]["parameters"] for tool in body["tools"]}
    name = choice["function"]["name"] if isinstance(choice, dict) else next(iter(tools))
    wanted = tools[name].get("properties", {})
    return Answer(tool_calls=[(name, {key: _value(of, str(last["content"])) for key, of in wanted.items()})])


def _value(of: Mapping[str, Any], asked: str) -> int | str:
    if of.get("type") == "integer":
        return 3  # what the suite asks for
    return next((name for name in NAMES if name in asked), "fluffy")
