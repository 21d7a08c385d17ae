"""The built-in price book: dated prices and sizes of the models that litellm's bundled map knows.

`python -m bursar.budget.pricing.book --taken 2026-11-20` makes it anew from the installed litellm.
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

from bursar.budget.pricing.prices import PRICED_AS, PRICED_TIERS, LongContext, Price, Schedule
from bursar.budget.usage import ServiceTier

__all__ = ["ModelFacts", "PriceBook", "book_from_litellm_map"]

_MODES = ("chat", "completion", "responses")
_READING_MODES = ("embedding", "rerank")
"""Models that write nothing: their output costs nothing, which is no gap in the map."""

_BILLS_PER_SEARCH = re.compile(r"deep-research|/sonar|-search(-preview|-api|$)")
"""Models that always search and bill every search: their tokens are not the whole price, so they have none here."""

_ABOVE = re.compile(r"^input_cost_per_token(_above_(\d+)k_tokens)$")

_KEYS: Mapping[str, str] = {
    "input": "input_cost_per_token",
    "cache_read": "cache_read_input_token_cost",
    "cache_write": "cache_creation_input_token_cost",
    "cache_write_1h": "cache_creation_input_token_cost_above_1hr",
    "input_image": "input_cost_per_image_token",
    "input_audio": "input_cost_per_audio_token",
    "cache_read_audio": "cache_read_input_audio_token_cost",
    "output": "output_cost_per_token",
    "reasoning": "output_cost_per_reasoning_token",
    "output_image": "output_cost_per_image_token",
    "output_audio": "output_cost_per_audio_token",
}

_TIER_KEYS: Mapping[ServiceTier, str] = {"batch": "_batches", "flex": "_flex", "priority": "_priority"}

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
        self._known: dict[str, ModelFacts] = {}

    @classmethod
    @cache
    def builtin(cls) -> PriceBook:
        """The book that Bursar carries."""
        return cls(json.loads((resources.files("bursar.budget.pricing") / "data" / "prices.json").read_bytes()))

    @staticmethod
    def name_of(provider: str, model: str) -> str:
        """The `provider/model` under which a model is listed."""
        return _name(provider, model)

    def lookup(self, provider: str, model: str, on: date | None = None) -> ModelFacts | None:
        """The facts of exactly this model at exactly this provider; None where the book has none.

        With `on`, None also for a day before the prices were taken: the book does not know what was charged then.
        """
        name = _name(provider, model)
        entry = self._models.get(name)
        if entry is None or (on is not None and on < self.taken):
            return None
        if name not in self._known:
            self._known[name] = self._facts(name, entry)
        return self._known[name]

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
        price = Price(
            id=f"book:{name}@{self.taken}",
            source=self.source,
            effective=self.taken,
            request_usd=Decimal(entry.get("request", 0)),
            **_schedule(entry),
            **_tiers(entry),
        )
        return ModelFacts(
            price=price,
            context_window=entry.get("context_window"),
            max_output_tokens=entry.get("max_output_tokens"),
        )


def book_from_litellm_map(raw: Mapping[str, Mapping[str, Any]], *, taken: date, source: str) -> dict[str, Any]:
    """A book, as a JSON document, of every model whose price is known, exact and the whole price.

    An embedding or rerank model has a price for what it reads, or a fee for each search. Left out are other models
    without a price for input and for output above zero (the map lists 0 where it does not know; free is only what is
    declared free), in each of its steps of input length, or billed per search too.
    """
    models: dict[str, dict[str, Any]] = {}
    for key, entry in raw.items():
        row = _row_of(key, entry)
        name = _name(entry.get("litellm_provider", ""), key)
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


def _row_of(key: str, entry: Mapping[str, Any]) -> dict[str, Any] | None:
    if entry.get("mode") in _READING_MODES:
        return _reading_row(entry)
    return _row(entry) if entry.get("mode") in _MODES and not _BILLS_PER_SEARCH.search(key) else None


def _reading_row(entry: Mapping[str, Any]) -> dict[str, Any] | None:
    """The price of an embedding by its tokens, or of rerank by its searches; None for one by its characters."""
    read, search = entry.get("input_cost_per_token"), entry.get("input_cost_per_query")
    searched = entry["mode"] == "rerank" and search
    if not (read or searched) or entry.get("input_cost_per_character") or _steps(entry):
        return None
    row = {"input": format(_usd_per_mtok(read), "f"), "output": "0"}
    if searched:
        row["request"] = format(_exact(searched), "f")
    return {**row, "context_window": entry["max_input_tokens"]} if entry.get("max_input_tokens") else row


def _row(entry: Mapping[str, Any]) -> dict[str, Any] | None:
    standard = _prices(entry, "") if not entry.get("tiered_pricing") else _by_ranges(entry["tiered_pricing"])
    if standard is None:
        return None
    row = dict(standard)
    for tier, suffix in _TIER_KEYS.items():
        prices = _prices(entry, suffix)
        if prices is not None and prices != standard and entry.get(_KEYS["input"] + suffix):
            row[tier] = prices
    if fee := entry.get("input_cost_per_request"):
        row["request"] = format(_exact(fee), "f")
    for name, key in (("context_window", "max_input_tokens"), ("max_output_tokens", "max_output_tokens")):
        if entry.get(key):
            row[name] = entry[key]
    return row


def _prices(entry: Mapping[str, Any], tier: str) -> dict[str, Any] | None:
    """The prices of one service tier, with its steps; None where any of them lacks a price for input or output."""
    plain = _step({part: _cost(entry, part, "", tier) for part in _KEYS})
    if plain is None:
        return None
    inclusive = entry["litellm_provider"] == "xai"  # bills the long price from the threshold on, not above it
    long = []
    for above, thousands in sorted(_steps(entry), key=lambda found: int(found[1])):
        step = _step({part: _cost(entry, part, above, tier) for part in _KEYS})
        if step is None:
            return None
        long.append({"above_input_tokens": int(thousands) * 1000 - inclusive, **step})
    return {**plain, "long_context": long} if long else plain


def _steps(entry: Mapping[str, Any]) -> set[tuple[str, str]]:
    return {(found[1], found[2]) for key, cost in entry.items() if cost is not None and (found := _ABOVE.search(key))}


def _cost(entry: Mapping[str, Any], part: str, above: str, tier: str) -> float | None:
    """USD per token of one part, in one step of one tier; where the map has none, one that is not too low.

    A discounted tier is never dearer than the standard one; at a premium, no discount is known to hold.
    """
    own: float | None = entry.get(_KEYS[part] + above + tier)
    if own or not tier:
        return own
    standard: float | None = entry.get(_KEYS[part] + above)
    instead = PRICED_AS.get(part, part)
    if instead != part and standard == entry.get(_KEYS[instead] + above):
        return None  # it repeats the plain price, and so it does here
    if tier != _TIER_KEYS["priority"]:
        return standard
    plain = entry.get(_KEYS[instead] + above + tier) or entry.get(_KEYS[instead] + tier)
    return max(standard or 0, plain or 0)


def _by_ranges(ranges: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The prices of an entry that lists whole steps, each with the range of input that it is for."""
    steps = [
        (int(listed["range"][0]), _step({part: listed.get(key) for part, key in _KEYS.items()})) for listed in ranges
    ]
    (begin, plain), *long = sorted(steps, key=lambda step: step[0])
    if begin or plain is None or any(step is None for _, step in long):
        return None
    return {**plain, "long_context": [{"above_input_tokens": above, **(step or {})} for above, step in long]}


def _step(costs: Mapping[str, float | None]) -> dict[str, Any] | None:
    """The prices of one step, without those that only repeat a plain price; None without both plain prices."""
    prices = {part: _usd_per_mtok(cost) for part, cost in costs.items()}
    if not prices["input"] or not prices["output"]:
        return None
    # A write below the input price is another price misfiled, or a 0 that means "no surcharge": the plain price holds.
    prices["cache_write"] = max(prices["cache_write"], prices["input"])
    prices["cache_write_1h"] = max(prices["cache_write_1h"], prices["cache_write"])
    plain = {part: prices[instead] for part, instead in PRICED_AS.items()}
    return {part: format(price, "f") for part, price in prices.items() if price and price != plain.get(part)}


def _usd_per_mtok(usd_per_token: float | None) -> Decimal:
    return _exact(usd_per_token or 0).scaleb(6).normalize()


def _exact(amount: float) -> Decimal:
    return _FLOAT_DIGITS.create_decimal(repr(amount)).normalize()


def _schedule(row: Mapping[str, Any]) -> dict[str, Any]:
    steps = row.get("long_context", ())
    long = tuple(LongContext(above_input_tokens=step["above_input_tokens"], **_rates(step)) for step in steps)
    return {**_rates(row), "long_context": long}


def _tiers(row: Mapping[str, Any]) -> dict[str, Any]:
    return {tier: Schedule(**_schedule(row[tier])) for tier in PRICED_TIERS if tier in row}


def _rates(row: Mapping[str, Any]) -> dict[str, Decimal]:
    return {f"{part}_usd_per_mtok": Decimal(row[part]) for part in _KEYS if part in row}


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

    parser = argparse.ArgumentParser(prog="python -m bursar.budget.pricing.book", description=main.__doc__)
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
