"""Whether a person must approve a call first: a rule of the tool's, applied once and then kept."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, TypedDict, get_args

from bursar.budget.errors import UsageError
from bursar.budget.money import format_usd, nanousd
from bursar.tools.result import describe_error

__all__ = ["Above", "Approval", "Verdict", "above", "check_rule", "verdict_on"]

_Word = Literal[
    "never",  # acts as soon as the model asks
    "always",  # a person approves each call first
]

Approval = _Word | Callable[[Mapping[str, Any]], bool]
"""`never`, `always`, or a function of the checked arguments that is true where a person must approve the call."""


@dataclass(frozen=True, slots=True)
class Above:
    """The rule that a call above an amount of money is approved by a person. Made by `above`."""

    argument: str
    limit_nanousd: int

    def __call__(self, arguments: Mapping[str, Any]) -> bool:
        """Whether the amount is above the limit; raises ValueError or KeyError for one that is not readable as such."""
        return self.amount_nanousd(arguments) > self.limit_nanousd

    def amount_nanousd(self, arguments: Mapping[str, Any]) -> int:
        """The amount in these arguments, as it is written there."""
        value = arguments[self.argument]
        # A JSON number is exact as it is written, and its shortest text is just that.
        return nanousd(Decimal(repr(value)) if isinstance(value, float) else value)


class Verdict(TypedDict):
    """What a rule said about one call; JSON, since it is kept in the run's state and never asked for again."""

    asks: bool
    """Whether a person must approve the call."""

    why: str
    """For people."""

    amount_nanousd: int | None
    """The money that the call is about, where the rule knows it."""

    amount_argument: str | None
    """The argument that holds it, by which an edit of the call is checked too."""


def above(argument: str, amount_usd: Decimal | str | int) -> Above:
    """The rule that a person approves a call whose `argument` is more than so many USD.

    A call without a readable amount is approved too. Raises UsageError for an amount that is none, and for a float.
    """
    try:
        return Above(argument, nanousd(amount_usd))
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"above({argument!r}, {amount_usd!r}): {error}", next_step=f'above({argument!r}, "50")'
        ) from None


def check_rule(tool: str, rule: Approval, parameters: Mapping[str, Any]) -> None:
    """Raise UsageError for what is no rule, and for one above an amount that the tool is not given."""
    if isinstance(rule, Above) and rule.argument not in parameters.get("properties", {}):
        known = ", ".join(parameters.get("properties", {})) or "none"
        raise UsageError(f"tool {tool!r}: above({rule.argument!r}, ...) names no parameter of it (it has: {known})")
    if (rule not in get_args(_Word) and not callable(rule)) or inspect.iscoroutinefunction(rule):
        words = ", ".join(get_args(_Word))
        raise UsageError(
            f"tool {tool!r}: approval={rule!r}, expected one of {words}, or a plain function of the arguments",
            next_step='approval=above("amount_usd", "50")',
        )


def verdict_on(rule: Approval, arguments: Mapping[str, Any]) -> Verdict:
    """What the rule says about a call; one that fails asks a person."""
    if not callable(rule):
        return Verdict(asks=rule == "always", why="", amount_nanousd=None, amount_argument=None)
    argument, amount, why = None, None, ""
    try:
        if isinstance(rule, Above):
            argument, why = rule.argument, f"above {format_usd(rule.limit_nanousd)}"
            amount = rule.amount_nanousd(arguments)
        asks = bool(rule(dict(arguments)))
    except Exception as error:  # a team's own function may raise anything
        asks, why = True, f"its approval rule failed: {describe_error(error)}"
    return Verdict(asks=asks, why=why if asks else "", amount_nanousd=amount, amount_argument=argument)
