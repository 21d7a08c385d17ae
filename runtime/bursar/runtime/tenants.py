"""Tenants as the configuration declares them, brought into the ledger."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from bursar.budget.amounts import DIMENSIONS
from bursar.budget.errors import UsageError
from bursar.budget.ledger import Ledger
from bursar.budget.money import nanousd
from bursar.budget.policies import Policy
from bursar.budget.scope import Scope
from bursar.budget.windows import Period
from bursar.runtime.config import BudgetConfig, Config, TenantConfig
from bursar.runtime.declared_prices import declared_price

if TYPE_CHECKING:
    from bursar.runtime.models.catalog import Catalog
    from bursar.runtime.runs.records import Record

__all__ = [
    "declare_budgets",
    "declared_budgets",
    "limit_of",
    "organisation_of",
    "require_prices",
    "require_team",
    "scope_of",
    "tenant_of",
    "tiers_of",
]

_AUTHOR = "bursar.yaml"


def declare_budgets(ledger: Ledger, config: Config) -> None:
    """Set the declared budgets and lift those no longer declared; what a command has set since is left as it is.

    What a budget no longer says returns to its default. A tenant without a budget gets an unlimited one, so that what
    it spends is summed up all the same.
    """
    declared = dict(declared_budgets(config))
    for path, budgets in declared.items():
        organisation = _organisation_of(config, path)
        if organisation is not None and not budgets:
            ledger.budgets.set(path, limit={}, author=_AUTHOR, source="config", organisation=organisation)
        for budget in budgets:
            _declare(ledger, path, budget, organisation)
    for name, tenant in config.tenants.items():
        _declare_policy(ledger, name, tenant)
    _lift_all_but(ledger, config, {(path, budget.per) for path, budgets in declared.items() for budget in budgets})


def require_prices(catalog: Catalog, config: Config, policies: Mapping[str, Policy] | None = None) -> None:
    """Raise PriceMissingError where a tenant with a budget in money may use a model without a price.

    A tenant that has said what happens to such a model is not asked again; the `policies` of the store go before what
    the configuration says.
    """
    for name, tenant in config.tenants.items():
        stored = (policies or {}).get(name)
        if (stored or tenant).unpriced != "refuse":
            continue
        above = config.organisations[tenant.organisation].budgets if tenant.organisation else []
        if any(budget.usd is not None and budget.mode == "hard" for budget in (*tenant.budgets, *above)):
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


def organisation_of(config: Config, tenant: str) -> str | None:
    """The organisation whose budgets bind a tenant, too."""
    return tenant_of(config, tenant).organisation


def scope_of(row: Record, config: Config) -> Scope:
    """Everything that is charged with what a run uses, by its row."""
    return Scope(
        tenant=row["tenant"],
        agents=(row["agent"],),
        run_id=row["id"],
        organisation=organisation_of(config, row["tenant"]),
        team=row["team"],
        user=row["user"],
        within=row["within"],
    )


def require_team(config: Config, tenant: str, team: str | None) -> None:
    """Raise UsageError for a team that is none of the tenant's: a misspelt one would be bound by nothing."""
    teams = tenant_of(config, tenant).teams
    if team is not None and teams and team not in teams:
        near = difflib.get_close_matches(team, teams, 3) or sorted(teams)
        raise UsageError(
            f"team {team!r} is none of tenant {tenant}'s (it has {', '.join(near)})",
            next_step=f"add `{team}: {{}}` under tenants.{tenant}.teams",
        )


def tiers_of(config: Config, tenant: str) -> tuple[str, ...] | None:
    """The tiers that a tenant may use; None = all."""
    allowed = tenant_of(config, tenant).tiers
    return None if allowed is None else tuple(allowed)


def declared_budgets(config: Config) -> Iterator[tuple[str, Sequence[BudgetConfig]]]:
    """Every path that the configuration names, what is above before what is below."""
    for name, organisation in config.organisations.items():
        yield f"org:{name}", organisation.budgets
    for name, tenant in config.tenants.items():
        yield name, tenant.budgets
        for user, budgets in tenant.users.items():
            yield f"{name}/user:{user}", budgets.budgets
        for team, section in tenant.teams.items():
            yield f"{name}/team:{team}", section.budgets
            for user, budgets in section.users.items():
                yield f"{name}/team:{team}/user:{user}", budgets.budgets
        for agent, of_agent in tenant.agents.items():
            yield f"{name}/{agent}", of_agent.budgets
            for node, of_node in of_agent.nodes.items():
                yield f"{name}/{agent}/node:{node}", of_node.budgets


def limit_of(budget: BudgetConfig) -> dict[str, int | None]:
    """A budget's limit by dimension, in the ledger's units; None is no limit."""
    return {
        "nanousd": None if budget.usd is None else nanousd(budget.usd),
        "tokens": budget.tokens,
        "steps": budget.steps,
        "tool_calls": budget.tool_calls,
    }


def _organisation_of(config: Config, path: str) -> str | None:
    """The organisation of a tenant's path, "" for none; None for any other path."""
    if "/" in path or path.startswith("org:"):
        return None
    return (config.tenants[path].organisation if path in config.tenants else None) or ""


def _declare(ledger: Ledger, path: str, budget: BudgetConfig, organisation: str | None) -> None:
    ledger.budgets.set(
        path,
        per=budget.per,
        zone=budget.zone,
        limit=limit_of(budget),
        author=_AUTHOR,
        source="config",
        mode=budget.mode,
        rollover_percent=budget.rollover_percent,
        overdraft_percent=budget.overdraft_percent,
        oversubscribed=budget.oversubscribed,
        alerts=budget.alerts,
        organisation=organisation,
    )


def _declare_policy(ledger: Ledger, name: str, tenant: TenantConfig) -> None:
    ceiling = None if tenant.ceiling_price is None else declared_price(name, tenant.ceiling_price)
    ledger.policies.set(name, unpriced=tenant.unpriced, ceiling=ceiling, author=_AUTHOR, source="config")


def _lift_all_but(ledger: Ledger, config: Config, declared: Collection[tuple[str, Period]]) -> None:
    for line in ledger.budgets.ls():
        if line.source == "config" and (line.path, line.per) not in declared:
            ledger.budgets.set(
                line.path,
                per=line.per,
                limit=dict.fromkeys(DIMENSIONS),
                author=_AUTHOR,
                note="no longer declared",
                source="config",
                mode="hard",
                rollover_percent=0,
                overdraft_percent=0,
                oversubscribed=False,
                alerts=[],
                organisation=_organisation_of(config, line.path),
            )
