"""The configured models and tiers: each model with its provider, price, window and bounds."""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from bursar.budget.errors import PriceMissingError, UsageError
from bursar.budget.pricing.book import ModelFacts, PriceBook
from bursar.budget.pricing.prices import Bounds, Price
from bursar.runtime.config import Config, ModelConfig
from bursar.runtime.declared_prices import declared_price
from bursar.runtime.models.litellm_sdk import LiteLLMProvider
from bursar.runtime.models.openai_sdk import OpenAIProvider
from bursar.runtime.models.provider import Message, Provider
from bursar.runtime.models.scenario import load_scenario
from bursar.runtime.models.sim import SimProvider
from bursar.runtime.models.vllm import VLLMProvider
from bursar.runtime.models.wire import OutputBound
from bursar.runtime.routing.allow import is_local

if TYPE_CHECKING:
    from bursar.budget.pricing.pricelist import PriceList

__all__ = ["OUTPUT_CAP", "Catalog", "Model", "is_text"]

OUTPUT_CAP = 16_384
"""The bound on the output of a model of which neither the configuration nor the price book says one."""

_OPENAI_COMPATIBLE = ("openai", "vllm", "openai_compatible")

Kind = Literal["chat", "embedding", "rerank"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model as the runtime calls it."""

    name: str
    """Its name in bursar.yaml."""

    provider: Provider
    provider_name: str
    provider_model: str
    price: Price | None
    """Its worst case covers the service tier that the model is asked for, and any modality."""

    text_price: Price | None
    """The same row for calls that send only text."""

    context_window: int | None
    """None also for a model that is not of kind chat: what it reads at once is a text, not the whole call."""

    max_output_tokens: int
    timeout_s: float
    retries: int
    kind: Kind = "chat"
    local: bool = False
    """Whether it runs in the house."""

    aborted_stream: Literal["charge_reserved", "charge_streamed"] = "charge_reserved"
    """What a stream is charged that broke off: all that was reserved, or the most that what came can have come to."""

    slots: int | None = None
    """How many calls of one process it answers at once; None = no bound."""

    def price_for(self, messages: Iterable[Message]) -> Price | None:
        """The price of a call that sends these messages: text alone need not reserve what audio may cost."""
        return self.text_price if is_text(messages) else self.price


class Catalog:
    """Every model and tier of a configuration. A model's key is read when the model is first asked for.

    A model costs what its section says, else what is listed for today, else what the price book says.
    """

    def __init__(
        self, config: Config, *, env: Mapping[str, str] = os.environ, prices: PriceBook | PriceList | None = None
    ) -> None:
        """`prices` is the store's list; without one there is the built-in book alone."""
        self.config = self._config = config
        self._env = env
        self._listed = prices or PriceBook.builtin()
        self._models: dict[str, Model] = {}
        self._prices: dict[str, tuple[ModelFacts | None, Price | None]] = {}
        self._declared = {
            name: declared_price(name, section.price)
            for name, section in config.models.items()
            if section.price is not None
        }

    @property
    def tiers(self) -> Mapping[str, Iterable[str]]:
        """The names of the models of each tier."""
        return self._config.tiers

    def tier(self, name: str) -> tuple[Model, ...]:
        """The models of a tier, in order; raises UsageError for an unknown tier, ConfigError for a missing key."""
        self.require("tier", name)
        return tuple(self.model(model) for model in self._config.tiers[name])

    def require(self, kind: Literal["tier", "model"], *names: str) -> None:
        """Raise UsageError for a name that is no tier or model of bursar.yaml."""
        known: Mapping[str, Any] = self._config.tiers if kind == "tier" else self._config.models
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, 3) or sorted(known)
                raise UsageError(f"there is no {kind} {name!r}", next_step=f"use one of {', '.join(near)}")

    def model(self, name: str) -> Model:
        """A model by its name in bursar.yaml, at today's price."""
        known, price = self._models.get(name), self.price(name)
        if known is None:
            known = self._models[name] = self._build(name, self._config.models[name], price)
        elif known.price is not price:
            known = self._models[name] = replace(known, **_priced(price))
        return known

    def of_kind(self, name: str, kind: Kind) -> Model:
        """A model of a kind by its name in bursar.yaml; raises UsageError for any other."""
        known = [model for model, section in self._config.models.items() if section.kind == kind]
        if name not in known:
            near = difflib.get_close_matches(name, known, 3) or sorted(known)
            step = f"use one of {', '.join(near)}" if near else f"declare it in models: with kind: {kind}"
            raise UsageError(f"there is no {kind} model {name!r}", next_step=step)
        return self.model(name)

    def price(self, name: str) -> Price | None:
        """What a model costs today; None where nobody says. Needs no key."""
        facts = self._facts(name)
        known = self._prices.get(name)
        if known is None or known[0] is not facts:
            price = self._declared.get(name) or (facts.price if facts else None)
            bounds = Bounds(service_tiers=(self._config.models[name].service_tier,))
            known = self._prices[name] = (facts, price and price.bounded(bounds))
        return known[1]

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
                    next_step='price: {input_usd_per_mtok: "...", output_usd_per_mtok: "..."}, price: free, '
                    "or bursar price import FILE",
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

    def _build(self, name: str, section: ModelConfig, price: Price | None) -> Model:
        facts, chats = self._facts(name), section.kind == "chat"
        cap = section.max_output_tokens or (facts.max_output_tokens if facts else None)
        window = section.context_window or (facts.context_window if facts else None)
        return Model(
            name=name,
            provider=self._provider(name, section, price),
            provider_name=section.provider,
            provider_model=section.model or section.scenario or name,
            context_window=window if chats else None,
            max_output_tokens=(cap or OUTPUT_CAP) if chats else 0,
            timeout_s=section.timeout_s,
            retries=section.retries,
            kind=section.kind,
            local=is_local(section),
            aborted_stream=section.aborted_stream or _aborted_stream(section.provider),
            slots=section.slots,
            **_priced(price),
        )

    def _provider(self, name: str, section: ModelConfig, price: Price | None) -> Provider:
        if section.provider == "sim":
            return SimProvider(load_scenario(section.scenario or "", base=self._config.base), seed=section.seed)
        key = self._config.secret(name, self._env)
        if section.provider == "vllm":
            tenants = self._config.tenants.items()
            priorities = {name: one.priority for name, one in tenants if one.priority is not None}
            return VLLMProvider(key, section.api_base or "", priority=section.priority, priorities=priorities)
        if section.provider in _OPENAI_COMPATIBLE:
            bound: OutputBound = "max_completion_tokens" if section.provider == "openai" else "max_tokens"
            tier = _asked_tier(section, price)
            return OpenAIProvider(key, section.api_base, output_bound=bound, service_tier=tier)
        return LiteLLMProvider(section.provider, key, section.api_base, service_tier=_asked_tier(section, None))

    def _facts(self, name: str) -> ModelFacts | None:
        section = self._config.models[name]
        return None if section.provider == "sim" else self._listed.lookup(section.provider, section.model or "")


def _aborted_stream(provider: str) -> Literal["charge_reserved", "charge_streamed"]:
    """What is known of a provider: these write nothing out of sight, and stop when nobody listens."""
    return "charge_streamed" if provider in ("vllm", "sim") else "charge_reserved"


def _priced(price: Price | None) -> dict[str, Any]:
    tiers = price.bounds.service_tiers if price else ()
    return {"price": price, "text_price": price and price.bounded(Bounds(service_tiers=tiers, input=()))}


def _asked_tier(section: ModelConfig, price: Price | None) -> str | None:
    """The tier to ask for by name; the standard one only where a project's own default could be dearer."""
    if section.service_tier != "standard":
        return section.service_tier
    return "default" if section.provider == "openai" and price is not None and price.priority is not None else None


def is_text(messages: Iterable[Message]) -> bool:
    """Whether these messages hold nothing but text."""
    return all(map(_is_text, messages))


def _is_text(message: Message) -> bool:
    content = message.get("content")
    parts: Collection[Any] = content if isinstance(content, list) else ()
    return content is None or isinstance(content, str) or all(_is_text_part(part) for part in parts)


def _is_text_part(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "text"
