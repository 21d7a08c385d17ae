from __future__ import annotations

import re
import sys
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC
from enum import Enum
from pathlib import Path
from typing import Any

import ormsgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core import messages
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.serde import jsonplus as wire
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.types import Command, Interrupt, Send, TimeoutPolicy
from pydantic import BaseModel

from bursar.budget.errors import UsageError
from bursar.memory import CheckpointRefused, StrictSerializer


@dataclass
class Plan:
    steps: list[Any]


class Answer(BaseModel):
    text: str


class Colour(Enum):
    RED = "red"


def extension(code: int, *content: Any) -> ormsgpack.Ext:
    """An object as LangGraph writes it."""
    return ormsgpack.Ext(code, ormsgpack.packb(content))


def row(value: Any) -> tuple[str, bytes]:
    return "msgpack", ormsgpack.packb(value)


CODES = [
    wire.EXT_CONSTRUCTOR_SINGLE_ARG,
    wire.EXT_CONSTRUCTOR_POS_ARGS,
    wire.EXT_CONSTRUCTOR_KW_ARGS,
    wire.EXT_METHOD_SINGLE_ARG,
    wire.EXT_PYDANTIC_V1,
    wire.EXT_PYDANTIC_V2,
]


# What may be kept


def example_of(kind: type[BaseMessage]) -> BaseMessage:
    extra = {"tool_call_id": "7"} if "tool_call_id" in kind.model_fields else {}
    extra |= {"name": "f"} if "Function" in kind.__name__ else {}
    extra |= {"role": "critic"} if "role" in kind.model_fields else {}
    if kind is messages.RemoveMessage:
        return messages.RemoveMessage(id="7")
    return kind(content="hello", id="7", **extra)


MESSAGES = [
    kind
    for name in messages.__all__
    if isinstance(kind := getattr(messages, name), type)
    and issubclass(kind, BaseMessage)
    and kind not in (messages.BaseMessage, messages.BaseMessageChunk)
]


@pytest.mark.parametrize("kind", MESSAGES)
def test_every_message_of_langchain_comes_back_as_it_was(kind: type[BaseMessage]) -> None:
    message = example_of(kind)
    serializer = StrictSerializer()
    back = serializer.loads_typed(serializer.dumps_typed([message]))
    assert back == [message]
    assert type(back[0]) is kind


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.datetimes(timezones=st.just(UTC))
    | st.dates()
    | st.timedeltas()
    | st.uuids()
    | st.decimals(allow_nan=False)
    | st.builds(Path, st.just("a/b"))
    | st.just(re.compile("a+", re.IGNORECASE))
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text(max_size=5), inner, max_size=3),
        st.lists(inner, max_size=3).map(deque),
        st.builds(lambda text, extra: AIMessage(text, additional_kwargs={"extra": extra}), st.text(), inner),
        st.builds(lambda artifact: ToolMessage("found", tool_call_id="7", artifact=artifact), inner),
        st.builds(lambda arg: Send("node", arg), inner),
        st.builds(lambda arg: Send("node", arg, timeout=TimeoutPolicy(run_timeout=9)), inner),
        st.builds(lambda value: Interrupt(value, "id"), inner),
        st.builds(lambda update: Command(goto="node", update={"plan": update}), inner),
        st.builds(lambda steps: Plan(steps), st.lists(inner, max_size=2)),
        st.builds(_DeltaSnapshot, inner),
    ),
    max_leaves=12,
)


@given(values)
def test_a_row_is_written_as_langgraph_writes_it_and_read_as_langgraph_reads_it(value: Any) -> None:
    allowed = [Plan]
    ours, theirs = StrictSerializer(allowed), JsonPlusSerializer(allowed_msgpack_modules=allowed)
    written = ours.dumps_typed(value)
    assert written == theirs.dumps_typed(value)
    assert repr(ours.loads_typed(written)) == repr(theirs.loads_typed(written))
    assert ours.dumps_typed(ours.loads_typed(written)) == written


@pytest.mark.parametrize("kept", [Plan(["a"]), Answer(text="a"), Colour.RED])
def test_a_type_that_was_allowed_by_class_or_by_name_comes_back(kept: Any) -> None:
    for allowed in (type(kept), (type(kept).__module__, type(kept).__name__)):
        serializer = StrictSerializer([allowed])
        assert serializer.loads_typed(serializer.dumps_typed({"kept": [kept]})) == {"kept": [kept]}


def test_a_model_that_no_longer_accepts_its_own_dump_is_read_without_validation() -> None:
    saved = row(extension(wire.EXT_PYDANTIC_V2, __name__, "Answer", {"text": 7}, "model_validate_json"))
    assert StrictSerializer([Answer]).loads_typed(saved) == Answer.model_construct(text=7)


@pytest.mark.parametrize("allowed", ["shop.Plan", ("shop",), ("shop", 1), Plan(["a"])])
def test_an_allowed_type_that_is_no_type_is_refused_at_once(allowed: Any) -> None:
    with pytest.raises(UsageError, match="expected a class, or its module and name"):
        StrictSerializer([allowed])


# What may not be read


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("name", [("os", "mkdir"), ("builtins", "open"), ("subprocess", "Popen"), ("this", "s")])
def test_a_row_that_names_any_other_callable_executes_nothing(code: int, name: tuple[str, str], tmp_path: Path) -> None:
    target = str(tmp_path / "owned")
    argument = {
        wire.EXT_CONSTRUCTOR_POS_ARGS: [target],
        wire.EXT_CONSTRUCTOR_SINGLE_ARG: target,
        wire.EXT_METHOD_SINGLE_ARG: target,
    }.get(code, {"path": target, "file": target, "args": ["touch", target], "mode": "w"})
    hostile = extension(code, *name, argument, "__call__")
    for place in (hostile, {"messages": [hostile]}):
        with pytest.raises(CheckpointRefused, match=re.escape(".".join(name))):
            StrictSerializer().loads_typed(row(place))
    assert not list(tmp_path.iterdir())
    assert "this" not in sys.modules, "not even imported"


def test_what_hides_inside_an_allowed_object_is_refused_too() -> None:
    hidden = extension(wire.EXT_CONSTRUCTOR_SINGLE_ARG, "os", "system", "true")
    inside = extension(
        wire.EXT_PYDANTIC_V2,
        "langchain_core.messages.human",
        "HumanMessage",
        {"content": hidden},
        "model_validate_json",
    )
    snapshot = ormsgpack.Ext(wire.EXT_DELTA_SNAPSHOT, ormsgpack.packb([hidden]))
    for place in (inside, snapshot):
        with pytest.raises(CheckpointRefused, match=r"os\.system"):
            StrictSerializer([("os", "path")]).loads_typed(row(place))


def test_a_method_of_an_allowed_type_is_refused_unless_langgraph_itself_calls_it() -> None:
    serializer = StrictSerializer([Plan])
    for module, name, method in (("datetime", "datetime", "strptime"), (__name__, "Plan", "fromisoformat")):
        with pytest.raises(CheckpointRefused, match=f"{name}.{method} is not among the methods"):
            serializer.loads_typed(row(extension(wire.EXT_METHOD_SINGLE_ARG, module, name, "2026-11-20", method)))


@pytest.mark.parametrize(
    ("saved", "why"),
    [
        (("pickle", b"cos\nsystem\n(S'true'\ntR."), "kind 'pickle'"),
        (("json", b'{"lc": 2, "type": "constructor", "id": ["os", "system"], "args": ["true"]}'), "kind 'json'"),
        (("msgpack", b"\x92\x01"), "cannot be read"),
        (("msgpack", b"\xc1"), "cannot be read"),
        (("msgpack", "text"), "cannot be read"),
        (row(ormsgpack.Ext(99, b"\x01")), "unknown code 99"),
        (row(ormsgpack.Ext(wire.EXT_CONSTRUCTOR_SINGLE_ARG, b"\xc1")), "cannot be read"),
        (row(extension(wire.EXT_CONSTRUCTOR_SINGLE_ARG, "uuid")), "cannot be read"),
        (row(extension(wire.EXT_CONSTRUCTOR_SINGLE_ARG, ["uuid"], "UUID", "1")), "cannot be read"),
        (row(extension(wire.EXT_CONSTRUCTOR_SINGLE_ARG, "uuid", "UUID", "no uuid")), "uuid.UUID cannot be rebuilt"),
        (row(extension(wire.EXT_NUMPY_ARRAY, "|O", [1], "C", b"12345678")), "cannot be read"),
    ],
)
def test_a_row_that_cannot_be_read_is_refused_and_never_half_read(saved: tuple[str, Any], why: str) -> None:
    with pytest.raises(CheckpointRefused, match=why) as refused:
        StrictSerializer().loads_typed(saved)
    assert refused.value.next_step


def test_a_row_nested_without_end_is_refused() -> None:
    nested = ormsgpack.packb(1)
    for _ in range(5_000):
        nested = ormsgpack.packb(ormsgpack.Ext(wire.EXT_DELTA_SNAPSHOT, nested))
    with pytest.raises(CheckpointRefused, match="cannot be read"):
        StrictSerializer().loads_typed(("msgpack", nested))


def test_threads_that_share_a_serializer_do_not_share_refusals() -> None:
    serializer = StrictSerializer()
    good = serializer.dumps_typed([HumanMessage("hello", id="7")])

    def load(number: int) -> str:
        saved = good if number % 2 else row(extension(wire.EXT_CONSTRUCTOR_SINGLE_ARG, "shop", f"Type{number}", 1))
        try:
            return str(serializer.loads_typed(saved)[0].content)
        except CheckpointRefused as refused:
            return refused.message.split()[0]

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(load, range(400)))
    assert found == ["hello" if number % 2 else f"shop.Type{number}" for number in range(400)]


# What may not be written


@pytest.mark.parametrize(
    "place",
    [
        lambda kept: kept,
        lambda kept: {"kept": [kept]},
        lambda kept: Plan([kept]),
        lambda kept: deque([kept]),
        lambda kept: Send("node", {"kept": kept}),
        lambda kept: [Interrupt(kept, "id")],
        lambda kept: HumanMessage("hello", additional_kwargs={"kept": kept}),
        lambda kept: ToolMessage("found", tool_call_id="7", artifact=[kept]),
    ],
)
def test_an_object_that_could_not_be_read_back_is_refused_when_it_is_written(place: Any) -> None:
    state = place(Colour.RED)
    with pytest.raises(CheckpointRefused, match="Colour is not among the types") as refused:
        StrictSerializer([Plan]).dumps_typed(state)
    assert refused.value.next_step == f"allowed_types=[({__name__!r}, 'Colour')], if a graph of yours keeps it"
    allowing = StrictSerializer([Plan, Colour])
    assert allowing.loads_typed(allowing.dumps_typed(state)) == state


def test_a_class_that_no_other_process_can_find_is_refused_when_it_is_written() -> None:
    class Local(BaseModel):
        text: str

    with pytest.raises(CheckpointRefused, match="Local cannot be found by that name"):
        StrictSerializer([Local]).dumps_typed(Local(text="a"))


def test_what_langgraph_cannot_write_is_refused_by_name() -> None:
    for place in (threading.Lock(), [AIMessage("a", additional_kwargs={"lock": threading.Lock()})]):
        with pytest.raises(CheckpointRefused, match="lock"):
            StrictSerializer().dumps_typed(place)
