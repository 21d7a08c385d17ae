"""What happens to an escalation when its time comes: a reminder, the next level, its end; each once, whoever acts."""

from __future__ import annotations

import json

from sqlalchemy import Connection, RowMapping, update

from bursar.budget.windows import from_us
from bursar.runtime.escalations.allowing import rule_of
from bursar.runtime.escalations.deciding import POLICY, conclude, end_run
from bursar.runtime.escalations.events import note, notify
from bursar.runtime.escalations.rule import Rule
from bursar.runtime.runs.schema import escalation

__all__ = ["act"]


def act(connection: Connection, row: RowMapping, now: int) -> None:
    """Do what is due with a locked escalation; of what was missed while nobody acted, the last counts."""
    if row["status"] != "open" or row["due_us"] is None or row["due_us"] > now:
        return  # another process was faster
    rule = rule_of(row)
    passed = [kind for at, kind in rule.moments if row["due_us"] <= at <= now]
    if "expire" in passed:
        return _expire(connection, row, rule, now)
    level = row["level"] + passed.count("raise")
    values = {"level": level, "due_us": rule.next_moment(now)}
    connection.execute(update(escalation).where(escalation.c.id == row["id"]).values(**values))
    if level == row["level"]:
        note(connection, row, "reminder", now, author=POLICY)
        notify(connection, row, rule, "escalation.reminder", f"still waits: {row['words']}", now)
        return None
    note(connection, row, "raised", now, author=POLICY, detail=rule.levels[level].who)
    message = f"nobody has decided, now {rule.levels[level].who} may, too: {row['words']}"
    notify(connection, row, rule, "escalation.raised", message, now, level=level)
    return None


def _expire(connection: Connection, row: RowMapping, rule: Rule, now: int) -> None:
    """Decide as the rule says; a graph's own question, for which there is no such answer, ends the run."""
    by = from_us(row["expires_us"]).isoformat(timespec="seconds")
    said = f"nobody decided by {by}"
    if row["kind"] == "more":
        decision = {"type": "downgrade" if rule.on_expiry == "downgrade" else "stop"}
        conclude(connection, row, rule, decision, by=POLICY, said=said, now=now, expired=True)
    elif "reject" in json.loads(row["allowed"]):
        decision = {"type": "reject", "message": said}
        conclude(connection, row, rule, decision, by=POLICY, said="", now=now, expired=True)
    else:
        values = {"status": "expired", "due_us": None, "claimed_by": None, "claimed_until_us": None}
        connection.execute(update(escalation).where(escalation.c.id == row["id"]).values(**values))
        note(connection, row, "expired", now, author=POLICY, detail=said)
        notify(connection, row, rule, "escalation.expired", f"{said}: {row['words']}", now)
        end_run(connection, row, f"{said}: {row['words']}", by=POLICY, now=now)
