"""Whether a call fits: a pure function of the balances of its scopes and of what it asks for.

Held is not spent. Where posted amounts alone leave too little room, the call is refused; where only amounts held for
calls in flight stand in its way, it waits for them to settle. A call whose worst case does not fit, but something
useful does, is admitted with a lower bound on its output; only posted amounts ever lower that bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from bursar.budget.amounts import DIMENSIONS, Amounts
from bursar.budget.money import NANOUSD_MAX
from bursar.budget.pricing.prices import Price
from bursar.budget.refusal import Refusal
from bursar.budget.scope import Kind
from bursar.budget.usage import TOKENS_MAX
from bursar.budget.windows import Period

__all__ = [
    "Admitted",
    "Balance",
    "ModelQuote",
    "MoneyLeft",
    "SliceQuote",
    "ToolQuote",
    "Wait",
    "admit",
    "money_left",
    "over_limit",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelQuote:
    """The upper bound of one model call; raises ValueError for a count that is below 0, no int or above TOKENS_MAX."""

    model: str
    price: Price | None
    """None for a model without a price: refused wherever money is limited, unless `allow_unpriced`."""

    input_tokens: int
    """An upper bound on what the provider will count."""

    max_output_tokens: int
    """The bound that the caller wants on the output."""

    min_output_tokens: int = 16
    """The smallest bound that is still of use; below it the call is refused."""

    keep_back: Mapping[str, Amounts] = field(default_factory=dict)
    """What must remain in an account after this call, by its path: for the last answers of the runs in progress."""

    allow_unpriced: bool = False
    """Whether the tenant's policy lets a call without a price pass a limit in money (see `bursar.budget.policies`)."""

    def __post_init__(self) -> None:
        _check("tokens", TOKENS_MAX, self.input_tokens, self.max_output_tokens, self.min_output_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolQuote:
    """The upper bound of one tool call; raises ValueError for a count that is below 0, no int or above TOKENS_MAX."""

    tool_calls: int = 1
    keep_back: Mapping[str, Amounts] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check("tool calls", TOKENS_MAX, self.tool_calls)


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceQuote:
    """A part of what a scope may spend, to be held at once (see `bursar.budget.slices`).

    Raises ValueError for an amount that is below 0, no int or above NANOUSD_MAX.
    """

    amounts: Amounts
    keep_back: Mapping[str, Amounts] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in DIMENSIONS:
            _check(name, NANOUSD_MAX, getattr(self.amounts, name))


def _check(what: str, most: int, *counts: object) -> None:
    for count in counts:
        if type(count) is not int or not 0 <= count <= most:
            raise ValueError(f"a quote of {count!r} {what}: expected a whole number from 0 to {most}")


class Balance(NamedTuple):
    """One account with a hard limit, as `admit` sees it; amounts are in the order of `DIMENSIONS`."""

    kind: Kind
    path: str
    limit: tuple[int | None, int | None, int | None, int | None]
    """None = no limit."""

    posted: tuple[int, int, int, int]
    held: tuple[int, int, int, int]
    per: Period = "total"
    window: str = ""
    ends_us: int | None = None
    zone: str = "UTC"


@dataclass(frozen=True, slots=True)
class Admitted:
    """The call may be made, within these amounts."""

    amounts: Amounts
    max_output_tokens: int = 0
    capped: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """Only calls in flight stand in the way; `path` is the scope that they hold."""

    path: str


class MoneyLeft(NamedTuple):
    """What is left in the hard budget in money of which the least share is left."""

    path: str
    per: Period
    limit_nanousd: int
    left_nanousd: int
    """Beside all that is posted and held, with the call that asks; never below 0."""

    @property
    def percent(self) -> int:
        """The share that is left, 0 to 100, rounded down."""
        return min(100, self.left_nanousd * 100 // self.limit_nanousd) if self.limit_nanousd else 0


_NANOUSD, _TOKENS, _STEPS, _TOOL_CALLS = range(4)


def admit(balances: Sequence[Balance], quote: ModelQuote | ToolQuote | SliceQuote) -> Admitted | Wait | Refusal:
    """Decide on a call over all its scopes at once."""
    if isinstance(quote, ModelQuote):
        return _admit_model(balances, quote)
    if isinstance(quote, ToolQuote):
        return _admit_whole(balances, quote, {_TOOL_CALLS: quote.tool_calls})
    needs = {dimension: getattr(quote.amounts, name) for dimension, name in enumerate(DIMENSIONS)}
    return _admit_whole(balances, quote, {dimension: need for dimension, need in needs.items() if need})


def money_left(balances: Iterable[Balance], held: Amounts) -> MoneyLeft | None:
    """The budget in money that is nearest to its end once `held` is held in all of them; None where none limits it."""
    least: MoneyLeft | None = None
    for balance in balances:
        limit = balance.limit[_NANOUSD]
        if limit is None:
            continue
        left = max(0, limit - balance.posted[_NANOUSD] - balance.held[_NANOUSD] - held.nanousd)
        if least is None or left * least.limit_nanousd < least.left_nanousd * limit:  # the smaller share
            least = MoneyLeft(balance.path, balance.per, limit, left)
    return least


def over_limit(balances: Iterable[Balance], held: Amounts) -> Refusal | None:
    """The first limit that is exceeded by what is posted and held, of those that a call draws on that holds `held`."""
    for balance in balances:
        for dimension, name in enumerate(DIMENSIONS):
            limit, need = balance.limit[dimension], getattr(held, name)
            if need and limit is not None and balance.posted[dimension] + balance.held[dimension] > limit:
                return _refusal(balance, dimension, {}, need, need)
    return None


def _admit_whole(
    balances: Sequence[Balance], quote: ToolQuote | SliceQuote, needs: Mapping[int, int]
) -> Admitted | Wait | Refusal:
    """All of it or nothing: there is no bound that could be lowered."""
    waits: Wait | None = None
    for balance in balances:
        for dimension, need in needs.items():
            if balance.limit[dimension] is None:
                continue
            room = _room(balance, dimension, quote.keep_back)
            if need <= room - balance.held[dimension]:
                continue
            if need > room:
                return _refusal(balance, dimension, quote.keep_back, need, need)
            waits = waits or Wait(balance.path)
    return waits or Admitted(Amounts(**{DIMENSIONS[dimension]: need for dimension, need in needs.items()}))


def _admit_model(balances: Sequence[Balance], quote: ModelQuote) -> Admitted | Wait | Refusal:
    useful = min(quote.min_output_tokens, quote.max_output_tokens)
    bound, bound_now, in_flight = quote.max_output_tokens, quote.max_output_tokens, ""
    for balance in balances:
        for dimension in (_NANOUSD, _TOKENS, _STEPS):
            if balance.limit[dimension] is None:
                continue
            room = _room(balance, dimension, quote.keep_back)
            if dimension == _NANOUSD and quote.price is None:
                if quote.allow_unpriced:
                    continue
                return Refusal(cause="unpriced", kind=balance.kind, path=balance.path, detail=quote.model)
            fits = _output_within(quote, dimension, room)
            if fits < useful:
                need, worst = _need(quote, dimension, useful), _worst(quote, dimension)
                return _refusal(balance, dimension, quote.keep_back, need, worst)
            fits_now = _output_within(quote, dimension, room - balance.held[dimension])
            bound = min(bound, fits)
            if fits_now < bound_now:
                bound_now, in_flight = fits_now, balance.path
    if bound_now < bound:
        return Wait(in_flight)
    nanousd = quote.price.worst_case(quote.input_tokens, bound) if quote.price else 0
    return Admitted(Amounts(nanousd, quote.input_tokens + bound, 1), bound, bound < quote.max_output_tokens)


def _room(balance: Balance, dimension: int, keep_back: Mapping[str, Amounts]) -> int:
    """What posted amounts leave in a dimension that is limited, beside what is kept back."""
    room = (balance.limit[dimension] or 0) - balance.posted[dimension]
    return room - _kept_back(balance, dimension, keep_back) if keep_back else room


def _kept_back(balance: Balance, dimension: int, keep_back: Mapping[str, Amounts]) -> int:
    kept = keep_back.get(balance.path)
    return getattr(kept, DIMENSIONS[dimension]) if kept is not None else 0


def _output_within(quote: ModelQuote, dimension: int, room: int) -> int:
    """The largest output bound whose worst case fits the room; -1 when not even the input does."""
    if dimension == _STEPS:
        return quote.max_output_tokens if room >= 1 else -1
    if dimension == _TOKENS:
        return max(-1, room - quote.input_tokens)
    if quote.price is None or quote.price.is_free:
        return quote.max_output_tokens
    return quote.price.output_tokens_within(room, quote.input_tokens)


def _need(quote: ModelQuote, dimension: int, output_tokens: int) -> int:
    if dimension == _STEPS:
        return 1
    if dimension == _TOKENS:
        return quote.input_tokens + output_tokens
    return quote.price.worst_case(quote.input_tokens, output_tokens) if quote.price else 0


def _worst(quote: ModelQuote, dimension: int) -> int:
    return _need(quote, dimension, quote.max_output_tokens)


def _refusal(balance: Balance, dimension: int, keep_back: Mapping[str, Amounts], needed: int, worst: int) -> Refusal:
    return Refusal(
        cause="limit",
        kind=balance.kind,
        path=balance.path,
        dimension=DIMENSIONS[dimension],
        limit=balance.limit[dimension],
        posted=balance.posted[dimension],
        held=balance.held[dimension],
        kept_back=_kept_back(balance, dimension, keep_back),
        needed=needed,
        worst=worst,
        per=balance.per,
        window=balance.window,
        resets_us=balance.ends_us,
        zone=balance.zone,
    )
