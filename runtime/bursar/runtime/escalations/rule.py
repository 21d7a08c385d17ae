"""The rule that an escalation is decided by, as it was when the escalation was made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any, Literal

from bursar.budget.money import nanousd
from bursar.runtime.escalations.records import Reason

__all__ = ["Level", "MomentKind", "OnExpiry", "Rule", "amount_in", "at_stake"]

MomentKind = Literal[
    "remind",  # those who may decide are reminded
    "raise",  # the next level may decide, too
    "expire",  # nobody decided in time
]

OnExpiry = Literal[
    "reject",  # it is not done, and the agent is told
    "escalate",  # it goes from level to level, and is rejected after the last
    "downgrade",  # the run goes on with lower tiers
    "keep",  # it goes on waiting
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """Those who may decide from some moment on."""

    people: Sequence[str] | None
    """By name; None for everybody."""

    who: str
    """The same as the rule has it: `role lead, team risk`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Who may decide, on how much, until when, and what happens then."""

    name: str
    """`rules.0` of the tenant's, or `default`."""

    levels: Sequence[Level]
    moments: Sequence[tuple[int, MomentKind]]
    """What happens when, in microseconds, in order of time."""

    on_expiry: OnExpiry
    two_above_nanousd: int | None
    """Above which amount two people must agree; None = one is enough."""

    ceilings: Mapping[str, int]
    """In nano-USD, of those who have one."""

    amount: str | None
    """The argument that holds the amount of an action."""

    def to_json(self) -> str:
        """How it is kept."""
        return json.dumps(asdict(self))

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Rule:
        """The rule that `to_json` wrote."""
        levels = [Level(**one) for one in record["levels"]]
        moments = [(at, kind) for at, kind in record["moments"]]
        return cls(**{**record, "levels": levels, "moments": moments})

    def may_decide(self, level: int) -> Sequence[str] | None:
        """Who may decide at a level: its people and those of the levels before; None for everybody."""
        reached = [one.people for one in self.levels[: level + 1]]
        if None in reached:
            return None
        return sorted({name for people in reached for name in people or ()})

    def who(self, level: int) -> str:
        """`may_decide` in words."""
        people = self.may_decide(level)
        return "anybody" if people is None else ", ".join(people)

    def next_moment(self, now: int) -> int | None:
        """When something happens next, after now."""
        return next((at for at, _ in self.moments if at > now), None)

    @property
    def expires_us(self) -> int | None:
        """The deadline, in microseconds; None where it waits for ever."""
        return next((at for at, kind in self.moments if kind == "expire"), None)

    def needs_two(self, amount_nanousd: int | None) -> bool:
        """Whether two people must agree; an amount that nobody knows is above any."""
        above = self.two_above_nanousd
        return above is not None and (amount_nanousd is None or amount_nanousd > above or above == 0)


_ABOUT_MONEY = ("approval", "budget", "in_doubt")


def at_stake(amount_nanousd: int | None, reason: Reason) -> int | None:
    """The money that a decision lets go: none where it is no matter of money, None where nobody knows."""
    return 0 if amount_nanousd is None and reason not in _ABOUT_MONEY else amount_nanousd


def amount_in(arguments: Mapping[str, Any], name: str | None) -> int | None:
    """The money in nano-USD that an argument holds; None where it holds none that can be read."""
    value = arguments.get(name) if name else None
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return nanousd(Decimal(repr(value)) if isinstance(value, float) else value)
    except (TypeError, ValueError, ArithmeticError):
        return None
