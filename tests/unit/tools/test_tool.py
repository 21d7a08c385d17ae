"""A tool is described from its function, declares the worst unless told otherwise, and never crashes its caller."""

from __future__ import annotations

import asyncio
import contextvars
import datetime
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from langgraph.errors import GraphBubbleUp
from pydantic import BaseModel, Field

from bursar.budget.errors import UsageError
from bursar.tools import Tool, ToolArgumentsError, ToolResult, tool


class Line(BaseModel):
    sku: str
    count: int = 1


class Stop(GraphBubbleUp):
    pass


@tool(effect="none")
def find_order(order_id: str) -> dict[str, Any]:
    """Look an order up by its number."""
    return {"order_id": order_id, "total_usd": 42.5}


def raising(error: BaseException) -> Tool:
    @tool
    def broken() -> None:
        """Raise."""
        raise error

    return broken


def test_a_decorated_function_is_still_the_plain_function() -> None:
    assert find_order("1001") == {"order_id": "1001", "total_usd": 42.5}


def test_the_schema_comes_from_the_signature_and_a_google_docstring() -> None:
    @tool
    def order(
        lines: list[Line],
        speed: Literal["slow", "fast"] = "slow",
        limit: Annotated[int, Field(gt=0)] = 5,
        note: str | None = None,
    ) -> None:
        """Place an order.

        Args:
            lines: What to send,
                one line per article.
            speed: How fast.
        """

    assert order.name == "order"
    assert order.description == "Place an order."
    assert order.parameters == {
        "type": "object",
        "properties": {
            "lines": {
                "description": "What to send, one line per article.",
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"sku": {"type": "string"}, "count": {"type": "integer", "default": 1}},
                    "required": ["sku"],
                },
            },
            "speed": {"description": "How fast.", "enum": ["slow", "fast"], "type": "string", "default": "slow"},
            "limit": {"exclusiveMinimum": 0, "type": "integer", "default": 5},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        },
        "required": ["lines"],
        "additionalProperties": False,
    }


def test_the_spec_is_openais_tool_and_is_made_once() -> None:
    assert find_order.spec is find_order.spec
    assert find_order.spec == {
        "type": "function",
        "function": {
            "name": "find_order",
            "description": "Look an order up by its number.",
            "parameters": find_order.parameters,
        },
    }


@pytest.mark.parametrize(
    ("labels", "effect", "approval"),
    [
        ({}, "irreversible", "always"),
        ({"effect": "none"}, "none", "never"),
        ({"effect": "reversible"}, "reversible", "never"),
        ({"effect": "irreversible", "approval": "never"}, "irreversible", "never"),
        ({"effect": "none", "approval": "always"}, "none", "always"),
    ],
)
def test_unlabelled_is_the_worst_case_and_approval_follows_the_effect(
    labels: dict[str, Any], effect: str, approval: str
) -> None:
    @tool(**labels)
    def act() -> None:
        """Act."""

    assert (act.effect, act.approval) == (effect, approval)


def test_a_bare_decorator_is_the_worst_case() -> None:
    @tool
    def act() -> None:
        """Act."""

    assert (act.effect, act.approval) == ("irreversible", "always")


def no_docstring(order_id: str) -> None:
    return None


def only_arguments(order_id: str) -> None:
    """
    Args:
        order_id: The order.
    """


def star(*orders: str) -> None:
    """Star."""


def double_star(**orders: str) -> None:
    """Double star."""


def positional(order_id: str, /) -> None:
    """Positional."""


def unannotated(order_id) -> None:  # type: ignore[no-untyped-def]  # the mistake under test
    """Unannotated."""


def unknown_type(order_id: Missing) -> None:  # type: ignore[name-defined]  # noqa: F821  (a type that cannot be found is the point)
    """Unknown type."""


def no_json(lock: threading.Thread) -> None:
    """No JSON."""


def hidden(callbacks: str) -> None:
    """Hidden."""


def yielding(order_id: str) -> Any:
    """Yield."""
    yield order_id


def misdocumented(order_id: str) -> None:
    """Do it.

    Args:
        order: No such parameter.
    """


@pytest.mark.parametrize(
    ("function", "what", "next_step"),
    [
        (no_docstring, "no docstring", 'add one below its def line: """Look'),
        (only_arguments, "no description", None),
        (star, "'orders' cannot be given by name", "declare each parameter by name"),
        (double_star, "cannot be given by name", "declare each parameter by name"),
        (positional, "cannot be given by name", "declare each parameter by name"),
        (unannotated, "'order_id' has no type", "annotate it, such as order_id: str"),
        (unknown_type, "'Missing' is not defined", "imported at run time"),
        (no_json, "cannot be described to a model", "pydantic models"),
        (hidden, "cannot be called 'callbacks'", "another name"),
        (yielding, "yields", "return a list"),
        (misdocumented, "Arg order in docstring not found", None),
        (lambda: None, "no docstring", None),
        ("find_order", "makes a tool of a function", None),
    ],
)
def test_a_function_that_cannot_be_described_says_how_to_mend_it(
    function: Any, what: str, next_step: str | None
) -> None:
    with pytest.raises(UsageError, match=what) as caught:
        tool(function)
    assert next_step is None or next_step in (caught.value.next_step or "")


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"name": "find order"}, "expected 1 to 64 letters"),
        ({"name": "x" * 65}, "expected 1 to 64 letters"),
        ({"name": "x\n"}, "expected 1 to 64 letters"),
        ({"effect": "harmless"}, "effect='harmless', expected one of none, reversible, irreversible"),
        ({"approval": "sometimes"}, "approval='sometimes', expected one of never, always"),
        ({"result_limit_bytes": 0}, "result_limit_bytes=0, expected a whole number"),
    ],
)
def test_a_wrong_label_names_the_value_and_what_was_expected(options: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        tool(**options)(no_json_needed)


def no_json_needed() -> None:
    """Nothing to give."""


def test_a_parameter_may_be_called_like_a_method_of_pydantic() -> None:
    @tool(effect="none")
    def save(json: str, schema: int = 1) -> str:
        """Save."""
        return f"{json} {schema}"

    assert asyncio.run(save.call(save.check('{"json": "x"}'))).content == "x 1"


async def test_arguments_reach_the_function_in_its_own_types() -> None:
    @tool(effect="none")
    def book(day: datetime.date, price: Decimal, lines: list[Line], note: str = "none") -> str:
        """Book."""
        return f"{day:%j} {price + 1} {lines[0].count} {note}"

    arguments = {"day": "2026-02-01", "price": "1.50", "lines": [{"sku": "a"}]}
    assert book.check(arguments) == arguments, "what was checked stays as the model wrote it"
    assert (await book.call(arguments)).content == "032 2.50 1 none"


def test_what_python_types_ask_beyond_json_is_told_to_the_model() -> None:
    @tool
    def book(day: datetime.date) -> None:
        """Book."""

    with pytest.raises(ToolArgumentsError, match=r"day: .*day value is outside expected range, got '2026-02-31'"):
        book.check({"day": "2026-02-31"})


async def test_arguments_that_were_never_checked_are_an_error_result() -> None:
    result = await find_order.call({"order_id": []})
    assert result.is_error
    assert "order_id: Input should be a valid string" in result.content


async def test_an_async_function_is_awaited() -> None:
    @tool
    async def wait(order_id: str) -> dict[str, str]:
        """Wait."""
        await asyncio.sleep(0)
        return {"id": order_id}

    assert await wait.call({"order_id": "7"}) == ToolResult('{"id":"7"}')


async def test_a_plain_function_runs_in_a_thread_with_the_callers_context() -> None:
    tenant = contextvars.ContextVar("tenant", default="none")

    @tool
    def where() -> str:
        """Tell."""
        return f"{tenant.get()} {threading.current_thread() is threading.main_thread()}"

    tenant.set("acme")
    assert (await where.call({})).content == "acme False"


@pytest.mark.parametrize("error", [ValueError("no such order"), StopIteration("no such order")])
async def test_a_tool_that_raises_is_an_error_result_without_a_traceback(error: Exception) -> None:
    result = await asyncio.wait_for(raising(error).call({}), 10)
    assert result == ToolResult(f"The tool failed: {type(error).__name__}: no such order", is_error=True)


async def test_an_async_tool_that_raises_is_an_error_result() -> None:
    @tool
    async def broken() -> None:
        """Raise."""
        raise LookupError("gone")

    assert await broken.call({}) == ToolResult("The tool failed: LookupError: gone", is_error=True)


async def test_the_message_of_an_error_is_capped() -> None:
    assert len((await raising(ValueError("x" * 1_000_000)).call({})).content) < 1_100


async def test_a_stop_of_the_graph_passes_through_a_plain_tool() -> None:
    with pytest.raises(Stop):
        await raising(Stop()).call({})


async def test_a_stop_of_the_graph_passes_through_an_async_tool_and_out_of_a_task_group() -> None:
    @tool
    async def fan_out(grouped: bool) -> None:
        """Stop."""
        if not grouped:
            raise Stop
        async with asyncio.TaskGroup() as group:
            group.create_task(raising(Stop()).call({}))

    for grouped in (False, True):
        with pytest.raises(Stop):
            await fan_out.call({"grouped": grouped})


async def test_a_task_group_that_failed_without_a_stop_is_an_error_result() -> None:
    @tool
    async def fan_out() -> None:
        """Fail."""
        raise ExceptionGroup("two", [ValueError("a"), KeyError("b")])

    assert (await fan_out.call({})).content == "The tool failed: ExceptionGroup: two (2 sub-exceptions)"


async def test_a_cancellation_passes_through() -> None:
    started = asyncio.Event()

    @tool
    async def endless() -> None:
        """Wait for ever."""
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(endless.call({}))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_of_the_process_passes_through(error: type[BaseException]) -> None:
    @tool
    async def interrupted() -> None:
        """Interrupt."""
        raise error

    for broken in (interrupted, raising(error())):
        with pytest.raises(error):
            asyncio.run(broken.call({}))


async def test_a_result_over_the_declared_cap_is_refused() -> None:
    @tool(effect="none", result_limit_bytes=10)
    def much(count: int) -> str:
        """Give much."""
        return "x" * count

    assert await much.call({"count": 10}) == ToolResult("x" * 10)
    assert (await much.call({"count": 11})).is_error


async def test_a_plain_function_whose_call_is_cancelled_goes_on_and_says_how_it_ended() -> None:
    begun, go = threading.Event(), threading.Event()
    late: list[Future[ToolResult]] = []

    @tool
    def act() -> str:
        """Act."""
        begun.set()
        assert go.wait(10)
        return "done"

    calling = asyncio.ensure_future(act.call({}, late=late.append))
    await asyncio.to_thread(begun.wait)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert not late[0].done()
    go.set()
    assert await asyncio.to_thread(late[0].result) == ToolResult("done")


async def test_a_plain_function_that_had_not_begun_when_its_call_was_cancelled_never_does() -> None:
    """Every thread is taken, so it waits for one."""
    acted: list[int] = []
    late: list[Future[ToolResult]] = []
    go = threading.Event()
    loop = asyncio.get_running_loop()

    @tool
    def act() -> None:
        """Act."""
        acted.append(1)

    with ThreadPoolExecutor(1) as threads:
        loop.set_default_executor(threads)
        threads.submit(go.wait)
        calling = asyncio.ensure_future(act.call({}, late=late.append))
        await asyncio.sleep(0)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        assert late[0].cancelled()
        go.set()
    assert not acted
