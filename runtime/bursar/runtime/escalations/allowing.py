"""Who may decide on an escalation: at its level, without another's claim, up to their ceiling, as one of two."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from sqlalchemy import RowMapping

from bursar.budget.errors import ConflictError, NotAllowedError
from bursar.budget.money import format_usd
from bursar.budget.windows import from_us
from bursar.runtime.escalations.fitting import in_words, type_of
from bursar.runtime.escalations.granting import amounts_of
from bursar.runtime.escalations.records import Decision
from bursar.runtime.escalations.rule import Rule, amount_in, at_stake

__all__ = [
    "amount_of",
    "refuses",
    "require_ceiling",
    "require_may",
    "require_open",
    "require_same",
    "require_tool",
    "require_unclaimed",
    "rule_of",
]


def rule_of(row: RowMapping) -> Rule:
    """The rule that was frozen into an escalation."""
    return Rule.from_record(json.loads(row["rule"]))


def require_open(row: RowMapping, now: int) -> None:
    """Raise ConflictError for what is decided, expired or withdrawn: with by whom, what, and when."""
    if row["status"] == "decided":
        at = from_us(row["decided_us"]).isoformat(timespec="seconds")
        said = in_words(json.loads(row["decision"]))
        raise ConflictError(
            f"escalation {row['id']} was decided by {row['decided_by']} at {at}: {said}", next_step=_show(row)
        )
    if row["status"] == "withdrawn":
        raise ConflictError(
            f"escalation {row['id']} was withdrawn: its run does not ask any more", next_step=_show(row)
        )
    if row["status"] == "expired" or (row["expires_us"] is not None and row["expires_us"] <= now):
        at = from_us(row["expires_us"]).isoformat(timespec="seconds")
        raise ConflictError(f"escalation {row['id']} expired at {at}", next_step=_show(row))


def require_same(row: RowMapping, digest: str | None) -> None:
    """Raise ConflictError where the caller has seen another action than is asked about."""
    if digest is not None and digest != row["digest"]:
        raise ConflictError(f"escalation {row['id']} is about another action than you have seen", next_step=_show(row))


def require_tool(row: RowMapping, decision: Decision, tools: Collection[str] | None) -> None:
    """Raise ConflictError where an action is let go whose tool the agent does not have any more."""
    tool = json.loads(row["payload"]).get("tool")
    if tools is None or tool is None or tool in tools or refuses(decision, row):
        return
    words = f"escalation {row['id']}: the agent has no tool {tool} any more"
    raise ConflictError(words, next_step=f"bursar inbox reject {row['id']} --reason ...")


def require_may(row: RowMapping, rule: Rule, by: str) -> None:
    """Raise NotAllowedError for somebody whom the rule does not name, or does not name yet."""
    people = rule.may_decide(row["level"])
    if people is None or by in people or by == row["assignee"]:
        return
    later = rule.may_decide(len(rule.levels) - 1) or ()
    words = f"{by} may not decide on escalation {row['id']}{' yet' if by in later else ''}"
    raise NotAllowedError(f"{words}; {rule.who(row['level'])} may", next_step=_show(row))


def require_unclaimed(row: RowMapping, by: str, now: int) -> None:
    """Raise ConflictError while somebody else looks at it, unless it was assigned to this person."""
    other = row["claimed_by"]
    if other in (None, by) or row["claimed_until_us"] <= now or row["assignee"] == by:
        return
    until = from_us(row["claimed_until_us"]).isoformat(timespec="seconds")
    raise ConflictError(
        f"escalation {row['id']} is claimed by {other} until {until}",
        next_step=f"bursar inbox assign {row['id']} --to {by}",
    )


def refuses(decision: Decision, row: RowMapping) -> bool:
    """Whether a decision lets nothing be done or spent, so that one person without any ceiling is enough."""
    return bool(json.loads(row["allowed"])) and type_of(decision) in ("reject", "stop", "downgrade")


def amount_of(row: RowMapping, rule: Rule, decision: Decision) -> int | None:
    """The money in nano-USD that a decision lets go; None where nobody knows."""
    kind = type_of(decision)
    if kind == "grant" and row["kind"] == "more":
        return amounts_of(decision).nanousd
    if kind == "edit" and json.loads(row["allowed"]):
        return amount_in(decision["args"], rule.amount)
    return at_stake(row["amount_nanousd"], row["reason"])


def require_ceiling(row: RowMapping, rule: Rule, by: str, amount: int | None) -> None:
    """Raise NotAllowedError where more money goes than this person may let go."""
    ceiling = rule.ceilings.get(by)
    if ceiling is None or (amount is not None and amount <= ceiling) or not _is_about_money(row, rule, amount):
        return
    what = "an amount that is not known" if amount is None else format_usd(amount)
    raise NotAllowedError(
        f"{by} may decide on {format_usd(ceiling)} at most, and this is about {what}; {_above(row, rule, amount)}",
        next_step=_show(row),
    )


def _is_about_money(row: RowMapping, rule: Rule, amount: int | None) -> bool:
    """Also where the action has the argument, and nobody can read it: its model wrote that."""
    if amount is not None or row["amount_nanousd"] is not None:
        return True
    payload = json.loads(row["payload"])
    return rule.amount is not None and rule.amount in (payload.get("args") or payload.get("arguments") or {})


def _above(row: RowMapping, rule: Rule, amount: int | None) -> str:
    """Who may decide on so much."""
    highest: Any = float("inf") if amount is None else amount
    people = rule.may_decide(len(rule.levels) - 1)
    if people is None:
        return "anybody without a ceiling may"
    able = [name for name in people if rule.ceilings.get(name, float("inf")) >= highest]
    return f"{', '.join(able) or 'nobody here'} may"


def _show(row: RowMapping) -> str:
    return f"bursar inbox show {row['id']}"
