"""What reading any file of prices has in common: exact amounts, and every problem of the file at once."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path

from bursar.budget.errors import ConfigError
from bursar.budget.pricing.book import ModelFacts
from bursar.budget.usage import TOKENS_MAX

__all__ = ["PLAIN_PRICES", "PriceFile", "PriceReader"]

PLAIN_PRICES = ("input_usd_per_mtok", "output_usd_per_mtok")
"""The prices without which there is none."""

PROBLEMS_SHOWN_MAX = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceFile:
    """What a file says."""

    kind: str
    """What the file was taken for: `litellm map`, `OpenRouter models` or `table`."""

    prices: Mapping[str, ModelFacts]
    """By `provider/model`; their ids are those of the file, and are changed when they are listed."""

    left_out: int
    """How many models the file names without a whole price."""


@dataclass(slots=True)
class PriceReader:
    """What the readers of every kind of file share: what is wrong with it, and the day from which it holds."""

    path: Path
    effective: date
    problems: list[str] = field(default_factory=list)

    def wrong(self, where: str, value: object, expected: str) -> None:
        """Note a bad value; `where` is what follows the file's name, as in `12: model`."""
        self.problems.append(f"{self.path}:{where} = {reprlib.repr(value)}: expected {expected}")

    def done(self, kind: str, prices: Mapping[str, ModelFacts], left_out: int) -> PriceFile:
        """What was read; raises ConfigError where anything is wrong, or where there is nothing."""
        if not self.problems and not prices:
            self.problems.append(f"{self.path}: there is no price in it")
        if self.problems:
            shown = self.problems[:PROBLEMS_SHOWN_MAX]
            if len(self.problems) > len(shown):
                shown.append(f"... and {len(self.problems) - len(shown)} more")
            raise ConfigError("\n".join(shown), next_step="nothing was imported; mend the file")
        return PriceFile(kind=kind, prices=prices, left_out=left_out)

    def amount(self, where: str, value: object, *, per_token: bool = False) -> Decimal | None:
        """An exact amount of USD, or of USD per million tokens where it is published per token."""
        try:
            amount = Decimal(str(value)) if isinstance(value, (str, int, Decimal)) else None
        except InvalidOperation:
            amount = None
        if amount is not None and amount.is_finite() and not isinstance(value, bool):
            amount = amount.scaleb(6).normalize() if per_token else amount
            if 0 <= amount <= 1_000_000 and amount == round(amount, 9):
                return amount
        self.wrong(where, value, "an amount of USD, 0 or more" + (" per token" if per_token else ", of 9 decimals"))
        return None

    def count(self, where: str, value: object) -> int | None:
        """A number of tokens."""
        text = str(value)
        if not isinstance(value, float) and text.isascii() and text.isdigit() and int(text[:20]) <= TOKENS_MAX:
            return int(text)
        self.wrong(where, value, "a whole number of tokens")
        return None

    def day(self, where: str, value: str) -> date:
        """A day, as 2026-11-20."""
        try:
            return date.fromisoformat(value)
        except ValueError:
            self.wrong(where, value, "a day such as 2026-11-20")
            return self.effective
