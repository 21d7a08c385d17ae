"""The escape suite: at a limit of three calls every way around it is refused at the fourth, in process and by HTTP.

Three attempts, three reservations, three requests to the provider; and a run that was stopped stays so.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelRetryMiddleware, SummarizationMiddleware
from langchain_core.language_models import BaseChatModel
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from pydantic import SecretStr

from bursar.budget import Limits
from bursar.runtime import Runtime, chat_model, gateway_env
from tests.acceptance.support import QUESTION, model_of, write_config
from tests.support.provider import Answer, Behaviour, Fault, TrueProvider

THREE = Limits(steps=3, cost_usd=None)
KEY = "the-provider-s-own-key"
ASKED: Any = {"messages": [("user", QUESTION)]}
"""What graphs and agents are given."""

Models = Callable[[], BaseChatModel]
Way = Callable[[], AbstractContextManager[Models]]
Program = Callable[[Models], object]


@contextmanager
def in_process() -> Iterator[Models]:
    yield chat_model


@contextmanager
def by_http() -> Iterator[Models]:
    env = gateway_env()
    with httpx.Client(trust_env=False) as http:
        yield partial(
            ChatOpenAI,
            model="small",
            base_url=env["OPENAI_BASE_URL"],
            api_key=SecretStr(env["OPENAI_API_KEY"]),
            http_client=http,
        )


WAYS: dict[str, Way] = {"in process": in_process, "by HTTP": by_http}


def plain_loop(model: Models) -> None:
    while True:
        model().invoke(QUESTION)


def retries_times_retries(model: Models) -> None:
    """The provider charges for web pages; our attempts, the SDK's retries and the middleware's all come to three."""
    again = ModelRetryMiddleware(max_retries=5, initial_delay=0, jitter=False, on_failure="error")
    create_agent(model(), [look_up], middleware=[again]).invoke(ASKED)


def summarization(model: Models) -> None:
    shorter = SummarizationMiddleware(model(), trigger=("messages", 2), keep=("messages", 1))
    create_agent(model(), [look_up], middleware=[shorter]).invoke(ASKED)


def sub_agent(model: Models) -> None:
    _with_tool(model, lambda _: create_agent(model(), [look_up]).invoke(ASKED))


def tool_starting_a_thread(model: Models) -> None:
    """A bare thread knows of no run; what it asks of a chat_model is refused, and by HTTP its key knows the run."""

    def ask(task: str) -> str:
        said: list[object] = []

        def work() -> None:
            try:
                said.append(model().invoke(task))
            except Exception as error:
                said.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return str(said)

    _with_tool(model, ask)


def tool_without_callbacks(model: Models) -> None:
    _with_tool(model, lambda task: model().invoke(task, config={"callbacks": []}).text)


def tool_with_a_client_of_its_own(model: Models) -> None:
    def ask(task: str) -> str:
        with by_http() as own:
            return str(own().invoke(task).text)

    _with_tool(model, ask)


IN_A_SUB_PROCESS = """
import json, os
from openai import APIStatusError, OpenAI

with OpenAI() as client:
    for n in range(9):
        try:
            client.chat.completions.create(model="small", messages=[{"role": "user", "content": f"Part {n}?"}])
        except APIStatusError as refused:
            print(json.dumps([n, refused.status_code, dict(os.environ)]))
            break
"""


def tool_with_a_sub_process(model: Models) -> None:
    """The raw SDK, in a process that holds nothing but the run's key."""

    def ask(_: str) -> str:
        command = [sys.executable, "-c", IN_A_SUB_PROCESS]
        shown = subprocess.run(command, env=gateway_env(), capture_output=True, text=True, check=True, timeout=60)
        answered, status, environment = json.loads(shown.stdout)
        assert (answered, status) == (2, 402)
        assert KEY not in environment.values()
        assert "HOUSE_KEY" not in environment
        return shown.stdout

    _with_tool(model, ask)


ESCAPES: dict[str, Program] = {
    "a plain loop": plain_loop,
    "retries of the SDK times the middleware's": retries_times_retries,
    "summarization": summarization,
    "a sub-agent": sub_agent,
    "a tool that starts a thread": tool_starting_a_thread,
    "a tool without callbacks": tool_without_callbacks,
    "a tool with its own ChatOpenAI": tool_with_a_client_of_its_own,
    "a tool with the raw SDK in a sub-process": tool_with_a_sub_process,
}


@tool
def look_up(query: str) -> str:
    """Look something up."""
    return f"nothing about {query}"


def insists(body: dict[str, Any], _: int) -> Answer:
    """Calls the first tool that it is offered, for ever."""
    if not body.get("tools"):
        return Answer(text="Nothing yet.")
    function = body["tools"][0]["function"]
    return Answer(tool_calls=[(function["name"], dict.fromkeys(function["parameters"]["required"], "all"))])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("escape", ESCAPES)
async def test_the_fourth_call_is_refused(
    escape: str, way: str, tmp_path: Path, true_provider: TrueProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOUSE_KEY", KEY)
    monkeypatch.setattr("tenacity.nap.time", SimpleNamespace(sleep=lambda _: None))  # the summarizer waits by itself
    charged_for_nothing = [Fault("html")] * 99 if "retries" in escape else ()
    true_provider.behaviour = Behaviour(script=insists, faults=charged_for_nothing)
    config = write_config(tmp_path, {"house": model_of(true_provider, api_key_env="HOUSE_KEY", retries=2)})

    async with Runtime.open(config, sleep=_at_once) as runtime:
        graph = _graph(WAYS[way], ESCAPES[escape])
        run = await runtime.run(graph, ASKED, tenant="acme", limits=THREE)
        again = await runtime.resume(run.id)
        bill = runtime.ledger.reports.bill(run.id)

    assert run.status == again.status == "stopped", run.stop_reason
    assert "0 steps left of 3 steps" in str(again.stop_reason)
    attempts = [attempt for attempt in bill.attempts if attempt.kind == "model"]
    assert true_provider.bill.requests == true_provider.bill.calls == len(attempts) == bill.posted.steps == 3
    assert {entry.key for entry in true_provider.bill.entries} == {KEY}


def _graph(way: Way, program: Program) -> CompiledStateGraph[Any, Any, Any, Any]:
    """A graph of a user's own that runs the program in its only node."""

    def work(_: MessagesState) -> None:
        with way() as model:
            program(model)

    node: Callable[..., Any] = work
    return StateGraph(MessagesState).add_node("work", node).add_edge(START, "work").compile()


def _with_tool(model: Models, ask: Callable[[str], object]) -> None:
    """An agent with one tool, which does this."""

    @tool
    def work(task: str) -> str:
        """Do a part of the work."""
        return str(ask(task))

    create_agent(model(), [work]).invoke(ASKED)


async def _at_once(_: float) -> None:
    await asyncio.sleep(0)
