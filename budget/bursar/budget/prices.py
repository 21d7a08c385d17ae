"""What a model's tokens cost: one dated price row, and exact integer arithmetic on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal, InvalidOperation
from operator import mul
from typing import Any, NamedTuple

from bursar.budget.money import nanousd
from bursar.budget.usage import Usage

__all__ = ["OUTPUT_TOKENS_UNBOUNDED", "LongContext", "Price", "PriceLine", "Rates"]

OUTPUT_TOKENS_UNBOUNDED = 2**31
"""How many output tokens fit where output costs nothing: more than any model writes."""

_MTOK = 1_000_000


class _Nano(NamedTuple):
    """Nano-USD per million tokens, by the kinds of token that a usage tells apart."""

    input: int
    cache_read: int
    cache_write: int
    output: int
    reasoning: int


_PRICES = tuple(f"{kind}_usd_per_mtok" for kind in _Nano._fields)
_LABELS = ("input", "cached input", "cache write", "output", "reasoning")


class PriceLine(NamedTuple):
    """One line of what a call cost."""

    label: str
    tokens: int
    usd_per_mtok: Decimal
    usd: Decimal
    """Exact; only the sum of all lines is rounded, once, to nano-USD."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """USD per million tokens, as published.

    Raises TypeError for a price that is no Decimal, ValueError for one that is negative, not finite or finer than
    1e-9 USD per million tokens.
    """

    input_usd_per_mtok: Decimal
    output_usd_per_mtok: Decimal
    cache_read_usd_per_mtok: Decimal | None = None
    """None: cached input costs the plain input price."""

    cache_write_usd_per_mtok: Decimal | None = None
    """None: input written to the cache costs the plain input price."""

    reasoning_usd_per_mtok: Decimal | None = None
    """None: reasoning costs the plain output price."""

    _nano: _Nano = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        nano = _Nano(*(_nano(name, price) for name, price in zip(_PRICES, self._published(), strict=True)))
        object.__setattr__(self, "_nano", nano)

    def _published(self) -> tuple[Decimal, ...]:
        """A price for each kind of token, in the order of `_Nano`."""
        plain_input, plain_output = self.input_usd_per_mtok, self.output_usd_per_mtok
        read, write, reasoning = (
            self.cache_read_usd_per_mtok,
            self.cache_write_usd_per_mtok,
            self.reasoning_usd_per_mtok,
        )
        return (
            plain_input,
            plain_input if read is None else read,
            plain_input if write is None else write,
            plain_output,
            plain_output if reasoning is None else reasoning,
        )

    def _record(self) -> dict[str, Any]:
        return {name: format(value, "f") for name in _PRICES if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class LongContext(Rates):
    """The prices of a call whose input is long; they apply to all of its tokens, not only to those above.

    So the providers bill it, and so litellm prices it: every rate is switched where `prompt_tokens > threshold`
    (`litellm/litellm_core_utils/llm_cost_calc/utils.py`, `_get_token_base_cost`).
    """

    above_input_tokens: int
    """The largest input that still has the plain prices."""

    def __post_init__(self) -> None:
        Rates.__post_init__(self)
        if self.above_input_tokens < 0:
            raise ValueError(f"long_context.above_input_tokens must be 0 or more: {self.above_input_tokens}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Price(Rates):
    """A price row: what a model's tokens cost from a date on, and who says so."""

    id: str
    """Stable name of the row, such as `book:openai/gpt-4.1-mini@2026-11-20`."""

    source: str
    effective: date
    long_context: LongContext | None = None

    _ceiling: tuple[int, int] = field(init=False, repr=False, compare=False)
    _long_ceiling: tuple[int, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        Rates.__post_init__(self)
        object.__setattr__(self, "_ceiling", _ceiling(self._nano))
        long = self.long_context or self
        object.__setattr__(self, "_long_ceiling", _ceiling(self._nano, long._nano))

    @classmethod
    def free(cls, *, id: str, source: str, effective: date) -> Price:
        """A price of nothing, said aloud: a model without a price is not free but unpriced."""
        return cls(
            id=id, source=source, effective=effective, input_usd_per_mtok=Decimal(0), output_usd_per_mtok=Decimal(0)
        )

    @property
    def is_free(self) -> bool:
        """Whether no call at this price can cost anything."""
        return self._long_ceiling == (0, 0)

    def cost(self, usage: Usage) -> int:
        """The cost of a call in nano-USD, rounded up once."""
        rates = self._long(usage.input_tokens) or self
        return _ceil(sum(map(mul, _split(usage), rates._nano)))

    def worst_case(self, input_tokens: int, output_tokens: int) -> int:
        """The most, in nano-USD, that any usage of at most so many tokens can cost."""
        input_nano, output_nano = self._worst_rates(input_tokens)
        return _ceil(input_tokens * input_nano + output_tokens * output_nano)

    def output_tokens_within(self, nanousd: int, input_tokens: int) -> int:
        """The largest number of output tokens whose worst case is within an amount; -1 if not even the input is.

        Where output is free it is OUTPUT_TOKENS_UNBOUNDED.
        """
        input_nano, output_nano = self._worst_rates(input_tokens)
        room = nanousd * _MTOK - input_tokens * input_nano
        if room < 0:
            return -1
        return room // output_nano if output_nano else OUTPUT_TOKENS_UNBOUNDED

    def explain(self, usage: Usage) -> list[PriceLine]:
        """A line for each kind of token that was used; `cost` is their sum, rounded up."""
        long = self._long(usage.input_tokens)
        rates, prefix = (self, "") if long is None else (long, "long-context ")
        return [
            PriceLine(prefix + label, tokens, price, Decimal(f"{tokens * nano}e-15"))
            for label, tokens, price, nano in zip(_LABELS, _split(usage), rates._published(), rates._nano, strict=True)
            if tokens
        ]

    def to_record(self) -> dict[str, Any]:
        """The row as JSON values, to be kept with each posting; prices are decimal strings."""
        record = {"id": self.id, "source": self.source, "effective": self.effective.isoformat(), **self._record()}
        if (long := self.long_context) is not None:
            record["long_context"] = {"above_input_tokens": long.above_input_tokens, **long._record()}
        return record

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Price:
        """The row that `to_record` wrote; raises ValueError for anything else."""
        try:
            return cls(
                id=record["id"],
                source=record["source"],
                effective=date.fromisoformat(record["effective"]),
                long_context=_long_context_in(record),
                **_prices_in(record),
            )
        except (KeyError, TypeError, InvalidOperation) as error:
            raise ValueError(f"not a price record: {record!r} ({error!r})") from error

    def _long(self, input_tokens: int) -> LongContext | None:
        long = self.long_context
        return long if long is not None and input_tokens > long.above_input_tokens else None

    def _worst_rates(self, input_tokens: int) -> tuple[int, int]:
        return self._ceiling if self._long(input_tokens) is None else self._long_ceiling


def _nano(name: str, price: Decimal) -> int:
    if not isinstance(price, Decimal):
        raise TypeError(f"{name} must be a Decimal of USD per million tokens: {price!r}")
    try:
        return nanousd(price)
    except ValueError as error:
        raise ValueError(
            f"{name} must be USD per million tokens, 0 or more, with at most 9 decimals: {error}"
        ) from None


def _ceiling(*rates: _Nano) -> tuple[int, int]:
    """The dearest input and the dearest output; a usage below a bound may have any of the rates."""
    return (
        max(max(rate.input, rate.cache_read, rate.cache_write) for rate in rates),
        max(max(rate.output, rate.reasoning) for rate in rates),
    )


def _split(usage: Usage) -> tuple[int, int, int, int, int]:
    """A usage's tokens in the order of `_Nano`, each counted once."""
    read, write, reasoning = usage.cache_read_tokens, usage.cache_write_tokens, usage.reasoning_tokens
    return usage.input_tokens - read - write, read, write, usage.output_tokens - reasoning, reasoning


def _ceil(nano_times_mtok: int) -> int:
    return -(-nano_times_mtok // _MTOK)


def _long_context_in(record: Mapping[str, Any]) -> LongContext | None:
    if (long := record.get("long_context")) is None:
        return None
    return LongContext(above_input_tokens=long["above_input_tokens"], **_prices_in(long))


def _prices_in(record: Mapping[str, Any]) -> dict[str, Decimal]:
    return {name: Decimal(record[name]) for name in _PRICES if name in record}
