"""Whatever a model writes as arguments either fits the tool's parameters or is refused in words it can act on."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bursar.budget.errors import UsageError
from bursar.tools import Tool, ToolArgumentsError, tool


@tool
def refund(
    order_id: str, amount_usd: float, lines: list[int] | None = None, reason: dict[str, Any] | None = None
) -> str:
    """Pay an order back."""
    return f"{order_id} {amount_usd} {lines} {reason}"


@pytest.mark.parametrize("as_given", [json.dumps, dict])
def test_arguments_that_fit_come_back_as_written(as_given: Callable[[dict[str, Any]], Any]) -> None:
    written = {"order_id": "1001", "amount_usd": 42.5, "lines": [1, 2]}
    assert refund.check(as_given(written)) == written


def test_what_is_checked_shares_nothing_with_its_source() -> None:
    source: dict[str, Any] = {"order_id": "1", "amount_usd": 1, "lines": [1]}
    checked = refund.check(source)
    source["lines"].append("later")
    assert checked["lines"] == [1]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("", "'order_id' is a required property (properties: order_id, amount_usd, lines, reason)"),
        ("  \n", "'order_id' is a required property"),
        ("{", "not readable as JSON"),
        ("[1]", "expected a JSON object, got [1]"),
        ('"text"', 'expected a JSON object, got "text"'),
        ({"order_id": "1"}, "'amount_usd' is a required property"),
        ({"order_id": 1, "amount_usd": 2}, 'order_id: expected {"type": "string"}, got 1'),
        ({"order_id": "1", "amount_usd": "2"}, 'amount_usd: expected {"type": "number"}, got "2"'),
        ({"order_id": "1", "amount_usd": True}, 'amount_usd: expected {"type": "number"}, got true'),
        ({"order_id": "1", "amount_usd": 2, "lines": [1, "x"]}, 'lines[1]: expected {"type": "integer"}, got "x"'),
        ({"order_id": "1", "amount_usd": 2, "to": "me"}, "('to' was unexpected) (properties: order_id, amount_usd"),
        ('{"order_id": "1", "amount_usd": NaN}', "not readable as JSON"),
        ('{"order_id": "1", "amount_usd": 1e400}', "not readable as JSON (Out of range float values"),
        ({"order_id": "1", "amount_usd": float("inf")}, "not readable as JSON"),
        ({"order_id": object(), "amount_usd": 2}, "not readable as JSON"),
        (None, "not readable as JSON"),
    ],
)
def test_arguments_that_do_not_fit_name_the_field_and_what_was_expected(arguments: Any, told: str) -> None:
    with pytest.raises(ToolArgumentsError) as caught:
        refund.check(arguments)
    assert told in str(caught.value)
    assert "Nothing was done. Call refund again" in str(caught.value)


def test_several_faults_are_told_at_once() -> None:
    with pytest.raises(ToolArgumentsError) as caught:
        refund.check({"order_id": 1, "to": "me"})
    assert all(name in str(caught.value) for name in ("order_id: ", "'amount_usd'", "'to'"))


def test_arguments_over_a_million_characters_are_not_parsed() -> None:
    with pytest.raises(ToolArgumentsError, match=r"1,000,02\d characters long, at most 1,000,000 are read"):
        refund.check('{"order_id": "' + "x" * 1_000_006 + '", ')


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_deeply_nested_arguments_are_refused_without_a_crash(opening: str) -> None:
    with pytest.raises(ToolArgumentsError, match="recursion limit"):
        refund.check('{"order_id": "1", "amount_usd": 1, "reason": ' + opening * 100_000)


def test_deeply_nested_objects_are_refused_without_a_crash() -> None:
    reason: dict[str, Any] = {}
    for _ in range(5_000):
        reason = {"a": reason}
    with pytest.raises(ToolArgumentsError, match="not readable as JSON"):
        refund.check({"order_id": "1", "amount_usd": 1, "reason": reason})


def test_a_refusal_stays_short_whatever_was_written() -> None:
    with pytest.raises(ToolArgumentsError) as caught:
        refund.check({"x" * 100_000: 1, "order_id": ["y" * 100_000], "lines": ["z" * 10_000] * 50})
    assert len(str(caught.value)) < 5_000


def test_a_schema_that_never_ends_is_refused_without_a_crash() -> None:
    endless = Tool(
        name="endless",
        description="Never ends.",
        parameters={"type": "object", "allOf": [{"$ref": "#"}]},
        function=dict,
        effect="none",
        approval="never",
    )
    with pytest.raises(ToolArgumentsError, match="not checkable against the schema"):
        endless.check({})


def test_a_schema_is_never_fetched_from_the_network() -> None:
    remote = Tool(
        name="remote",
        description="Lives elsewhere.",
        parameters={"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:1/schema.json"}}},
        function=dict,
        effect="none",
        approval="never",
    )
    with pytest.raises(ToolArgumentsError, match="not checkable against the schema"):
        remote.check({"a": 1})


def test_a_schema_that_is_none_is_refused_when_the_tool_is_made() -> None:
    with pytest.raises(UsageError, match="not a JSON Schema"):
        Tool(
            name="odd",
            description="Odd.",
            parameters={"type": "thing"},
            function=dict,
            effect="none",
            approval="never",
        )


def test_a_validator_of_the_team_that_breaks_is_told_to_the_model() -> None:
    def explode(_: object) -> dict[str, Any]:
        raise KeyError("theirs")

    odd = Tool(
        name="odd",
        description="Odd.",
        parameters={"type": "object"},
        function=dict,
        bind=explode,
        effect="none",
        approval="never",
    )
    with pytest.raises(ToolArgumentsError, match="KeyError: 'theirs'"):
        odd.check({})


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
_KEYS = st.sampled_from(["order_id", "amount_usd", "lines", "reason"]) | st.text()


@given(st.text() | _JSON.map(json.dumps) | st.dictionaries(_KEYS, _JSON))
@example("\ud800")
@example('{"order_id": "\\ud800", "amount_usd": 1}')
def test_anything_at_all_is_either_fitting_or_refused(arguments: str | dict[str, Any]) -> None:
    try:
        checked = refund.check(arguments)
    except ToolArgumentsError:
        return
    assert isinstance(checked["order_id"], str)
    assert json.loads(json.dumps(checked, allow_nan=False)) == checked
