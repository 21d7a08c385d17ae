"""A folder with agents on scripted models, and the command called in it."""

from __future__ import annotations

import json
import re
import shlex
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bursar.runtime.cli import main
from tests.support.ledger import new_runtime_file

__all__ = ["Command", "Said", "command", "make_project", "run_id"]

CONFIG = """\
database: sqlite:///bursar.db
models:
  demo: {provider: sim, scenario: support}
  looper: {provider: sim, scenario: loop}
  flaky: {provider: sim, scenario: flaky.yaml, retries: 1}
  slow: {provider: sim, scenario: slow.yaml}
  rude: {provider: sim, scenario: rude.yaml}
tiers:
  small: [demo]
  loop: [looper]
  mixed: [flaky, looper]
  slow: [slow]
  rude: [rude]
tenants:
  acme: {budgets: [{usd: "5", per: month, zone: Europe/Paris}]}
  poor: {budgets: [{usd: "0.0001", per: total}]}
"""

SCENARIOS = {
    "flaky.yaml": """
        faults: [{kind: broken_stream, times: 1}, {kind: unavailable, turn: 1}]
        rules: [{when: {has_tool: search}, answer: {tool_calls: [{name: search, arguments: {query: a}}]}}]
    """,
    "slow.yaml": """
        latency_ms: {min: 400, max: 400}
        answers: [{tool_calls: [{name: search, arguments: {query: more}}]}]
    """,
    "rude.yaml": """
        answers: ["\\e[2J\\e]0;owned\\aI am \\u202e[bold]calm[/bold] :smile:"]
    """,
}

AGENTS = '''\
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import interrupt

from bursar.agents import Agent
from bursar.budget import Limits
from bursar.runtime import chat_model
from bursar.tools import tool


@tool(effect="none")
def find_order(order_id: str) -> dict:
    """Look an order up by its number."""
    print("looking for", order_id)
    return {"order_id": order_id, "total_usd": 42.5, "delivered": False}


@tool(effect="irreversible", approval="always")
def refund(order_id: str, amount_usd: float) -> str:
    """Pay an order back to the customer's card."""
    return f"refunded {amount_usd} for {order_id}"


@tool(effect="none")
def search(query: str) -> str:
    """Search the web."""
    return "ten pages"


support = Agent(name="support", instructions="Settle refunds.", tools=[find_order, refund], limits=Limits(steps=12))
runaway = Agent(name="runaway", instructions="Search.", tools=[search], tier="loop", limits=Limits(steps=8))
mixed = Agent(name="mixed", instructions="Search.", tools=[search], tier="mixed", limits=Limits(steps=5))
slow = Agent(name="slow", instructions="Search.", tools=[search], tier="slow", limits=Limits(steps=50))
rude = Agent(name="rude", instructions="Be rude.", tier="rude")


def draft(state):
    return {"messages": [chat_model("small").invoke(state["messages"])]}


def ask(state):
    return {"messages": [("ai", f"you said {interrupt('red or blue?')!r}")]}


def boom(state):
    raise ZeroDivisionError("division \\x1b[31mby zero")


def one(name, node):
    graph = StateGraph(MessagesState)
    graph.add_node(name, node)
    graph.add_edge(START, name)
    graph.add_edge(name, END)
    return graph


own = one("draft", draft)
asker = one("ask", ask)
broken = one("boom", boom)
'''


@dataclass(frozen=True, slots=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def nexts(self) -> list[list[str]]:
        """The commands that it says go on from here, ready to be called."""
        return [shlex.split(line.removeprefix("-> bursar ")) for line in self.out.splitlines() if line[:3] == "-> "]


Command = Callable[..., Said]


def make_project(folder: Path) -> Path:
    """Write the configuration, its scenarios, the agents and an empty ledger into a folder."""
    files = {"bursar.yaml": CONFIG, "agents.py": AGENTS, **SCENARIOS}
    for name, text in files.items():
        (folder / name).write_text(textwrap.dedent(text))
    new_runtime_file(folder)
    return folder


def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """The command in this process and the current folder."""

    def call(*arguments: str) -> Said:
        capsys.readouterr()
        code = main(arguments)
        return Said(code, *capsys.readouterr())

    return call


def run_id(said: Said) -> str:
    """The id of the run that a command speaks of."""
    found = re.search(r"run_[0-9a-f]{21}", said.out + said.err)
    assert found, said
    return found[0]
