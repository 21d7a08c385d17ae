from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any, Literal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bursar.budget.admission import Admitted, Balance, ModelQuote, ToolQuote, Wait, admit
from bursar.budget.amounts import DIMENSIONS, Amounts
from bursar.budget.pricing.prices import LongContext, Price
from bursar.budget.refusal import Refusal
from bursar.budget.testing import FREE, PRICE

NOTHING = (0, 0, 0, 0)
KINDS: tuple[Literal["tenant", "agent", "run"], ...] = ("tenant", "agent", "run")

# Small numbers, so that every bound on the output can be tried, and limits are met as often as missed.
counts = st.integers(0, 40)
rates = st.integers(0, 5).map(lambda n: Decimal(n) / 1000)
kept_back = st.dictionaries(
    st.sampled_from([f"scope_{place}" for place in range(4)]),
    st.builds(Amounts, counts, st.integers(0, 10), st.integers(0, 2), st.integers(0, 2)),
)


@st.composite
def prices(draw: st.DrawFn) -> Price:
    long = st.builds(
        LongContext, input_usd_per_mtok=rates, output_usd_per_mtok=rates, above_input_tokens=st.integers(0, 10)
    )
    return replace(
        PRICE,
        input_usd_per_mtok=draw(rates),
        output_usd_per_mtok=draw(rates),
        long_context=tuple(draw(st.lists(long, max_size=2, unique_by=lambda step: step.above_input_tokens))),
    )


model_quotes = st.builds(
    ModelQuote,
    model=st.just("small-1"),
    price=st.none() | st.just(FREE) | prices(),
    input_tokens=st.integers(0, 20),
    max_output_tokens=st.integers(0, 30),
    min_output_tokens=st.integers(0, 16),
    keep_back=kept_back,
)
tool_quotes = st.builds(ToolQuote, tool_calls=st.integers(0, 5), keep_back=kept_back)


@st.composite
def scopes(draw: st.DrawFn) -> list[Balance]:
    """A tenant, an agent and runs, with limits of every size and everything from unused to overdrawn."""
    dimension = st.tuples(*[counts] * 4)
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=4))
    return [
        Balance(
            kind=kind,
            path=f"scope_{place}",
            limit=draw(st.tuples(*[st.none() | counts.map(lambda n: n * 3)] * 4)),
            posted=draw(dimension),
            held=draw(st.just(NOTHING) | dimension),
        )
        for place, kind in enumerate(kinds)
    ]


def amounts_of(quote: ModelQuote, output_tokens: int) -> tuple[int, int, int, int]:
    """The worst case of a call with such a bound on its output."""
    nanousd = quote.price.worst_case(quote.input_tokens, output_tokens) if quote.price else 0
    return nanousd, quote.input_tokens + output_tokens, 1, 0


def fits(balances: list[Balance], quote: ModelQuote, output_tokens: int, *, beside_held: bool) -> bool:
    """The rule said plainly: nothing that the call may come to, and nothing kept back, exceeds a limit."""
    for balance in balances:
        for place, amount in enumerate(amounts_of(quote, output_tokens)):
            limit = balance.limit[place]
            if limit is None or place == 3 or (place == 0 and quote.price is not None and quote.price.is_free):
                continue
            kept = getattr(quote.keep_back.get(balance.path, Amounts()), DIMENSIONS[place])
            used = balance.posted[place] + (balance.held[place] if beside_held else 0)
            if used + amount + kept > limit:
                return False
    return True


def largest_bound(balances: list[Balance], quote: ModelQuote, *, beside_held: bool = False) -> int:
    """The largest output that fits, found by trying; -1 where none does."""
    bounds = (n for n in range(quote.max_output_tokens, -1, -1) if fits(balances, quote, n, beside_held=beside_held))
    return next(bounds, -1)


def money_is_limited(balances: list[Balance]) -> bool:
    return any(balance.limit[0] is not None for balance in balances)


def useful(quote: ModelQuote) -> int:
    return min(quote.min_output_tokens, quote.max_output_tokens)


# --- Model calls ------------------------------------------------------------------------------------------------------


@given(scopes(), model_quotes)
def test_what_is_admitted_fits_every_limit_in_every_dimension(balances: list[Balance], quote: ModelQuote) -> None:
    verdict = admit(balances, quote)
    assume(isinstance(verdict, Admitted))
    assert isinstance(verdict, Admitted)
    for balance in balances:
        for place, name in enumerate(DIMENSIONS):
            limit, amount = balance.limit[place], getattr(verdict.amounts, name)
            if limit is not None and amount > 0:
                assert balance.posted[place] + balance.held[place] + amount <= limit


@given(scopes(), model_quotes)
def test_the_admitted_bound_is_the_largest_that_posted_amounts_leave(
    balances: list[Balance], quote: ModelQuote
) -> None:
    verdict = admit(balances, quote)
    assume(isinstance(verdict, Admitted))
    assert isinstance(verdict, Admitted)
    assert verdict.max_output_tokens == largest_bound(balances, quote) >= useful(quote)
    assert verdict.capped == (verdict.max_output_tokens < quote.max_output_tokens)
    assert verdict.amounts == Amounts(*amounts_of(quote, verdict.max_output_tokens))


@given(scopes(), model_quotes)
def test_a_call_is_refused_exactly_when_posted_amounts_alone_block_the_least_that_is_useful(
    balances: list[Balance], quote: ModelQuote
) -> None:
    assume(quote.price is not None or not money_is_limited(balances))
    refused = isinstance(admit(balances, quote), Refusal)
    assert refused == (not fits(balances, quote, useful(quote), beside_held=False))


@given(scopes(), model_quotes)
def test_a_call_waits_exactly_when_only_held_amounts_stand_in_its_way(
    balances: list[Balance], quote: ModelQuote
) -> None:
    assume(quote.price is not None or not money_is_limited(balances))
    verdict = admit(balances, quote)
    bound = largest_bound(balances, quote)
    stands_in_the_way = bound >= useful(quote) and not fits(balances, quote, bound, beside_held=True)
    assert isinstance(verdict, Wait) == stands_in_the_way
    if isinstance(verdict, Wait):
        assert any(balance.path == verdict.path and any(balance.held) for balance in balances)


@given(scopes(), model_quotes)
def test_a_refusal_names_the_scope_the_need_and_what_is_left(balances: list[Balance], quote: ModelQuote) -> None:
    refusal = admit(balances, quote)
    assume(isinstance(refusal, Refusal) and refusal.cause == "limit")
    assert isinstance(refusal, Refusal)
    (balance,) = [balance for balance in balances if balance.path == refusal.path]
    place = DIMENSIONS.index(refusal.dimension)
    assert (refusal.limit, refusal.posted, refusal.held) == (
        balance.limit[place],
        balance.posted[place],
        balance.held[place],
    )
    assert refusal.needed == amounts_of(quote, useful(quote))[place]
    assert refusal.worst == amounts_of(quote, quote.max_output_tokens)[place]
    assert refusal.limit is not None
    assert refusal.posted + refusal.kept_back + refusal.needed > refusal.limit


@given(scopes(), model_quotes)
def test_a_model_without_a_price_is_never_admitted_where_money_is_limited(
    balances: list[Balance], quote: ModelQuote
) -> None:
    assume(money_is_limited(balances))
    assert isinstance(admit(balances, replace(quote, price=None)), Refusal)


@given(scopes(), model_quotes)
def test_what_is_held_never_turns_an_admission_into_a_refusal(balances: list[Balance], quote: ModelQuote) -> None:
    idle = [balance._replace(held=NOTHING) for balance in balances]
    assert isinstance(admit(idle, quote), Refusal) == isinstance(admit(balances, quote), Refusal)


def test_a_free_model_passes_an_exhausted_money_limit() -> None:
    broke = Balance(kind="tenant", path="acme", limit=(100, None, None, None), posted=(500, 0, 0, 0), held=NOTHING)
    quote = ModelQuote(model="small-1", price=FREE, input_tokens=10, max_output_tokens=10)
    assert admit([broke], quote) == Admitted(Amounts(0, 20, 1), 10)
    assert isinstance(admit([broke], replace(quote, price=PRICE)), Refusal)


def test_what_is_kept_back_binds_the_run_and_not_its_tenant() -> None:
    kept = {"acme/support/run_1": Amounts(steps=1)}
    quote = ModelQuote(model="small-1", price=PRICE, input_tokens=10, max_output_tokens=10, keep_back=kept)
    tenant = Balance(kind="tenant", path="acme", limit=(None, None, 1, None), posted=NOTHING, held=NOTHING)
    run = tenant._replace(kind="run", path="acme/support/run_1")
    assert isinstance(admit([tenant], quote), Admitted)
    refusal = admit([tenant, run], quote)
    assert isinstance(refusal, Refusal)
    assert "1 step left of 1 step, 1 step of it kept back for a last answer" in refusal.words()


def test_the_scope_that_is_waited_for_is_the_fullest() -> None:
    def holding(path: str, held: int) -> Balance:
        return Balance(kind="tenant", path=path, limit=(None, 100, None, None), posted=NOTHING, held=(0, held, 0, 0))

    quote = ModelQuote(model="small-1", price=PRICE, input_tokens=10, max_output_tokens=50)
    assert admit([holding("little", 50), holding("much", 90), holding("some", 60)], quote) == Wait("much")


# --- Tool calls -------------------------------------------------------------------------------------------------------


@given(scopes(), tool_quotes)
def test_a_tool_call_is_admitted_refused_or_waits_by_the_same_rules(balances: list[Balance], quote: ToolQuote) -> None:
    def blocked(*, beside_held: bool) -> bool:
        return any(
            balance.posted[3]
            + (balance.held[3] if beside_held else 0)
            + quote.keep_back.get(balance.path, Amounts()).tool_calls
            + quote.tool_calls
            > limit
            for balance in balances
            if (limit := balance.limit[3]) is not None
        )

    verdict = admit(balances, quote)
    assert isinstance(verdict, Refusal) == blocked(beside_held=False)
    assert isinstance(verdict, Wait) == (blocked(beside_held=True) and not blocked(beside_held=False))
    if isinstance(verdict, Admitted):
        assert verdict.amounts == Amounts(tool_calls=quote.tool_calls)


@pytest.mark.parametrize("field", ["input_tokens", "max_output_tokens", "min_output_tokens"])
def test_a_quote_below_nothing_is_refused_since_it_would_give_back_what_others_hold(field: str) -> None:
    counts: dict[str, Any] = {"input_tokens": 1, "max_output_tokens": 1, field: -1}
    with pytest.raises(ValueError, match="expected a whole number from 0"):
        ModelQuote(model="small-1", price=PRICE, **counts)
    with pytest.raises(ValueError, match="expected a whole number from 0"):
        ToolQuote(tool_calls=-1)


def test_a_long_price_lowers_the_bound() -> None:
    long = LongContext(input_usd_per_mtok=Decimal(1), output_usd_per_mtok=Decimal(2), above_input_tokens=100)
    price = replace(PRICE, id="test:long", effective=date(2026, 11, 20), long_context=(long,))
    balance = Balance(kind="run", path="a/b/c", limit=(200_000, None, None, None), posted=NOTHING, held=NOTHING)
    bounds = [
        admit([balance], ModelQuote(model="small-1", price=price, input_tokens=tokens, max_output_tokens=1000))
        for tokens in (100, 101)
    ]
    assert [verdict.max_output_tokens for verdict in bounds if isinstance(verdict, Admitted)] == [100, 49]
