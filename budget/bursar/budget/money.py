"""Money: integers of 1e-9 USD in the ledger, Decimal USD at every door, never a float."""

from __future__ import annotations

from decimal import ROUND_CEILING, Context, Decimal, Inexact, InvalidOperation, localcontext

__all__ = ["NANO", "NANOUSD_MAX", "ceil_nanousd", "format_usd", "nanousd", "usd"]

NANO = 1_000_000_000
"""Nano-USD in one USD."""

NANOUSD_MAX = 2**62 - 1
"""The largest amount the ledger holds (about $4.6 thousand million): the sum of two fits a signed 64-bit column."""


def nanousd(amount: Decimal | str | int) -> int:
    """The exact number of nano-USD in an amount of USD.

    Raises ValueError for a negative, non-finite, unreadable or too large amount, and for one finer than a nano-USD;
    TypeError for a float, whose value is not the amount that was written.
    """
    if isinstance(amount, (float, bool)):
        raise TypeError(f"money is written as text, Decimal or int, not {type(amount).__name__}: {amount!r}")
    try:
        value = Decimal(amount)
    except InvalidOperation:
        raise ValueError(f"not an amount of USD: {amount!r}") from None
    if not value.is_finite():
        raise ValueError(f"an amount of USD must be finite: {amount!r}")
    if value < 0:
        raise ValueError(f"an amount of USD must not be negative: {amount!r}")
    if value > NANOUSD_MAX // NANO:
        raise ValueError(f"an amount of USD must be at most {NANOUSD_MAX // NANO}: {amount!r}")
    try:
        with localcontext(Context(prec=60, traps=[Inexact])):
            return int((value * NANO).to_integral_exact())
    except Inexact:
        raise ValueError(f"an amount of USD must not be finer than 0.000000001: {amount!r}") from None


def ceil_nanousd(amount_usd: Decimal) -> int:
    """An amount of USD in nano-USD, rounded up: the one rounding of a call's cost."""
    with localcontext(Context(prec=60, rounding=ROUND_CEILING)):
        return int((amount_usd * NANO).to_integral_value())


def usd(nano: int) -> Decimal:
    """An amount of nano-USD as Decimal USD, exact."""
    return Decimal(f"{nano}e-9")


def format_usd(nano: int, *, down: bool = False) -> str:
    """An amount for people: two decimals from a dollar up, else as many as the amount needs (at most nine).

    Cents of whole dollars are rounded up, so that no cost is shown too low; `down` is for what is left.
    """
    sign = "-" if nano < 0 else ""
    whole, rest = divmod(abs(nano), NANO)
    digits = f"{rest:09d}".rstrip("0")
    if whole and len(digits) > 2:
        cents = abs(nano) // 10_000_000 if down else -(-abs(nano) // 10_000_000)
        return f"{sign}${cents // 100:,}.{cents % 100:02d}"
    return f"{sign}${whole:,}.{digits:0<2}"
