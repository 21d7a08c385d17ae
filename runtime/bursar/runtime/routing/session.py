"""What a conversation ties to the model that wrote it: open tool exchanges, held state, and a warm prefix cache.

Who wrote an answer stands beside it, under `model`; of a program that does not keep that, the ids of its tool calls
tell. Neither is ever sent.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bursar.budget.usage import Usage

if TYPE_CHECKING:
    from bursar.budget.pricing.prices import Price
    from bursar.runtime.models.provider import Message

__all__ = ["MADE_BY", "Authors", "Switch", "is_open", "last_answer", "portable", "priced"]

MADE_BY = "model"
"""The key beside an answer of the model's name in bursar.yaml."""

CALLS_MAX = 50_000
"""Of how many tool calls a process remembers who made them."""

CHARACTERS_A_TOKEN = 4

_HELD = {"thinking_blocks", "reasoning_details", "provider_specific_fields"}
_HELD_BY_CALLS = {"extra_content", "provider_specific_fields"}
_HELD_PARTS = {"thinking", "redacted_thinking"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """What a call costs on the model that wrote the conversation so far, and on another, as far as can be foreseen."""

    stay_nanousd: int
    """With the prefix read from its cache."""

    go_nanousd: int
    """With the prefix read anew."""

    @property
    def pays(self) -> bool:
        """Whether the other model saves more than the lost cache is worth."""
        return self.go_nanousd < self.stay_nanousd


def last_answer(messages: Sequence[Message]) -> Message | None:
    """What an assistant said last."""
    return next((message for message in reversed(messages) if message.get("role") == "assistant"), None)


def is_open(messages: Sequence[Message]) -> bool:
    """Whether tools have answered an assistant that has not spoken since."""
    answered = False
    for message in reversed(messages):
        role = message.get("role")
        if role == "assistant":
            return answered and bool(message.get("tool_calls"))
        answered = answered or role == "tool"
    return False


def priced(stay: Price, go: Price, messages: Sequence[Message], input_tokens: int) -> Switch:
    """The price of a switch between two models.

    What the last answer was made from is taken for cached, and the next answer for as long as the last.
    """
    lengths = [
        len(str(message.get("content") or "")) + len(str(message.get("tool_calls") or "")) for message in messages
    ]
    last = max((place for place, message in enumerate(messages) if message.get("role") == "assistant"), default=0)
    cached = input_tokens * sum(lengths[: last + 1]) // max(1, sum(lengths))
    output = max(1, lengths[last] // CHARACTERS_A_TOKEN)
    warm = Usage(input_tokens=input_tokens, cache_read_tokens=cached, output_tokens=output)
    return Switch(
        stay_nanousd=stay.cost(warm), go_nanousd=go.cost(Usage(input_tokens=input_tokens, output_tokens=output))
    )


def portable(messages: Sequence[Message], model: str) -> Sequence[Message]:
    """The messages as they are sent to a model: without who wrote them, and without what only its writer can read.

    That is signed or encrypted thinking, which another model cannot take; the text, the tool calls and their results
    stay. Without a writer's name, all is sent as it is.
    """
    if not any(MADE_BY in message for message in messages):
        return messages
    return [_portable(message, model) if MADE_BY in message else message for message in messages]


def _portable(message: Message, model: str) -> Message:
    own = message[MADE_BY] == model
    kept = {key: value for key, value in message.items() if key != MADE_BY and (own or key not in _HELD)}
    if own:
        return kept
    if isinstance(content := kept.get("content"), list):
        kept["content"] = [part for part in content if _type(part) not in _HELD_PARTS]
    if calls := kept.get("tool_calls"):
        kept["tool_calls"] = [{key: call[key] for key in call if key not in _HELD_BY_CALLS} for call in calls]
    return kept


def _type(part: Any) -> Any:
    return part.get("type") if isinstance(part, Mapping) else None


class Authors:
    """Which model made a tool call, in the newest calls of this process; may be shared by threads."""

    def __init__(self) -> None:
        self._made: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._lock = threading.Lock()

    def learn(self, run_id: str, answer: Message, model: str) -> None:
        """A model gave this answer in a run."""
        with self._lock:
            for call in answer.get("tool_calls") or ():
                self._made[run_id, str(call.get("id"))] = model
                if len(self._made) > CALLS_MAX:
                    self._made.popitem(last=False)

    def of(self, run_id: str, messages: Sequence[Message]) -> str | None:
        """The model that wrote the last answer, where that is known."""
        answer = last_answer(messages)
        if answer is None:
            return None
        if (name := answer.get(MADE_BY)) is not None:
            return str(name)
        made = (self._made.get((run_id, str(call.get("id")))) for call in answer.get("tool_calls") or ())
        return next(filter(None, made), None)
