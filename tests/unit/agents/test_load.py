"""An agent is found where a team wrote it, and a mistake in the file is told with its line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bursar.agents import Agent, load_agent
from bursar.budget.errors import UsageError

Write = Callable[[str, str], str]

SUPPORT = """
from bursar.agents import Agent
support = Agent(name="support", instructions="Settle refund requests.")
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a file in an empty working directory; returns the path as a user would type it."""
    monkeypatch.chdir(tmp_path)

    def written(name: str, text: str) -> str:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return name

    return written


def refused(target: str) -> str:
    with pytest.raises(UsageError) as caught:
        load_agent(target)
    assert "Traceback" not in str(caught.value)
    return str(caught.value)


def test_an_agent_is_loaded_by_file_and_name(write: Write) -> None:
    made = load_agent(write("examples/support.py", SUPPORT) + ":support")
    assert isinstance(made, Agent)
    assert made.name == "support"


def test_the_one_agent_of_a_file_needs_no_name(write: Write) -> None:
    assert load_agent(write("support.py", SUPPORT)).name == "support"


def test_an_agent_is_loaded_by_module_from_the_working_directory(write: Write) -> None:
    write("teamroom/__init__.py", "")
    write("teamroom/support.py", SUPPORT)
    assert load_agent("teamroom.support:support").name == "support"


def test_a_graph_is_whatever_compiles_or_can_be_invoked(write: Write) -> None:
    place = write(
        "graphs.py",
        """
from langgraph.graph import START, MessagesState, StateGraph
graph = StateGraph(MessagesState)
graph.add_node("reply", lambda state: state)
graph.add_edge(START, "reply")
app = graph.compile()
""",
    )
    assert hasattr(load_agent(f"{place}:graph"), "compile")
    assert hasattr(load_agent(f"{place}:app"), "ainvoke")


def test_files_beside_the_agents_file_can_be_imported_and_the_path_is_put_back(write: Write) -> None:
    write("team/refund_words.py", "GREETING = 'Settle refund requests.'")
    place = write(
        "team/support.py",
        "from refund_words import GREETING\n"
        "from bursar.agents import Agent\n"
        "support = Agent(name='support', instructions=GREETING)\n",
    )
    before = list(sys.path)
    assert load_agent(place).instructions == "Settle refund requests."
    assert sys.path == before


def test_dataclasses_and_pydantic_models_work_in_the_file(write: Write) -> None:
    place = write(
        "models.py",
        """
from __future__ import annotations
from dataclasses import dataclass
from pydantic import BaseModel
from bursar.agents import Agent
from bursar.tools import tool

@dataclass(kw_only=True)
class Order:
    order_id: str

class Refund(BaseModel):
    order: Order

@tool
def pay(refund: Refund) -> str:
    "Pay back."
    return refund.order.order_id

agent = Agent(name="payer", instructions="Pay.", tools=[pay])
""",
    )
    pay = load_agent(place).tool("pay")
    assert pay.check({"refund": {"order": {"order_id": "1"}}}) == {"refund": {"order": {"order_id": "1"}}}


def test_two_files_of_one_name_are_two_modules(write: Write) -> None:
    one = write("one/agent.py", SUPPORT)
    two = write("two/agent.py", SUPPORT.replace('"support"', '"other"'))
    assert (load_agent(one).name, load_agent(two).name) == ("support", "other")


@pytest.mark.parametrize("target", ["missing.py:support", "folder/missing.py", "notes.txt:support", ".:support", ""])
def test_a_file_that_is_not_there_or_not_python_is_named(write: Write, target: str) -> None:
    write("notes.txt", "no python")
    assert f"there is no Python file {target.partition(':')[0]!r} -> give FILE.py:NAME" in refused(target)


def test_a_module_that_is_not_there_is_named(write: Write) -> None:
    write("empty.py", "")
    assert refused("no_such_module:support") == (
        "no_such_module: ModuleNotFoundError: No module named 'no_such_module'"
    )


def test_a_syntax_error_shows_its_line_and_the_lines_text(write: Write) -> None:
    place = write("team/broken.py", "x = 1\ndef support(:\n    pass\n")
    assert refused(f"{place}:support") == "team/broken.py:2: syntax error: invalid syntax: def support(:"


def test_an_error_while_importing_shows_class_message_and_the_teams_own_line(write: Write) -> None:
    place = write("team/broken.py", "import json\n\njson.loads('nope')\n")
    assert refused(place).startswith("team/broken.py:3: JSONDecodeError: Expecting value")


def test_an_error_in_a_file_beside_it_shows_that_files_line(write: Write) -> None:
    write("team/beside_broken.py", "\n\nraise KeyError('gone')\n")
    place = write("team/agent.py", "import beside_broken\n")
    assert refused(place) == "team/beside_broken.py:3: KeyError: 'gone'"


def test_an_agent_that_cannot_work_is_told_with_its_line_and_what_to_do(write: Write) -> None:
    place = write(
        "agent.py",
        "from bursar.agents import Agent\ndef act(): pass\n\na = Agent(name='a', instructions='A.', tools=[act])\n",
    )
    told = refused(place)
    assert told.startswith("agent.py:4: UsageError: tool 'act' has no docstring")
    assert "-> add one below its def line" in told


def test_a_file_that_exits_is_an_error_of_the_file(write: Write) -> None:
    assert refused(write("script.py", "raise SystemExit(3)\n")) == "script.py:1: SystemExit: 3"


def test_an_interrupt_while_importing_is_not_swallowed(write: Write) -> None:
    place = write("slow.py", "raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load_agent(place)


def test_a_file_that_failed_leaves_no_module_behind(write: Write) -> None:
    before = set(sys.modules)
    refused(write("broken.py", "raise ValueError\n"))
    assert {name for name in set(sys.modules) - before if name.startswith("bursar_file_")} == set()


def test_a_missing_name_suggests_the_nearest_and_lists_the_agents_there(write: Write) -> None:
    place = write("support.py", SUPPORT)
    assert refused(f"{place}:suport") == (
        "support.py defines no 'suport'; expected an Agent or a LangGraph graph (agents there: support)"
        " -> did you mean support.py:support?"
    )


@pytest.mark.parametrize(("name", "kind"), [("Agent", "type"), ("re", "module"), ("number", "int")])
def test_a_name_that_is_no_agent_or_graph_says_what_it_is(write: Write, name: str, kind: str) -> None:
    place = write("support.py", f"import re\nnumber = 3\n{SUPPORT}")
    assert f"support.py:{name} is of type {kind}; expected an Agent" in refused(f"{place}:{name}")


def test_several_agents_without_a_name_ask_which(write: Write) -> None:
    place = write("pair.py", SUPPORT + 'second = Agent(name="second", instructions="Help.")\n')
    assert refused(place) == "pair.py defines 2 agents -> say which: pair.py:support or pair.py:second"


def test_no_agent_and_no_name_ask_for_the_name(write: Write) -> None:
    assert refused(write("empty.py", "x = 1\n")) == "empty.py defines no Agent -> name the object to run: empty.py:NAME"
