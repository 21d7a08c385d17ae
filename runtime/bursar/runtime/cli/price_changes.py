"""What a file, or the store's list, would change about prices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bursar.budget.pricing.prices import PRICED_TIERS, Price
from bursar.runtime.cli.words import rates_text

if TYPE_CHECKING:
    from bursar.budget.pricing.book import ModelFacts

__all__ = ["PriceChange", "changed", "differing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceChange:
    """A model whose price is another one than before."""

    name: str
    """`provider/model`."""

    before: Price | None
    after: Price

    @property
    def kind(self) -> Literal["new", "dearer", "cheaper", "changed"]:
        """By every price of a plain call; `changed` where one rose and one fell, or only other calls cost more."""
        if self.before is None:
            return "new"
        pairs = [*zip(self.before.published(), self.after.published(), strict=True)]
        rose, fell = any(old < new for old, new in pairs), any(old > new for old, new in pairs)
        if rose == fell:
            return "changed"
        return "dearer" if rose else "cheaper"

    def text(self) -> str:
        """What it costs where it is new, else each price that differs, as `input 2 -> 1.5`."""
        return rates_text(self.after) if self.before is None else ", ".join(self.lines())

    def lines(self) -> list[str]:
        """Each price that differs, as `input 2 -> 1.5`."""
        before = {} if self.before is None else _flat(self.before)
        after = _flat(self.after)
        names = [*after, *(name for name in before if name not in after)]
        return [
            f"{name} {before.get(name, '-')} -> {after.get(name, '-')}"
            for name in names
            if before.get(name) != after.get(name)
        ]


def changed(before: Mapping[str, ModelFacts | None], after: Mapping[str, ModelFacts]) -> list[PriceChange]:
    """The models of `after` whose prices differ from those of `before`, in order of name."""
    pairs = ((name, before.get(name), facts.price) for name, facts in sorted(after.items()))
    return [
        PriceChange(name=name, before=known.price if known else None, after=price)
        for name, known, price in pairs
        if known is None or differing(known.price, price)
    ]


def differing(one: Price, other: Price) -> bool:
    """Whether a call could cost something else; sources, ids and days do not matter."""
    return _flat(one) != _flat(other)


def _flat(price: Price) -> dict[str, str]:
    """Every price of a row by name, as people write it: `batch long-context>200000 input`."""
    record = price.to_record()
    flat = dict(_named("", record))
    for tier in PRICED_TIERS:
        flat |= _named(f"{tier} ", record.get(tier, {}))
    if "request_usd" in record:
        flat["request"] = _short(record["request_usd"])
    return flat


def _named(prefix: str, rates: Mapping[str, object]) -> Iterable[tuple[str, str]]:
    for key, value in rates.items():
        if key.endswith("_usd_per_mtok"):
            yield prefix + key.removesuffix("_usd_per_mtok").replace("_", " "), _short(str(value))
    steps = rates.get("long_context", ())
    for step in steps if isinstance(steps, list) else ():
        yield from _named(f"{prefix}above {step['above_input_tokens']} ", step)


def _short(amount: str) -> str:
    return amount.rstrip("0").rstrip(".") if "." in amount else amount
