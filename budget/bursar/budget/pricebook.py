"""The built-in price book: dated prices and sizes of the models that litellm's bundled map knows.

`python -m bursar.budget.pricebook --taken 2026-11-20` makes it anew from the installed litellm.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Context, Decimal
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from bursar.budget.prices import LongContext, Price

__all__ = ["ModelFacts", "PriceBook", "book_from_litellm_map"]

_MODES = ("chat", "completion", "responses")

_BILLS_PER_SEARCH = re.compile(r"deep-research|/sonar|-search(-preview|-api|$)")
"""Models that always search and bill every search: their tokens are not the whole price, so they have none here."""

_ABOVE = re.compile(r"_above_(\d+)k_tokens$")

_KEYS = {
    "input": "input_cost_per_token",
    "output": "output_cost_per_token",
    "cache_read": "cache_read_input_token_cost",
    "cache_write": "cache_creation_input_token_cost",
    "reasoning": "output_cost_per_reasoning_token",
}

_FLOAT_DIGITS = Context(prec=15)
"""A double keeps 15 digits of a decimal; what lies below is noise of the arithmetic that made it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What the book says about a model."""

    price: Price
    context_window: int | None
    """The largest input in tokens; None where the map does not say."""

    max_output_tokens: int | None
    """The largest output in tokens; None where the map does not say."""


class PriceBook:
    """Prices by provider and model, all taken on one day."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        """`document` is what `book_from_litellm_map` returns."""
        self.taken = date.fromisoformat(document["taken"])
        self.source: str = document["source"]
        self._models: Mapping[str, Mapping[str, Any]] = document["models"]

    @classmethod
    @cache
    def builtin(cls) -> PriceBook:
        """The book that Bursar carries."""
        return cls(json.loads((resources.files("bursar.budget") / "data" / "prices.json").read_bytes()))

    def lookup(self, provider: str, model: str, on: date | None = None) -> ModelFacts | None:
        """The facts of exactly this model at exactly this provider; None where the book has none.

        With `on`, None also for a day before the prices were taken: the book does not know what was charged then.
        """
        name = _name(provider, model)
        entry = self._models.get(name)
        if entry is None or (on is not None and on < self.taken):
            return None
        return self._facts(name, entry)

    def near(self, provider: str, model: str) -> list[str]:
        """Up to three names that look like this one, the likeliest first: for error messages, never for a price."""
        return difflib.get_close_matches(_name(provider, model), self._models, n=3)

    def entries(self, containing: str = "") -> Iterator[tuple[str, ModelFacts]]:
        """Every model whose `provider/model` contains a text (case does not matter), in order of name."""
        wanted = containing.lower()
        return ((name, self._facts(name, entry)) for name, entry in self._models.items() if wanted in name.lower())

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    def _facts(self, name: str, entry: Mapping[str, Any]) -> ModelFacts:
        long = entry.get("long_context")
        price = Price(
            id=f"book:{name}@{self.taken}",
            source=self.source,
            effective=self.taken,
            long_context=long and LongContext(above_input_tokens=long["above_input_tokens"], **_rates(long)),
            **_rates(entry),
        )
        return ModelFacts(
            price=price,
            context_window=entry.get("context_window"),
            max_output_tokens=entry.get("max_output_tokens"),
        )


def book_from_litellm_map(raw: Mapping[str, Mapping[str, Any]], *, taken: date, source: str) -> dict[str, Any]:
    """A book, as a JSON document, of every model whose price per token is known, exact and the whole price.

    Left out are models without a price for input and for output above zero (the map lists 0 where it does not know;
    free is only what is declared free), with prices in more steps of input length than two, or billed per search too.
    """
    models: dict[str, dict[str, Any]] = {}
    for key, entry in raw.items():
        if entry.get("mode") not in _MODES or _BILLS_PER_SEARCH.search(key):
            continue
        name = _name(entry["litellm_provider"], key)
        row = _row(entry)
        if row is not None and (name == key or name not in models):  # `provider/model` goes before a bare `model`
            models[name] = row
    return {"taken": taken.isoformat(), "source": source, "models": dict(sorted(models.items()))}


def _name(provider: str, model: str) -> str:
    family = _family(provider)
    return model if model.startswith(f"{family}/") else f"{family}/{model}"


def _family(provider: str) -> str:
    """The name by which a provider is called; the map splits two of them into sub-providers."""
    if provider.startswith("vertex_ai"):
        return "vertex_ai"
    return "bedrock" if provider == "bedrock_converse" else provider


def _row(entry: Mapping[str, Any]) -> dict[str, Any] | None:
    steps = {found[1] for key, price in entry.items() if price is not None and (found := _ABOVE.search(key))}
    row: dict[str, Any] | None = _prices(entry)
    if row is None or len(steps) > 1 or entry.get("tiered_pricing"):
        return None
    for thousands in steps:
        long = _prices(entry, f"_above_{thousands}k_tokens")
        if long is None:
            return None
        inclusive = entry["litellm_provider"] == "xai"  # bills the long price from the threshold on, not above it
        row["long_context"] = {"above_input_tokens": int(thousands) * 1000 - inclusive, **long}
    for name, key in (("context_window", "max_input_tokens"), ("max_output_tokens", "max_output_tokens")):
        if entry.get(key):
            row[name] = entry[key]
    return row


def _prices(entry: Mapping[str, Any], suffix: str = "") -> dict[str, Any] | None:
    """The prices of one step, without those that only repeat a plain price; None without both plain prices."""
    prices = {name: _usd_per_mtok(entry.get(key + suffix)) for name, key in _KEYS.items()}
    if not prices["input"] or not prices["output"]:
        return None
    # A write below the input price is another price misfiled, or a 0 that means "no surcharge": the plain price holds.
    prices["cache_write"] = max(prices["cache_write"], prices["input"])
    plain = {"cache_read": prices["input"], "cache_write": prices["input"], "reasoning": prices["output"]}
    return {name: format(price, "f") for name, price in prices.items() if price and price != plain.get(name)}


def _usd_per_mtok(usd_per_token: float | None) -> Decimal:
    return _FLOAT_DIGITS.create_decimal(repr(usd_per_token or 0)).scaleb(6).normalize()


def _rates(row: Mapping[str, Any]) -> dict[str, Decimal]:
    return {f"{name}_usd_per_mtok": Decimal(row[name]) for name in _KEYS if name in row}


def _from_installed_litellm(taken: date) -> str:
    """The text of the book made from the litellm at hand, which is found but not imported."""
    from importlib.metadata import distribution  # slow to import, and only whoever maintains the book needs it

    litellm = distribution("litellm")
    file = Path(str(litellm.locate_file("litellm/model_prices_and_context_window_backup.json")))
    source = f"litellm {litellm.version} {file.name}"
    return _dump(book_from_litellm_map(json.loads(file.read_bytes()), taken=taken, source=source))


def _dump(document: Mapping[str, Any]) -> str:
    """JSON with a line for each model, so that what a new book changes can be read."""
    head = json.dumps({**document, "models": {}}, separators=(",", ":"))
    lines = (f"{json.dumps(name)}:{json.dumps(row, separators=(',', ':'))}" for name, row in document["models"].items())
    return head.removesuffix("}}") + "\n" + ",\n".join(lines) + "\n}}\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the shipped price book anew, or check that the installed litellm would not change it."""
    import argparse  # only whoever maintains the book needs it

    parser = argparse.ArgumentParser(prog="python -m bursar.budget.pricebook", description=main.__doc__)
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--taken", type=date.fromisoformat, help="the day the prices are of, as 2026-11-20")
    task.add_argument("--check", action="store_true", help="write nothing; exit 1 if the book would change")
    chosen = parser.parse_args(arguments)
    shipped = Path(__file__).parent / "data" / "prices.json"
    if chosen.taken:
        shipped.write_text(_from_installed_litellm(chosen.taken), encoding="utf-8")
    elif shipped.read_text("utf-8") != _from_installed_litellm(PriceBook.builtin().taken):
        raise SystemExit(f"{shipped}: differs from what the installed litellm gives -> make prices")


if __name__ == "__main__":
    main()
