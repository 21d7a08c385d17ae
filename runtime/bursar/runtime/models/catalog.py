"""The configured models and tiers: each model with its provider, price, window and bounds."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date

from bursar.budget.errors import PriceMissingError, UsageError
from bursar.budget.pricebook import PriceBook
from bursar.budget.prices import Price
from bursar.runtime.config import Config, ModelConfig, ModelPrice
from bursar.runtime.models.litellm_sdk import LiteLLMProvider
from bursar.runtime.models.openai_sdk import OpenAIProvider
from bursar.runtime.models.provider import Provider
from bursar.runtime.models.scenario import load_scenario
from bursar.runtime.models.sim import SimProvider
from bursar.runtime.models.wire import OutputBound

__all__ = ["OUTPUT_CAP", "Catalog", "Model"]

OUTPUT_CAP = 16_384
"""The bound on the output of a model of which neither the configuration nor the price book says one."""

_OPENAI_COMPATIBLE = ("openai", "vllm", "openai_compatible")


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model as the runtime calls it."""

    name: str
    """Its name in bursar.yaml."""

    provider: Provider
    provider_name: str
    provider_model: str
    price: Price | None
    context_window: int | None
    max_output_tokens: int
    timeout_s: float
    retries: int


class Catalog:
    """Every model and tier of a configuration. A model's key is read when the model is first asked for."""

    def __init__(self, config: Config, *, env: Mapping[str, str] = os.environ) -> None:
        self._config = config
        self._env = env
        self._models: dict[str, Model] = {}
        self._prices: dict[str, Price | None] = {}

    @property
    def tiers(self) -> Mapping[str, Iterable[str]]:
        """The names of the models of each tier."""
        return self._config.tiers

    def tier(self, name: str) -> tuple[Model, ...]:
        """The models of a tier, in order; raises UsageError for an unknown tier, ConfigError for a missing key."""
        if name not in self._config.tiers:
            near = difflib.get_close_matches(name, self._config.tiers, 3) or sorted(self._config.tiers)
            raise UsageError(f"there is no tier {name!r}", next_step=f"use one of {', '.join(near)}")
        return tuple(self.model(model) for model in self._config.tiers[name])

    def model(self, name: str) -> Model:
        """A model by its name in bursar.yaml."""
        if name not in self._models:
            self._models[name] = self._build(name, self._config.models[name])
        return self._models[name]

    def price(self, name: str) -> Price | None:
        """What a model costs; None where nobody says. Needs no key."""
        if name not in self._prices:
            self._prices[name] = self._facts(name, self._config.models[name])[0]
        return self._prices[name]

    def require_prices(self, tier: str, why: str) -> None:
        """Raise PriceMissingError where a model of the tier has no price, since `why` limits money."""
        for name in self._config.tiers.get(tier, ()):
            if self.price(name) is None:
                model = self._config.models[name]
                near = PriceBook.builtin().near(model.provider, model.model or "")
                hint = f"; the book has {', '.join(near)}" if near else ""
                where = self._config.error("models", name, text=f"model {name} has no price, and {why}{hint}")
                raise PriceMissingError(
                    str(where),
                    next_step='price: {input_usd_per_mtok: "...", output_usd_per_mtok: "..."}, or price: free',
                )

    def warm_up(self) -> None:
        """Begin slow imports in the background, where a configured model needs them."""
        providers = {model.provider for model in self._config.models.values()} - {"sim"}
        if others := sorted(providers.difference(_OPENAI_COMPATIBLE)):
            LiteLLMProvider(others[0]).warm_up()  # imports openai too
        elif providers:
            OpenAIProvider().warm_up()

    async def aclose(self) -> None:
        """Close what the providers hold open."""
        for model in self._models.values():
            await model.provider.aclose()

    def _build(self, name: str, section: ModelConfig) -> Model:
        price, window, cap = self._facts(name, section)
        return Model(
            name=name,
            provider=self._provider(name, section),
            provider_name=section.provider,
            provider_model=section.model or section.scenario or name,
            price=price,
            context_window=section.context_window or window,
            max_output_tokens=section.max_output_tokens or cap or OUTPUT_CAP,
            timeout_s=section.timeout_s,
            retries=section.retries,
        )

    def _provider(self, name: str, section: ModelConfig) -> Provider:
        if section.provider == "sim":
            return SimProvider(load_scenario(section.scenario or "", base=self._config.base), seed=section.seed)
        key = self._config.secret(name, self._env)
        if section.provider in _OPENAI_COMPATIBLE:
            bound: OutputBound = "max_completion_tokens" if section.provider == "openai" else "max_tokens"
            return OpenAIProvider(key, section.api_base, output_bound=bound)
        return LiteLLMProvider(section.provider, key, section.api_base)

    def _facts(self, name: str, section: ModelConfig) -> tuple[Price | None, int | None, int | None]:
        """Price, context window and output cap: the section's own price first, else the book's."""
        book = PriceBook.builtin().lookup(section.provider, section.model or "") if section.provider != "sim" else None
        price = book.price if book else None
        if section.price is not None:
            price = _declared(name, section.price)
        return (price, book.context_window, book.max_output_tokens) if book else (price, None, None)


def _declared(name: str, section: ModelPrice | str) -> Price:
    # Undated: the id names the content, so that a changed price is another row and old postings keep theirs.
    if isinstance(section, str):
        return Price.free(id=f"config:{name}@free", source="bursar.yaml", effective=date.min)
    rates = section.model_dump(exclude_none=True)
    digest = hashlib.sha256(json.dumps(rates, default=str, sort_keys=True).encode()).hexdigest()[:8]
    return Price(id=f"config:{name}@{digest}", source="bursar.yaml", effective=date.min, **rates)
