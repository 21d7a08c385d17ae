"""Reads prices from a table of one's own: a CSV with a line for each model, service tier and step of input length."""

from __future__ import annotations

import csv
import io
import reprlib
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from bursar.budget.pricing.book import ModelFacts, PriceBook
from bursar.budget.pricing.prices import PRICE_FIELDS, PRICED_TIERS, LongContext, Price, Schedule
from bursar.budget.pricing.reader import PLAIN_PRICES, PriceFile, PriceReader

__all__ = ["CSV_COLUMNS", "PriceTable"]

_SIZES = ("context_window", "max_output_tokens")
_OPTIONAL = ("effective", "service_tier", "above_input_tokens", *PRICE_FIELDS, "request_usd", *_SIZES)
CSV_COLUMNS = ("provider", "model", *_OPTIONAL)
"""The columns of a table; those from `effective` on, but for the plain prices, may be left out or empty."""

_NO_STEP = -1
"""The place of the plain prices among the steps of a tier."""


class PriceTable(PriceReader):
    """A CSV with a row for each model, and more for its service tiers and its steps of input length."""

    def read(self, text: str) -> PriceFile:
        """The prices of the table; one model has one day in it."""
        rows = csv.DictReader(io.StringIO(text), strict=True)
        self._check_header(rows)
        if self.problems:
            return self.done("table", {}, 0)
        models: dict[tuple[str, date], list[tuple[int, dict[str, str]]]] = {}
        try:
            for row in rows:
                self._sort_in(models, rows.line_num, row)
        except csv.Error as error:
            self.problems.append(f"{self.path}:{rows.line_num}: not a line of CSV ({error})")
        prices: dict[str, ModelFacts] = {}
        for (name, day), lines in models.items():
            if name in prices:
                self.wrong(f"{lines[0][0]}", day.isoformat(), f"one day for {name} in a file")
            elif (facts := self._facts(name, day, lines)) is not None:
                prices[name] = facts
        return self.done("table", prices, 0)

    def _check_header(self, rows: csv.DictReader[str]) -> None:
        try:
            columns = rows.fieldnames or ()
        except csv.Error as error:
            self.problems.append(f"{self.path}:1: not a line of CSV ({error})")
            return
        missing = [name for name in ("provider", "model", *PLAIN_PRICES) if name not in columns]
        unknown = [name for name in columns if name not in CSV_COLUMNS]
        for names, what in ((missing, "missing"), (unknown, "unknown")):
            if names:
                self.problems.append(f"{self.path}:1: {what} columns: {', '.join(map(reprlib.repr, names))}")
        if self.problems:
            self.problems[-1] += f"; expected {', '.join(CSV_COLUMNS)}"

    def _sort_in(self, models: dict[tuple[str, date], list[tuple[int, dict[str, str]]]], line: int, row: Any) -> None:
        if None in row or None in row.values():
            self.problems.append(f"{self.path}:{line}: expected as many values as there are columns")
            return
        values = {key: value.strip() for key, value in row.items() if value.strip()}
        for name in ("provider", "model"):
            if name not in values:
                self.wrong(f"{line}: {name}", "", "a name")
        if "provider" in values and "model" in values:
            day = self.day(f"{line}: effective", values["effective"]) if "effective" in values else self.effective
            name = PriceBook.name_of(values["provider"], values["model"])
            models.setdefault((name, day), []).append((line, values))

    def _facts(self, name: str, day: date, lines: Sequence[tuple[int, dict[str, str]]]) -> ModelFacts | None:
        line, first = lines[0]
        tiers = self._tiers(name, lines)
        fee = self.amount(f"{line}: request_usd", first.get("request_usd", "0"))
        sizes = {key: self.count(f"{line}: {key}", first[key]) for key in _SIZES if key in first}
        for tier in ("standard", *tiers):
            if _NO_STEP not in tiers.get(tier, {}):
                self.problems.append(f"{self.path}:{line}: {name} has no line of plain prices for {tier}")
        if self.problems or fee is None:
            return None
        own: dict[str, Any] = {tier: Schedule(**_scheduled(steps)) for tier, steps in tiers.items()}
        standard = _scheduled(tiers["standard"])
        del own["standard"]
        source = f"table {self.path.name}"
        price = Price(id=name, source=source, effective=day, request_usd=fee, **standard, **own)
        window, cap = (sizes.get(key) for key in _SIZES)
        return ModelFacts(price=price, context_window=window, max_output_tokens=cap)

    def _tiers(self, name: str, lines: Sequence[tuple[int, dict[str, str]]]) -> dict[str, dict[int, dict[str, Any]]]:
        """The prices of each line, by its service tier and the input above which they hold."""
        tiers: dict[str, dict[int, dict[str, Any]]] = {}
        for line, values in lines:
            tier, above = values.get("service_tier", "standard"), self._above(line, values)
            steps = tiers.setdefault(tier, {})
            if tier not in ("standard", *PRICED_TIERS):
                self.wrong(f"{line}: service_tier", tier, f"standard, {', '.join(PRICED_TIERS)} or nothing")
            if above in steps:
                self.problems.append(f"{self.path}:{line}: {name} has this tier and step already")
            steps[above] = self._rates(line, values)
        return tiers

    def _above(self, line: int, values: Mapping[str, str]) -> int:
        if "above_input_tokens" not in values:
            return _NO_STEP
        return self.count(f"{line}: above_input_tokens", values["above_input_tokens"]) or 0

    def _rates(self, line: int, values: Mapping[str, str]) -> dict[str, Any]:
        for name in PLAIN_PRICES:
            if name not in values:
                self.wrong(f"{line}: {name}", "", "an amount of USD, 0 or more, of 9 decimals")
        return {name: self.amount(f"{line}: {name}", values[name]) for name in PRICE_FIELDS if name in values}


def _scheduled(steps: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    long = (LongContext(above_input_tokens=above, **rates) for above, rates in steps.items() if above != _NO_STEP)
    return {**steps[_NO_STEP], "long_context": tuple(long)}
