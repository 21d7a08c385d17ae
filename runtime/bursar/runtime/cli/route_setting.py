"""What `bursar route` takes from bursar.yaml, where there is one: the tiers, the incumbent, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from bursar.budget.errors import UsageError
from bursar.runtime.cli.options import CONFIG_FILE
from bursar.runtime.cli.price_source import prices_of
from bursar.runtime.config import Config, load_config
from bursar.runtime.config_problems import nearest

if TYPE_CHECKING:
    from bursar.runtime.routing.evaluation import Evaluation

__all__ = ["Incumbent", "LabelFiles", "MaxWrong", "Setting", "Tiers", "setting"]

LabelFiles = Annotated[list[Path], Parameter(name="LABELS", help="Files of labels, as lines of JSON.")]
MaxWrong = Annotated[
    float, Parameter(help="The share of wrong ones among those sent away that is borne.", validator=Number(gt=0, lt=1))
]
Tiers = Annotated[
    str | None, Parameter(help="All tiers, the cheapest first, as small,standard,frontier; else bursar.yaml's.")
]
Incumbent = Annotated[
    str | None, Parameter(help="The tier that answers without evidence; else bursar.yaml's, else the dearest.")
]

INPUT_PER_OUTPUT = 3
"""Input tokens for each output token, by which tiers are compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Between which tiers is chosen."""

    tiers: tuple[str, ...]
    """The cheapest first."""

    incumbent: str
    costs: Mapping[str, Decimal] = field(default_factory=dict)
    """What tokens cost at each tier whose first model has a price; only ratios of these are of use."""

    def cost_ratio(self, evaluation: Evaluation) -> float | None:
        """What the requests cost, against the incumbent answering all; None where a price is missing."""
        used = {tier: count for tier, count in evaluation.sent.items() if count}
        whole = self.costs.get(self.incumbent, Decimal()) * evaluation.requests
        if not whole or not used.keys() <= self.costs.keys():
            return None
        return float(sum(self.costs[tier] * count for tier, count in used.items()) / whole)


def setting(path: Path, tiers: str | None = None, incumbent: str | None = None) -> Setting:
    """What the options say, else the configuration; raises UsageError where neither says the tiers."""
    config = load_config(path) if path.exists() or (path != CONFIG_FILE) else None
    names = [name.strip() for name in tiers.split(",")] if tiers else [*config.tiers] if config else []
    if len(set(names)) < 2 or len(set(names)) < len(names) or "" in names:
        raise UsageError(
            f"expected two tiers or more, the cheapest first, not {tiers or ', '.join(names) or 'none'}",
            next_step="--tiers small,frontier",
        )
    if incumbent is None and config is not None and config.auto is not None:
        incumbent = config.auto.incumbent
    if incumbent is not None and incumbent not in names:
        raise UsageError(
            f"the incumbent {incumbent!r} is no tier{nearest(incumbent, names)}", next_step=f"--incumbent {names[-1]}"
        )
    return Setting(tiers=tuple(names), incumbent=incumbent or names[-1], costs=_costs(config) if config else {})


def _costs(config: Config) -> dict[str, Decimal]:
    from bursar.runtime.models.catalog import Catalog

    with prices_of(config) as listed:
        catalog = Catalog(config, prices=listed)
        prices = {tier: catalog.price(models[0]) for tier, models in config.tiers.items()}
    return {
        tier: price.input_usd_per_mtok * INPUT_PER_OUTPUT + price.output_usd_per_mtok
        for tier, price in prices.items()
        if price is not None
    }
