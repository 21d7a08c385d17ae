"""Who looks at an escalation: a claim with a lease, an assignment, and what was said about it."""

from __future__ import annotations

from sqlalchemy import Connection, RowMapping, update

from bursar.budget.errors import ConflictError, NotAllowedError, UsageError
from bursar.runtime.escalations.allowing import require_may, require_open, require_unclaimed, rule_of
from bursar.runtime.escalations.events import note, notify
from bursar.runtime.runs.schema import escalation

__all__ = ["CLAIM_S", "CLAIM_S_MAX", "assign", "claim", "comment", "release"]

CLAIM_S = 900
"""How long a claim lasts where nobody says."""

CLAIM_S_MAX = 7 * 86_400
COMMENT_MAX = 10_000


def claim(connection: Connection, row: RowMapping, *, by: str, seconds: int, now: int) -> None:
    """Keep a locked escalation for somebody who may decide: nobody else decides meanwhile; again, to keep it longer."""
    if not 0 < seconds <= CLAIM_S_MAX:
        raise UsageError(f"claim for {seconds} s: expected more than 0, at most {CLAIM_S_MAX}")
    require_open(row, now)
    require_may(row, rule_of(row), by)
    require_unclaimed(row, by, now)
    _change(connection, row, claimed_by=by, claimed_until_us=now + seconds * 1_000_000)
    note(connection, row, "claimed", now, author=by)


def release(connection: Connection, row: RowMapping, *, by: str, now: int) -> None:
    """Give a claim back; raises ConflictError for somebody else's."""
    require_open(row, now)
    if row["claimed_by"] != by:
        words = f"escalation {row['id']} is claimed by {row['claimed_by'] or 'nobody'}, not by {by}"
        raise ConflictError(words, next_step=f"bursar inbox show {row['id']}")
    _change(connection, row, claimed_by=None, claimed_until_us=None)
    note(connection, row, "released", now, author=by)


def assign(connection: Connection, row: RowMapping, *, to: str, by: str, now: int) -> None:
    """Ask one person to decide, who has to be named by some level; whatever claim there is ends.

    Who asks has to be somebody who may decide already, so that nobody gets in before their level by themselves.
    """
    require_open(row, now)
    if not to.strip():
        raise UsageError("assign to nobody: expected a name", next_step=f"bursar inbox show {row['id']}")
    rule = rule_of(row)
    require_may(row, rule, by)
    people = rule.may_decide(len(rule.levels) - 1)
    if people is not None and to not in people:
        words = f"{to} may not decide on escalation {row['id']}; {', '.join(people)} may"
        raise NotAllowedError(words, next_step=f"bursar inbox show {row['id']}")
    _change(connection, row, assignee=to, claimed_by=None, claimed_until_us=None)
    note(connection, row, "assigned", now, author=by, detail=to)
    notify(connection, row, rule, "escalation.assigned", f"{by} asks {to}: {row['words']}", now, to=to)


def comment(connection: Connection, row: RowMapping, text: str, *, by: str, now: int) -> None:
    """Say something about it, also once it is decided."""
    if not 0 < len(text) <= COMMENT_MAX:
        raise UsageError(f"a comment of {len(text)} characters: expected 1 to {COMMENT_MAX}")
    note(connection, row, "comment", now, author=by, detail=text)


def _change(connection: Connection, row: RowMapping, **values: str | int | None) -> None:
    connection.execute(update(escalation).where(escalation.c.id == row["id"]).values(**values))
