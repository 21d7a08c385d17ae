"""Budgets in `bursar.yaml`: what organisations, tenants, teams, users, agents and nodes may spend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, ValidationInfo, field_validator, model_validator

from bursar.budget.money import format_usd
from bursar.runtime.config_fields import (
    SECTION,
    AlertPercent,
    Count,
    NodeName,
    Percent,
    PeriodName,
    Usd,
    UserName,
    ZoneName,
)
from bursar.runtime.config_problems import Problem, Problems
from bursar.runtime.config_webhooks import Webhooks

__all__ = [
    "AgentBudgets",
    "BudgetConfig",
    "Budgets",
    "NodeBudgets",
    "OrganisationConfig",
    "TeamBudgets",
    "UserBudgets",
    "Users",
    "overdrawn",
    "require_parts_fit",
]

_LIMITS = ("usd", "tokens", "steps", "tool_calls")


class Section(BaseModel):
    """What the sections of this file have in common."""

    model_config = SECTION


class BudgetConfig(Section):
    """A limit on what may be spent in a window of time. At least one of usd, tokens, steps and tool_calls."""

    usd: Usd | None = None
    """Dollars."""

    tokens: Count | None = None
    """Input and output tokens together."""

    steps: Count | None = None
    """Model calls."""

    tool_calls: Count | None = None
    """Tool executions."""

    per: PeriodName = "total"
    """The window: a calendar `hour`, `day`, `week` or `month` in `zone`; `total` for all time; or the last so many
    minutes, hours or days at any moment: `rolling-30m`, `rolling-24h`, `rolling-7d`."""

    zone: ZoneName = "UTC"
    """The IANA time zone in which the window begins and ends."""

    mode: Literal["hard", "soft"] = "hard"
    """What does not fit a hard limit is not sent; a soft one refuses nothing, and only shows and tells."""

    rollover_percent: Percent = 0
    """Of the limit: what is unused of it at the window's end, up to so much, comes into the next."""

    overdraft_percent: Percent = 0
    """Of the limit: so much may be used in advance, and is owed by the next window."""

    oversubscribed: bool = False
    """Whether the budgets below this one may sum up to more than it has."""

    alerts: list[AlertPercent] = []
    """Percents of the limit at which to tell somebody, once in each window."""

    @field_validator("rollover_percent", "overdraft_percent")
    @classmethod
    def _has_a_next_window(cls, value: int, info: ValidationInfo) -> int:
        per = info.data.get("per", "")
        if value and (per == "total" or per.startswith("rolling-")):
            raise ValueError(f"a budget per {per} has no next window; expected 0, or per hour, day, week or month")
        return value

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if all(getattr(self, name) is None for name in _LIMITS):
            raise Problems([Problem(path=(), text=f"expected at least one of {', '.join(_LIMITS)}")])
        return self


def _one_per_period(budgets: list[BudgetConfig]) -> list[BudgetConfig]:
    first: dict[str, int] = {}
    problems = []
    for index, budget in enumerate(budgets):
        if first.setdefault(budget.per, index) != index:
            text = f"per {budget.per} is already in budget [{first[budget.per]}]; put both into one"
            problems.append(Problem(path=(index,), text=text))
    if problems:
        raise Problems(problems)
    return budgets


Budgets = Annotated[list[BudgetConfig], AfterValidator(_one_per_period)]
Required = Annotated[Budgets, Field(min_length=1)]


def overdrawn(whole: Budgets, parts: Mapping[str, Budgets]) -> Iterator[Problem]:
    """The hard limits in `whole` than which the hard limits of its `parts` for the same period come to more.

    `parts` are by the words that name them. Paths are relative to the section that has `whole` as its `budgets`.
    """
    for index, budget in enumerate(whole):
        if budget.mode == "soft" or budget.oversubscribed:
            continue
        for limit in _LIMITS:
            shares = {
                name: share
                for name, all_of in parts.items()
                for part in all_of
                if (part.per, part.mode) == (budget.per, "hard") and (share := getattr(part, limit))
            }
            total = sum(shares.values())
            if (most := getattr(budget, limit)) is not None and total > most:
                listed = ", ".join(f"{name} {_shown(limit, share)}" for name, share in shares.items())
                text = (
                    f"its parts come to {_shown(limit, total)} per {budget.per} ({listed}); raise it, lower a part, "
                    "or say `oversubscribed: true` beside it"
                )
                yield Problem(path=("budgets", index, limit), text=text)


def require_parts_fit(whole: Budgets, *kinds: Mapping[str, Budgets]) -> None:
    """Raise Problems where the parts of one of the kinds come to more than the whole; each kind shares all of it."""
    if problems := [problem for parts in kinds for problem in overdrawn(whole, parts)]:
        raise Problems(problems)


def _shown(limit: str, amount: Any) -> str:
    return format_usd(int(amount * 10**9)) if limit == "usd" else f"{amount:,} {limit.replace('_', ' ')}"


class NodeBudgets(Section):
    """What one node of an agent's graph may spend in all of its runs."""

    budgets: Required
    """One budget for each window."""


class AgentBudgets(Section):
    """What one agent may spend for one tenant, inside the tenant's own budgets."""

    budgets: Budgets = []
    """One budget for each window."""

    nodes: Annotated[dict[NodeName, NodeBudgets], Field(json_schema_extra={"additionalProperties": False})] = {}
    """Budgets of single nodes of its graph, by the node's name."""

    @model_validator(mode="after")
    def _nodes_fit(self) -> Self:
        require_parts_fit(self.budgets, {f"nodes.{name}": node.budgets for name, node in self.nodes.items()})
        return self


class UserBudgets(Section):
    """What one user may spend."""

    budgets: Required
    """One budget for each window."""


Users = Annotated[dict[UserName, UserBudgets], Field(json_schema_extra={"additionalProperties": False})]


class TeamBudgets(Section):
    """What one team may spend, inside its tenant's budgets."""

    budgets: Budgets = []
    """One budget for each window."""

    users: Users = {}
    """What each user may spend for this team, by the user's name."""

    @model_validator(mode="after")
    def _users_fit(self) -> Self:
        require_parts_fit(self.budgets, {f"users.{name}": user.budgets for name, user in self.users.items()})
        return self


class OrganisationConfig(Section):
    """What all tenants of an organisation may spend together."""

    budgets: Required
    """One budget for each window."""

    webhooks: Webhooks = []
    """Who is told of alerts about the organisation's own budgets."""
