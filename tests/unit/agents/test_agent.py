"""An agent is pure data: everything that cannot work is refused when it is written down."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from langchain_core.tools import StructuredTool

from bursar.agents import Agent, Cascade
from bursar.budget.errors import UsageError
from bursar.budget.limits import Limits
from bursar.tools import Tool, ToolArgumentsError, tool


@tool(effect="none")
def lookup(order_id: str) -> str:
    """Look an order up."""
    return order_id


def refund(order_id: str) -> str:
    """Pay an order back."""
    return order_id


def agent(**settings: Any) -> Agent:
    return Agent(**{"name": "support", "instructions": "Settle refund requests. Be kind.", **settings})


def test_an_agent_needs_only_a_name_and_instructions() -> None:
    made = agent()
    assert (made.tools, made.tool_specs, made.tier, made.limits) == ((), (), "small", Limits())
    assert (made.max_output_tokens, made.final_output_tokens, made.on_limit) == (4096, 512, None)


def test_an_agent_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        agent().tier = "frontier"  # type: ignore[misc]  # the mistake under test


def test_a_list_of_tools_changed_later_does_not_change_the_agent() -> None:
    tools: list[Any] = [lookup]
    made = agent(tools=tools)
    tools.append(refund)
    assert made.tools == (lookup,)


def test_tools_are_tools_functions_langchain_tools_and_agents() -> None:
    def search(query: str) -> str:
        """Search."""
        return query

    helper = Agent(name="helper", instructions="Help out.")
    made = agent(tools=[lookup, refund, StructuredTool.from_function(search), helper])
    assert [spec["function"]["name"] for spec in made.tool_specs] == ["lookup", "refund", "search", "helper"]
    assert made.tool("lookup") is lookup
    assert made.tool("helper") is helper
    assert made.tool("nothing") is None
    plain = made.tool("refund")
    assert isinstance(plain, Tool)
    assert (plain.effect, plain.approval) == ("irreversible", "always")


@pytest.mark.parametrize(
    ("settings", "description"),
    [
        ({"instructions": "\n Settle v1.2 requests. Be kind.\nBe brief."}, "Settle v1.2 requests."),
        ({"instructions": "Settle requests\nBe kind."}, "Settle requests"),
        (
            {"instructions": "Settle requests", "description": "Settles refunds for one order."},
            "Settles refunds for one order.",
        ),
    ],
)
def test_an_agent_is_shown_to_a_model_as_a_function_of_one_task(settings: dict[str, Any], description: str) -> None:
    assert agent(**settings).spec == {
        "type": "function",
        "function": {
            "name": "support",
            "description": description,
            "parameters": {
                "type": "object",
                "properties": {
                    "task": {"type": "string", "description": "What to do, with everything needed to do it."}
                },
                "required": ["task"],
                "additionalProperties": False,
            },
        },
    }


def test_a_task_is_checked_like_the_arguments_of_any_tool() -> None:
    assert agent().check('{"task": "Refund 1001"}') == {"task": "Refund 1001"}
    with pytest.raises(ToolArgumentsError, match=r"The arguments for support were refused: task: expected .*got 3"):
        agent().check({"task": 3})


@pytest.mark.parametrize("name", ["", "Support", "-support", "sup port", "s" * 64, "support\n", None])
def test_a_name_that_the_ledger_cannot_use_is_refused(name: str | None) -> None:
    with pytest.raises(UsageError, match="expected 1 to 63 lower-case letters"):
        agent(name=name)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"instructions": " \n"}, r"agent 'support': instructions=' \\n', expected a text that is not empty"),
        ({"tier": ""}, "tier='', expected a text"),
        ({"max_output_tokens": 0}, "max_output_tokens=0, expected a whole number from 1 up"),
        ({"final_output_tokens": True}, "final_output_tokens=True, expected a whole number"),
        ({"limits": {"steps": 3}}, r"limits=\{'steps': 3\}, expected Limits"),
        ({"on_limit": "crash"}, "on_limit='crash', expected one of finalize, escalate, downgrade, stop, or None"),
        ({"min_tier": " "}, "min_tier=' ', expected a text"),
        ({"models": "llama"}, "models='llama', expected a list of names"),
        ({"models": []}, r"models=\[\], expected a list of names"),
        ({"data": "secret"}, "data='secret', expected one of any, local_only"),
        ({"reasoning_effort": ""}, "reasoning_effort='', expected a text"),
        ({"max_reasoning_tokens": 4096}, "max_reasoning_tokens=4096 leaves no output for the answer"),
        ({"tier": Cascade("small", "frontier", accept="schema")}, "no schema that a Cascade could check"),
        ({"tools": lookup}, "expected a list"),
        ({"tools": "lookup"}, "expected a list"),
        ({"tools": [3]}, "3 is no tool"),
    ],
)
def test_a_wrong_setting_names_the_agent_the_value_and_what_was_expected(settings: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        agent(**settings)


def test_two_tools_of_one_name_are_both_named() -> None:
    def search(query: str) -> str:
        """Search for orders."""
        return query

    namesake = Agent(name="lookup", instructions="Look customers up.")
    with pytest.raises(UsageError) as caught:
        agent(tools=[lookup, search, namesake])
    assert "two tools called 'lookup'" in str(caught.value)
    assert 'tools[0] (function: "Look an order up.")' in str(caught.value)
    assert 'tools[2] (agent: "Look customers up.")' in str(caught.value)


def test_an_agent_used_as_a_tool_needs_a_tools_name() -> None:
    dotted = Agent(name="team.helper", instructions="Help out.")
    with pytest.raises(UsageError, match=r"agent 'team\.helper' cannot be a tool under that name"):
        agent(tools=[dotted])


def test_an_agent_that_contains_itself_at_any_depth_is_refused() -> None:
    inner = Agent(name="inner", instructions="Go deeper.", tools=[agent()])
    with pytest.raises(UsageError, match="agent 'support' contains an agent of its own name, in 'inner'"):
        agent(tools=[inner])


def test_two_agents_may_share_a_third() -> None:
    shared = Agent(name="shared", instructions="Help both.")
    pair = [Agent(name=name, instructions="Work.", tools=[shared]) for name in ("left", "right")]
    assert len(agent(tools=pair).tool_specs) == 2
