"""Which answer of a scenario a request gets: by the conversation alone, so that a restart changes nothing."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import ValidationError

from bursar.budget.errors import ConfigError
from bursar.runtime.models.provider import Message, ModelRequest, RequestRefused
from bursar.runtime.models.scenario import Answer, Rule, Scenario, When

__all__ = ["AnswerLike", "Script", "script_of", "turn_of"]

AnswerLike = Answer | Mapping[str, Any] | str
"""An Answer, its fields, or its text."""

Script = Callable[[ModelRequest], Answer]

NO_TOOLS = "No more tools may be used, so this is the answer as far as it goes."
"""Said where the scenario would call a tool that is not offered."""

_PLACEHOLDER = re.compile(r"\{(\w+)\}")


def script_of(scenario: Scenario) -> Script:
    """What answers requests as the scenario says; raises ConfigError for a function that is not there."""
    if scenario.answers:
        return partial(_by_turn, scenario.answers, scenario.after)
    if scenario.rules:
        return partial(_by_rule, scenario.rules)
    return partial(_by_function, _function(scenario.function))


def turn_of(messages: Sequence[Message]) -> int:
    """The number of the call that these messages make: one more than the assistant's among them."""
    return 1 + [message["role"] for message in messages].count("assistant")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Conversation:
    turn: int
    last_role: str
    last: str
    user: str
    """The newest user message."""

    result_of: str | None
    """The tool whose result is the last message."""

    arguments: Mapping[str, Any]
    """Of the newest tool calls."""

    tools: frozenset[str]

    @classmethod
    def of(cls, request: ModelRequest) -> _Conversation:
        messages, last = request.messages, request.messages[-1]
        calls = next((message["tool_calls"] for message in reversed(messages) if message.get("tool_calls")), ())
        functions = {call["id"]: call["function"] for call in calls}
        offered = request.tools if request.tool_choice != "none" else ()
        return cls(
            turn=turn_of(messages),
            last_role=last["role"],
            last=_text(last),
            user=next((_text(message) for message in reversed(messages) if message["role"] == "user"), ""),
            result_of=functions.get(last.get("tool_call_id"), {}).get("name"),
            arguments={key: value for function in functions.values() for key, value in _arguments(function).items()},
            tools=frozenset(tool["function"]["name"] for tool in offered),
        )

    def meets(self, when: When) -> bool:
        return (
            when.turn in (None, self.turn)
            and when.last_role in (None, self.last_role)
            and when.tool_result_of in (None, self.result_of)
            and (when.has_tool is None or self._offers(when.has_tool))
            and (when.contains is None or self._says(when.contains))
            and (when.pattern is None or re.search(when.pattern, self.user) is not None)
        )

    def filled(self, answer: Answer, pattern: str | None = None) -> Answer:
        """The answer as this conversation gets it: placeholders filled in, and no call where no tool is offered."""
        match = re.search(pattern, self.user) if pattern else None
        known = {"user": self.user, "last": self.last, "turn": self.turn, **self.arguments}
        known |= match.groupdict("") if match else {}
        if answer.tool_calls and not self.tools:
            answer = Answer(text=answer.text or NO_TOOLS, tokens=answer.tokens)
        return Answer.model_validate(_filled(answer.model_dump(), known))

    def _offers(self, tool: str | bool) -> bool:
        return bool(self.tools) is tool if isinstance(tool, bool) else tool in self.tools

    def _says(self, parts: str | tuple[str, ...]) -> bool:
        said = self.last.casefold()
        return any(part.casefold() in said for part in ([parts] if isinstance(parts, str) else parts))


def _by_turn(answers: Sequence[Answer], after: str, request: ModelRequest) -> Answer:
    conversation = _Conversation.of(request)
    if conversation.turn > len(answers) and after == "error":
        raise RequestRefused(f"the scenario has {len(answers)} answers, and this is call {conversation.turn}")
    return conversation.filled(answers[min(conversation.turn, len(answers)) - 1])


def _by_rule(rules: Sequence[Rule], request: ModelRequest) -> Answer:
    conversation = _Conversation.of(request)
    for rule in rules:
        if conversation.meets(rule.when):
            return conversation.filled(rule.answer, rule.when.pattern)
    raise RequestRefused(f"no rule of the scenario holds for call {conversation.turn}; end with one without `when`")


def _by_function(function: Callable[[ModelRequest], AnswerLike], request: ModelRequest) -> Answer:
    answer = function(request)
    try:
        return Answer.model_validate(answer)
    except ValidationError:
        raise RequestRefused(f"expected an answer of the simulated model, not {answer!r}") from None


def _function(source: str | Callable[[ModelRequest], AnswerLike]) -> Callable[[ModelRequest], AnswerLike]:
    if not isinstance(source, str):
        return source
    module, _, name = source.partition(":")
    try:
        function: Callable[[ModelRequest], AnswerLike] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"scenario {source!r} cannot be loaded: {error}", key="scenario") from None
    return function


def _filled(value: Any, known: Mapping[str, Any]) -> Any:
    if isinstance(value, str):
        return _PLACEHOLDER.sub(lambda match: str(known.get(match[1], match[0])), value)
    if isinstance(value, dict):
        return {key: _filled(item, known) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_filled(item, known) for item in value]
    return value


def _arguments(function: Mapping[str, Any]) -> dict[str, Any]:
    try:
        arguments = json.loads(function["arguments"])
    except ValueError:
        return {}
    return arguments if isinstance(arguments, dict) else {}


def _text(message: Message) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
