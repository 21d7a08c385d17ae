"""Which of a tenant's rules an escalation falls under, and that rule as it stands now."""

from __future__ import annotations

from datetime import timedelta

from bursar.budget.money import nanousd
from bursar.budget.windows import from_us, to_us
from bursar.runtime.config import TenantConfig
from bursar.runtime.config_escalations import EscalationsConfig, LevelConfig, PersonConfig, RuleConfig, span
from bursar.runtime.escalations.hours import Hours
from bursar.runtime.escalations.records import Asked
from bursar.runtime.escalations.rule import Level, MomentKind, Rule, amount_in, at_stake

__all__ = ["rule_for"]


def rule_for(tenant: TenantConfig, agent: str, asked: Asked, now: int) -> tuple[Rule, int, int | None]:
    """The rule that decides, its priority, and the amount that is asked about in nano-USD; None = nobody knows."""
    for index, rule in enumerate(tenant.escalations.rules):
        amount = _amount(asked, rule.amount)
        if _fits(rule, agent, asked, amount):
            frozen = _frozen(f"rules.{index}", rule, rule.levels, tenant, asked, now)
            return frozen, rule.priority, amount
    everybody = [LevelConfig(people=list(tenant.people))]
    return _frozen("default", None, everybody, tenant, asked, now), 0, _amount(asked, None)


def _amount(asked: Asked, argument: str | None) -> int | None:
    if asked.amount_nanousd is not None:
        return asked.amount_nanousd
    return amount_in(asked.payload.get("args") or asked.payload.get("arguments") or {}, argument)


def _fits(rule: RuleConfig, agent: str, asked: Asked, amount: int | None) -> bool:
    given = ((rule.reasons, asked.reason), (rule.tools, asked.payload.get("tool")), (rule.agents, agent))
    if any(wanted is not None and one not in wanted for wanted, one in given):
        return False
    stake = at_stake(amount, asked.reason)
    return rule.above_usd is None or stake is None or stake > nanousd(rule.above_usd)


def _frozen(
    name: str, rule: RuleConfig | None, levels: list[LevelConfig], tenant: TenantConfig, asked: Asked, now: int
) -> Rule:
    people = tenant.people
    return Rule(
        name=name,
        levels=[Level(people=one.members(people) if people else None, who=one.who() or "anybody") for one in levels],
        moments=_moments(levels, rule is not None and rule.on_expiry == "keep", tenant.escalations, asked, now),
        on_expiry="reject" if rule is None else rule.on_expiry,
        two_above_nanousd=None if rule is None else _two_above(rule),
        ceilings=_ceilings(people),
        amount=asked.payload.get("amount_argument") if rule is None or rule.amount is None else rule.amount,
    )


def _two_above(rule: RuleConfig) -> int | None:
    if rule.two_people:
        return 0
    return None if rule.two_people_above_usd is None else nanousd(rule.two_people_above_usd)


def _ceilings(people: dict[str, PersonConfig]) -> dict[str, int]:
    return {name: nanousd(one.ceiling_usd) for name, one in people.items() if one.ceiling_usd is not None}


def _moments(
    levels: list[LevelConfig], keep: bool, settings: EscalationsConfig, asked: Asked, now: int
) -> list[tuple[int, MomentKind]]:
    """Reminders, the ends of levels and the deadline; who asks may have set an earlier one."""
    hours = None if settings.hours is None else settings.hours.in_zone(settings.zone)
    moments: list[tuple[int, MomentKind]] = []
    begin = now
    for place, level in enumerate(levels, start=1):
        end = _later(begin, span(level.within), hours)
        moments += _reminders(begin, end, level, hours)
        last: MomentKind = "expire" if place == len(levels) else "raise"
        moments.append((end, last))
        begin = end
    if keep:
        moments.pop()
    if asked.expires_us is None:
        return moments
    expires = max(asked.expires_us, now + 1)  # one that is over already comes at once
    return [*((at, kind) for at, kind in moments if at < expires), (expires, "expire")]


def _reminders(begin: int, end: int, level: LevelConfig, hours: Hours | None) -> list[tuple[int, MomentKind]]:
    if level.remind is None:
        return []
    moments: list[tuple[int, MomentKind]] = []
    at = _later(begin, span(level.remind), hours)
    while at < end:
        moments.append((at, "remind"))
        at = _later(at, span(level.remind), hours)
    return moments


def _later(us: int, by: timedelta, hours: Hours | None) -> int:
    at = from_us(us)
    return to_us(at + by if hours is None else hours.after(at, by))
