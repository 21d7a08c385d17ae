"""What one run may use at most: model calls, tool calls, tokens, money and time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Self

from bursar.budget.amounts import DIMENSIONS
from bursar.budget.errors import UsageError
from bursar.budget.money import nanousd

__all__ = ["COUNT_MAX", "SECONDS_MAX", "Limits"]

COUNT_MAX = 2**62 - 1
"""The largest count the ledger holds, so that the sum of two fits a signed 64-bit column."""

SECONDS_MAX = 10**9
"""The longest a run may be given (about 31 years), so that a deadline is always a date."""

_KEYS = ("steps", "tool_calls", "tokens", "cost_usd", "seconds")
_AN_AMOUNT = 'an amount of USD such as "0.25", or None for no limit'


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of one run; a limit left out has a safe default, and None lifts it explicitly.

    Raises UsageError for a negative, non-finite, too large or mistyped value, TypeError for money given as a float.
    """

    steps: int | None = 50
    """Model calls that were sent and may have been billed."""

    tool_calls: int | None = 200
    """Tool executions."""

    tokens: int | None = None
    """Input and output tokens together; the other limits bound them by default."""

    cost_usd: Decimal | str | int | None = Decimal(1)
    """Money in USD, kept as Decimal; a float is refused, because it is not the amount that was written."""

    seconds: float | None = 600
    """Working time, above 0: what a run waits for people does not count."""

    _given: frozenset[str] = field(init=False, repr=False, compare=False)

    def __new__(cls, **given: Any) -> Self:
        """Remember which limits were written down: a default must not tighten what somebody wrote elsewhere."""
        self = object.__new__(cls)
        object.__setattr__(self, "_given", frozenset(given))
        return self

    def __post_init__(self) -> None:
        for key in ("steps", "tool_calls", "tokens"):
            _check_count(key, getattr(self, key))
        object.__setattr__(self, "cost_usd", _money(self.cost_usd))
        _check_seconds(self.seconds)

    @property
    def nanousd(self) -> int | None:
        """`cost_usd` as an integer of 1e-9 USD."""
        return None if self.cost_usd is None else nanousd(self.cost_usd)

    @classmethod
    def unlimited(cls) -> Self:
        """No limit of any kind, for a run that only its tenant's budgets shall bound."""
        return cls(steps=None, tool_calls=None, tokens=None, cost_usd=None, seconds=None)

    def tightened(self, other: Limits) -> Limits:
        """The smaller limit of each kind that was given; a kind that neither gave has its safe default."""
        tight = {}
        for key in self._given | other._given:
            limits = [getattr(one, key) for one in (self, other) if key in one._given]
            tight[key] = min((limit for limit in limits if limit is not None), default=None)
        return Limits(**tight)

    def as_amounts_limit(self) -> dict[str, int | None]:
        """The limit of each of `bursar.budget.amounts.DIMENSIONS`, in the ledger's units; None is no limit."""
        return {dimension: getattr(self, dimension) for dimension in DIMENSIONS}

    @property
    def given(self) -> frozenset[str]:
        """The limits that were written down, by their names in the ledger: `nanousd`, `tokens`, ..., `seconds`."""
        return frozenset("nanousd" if key == "cost_usd" else key for key in self._given)

    def given_amounts(self) -> dict[str, int | None]:
        """`as_amounts_limit` of those that were written down alone: a default is for a run, not for a part of it."""
        return {name: limit if name in self.given else None for name, limit in self.as_amounts_limit().items()}

    def to_record(self) -> dict[str, int | float | str | None]:
        """A JSON object that `from_record` reads back; money is text."""
        record = {key: getattr(self, key) for key in _KEYS}
        return {key: str(value) if isinstance(value, Decimal) else value for key, value in record.items()}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Read what `to_record` wrote; raises UsageError for an unknown key."""
        if unknown := sorted(set(record) - set(_KEYS)):
            raise UsageError(f"limits: unknown key {unknown[0]!r}; expected some of {', '.join(_KEYS)}")
        return cls(**record)


def _check_count(key: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= COUNT_MAX:
        raise _refused(key, value, f"a whole number from 0 to {COUNT_MAX}, or None for no limit")


def _check_seconds(value: object) -> None:
    if value is None:
        return
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value <= SECONDS_MAX:
        raise _refused("seconds", value, f"a number of seconds above 0, at most {SECONDS_MAX}, or None for no limit")


def _money(value: object) -> Decimal | None:
    if value is None:
        return None
    if isinstance(value, float):
        raise TypeError(f'limits.cost_usd: {value!r} is a float, which is not exact; quote it: cost_usd="{value!r}"')
    if not isinstance(value, (Decimal, str, int)) or isinstance(value, bool):
        raise _refused("cost_usd", value, _AN_AMOUNT)
    try:
        nanousd(value)
    except ValueError as error:
        raise UsageError(f"limits.cost_usd: {error}; expected {_AN_AMOUNT}") from error
    return Decimal(value)


def _refused(key: str, value: object, expected: str) -> UsageError:
    return UsageError(f"limits.{key}: got {value!r}, expected {expected}")
