"""The @tool decorator and the Tool it makes: a function that a model may call, with its effect declared."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, get_args, overload

from jsonschema.protocols import Validator
from langgraph.errors import GraphBubbleUp
from pydantic import BaseModel, ValidationError

from bursar.budget.errors import UsageError
from bursar.tools.approval import Approval, check_rule
from bursar.tools.arguments import ToolArgumentsError, check_arguments, schema_validator, type_complaints
from bursar.tools.result import RESULT_LIMIT_BYTES, ToolResult, describe_error, failed, returned
from bursar.tools.schema import function_arguments, openai_function

__all__ = ["TOOL_NAME", "Check", "Effect", "Tool", "default_approval", "openai_tool", "tool"]

Effect = Literal[
    "none",  # reads only; may be repeated freely
    "reversible",  # changes something that can be undone
    "irreversible",  # changes something for good: money, messages, deletions
]

Check = Callable[[str], Any]
"""Whether a call happened, by its idempotency key: what came of it, or None where it surely did not. May be async."""

Late = Callable[[Future[ToolResult]], None]
"""Given the future of a plain function whose call was cancelled: it goes on, or is cancelled as it had not begun."""

TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""What OpenAI's API accepts as a function's name."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tool:
    """A function that a model may call.

    Raises UsageError for a name, label, cap or schema that cannot work.
    """

    name: str
    description: str
    parameters: Mapping[str, Any] = field(repr=False)
    """JSON Schema of the arguments, as the model is told."""

    function: Callable[..., Any] = field(repr=False)
    """The plain or async function; calling the tool calls it."""

    effect: Effect
    approval: Approval
    """The rule by which a person approves a call first."""

    effect_check: Check | None = field(default=None, repr=False)
    """Says of a call that was cut off whether it happened."""

    result_limit_bytes: int = RESULT_LIMIT_BYTES
    """The largest result, in bytes of UTF-8, that is passed to the model."""

    bind: Callable[[Mapping[str, Any]], Mapping[str, Any]] = field(default=dict, repr=False)
    """Turns checked JSON arguments into the function's own types; raises pydantic's ValidationError."""

    spec: Mapping[str, Any] = field(init=False, repr=False)
    """The tool as OpenAI's API takes it: `{"type": "function", "function": {...}}`."""

    _validator: Validator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        _check_labels(self)
        object.__setattr__(self, "spec", openai_tool(self.name, self.description, self.parameters))
        object.__setattr__(self, "_validator", schema_validator(self.name, self.parameters))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the plain function, as if it had never been decorated."""
        return self.function(*args, **kwargs)

    def check(self, arguments: str | Mapping[str, Any]) -> dict[str, Any]:
        """The arguments a model wrote, as a JSON object that fits `parameters` and the function's types.

        Raises ToolArgumentsError, whose message is for the model.
        """
        checked = check_arguments(self.name, self._validator, arguments)
        self._bound(checked)
        return checked

    async def call(self, arguments: Mapping[str, Any], *, late: Late | None = None) -> ToolResult:
        """Run the function on arguments that `check` returned; a failure is a result too.

        A plain function runs in a thread with the caller's context variables, and goes on when the call is cancelled;
        `late` is then given its future, which is cancelled where it had not begun.
        Only what must stop the run is raised: LangGraph's GraphBubbleUp, a cancellation, KeyboardInterrupt, SystemExit.
        """
        if not inspect.iscoroutinefunction(self.function):
            return await _in_thread(partial(self._call_plain, arguments), late)
        try:
            value = await self.function(**self._bound(arguments))
        except Exception as error:
            return _failed_or_stopped(error)
        return returned(value, self.result_limit_bytes)

    async def happened(self, key: str) -> ToolResult | None:
        """What came of the call that had this idempotency key, as the tool's own check says; None where nothing did.

        Raises whatever the check raises.
        """
        if self.effect_check is None:
            raise UsageError(f"tool {self.name!r} has no check", next_step="@tool(..., check=...)")
        if inspect.iscoroutinefunction(self.effect_check):
            value = await self.effect_check(key)
        else:
            value = await asyncio.to_thread(self.effect_check, key)
        return None if value is None else returned(value, self.result_limit_bytes)

    def _bound(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            return self.bind(arguments)
        except ValidationError as error:
            raise ToolArgumentsError(self.name, *type_complaints(error)) from error
        except Exception as error:  # a team's own validator may raise anything
            raise ToolArgumentsError(self.name, describe_error(error)) from error

    def _call_plain(self, arguments: Mapping[str, Any]) -> ToolResult:
        try:
            value = self.function(**self._bound(arguments))
        except Exception as error:
            return _failed_or_stopped(error)
        return returned(value, self.result_limit_bytes)


@overload
def tool(function: Callable[..., Any], /) -> Tool: ...


@overload
def tool(
    *,
    effect: Effect = ...,
    approval: Approval | None = ...,
    check: Check | None = ...,
    name: str | None = ...,
    result_limit_bytes: int = ...,
) -> Callable[[Callable[..., Any]], Tool]: ...


def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    effect: Effect = "irreversible",
    approval: Approval | None = None,
    check: Check | None = None,
    name: str | None = None,
    result_limit_bytes: int = RESULT_LIMIT_BYTES,
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a function a Tool; its schema comes from its signature and docstring (Google-style `Args:` are read).

    Unlabelled is the worst case: irreversible, and approved by a person each time. A tool with a lesser effect needs no
    approval unless it says so. `check` says by its idempotency key whether a call that was cut off happened; without
    one a person is asked. Raises UsageError for a function that cannot be described to a model.
    """

    def decorate(function: Callable[..., Any]) -> Tool:
        if not inspect.isroutine(function):
            raise UsageError(f"@tool makes a tool of a function, not of {function!r}")
        tool_name = name or function.__name__
        arguments = function_arguments(function, tool_name)
        return Tool(
            **openai_function(arguments, tool_name),
            function=function,
            effect=effect,
            approval=approval or default_approval(effect),
            effect_check=check,
            result_limit_bytes=result_limit_bytes,
            bind=partial(_bind, arguments),
        )

    return decorate if function is None else decorate(function)


def default_approval(effect: Effect) -> Approval:
    """Who decides where the tool does not say: a person, if the effect cannot be undone."""
    return "always" if effect == "irreversible" else "never"


def openai_tool(name: str, description: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A tool as OpenAI's API takes it."""
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def _bind(arguments: type[BaseModel], given: Mapping[str, Any]) -> dict[str, Any]:
    """What the model gave, in the function's types; what it left out is left to the function's own defaults."""
    typed = arguments.model_validate(given)
    return {key: getattr(typed, key) for key in typed.model_fields_set}


async def _in_thread(work: Callable[[], ToolResult], late: Late | None) -> ToolResult:
    ended: Future[ToolResult] = Future()
    try:
        await asyncio.to_thread(_carry_out, work, ended)
    except asyncio.CancelledError:
        ended.cancel()  # has no effect once it has begun
        if late is not None:
            late(ended)
        raise
    return ended.result()


def _carry_out(work: Callable[[], ToolResult], ended: Future[ToolResult]) -> None:
    # Kept inside the thread: asyncio cannot carry every exception out of it (StopIteration hangs the caller).
    if ended.set_running_or_notify_cancel():
        try:
            ended.set_result(work())
        except BaseException as error:
            ended.set_exception(error)


def _failed_or_stopped(error: Exception) -> ToolResult:
    """The failure as a result, unless it is a stop of the graph, or a task group's error with one in it."""
    stop: BaseException | None = error
    if isinstance(error, ExceptionGroup):
        stop = error.subgroup(GraphBubbleUp)
        while isinstance(stop, BaseExceptionGroup):
            stop = stop.exceptions[0]
    if isinstance(stop, GraphBubbleUp):
        raise stop
    return failed(error)


def _check_labels(tool: Tool) -> None:
    if not TOOL_NAME.fullmatch(tool.name):
        raise UsageError(
            f"tool name {tool.name!r}: expected 1 to 64 letters, digits, _ or -",
            next_step='give it another name: @tool(name="find_order")',
        )
    if not tool.description.strip():
        raise UsageError(f"tool {tool.name!r} has no description, which tells the model what the tool does")
    if tool.effect not in get_args(Effect):
        choices = ", ".join(get_args(Effect))
        raise UsageError(f"tool {tool.name!r}: effect={tool.effect!r}, expected one of {choices}")
    if tool.effect == "none" and tool.effect_check is not None:
        raise UsageError(
            f"tool {tool.name!r} has a check, but no effect that could be in doubt", next_step="drop check="
        )
    check_rule(tool.name, tool.approval, tool.parameters)
    limit = tool.result_limit_bytes
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise UsageError(f"tool {tool.name!r}: result_limit_bytes={limit!r}, expected a whole number from 1 up")
