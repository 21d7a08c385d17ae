"""A house with three tiers, for the tests of who answers a call."""

from __future__ import annotations

from typing import Any

from bursar.agents.tier import Data
from bursar.budget.admission import MoneyLeft
from bursar.budget.money import NANO
from bursar.runtime.ask import Ask
from bursar.runtime.models.catalog import Catalog
from tests.unit.runtime.config_texts import parse

__all__ = ["ASKED", "CATALOG", "HOUSE", "TIERS", "asked", "exchange", "left"]

HOUSE = """\
database: sqlite:///bursar.db
models:
  llama:
    provider: vllm
    model: llama
    api_base: "http://127.0.0.1:8000/v1"
    price: free
    slots: 2
    context_window: 8192
  mini:
    provider: openai_compatible
    model: mini
    api_base: "https://models.example/v1"
    price: {input_usd_per_mtok: "0.40", cache_read_usd_per_mtok: "0.10", output_usd_per_mtok: "1.60"}
    context_window: 128000
  mid:
    provider: openai_compatible
    model: mid
    api_base: "https://models.example/v1"
    price: {input_usd_per_mtok: "1", cache_read_usd_per_mtok: "0.25", output_usd_per_mtok: "4"}
    context_window: 128000
  big:
    provider: openai_compatible
    model: big
    api_base: "https://models.example/v1"
    price: {input_usd_per_mtok: "3", cache_read_usd_per_mtok: "0.30", output_usd_per_mtok: "15"}
    context_window: 200000
  own: {provider: openai_compatible, model: own, api_base: "https://own.example/v1", price: free, local: true}
tiers:
  small: [llama, mini]
  standard: [mid, mini]
  frontier: [big, mid, own]
auto: {incumbent: standard}
"""

CATALOG = Catalog(parse(HOUSE))
TIERS = ("small", "standard", "frontier")
ASKED = [{"role": "user", "content": "Where is order 1001?"}]


def asked(tier: str = "small", *, messages: Any = ASKED, data: Data = "any", **more: Any) -> Ask:
    """A question of a node."""
    return Ask(tier=tier, node="model", messages=messages, data=data, **more)


def left(percent: int, *, usd: int = 400) -> MoneyLeft:
    """This share of acme's budget is left."""
    return MoneyLeft("acme", "month", usd * NANO, usd * NANO * percent // 100)


def exchange(model: str | None, *, answered: bool = True, words: int = 0) -> list[dict[str, Any]]:
    """A conversation in which a model calls a tool, which has answered, or has not yet."""
    call = {"id": "call_1", "type": "function", "function": {"name": "find_order", "arguments": "{}"}}
    said: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": [call]}
    if model is not None:
        said["model"] = model
    result = {"role": "tool", "tool_call_id": "call_1", "content": "delivered " * max(1, words)}
    return [*ASKED, said, *([result] if answered else [])]
