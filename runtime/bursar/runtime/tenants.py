"""Tenants as the configuration declares them, brought into the ledger."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from bursar.budget.amounts import DIMENSIONS
from bursar.budget.errors import UsageError
from bursar.budget.ledger import Ledger
from bursar.budget.money import nanousd
from bursar.budget.windows import Period
from bursar.runtime.config import BudgetConfig, Config, TenantConfig

if TYPE_CHECKING:
    from bursar.runtime.models.catalog import Catalog

__all__ = ["declare_budgets", "require_prices", "tenant_of", "tiers_of"]

_AUTHOR = "bursar.yaml"


def declare_budgets(ledger: Ledger, config: Config) -> None:
    """Set the declared budgets and lift those no longer declared; what a command has set since is left as it is.

    A tenant without a budget gets an unlimited one, so that what it spends is summed up all the same.
    """
    declared: dict[str, list[BudgetConfig]] = {}
    for name, tenant in config.tenants.items():
        if not tenant.budgets:
            ledger.budgets.set(name, limit={}, author=_AUTHOR, source="config")
        declared[name] = tenant.budgets
        declared |= {f"{name}/{agent}": budgets.budgets for agent, budgets in tenant.agents.items()}
    for path, budgets in declared.items():
        _declare(ledger, path, budgets)
    _lift_all_but(ledger, {(path, budget.per) for path, budgets in declared.items() for budget in budgets})


def require_prices(catalog: Catalog, config: Config) -> None:
    """Raise PriceMissingError where a tenant with a budget in money may use a model without a price."""
    for name, tenant in config.tenants.items():
        if any(budget.usd is not None for budget in tenant.budgets):
            for tier in tenant.tiers or config.tiers:
                catalog.require_prices(tier, f"tenant {name} has a budget in USD")


def tenant_of(config: Config, name: str) -> TenantConfig:
    """The section of a tenant; raises UsageError for one that the configuration does not know."""
    if name in config.tenants:
        return config.tenants[name]
    if config.unknown_tenants == "allow":
        return TenantConfig()
    near = difflib.get_close_matches(name, config.tenants, 3) or sorted(config.tenants)
    known = f"it has {', '.join(near)}" if near else "it has none"
    raise UsageError(
        f"tenant {name!r} is not in the configuration ({known})",
        next_step=f"add `{name}: {{budgets: [{{usd: 5, per: month}}]}}` under tenants:",
    )


def tiers_of(config: Config, tenant: str) -> tuple[str, ...] | None:
    """The tiers that a tenant may use; None = all."""
    allowed = tenant_of(config, tenant).tiers
    return None if allowed is None else tuple(allowed)


def _declare(ledger: Ledger, path: str, budgets: Iterable[BudgetConfig]) -> None:
    for budget in budgets:
        ledger.budgets.set(
            path,
            per=budget.per,
            zone=budget.zone,
            limit={
                "nanousd": None if budget.usd is None else nanousd(budget.usd),
                "tokens": budget.tokens,
                "steps": budget.steps,
                "tool_calls": budget.tool_calls,
            },
            author=_AUTHOR,
            source="config",
        )


def _lift_all_but(ledger: Ledger, declared: Collection[tuple[str, Period]]) -> None:
    for line in ledger.budgets.ls():
        limits_something = any(limit is not None for limit in line.limit.values())
        if line.source == "config" and limits_something and (line.path, line.per) not in declared:
            lifted = dict.fromkeys(DIMENSIONS)
            note = "no longer declared"
            ledger.budgets.set(line.path, per=line.per, limit=lifted, author=_AUTHOR, note=note, source="config")
