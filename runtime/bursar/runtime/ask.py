"""What a node wants of a model, and the answer that was paid for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bursar.agents.tier import Cascade, Data, Tier
from bursar.budget.admission import MoneyLeft
from bursar.budget.amounts import Amounts
from bursar.budget.usage import Usage
from bursar.runtime.models.provider import Message

__all__ = ["Ask", "Delta", "PaidReply", "answering"]


def answering(tier: Tier) -> tuple[str, Cascade | None]:
    """The tier that answers, and the cascade that goes before it."""
    return (tier.then, tier) if isinstance(tier, Cascade) else (tier, None)


Delta = Callable[[Mapping[str, Any]], None]
"""Where pieces of an answer go while they arrive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a node wants of a model."""

    tier: str
    """A tier of bursar.yaml, or `auto`."""

    node: str
    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] = ()
    tool_choice: str | Mapping[str, Any] | None = None
    stop: Sequence[str] | None = None
    temperature: float | None = None
    response_format: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    max_output_tokens: int | None = None
    reasoning_effort: str | None = None
    max_reasoning_tokens: int | None = None

    model: str | None = None
    """One model, by its name in bursar.yaml, in place of the tier's."""

    models: Sequence[str] | None = None
    """The models that may answer; None = all of the tier."""

    min_tier: str | None = None
    """The lowest tier that may answer, whatever the budget."""

    data: Data = "any"

    cascade: Cascade | None = None
    """Who is asked first, and how the answer is verified; `tier` is then the one that answers otherwise."""

    why: str = ""
    """Why this tier, where another than the node has chosen it."""

    exclusive: bool = False
    """Whether an attempt at the same call that is under way elsewhere is a conflict (CallInFlight)."""

    kept_back_tokens: int = 0
    """Output tokens that must remain for a last answer; 0 where none is given."""

    final: bool = False
    """Whether this is the last answer of a run that was stopped."""

    digest: str | None = None
    """Of the request, where it is a part of the call's id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaidReply:
    """An answer and what it was charged."""

    message: Message
    finish_reason: str
    usage: Usage | None
    posted: Amounts
    """Nothing, for a replay."""

    model: str
    capped: bool
    """Whether the bound on the output had been lowered to fit what was left."""

    kept_back: Amounts
    """What was left in the run for its last answer."""

    digest: str | None = None
    """Of the request that was answered."""

    tier: str = ""
    """The tier that the model was asked for."""

    reason: str = ""
    """Why this tier and this model, in plain words."""

    money_left: MoneyLeft | None = None
    """What is left in the budget in money that is nearest to its end; None where none limits the call."""

    replayed: bool = False
