"""Reads the prices of models that others keep as JSON: litellm's map and OpenRouter's list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bursar.budget.pricing.book import ModelFacts, PriceBook, book_from_litellm_map
from bursar.budget.pricing.prices import Price
from bursar.budget.pricing.reader import PLAIN_PRICES, PriceFile, PriceReader
from bursar.budget.usage import TOKENS_MAX

__all__ = ["LiteLLMMap", "OpenRouterModels"]

_OPENROUTER = {
    "prompt": "input_usd_per_mtok",
    "completion": "output_usd_per_mtok",
    "input_cache_read": "cache_read_usd_per_mtok",
    "input_cache_write": "cache_write_usd_per_mtok",
    "internal_reasoning": "reasoning_usd_per_mtok",
    "audio": "input_audio_usd_per_mtok",
    "input_audio_cache": "cache_read_audio_usd_per_mtok",
}
"""OpenRouter's names of prices in USD per token; `request` is USD per call, and what it bills per image is not here."""


class LiteLLMMap(PriceReader):
    """litellm's `model_prices_and_context_window.json`."""

    def read(self, document: Mapping[str, Any]) -> PriceFile:
        """The prices of the map, as the built-in book takes them from it."""
        for model, entry in document.items():
            if not isinstance(entry, Mapping):
                self.wrong(f" {model}", entry, "a mapping")
            elif entry.get("mode") in ("chat", "completion", "responses", "embedding", "rerank"):
                self._check(model, entry)
        if self.problems:
            return self.done("litellm map", {}, 0)
        priced = {model: entry for model, entry in document.items() if isinstance(entry.get("litellm_provider"), str)}
        source = f"litellm map {self.path.name}"
        book = PriceBook(book_from_litellm_map(priced, taken=self.effective, source=source))
        return self.done("litellm map", dict(book.entries()), len(document) - len(book))

    def _check(self, model: str, entry: Mapping[str, Any]) -> None:
        for key in ("max_input_tokens", "max_output_tokens"):
            if entry.get(key) is not None:
                self.count(f" {model}.{key}", entry[key])
        self._check_costs(model, entry)
        ranges = entry.get("tiered_pricing") or []
        for place, step in enumerate(ranges if isinstance(ranges, list) else [ranges]):
            where = f"{model}.tiered_pricing[{place}]"
            edges = step.get("range") if isinstance(step, Mapping) else None
            if isinstance(edges, list) and len(edges) == 2 and all(map(_is_edge, edges)):
                self._check_costs(where, step)
            else:
                self.wrong(f" {where}", step, "prices with a range of two numbers")

    def _check_costs(self, where: str, costs: Mapping[str, Any]) -> None:
        for key, value in costs.items():
            if "cost" in key and isinstance(value, (int, float, str)) and not _is_cost(value):
                self.wrong(f" {where}.{key}", value, "an amount of USD, from 0")


class OpenRouterModels(PriceReader):
    """The answer of OpenRouter's `/api/v1/models`, saved as JSON."""

    def read(self, listed: Sequence[Any]) -> PriceFile:
        """The prices of the list; a zero for a kind of token means that it has no price of its own."""
        prices, left_out = {}, 0
        for place, entry in enumerate(listed):
            where = f" data[{place}]"
            if not isinstance(entry, Mapping) or not isinstance(entry.get("id"), str):
                self.wrong(where, entry, "a model with an id")
            elif not isinstance(entry.get("pricing"), Mapping):
                self.wrong(f"{where}.pricing", entry.get("pricing"), "a mapping of prices")
            elif str(entry["pricing"].get("prompt", "")).startswith("-"):
                left_out += 1  # -1 is how a router says that the price is that of the model it chooses
            elif (facts := self._facts(where, entry)) is not None:
                prices[PriceBook.name_of("openrouter", entry["id"])] = facts
        return self.done("OpenRouter models", prices, left_out)

    def _facts(self, where: str, entry: Mapping[str, Any]) -> ModelFacts | None:
        pricing = entry["pricing"]
        rates = {}
        for key, name in _OPENROUTER.items():
            if key in pricing:
                rates[name] = self.amount(f"{where}.pricing.{key}", pricing[key], per_token=True)
        fee = self.amount(f"{where}.pricing.request", pricing.get("request", "0"))
        for key in ("prompt", "completion"):
            if key not in pricing:
                self.wrong(f"{where}.pricing.{key}", None, "an amount of USD, 0 or more per token")
        if fee is None or None in rates.values() or not rates.keys() >= set(PLAIN_PRICES):
            return None
        own: dict[str, Any] = {name: rate for name, rate in rates.items() if rate or name in PLAIN_PRICES}
        price = Price(
            id=entry["id"], source=f"OpenRouter {self.path.name}", effective=self.effective, request_usd=fee, **own
        )
        provider = entry.get("top_provider")
        cap = provider.get("max_completion_tokens") if isinstance(provider, Mapping) else None
        window = self._size(f"{where}.context_length", entry.get("context_length"))
        cap = self._size(f"{where}.top_provider.max_completion_tokens", cap)
        return ModelFacts(price=price, context_window=window, max_output_tokens=cap)

    def _size(self, where: str, value: object) -> int | None:
        return self.count(where, value) or None if value is not None else None


def _is_edge(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value <= TOKENS_MAX  # type: ignore[operator]  # a number by its type


def _is_cost(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value < 1_000  # type: ignore[operator]  # a number by its type
