"""What a simulated model answers, how long it takes and what goes wrong: data, written in YAML or Python."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from bursar.budget.errors import ConfigError
from bursar.runtime.config_file import read_file, read_yaml
from bursar.runtime.config_problems import explain

__all__ = ["Answer", "Fault", "FaultKind", "Latency", "Rule", "Scenario", "ToolCall", "When", "load_scenario"]

FaultKind = Literal[
    "rate_limit",  # 429; not billed
    "overloaded",  # 503; not billed
    "quota",  # 429 of a used up budget; not billed
    "unavailable",  # 500; not billed
    "timeout",  # billed, and no answer
    "stalled",  # billed, and half an answer in time
    "broken_stream",  # billed, and half an answer
    "bad_reply",  # billed, and an answer that is none
    "auth",  # 401; not billed
    "model_missing",  # 404; not billed
    "context_too_long",  # 400; not billed
    "content_filter",  # 400; not billed
    "bad_request",  # 400; not billed
]
"""Each is a cause of the table in docs/failures.md; `stalled` is a timeout after the first piece."""

Turn = Annotated[int, Field(ge=1)]
"""The n-th model call of a conversation: one more than the assistant's messages in it."""

_BUILT_IN = Path(__file__).parent / "scenarios"
_FUNCTION = re.compile(r"[\w.]+:\w+")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ToolCall(_Section):
    """A tool call of an answer."""

    name: Annotated[str, Field(min_length=1)]

    arguments: dict[str, Any] | str = Field(default_factory=dict)
    """A mapping; or text, which is sent as it is, valid JSON or not."""


class Answer(_Section):
    """One answer; text alone may stand for it.

    In texts and arguments `{user}` is the newest user message, `{last}` the last message, `{turn}` the number of this
    call; other names are taken from the groups of the rule's pattern, else from the arguments of the last tool calls.
    """

    text: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()

    tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """At least so many output tokens: a shorter text is padded."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"text": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.text is None and not self.tool_calls and self.tokens is None:
            raise ValueError("expected text, tool_calls or tokens")
        return self


class When(_Section):
    """Conditions on a request; all that are given must hold."""

    turn: Turn | None = None

    last_role: Literal["system", "user", "assistant", "tool"] | None = None
    """Who wrote the last message."""

    contains: str | tuple[str, ...] | None = None
    """A part, or one of several, of the last message's text; case does not matter."""

    tool_result_of: str | None = None
    """The last message is the result of this tool."""

    has_tool: bool | str | None = None
    """This tool is offered; true: any is; false: none is."""

    pattern: str | None = None
    """A regular expression that is found in the newest user message."""

    @field_validator("pattern")
    @classmethod
    def _is_regular(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"expected a regular expression: {error}") from None
        return value


class Rule(_Section):
    """An answer, and when it is given; without `when`, always."""

    when: When = When()
    answer: Answer


class Latency(_Section):
    """Milliseconds before an answer, evenly spread."""

    min: Annotated[float, Field(ge=0)] = 0
    max: Annotated[float, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.min > self.max:
            raise ValueError("expected min to be at most max")
        return self


class Fault(_Section):
    """Something that goes wrong: at every call, at a turn, or at a rate."""

    kind: FaultKind
    turn: Turn | None = None

    rate: Annotated[float, Field(ge=0, le=1)] | None = None
    """The share of calls that meet it, drawn from the seed."""

    times: Annotated[int, Field(ge=1)] | None = None
    """How often in all, for one provider; without it there is no end."""

    retry_after_s: Annotated[float, Field(ge=0)] | None = None
    """How long the provider asks to wait."""

    @model_validator(mode="after")
    def _is_clear(self) -> Self:
        if self.turn is not None and self.rate is not None:
            raise ValueError("expected turn or rate, not both")
        return self


def _function(value: object) -> object:
    if value is None or callable(value) or (isinstance(value, str) and _FUNCTION.fullmatch(value)):
        return value
    raise ValueError("expected module:function")


class Scenario(_Section):
    """What a simulated model does, by exactly one of `answers`, `rules` and `function`."""

    answers: tuple[Answer, ...] = ()
    """The n-th is given to the n-th call of a conversation, which its messages tell: a restart changes nothing."""

    after: Literal["repeat", "error"] = "repeat"
    """What follows the last of `answers`: the same again, or a refused request."""

    rules: tuple[Rule, ...] = ()
    """The first that holds is followed; where none does, the request is refused."""

    function: Annotated[Any, AfterValidator(_function), Field(json_schema_extra={"type": "string"})] = None
    """`module:function`, or in Python a callable, that takes the ModelRequest and returns an Answer, its fields or
    its text."""

    latency_ms: Latency = Latency()
    faults: tuple[Fault, ...] = ()

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if sum(map(bool, (self.answers, self.rules, self.function))) != 1:
            raise ValueError("expected exactly one of answers, rules and function, and not an empty one")
        return self


def load_scenario(source: str, *, base: Path | None = None) -> Scenario:
    """The scenario of that name: a built-in one, a YAML file relative to the folder `base`, or `module:function`.

    Raises ConfigError with file, line and column for anything wrong.
    """
    if _FUNCTION.fullmatch(source):
        return Scenario(function=source)
    built_in = {file.stem: file for file in sorted(_BUILT_IN.glob("*.yaml"))}
    file = built_in.get(source) or (base or Path()) / source
    if not file.exists():
        raise ConfigError(
            f"there is no scenario {source!r}: expected {', '.join(built_in)}, a YAML file or module:function",
            file=file if file.suffix else None,
            key="scenario",
            next_step="name one of these, or write the file",
        )
    return _parsed(read_file(file), file)


def _parsed(text: str, file: Path) -> Scenario:
    from ruamel.yaml import YAML

    document = read_yaml(text, file=file)
    if document.problems:
        raise document.error(document.problems)
    # Read once more for the types of values, which arguments of tools need and the document leaves out.
    data = YAML(typ="safe", pure=True).load(text)
    try:
        return Scenario.model_validate({} if data is None else data)
    except ValidationError as error:
        schema = Scenario.model_json_schema()
        raise document.error(explain(error, written=document.places, schema=schema)) from None
