"""What a model's tokens cost: one dated price row, and exact integer arithmetic on it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal, InvalidOperation
from operator import attrgetter, mul
from typing import Any, Literal, NamedTuple

from bursar.budget.money import nanousd, usd
from bursar.budget.usage import SERVICE_TIERS, Parts, ServiceTier, Usage

__all__ = [
    "OUTPUT_TOKENS_UNBOUNDED",
    "PRICED_AS",
    "PRICED_TIERS",
    "PRICE_FIELDS",
    "Bounds",
    "LongContext",
    "Modality",
    "Price",
    "PriceLine",
    "Rates",
    "Schedule",
]

OUTPUT_TOKENS_UNBOUNDED = 2**31
"""How many output tokens fit where output costs nothing: more than any model writes."""

_MTOK = 1_000_000

PRICE_FIELDS = tuple(f"{part}_usd_per_mtok" for part in Parts._fields)
"""The names of the prices of a row, in the order of `Parts`."""

PRICED_TIERS = tuple(tier for tier in SERVICE_TIERS if tier != "standard")
"""The service tiers for which a row may have prices of their own."""

PRICED_AS = {
    "cache_read": "input",
    "cache_write": "input",
    "cache_write_1h": "cache_write",
    "input_image": "input",
    "input_audio": "input",
    "cache_read_audio": "input_audio",
    "reasoning": "output",
    "output_image": "output",
    "output_audio": "output",
}
"""Whose price a part has that has none of its own; in `Parts` it stands behind that one."""

_LABELS = (
    "input",
    "cached input",
    "cache write",
    "cache write for 1 h",
    "image input",
    "audio input",
    "cached audio input",
    "output",
    "reasoning",
    "image output",
    "audio output",
)

Modality = Literal["text", "image", "audio"]

MODALITIES: frozenset[Modality] = frozenset({"text", "image", "audio"})

_INPUT_PARTS: Mapping[Modality, tuple[str, ...]] = {
    "text": ("input", "cache_read", "cache_write", "cache_write_1h"),
    "image": ("input_image",),
    "audio": ("input_audio", "cache_read_audio"),
}
_OUTPUT_PARTS: Mapping[Modality, tuple[str, ...]] = {
    "text": ("output", "reasoning"),
    "image": ("output_image",),
    "audio": ("output_audio",),
}


class PriceLine(NamedTuple):
    """One line of what a call cost."""

    label: str
    tokens: int
    usd_per_mtok: Decimal | None
    """None for what each request costs, whatever its tokens."""

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

    cache_write_1h_usd_per_mtok: Decimal | None = None
    """None: input written to be kept for an hour costs what any cache write costs."""

    input_image_usd_per_mtok: Decimal | None = None
    """None: tokens of images cost the plain input price."""

    input_audio_usd_per_mtok: Decimal | None = None
    """None: tokens of audio cost the plain input price."""

    cache_read_audio_usd_per_mtok: Decimal | None = None
    """None: cached audio costs what audio costs."""

    reasoning_usd_per_mtok: Decimal | None = None
    """None: reasoning costs the plain output price."""

    output_image_usd_per_mtok: Decimal | None = None
    """None: tokens of written images cost the plain output price."""

    output_audio_usd_per_mtok: Decimal | None = None
    """None: tokens of spoken audio cost the plain output price."""

    _nano: Parts = field(init=False, repr=False, compare=False)
    """Nano-USD per million tokens of each part."""

    def __post_init__(self) -> None:
        nano = Parts(*(_nano(name, price) for name, price in zip(PRICE_FIELDS, self.published(), strict=True)))
        object.__setattr__(self, "_nano", nano)

    def published(self) -> tuple[Decimal, ...]:
        """A price for each part, in the order of `Parts`: its own, or the one that stands in for it."""
        prices: dict[str, Decimal] = {}
        for part, name in zip(Parts._fields, PRICE_FIELDS, strict=True):
            own = getattr(self, name)
            prices[part] = prices[PRICED_AS[part]] if own is None and part in PRICED_AS else own
        return tuple(prices.values())

    def _record(self) -> dict[str, Any]:
        return {name: format(value, "f") for name in PRICE_FIELDS if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class LongContext(Rates):
    """The prices of a call whose input is long; they apply to all of its tokens, not only to those above.

    So the providers bill it, and so litellm prices it: every rate is switched where `prompt_tokens > threshold`
    (`litellm/litellm_core_utils/llm_cost_calc/utils.py`, `_get_token_base_cost`).
    """

    above_input_tokens: int
    """The largest input that still has the prices of the step before."""

    def __post_init__(self) -> None:
        Rates.__post_init__(self)
        if self.above_input_tokens < 0:
            raise ValueError(f"long_context.above_input_tokens must be 0 or more: {self.above_input_tokens}")

    def _record(self) -> dict[str, Any]:
        return {"above_input_tokens": self.above_input_tokens, **Rates._record(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule(Rates):
    """The prices of one service tier: the plain ones, and those of longer inputs step by step.

    Raises ValueError for two steps that begin at the same input.
    """

    long_context: tuple[LongContext, ...] = ()
    """Kept in order of `above_input_tokens`."""

    _edges: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        Rates.__post_init__(self)
        steps = tuple(sorted(self.long_context, key=attrgetter("above_input_tokens")))
        edges = tuple(step.above_input_tokens for step in steps)
        if len(set(edges)) < len(edges):
            raise ValueError(f"long_context: two steps begin above the same input: {', '.join(map(str, edges))}")
        object.__setattr__(self, "long_context", steps)
        object.__setattr__(self, "_edges", edges)

    def _at(self, input_tokens: int) -> Rates:
        """The rates of a call with so much input."""
        place = bisect_left(self._edges, input_tokens)
        return self.long_context[place - 1] if place else self

    def _record(self) -> dict[str, Any]:
        record = Rates._record(self)
        return {**record, "long_context": [step._record() for step in self.long_context]} if self._edges else record


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a call can be, as far as whoever sends it knows: any service tier and modality unless it says otherwise.

    Every call may be served as `standard` and may read and write text.
    """

    service_tiers: Collection[ServiceTier] = SERVICE_TIERS
    input: Collection[Modality] = MODALITIES
    output: Collection[Modality] = MODALITIES


@dataclass(frozen=True, slots=True, kw_only=True)
class Price(Schedule):
    """A price row: what a model's calls cost from a date on, and who says so.

    A call that was served on a tier without prices of its own costs the standard prices.
    """

    id: str
    """Stable name of the row, such as `book:openai/gpt-4.1-mini@2026-11-20`."""

    source: str
    effective: date
    request_usd: Decimal = Decimal(0)
    """What each call costs beside its tokens; of a call that says how many searches it was billed for, each search."""

    batch: Schedule | None = None
    flex: Schedule | None = None
    priority: Schedule | None = None
    bounds: Bounds = field(default=Bounds(), repr=False, compare=False)
    """What the worst case must cover; no part of the row. See `bounded`."""

    _fee: int = field(init=False, repr=False, compare=False)
    _breaks: tuple[int, ...] = field(init=False, repr=False, compare=False)
    _ceilings: tuple[tuple[int, int], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        Schedule.__post_init__(self)
        tiers = [own for tier in PRICED_TIERS if tier in self.bounds.service_tiers and (own := self._own(tier))]
        schedules = [self, *tiers]
        breaks = tuple(sorted({edge for schedule in schedules for edge in schedule._edges}))
        ceilings = tuple(_ceiling(self.bounds, _reachable(schedules, edge)) for edge in (-1, *breaks))
        object.__setattr__(self, "_fee", _nano("request_usd", self.request_usd) * _MTOK)
        object.__setattr__(self, "_breaks", breaks)
        object.__setattr__(self, "_ceilings", ceilings)

    @classmethod
    def free(cls, *, id: str, source: str, effective: date) -> Price:
        """A price of nothing, said aloud: a model without a price is not free but unpriced."""
        return cls(
            id=id, source=source, effective=effective, input_usd_per_mtok=Decimal(0), output_usd_per_mtok=Decimal(0)
        )

    def bounded(self, bounds: Bounds) -> Price:
        """The same row for calls that cannot be more than this: its worst case is lower, its costs are the same."""
        return replace(self, bounds=bounds)

    @property
    def is_free(self) -> bool:
        """Whether no call at this price can cost anything."""
        return self._ceilings[-1] == (0, 0) and not self._fee

    def cost(self, usage: Usage) -> int:
        """The cost of a call in nano-USD, rounded up once."""
        tokens: int = sum(map(mul, usage.parts, self._rates_of(usage)._nano))
        return -(-(tokens + self._fee * (usage.searches or 1)) // _MTOK)

    def saved(self, usage: Usage) -> int:
        """What the provider's prompt cache saved, in nano-USD, rounded down.

        That is what the tokens it read or wrote would have cost as plain input, less what they cost; below 0 where
        writing cost more than reading saved.
        """
        used, nano = usage.parts, self._rates_of(usage)._nano
        text = used.cache_read * (nano.input - nano.cache_read) + used.cache_write * (nano.input - nano.cache_write)
        hour = used.cache_write_1h * (nano.input - nano.cache_write_1h)
        audio = used.cache_read_audio * (nano.input_audio - nano.cache_read_audio)
        return (text + hour + audio) // _MTOK

    def worst_case(self, input_tokens: int, output_tokens: int) -> int:
        """The most, in nano-USD, that any usage of at most so many tokens, and one search, can cost within `bounds`."""
        input_nano, output_nano = self._ceilings[bisect_left(self._breaks, input_tokens)]
        return -(-(self._fee + input_tokens * input_nano + output_tokens * output_nano) // _MTOK)

    def output_tokens_within(self, nanousd: int, input_tokens: int) -> int:
        """The largest number of output tokens whose worst case is within an amount; -1 if not even the input is.

        Where output is free it is OUTPUT_TOKENS_UNBOUNDED.
        """
        input_nano, output_nano = self._ceilings[bisect_left(self._breaks, input_tokens)]
        room = nanousd * _MTOK - self._fee - input_tokens * input_nano
        if room < 0:
            return -1
        return room // output_nano if output_nano else OUTPUT_TOKENS_UNBOUNDED

    def explain(self, usage: Usage) -> list[PriceLine]:
        """A line for each kind of token that was used and for the fee; `cost` is their sum, rounded up."""
        own = self._own(usage.service_tier)
        rates = (own or self)._at(usage.input_tokens)
        tier = f"{usage.service_tier} " if own else ""
        prefix = tier + "long-context " if isinstance(rates, LongContext) else tier
        lines = [
            PriceLine(prefix + label, tokens, price, Decimal(f"{tokens * nano}e-15"))
            for label, tokens, price, nano in zip(_LABELS, usage.parts, rates.published(), rates._nano, strict=True)
            if tokens
        ]
        fee = usd(self._fee * (usage.searches or 1) // _MTOK)
        return [*lines, PriceLine("request", 0, None, fee)] if fee else lines

    def to_record(self) -> dict[str, Any]:
        """The row as JSON values, to be kept with each posting; prices are decimal strings."""
        record = {"id": self.id, "source": self.source, "effective": self.effective.isoformat()}
        record |= Schedule._record(self)
        if self._fee:
            record["request_usd"] = format(self.request_usd, "f")
        return {**record, **{tier: own._record() for tier in PRICED_TIERS if (own := self._own(tier))}}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Price:
        """The row that `to_record` wrote; raises ValueError for anything else."""
        try:
            return cls(
                id=record["id"],
                source=record["source"],
                effective=date.fromisoformat(record["effective"]),
                request_usd=Decimal(record.get("request_usd", 0)),
                **_schedule_in(record),
                **_tiers_in(record),
            )
        except (AttributeError, KeyError, TypeError, InvalidOperation) as error:
            raise ValueError(f"not a price record: {record!r} ({error!r})") from error

    def _rates_of(self, usage: Usage) -> Rates:
        schedule = self if usage.service_tier == "standard" else self._own(usage.service_tier) or self
        return schedule._at(usage.input_tokens) if schedule._edges else schedule

    def _own(self, tier: ServiceTier) -> Schedule | None:
        """The prices of a tier that has its own."""
        return None if tier == "standard" else getattr(self, tier)


def _nano(name: str, price: Decimal) -> int:
    unit = "USD" if name == "request_usd" else "USD per million tokens"
    if not isinstance(price, Decimal):
        raise TypeError(f"{name} must be a Decimal of {unit}: {price!r}")
    try:
        return nanousd(price)
    except ValueError as error:
        raise ValueError(f"{name} must be {unit}, 0 or more, with at most 9 decimals: {error}") from None


def _reachable(schedules: Collection[Schedule], edge: int) -> Iterator[Parts]:
    """The rates that an input of just more than `edge` tokens may have: any shorter one is within its bound too."""
    for schedule in schedules:
        yield schedule._nano
        yield from (step._nano for step in schedule.long_context if step.above_input_tokens <= edge)


def _ceiling(bounds: Bounds, rates: Iterator[Parts]) -> tuple[int, int]:
    """The dearest input and the dearest output of several rates."""
    dearest = Parts(*map(max, zip(*rates, strict=True)))
    read, written = {"text", *bounds.input}, {"text", *bounds.output}
    return (
        max(getattr(dearest, part) for modality in read for part in _INPUT_PARTS[modality]),
        max(getattr(dearest, part) for modality in written for part in _OUTPUT_PARTS[modality]),
    )


def _schedule_in(record: Mapping[str, Any]) -> dict[str, Any]:
    steps = record.get("long_context") or ()
    steps = (steps,) if isinstance(steps, Mapping) else steps  # one step stood there alone, before there were several
    long = tuple(LongContext(above_input_tokens=step["above_input_tokens"], **_prices_in(step)) for step in steps)
    return {**_prices_in(record), "long_context": long}


def _tiers_in(record: Mapping[str, Any]) -> dict[str, Any]:
    return {tier: Schedule(**_schedule_in(record[tier])) for tier in PRICED_TIERS if tier in record}


def _prices_in(record: Mapping[str, Any]) -> dict[str, Decimal]:
    return {name: Decimal(record[name]) for name in PRICE_FIELDS if name in record}
