"""What the tokens of a model of one's own cost: the price of its GPUs' time, spread over tokens that were measured."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING

from bursar.budget.pricing.prices import Price

if TYPE_CHECKING:
    from bursar.budget.pricing.measured import Measured

__all__ = ["OUTPUT_WEIGHT", "GpuTime"]

OUTPUT_WEIGHT = Decimal(4)
"""How many input tokens an output token is worth, where nobody says: about what providers charge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuTime:
    """Some GPUs that serve one model, and what an hour of each costs in USD.

    Raises ValueError for a negative price or less than one GPU.
    """

    usd_per_hour: Decimal
    gpus: int = 1

    def __post_init__(self) -> None:
        if not self.usd_per_hour.is_finite() or self.usd_per_hour < 0:
            raise ValueError(f"usd_per_hour must be an amount of USD, 0 or more: {self.usd_per_hour}")
        if self.gpus < 1:
            raise ValueError(f"gpus must be 1 or more: {self.gpus}")

    def at_throughput(
        self, input_tokens_per_second: Decimal, output_tokens_per_second: Decimal, *, id: str, effective: date
    ) -> Price:
        """The price of tokens where busy GPUs read and write so many in a second; idle time is in no token's price."""
        for rate in (input_tokens_per_second, output_tokens_per_second):
            if not rate.is_finite() or rate <= 0:
                raise ValueError(f"a throughput must be more than 0 tokens per second: {rate}")
        source = f"{self}, {input_tokens_per_second} input and {output_tokens_per_second} output tokens per second"
        each = Fraction(1) / Fraction(input_tokens_per_second), Fraction(1) / Fraction(output_tokens_per_second)
        return self._row(*each, id=id, source=source, effective=effective)

    def spread_over(
        self,
        measured: Measured,
        *,
        id: str,
        effective: date,
        output_weight: Decimal = OUTPUT_WEIGHT,
        busy_only: bool = False,
    ) -> Price:
        """The price at which the measured tokens come to the price of the time that they were measured in.

        That time is the whole span: GPUs cost the same while nobody asks them anything. With `busy_only` it is only
        the seconds in which a call was in flight, and the idle ones are in nobody's bill. `output_weight` is how many
        input tokens an output token is worth. Raises ValueError where no token was measured.
        """
        seconds = measured.busy_s if busy_only else measured.span_s
        if not output_weight.is_finite() or output_weight <= 0:
            raise ValueError(f"output_weight must be more than 0: {output_weight}")
        weighted = measured.input_tokens + measured.output_tokens * output_weight
        if not weighted or seconds <= 0:
            raise ValueError("no token was measured in this time")
        source = (
            f"{self}, {seconds / 3600:.2f} h {'busy' if busy_only else 'busy or idle'} until {measured.until:%F}, "
            f"{measured.input_tokens} input and {measured.output_tokens} output tokens of {output_weight} times the "
            "price"
        )
        each = Fraction(seconds) / Fraction(weighted)
        return self._row(each, each * Fraction(output_weight), id=id, source=source, effective=effective)

    def __str__(self) -> str:
        return f"GPU time: {self.gpus} x ${self.usd_per_hour}/h"

    def _row(self, input_s: Fraction, output_s: Fraction, *, id: str, source: str, effective: date) -> Price:
        """`input_s` and `output_s` are seconds per token."""
        return Price(
            id=id,
            source=source,
            effective=effective,
            input_usd_per_mtok=self._usd_per_mtok(input_s),
            output_usd_per_mtok=self._usd_per_mtok(output_s),
        )

    def _usd_per_mtok(self, seconds: Fraction) -> Decimal:
        nano = Fraction(self.usd_per_hour) * self.gpus / 3600 * seconds * 10**15
        return Decimal(ceil(nano)).scaleb(-9).normalize()
