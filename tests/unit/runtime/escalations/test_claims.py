"""Who looks at an escalation keeps it for a while, and others can be asked to."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from bursar.budget.errors import ConflictError, NotAllowedError, UsageError
from tests.unit.runtime.escalations.desk import PEOPLE, Desk, approval

APPROVE = {"type": "approve"}


@pytest.fixture
def desk(desk_of: Callable[..., Desk]) -> Desk:
    return desk_of(PEOPLE)


def test_nobody_else_decides_while_a_claim_lasts(desk: Desk) -> None:
    [one] = desk.ask(approval())
    claimed = desk.escalations.claim(one.id, "dana", 60)
    assert (claimed.claimed_by, claimed.claimed_until) == ("dana", desk.at + timedelta(seconds=60))
    with pytest.raises(ConflictError, match="claimed by dana until"):
        desk.escalations.decide(one.id, APPROVE, "eve")
    with pytest.raises(ConflictError, match="claimed by dana until"):
        desk.escalations.claim(one.id, "eve")
    desk.at += timedelta(seconds=61)
    assert desk.escalations.decide(one.id, APPROVE, "eve").decided_by == "eve"


def test_a_claim_can_be_given_back_by_whom_it_is(desk: Desk) -> None:
    [one] = desk.ask(approval())
    desk.escalations.claim(one.id, "dana")
    with pytest.raises(ConflictError, match="claimed by dana, not by eve"):
        desk.escalations.release(one.id, "eve")
    assert desk.escalations.release(one.id, "dana").claimed_by is None
    desk.escalations.decide(one.id, APPROVE, "eve")


def test_an_assignment_goes_before_a_claim(desk: Desk) -> None:
    [one] = desk.ask(approval())
    desk.escalations.claim(one.id, "dana")
    assigned = desk.escalations.assign(one.id, to="eve", by="gus")
    assert (assigned.assignee, assigned.claimed_by) == ("eve", None)
    assert [each.id for each in desk.escalations.ls(assignee="eve")] == [one.id]
    desk.escalations.claim(one.id, "dana")
    assert desk.escalations.decide(one.id, APPROVE, "eve").decided_by == "eve"
    assert ("escalation.assigned", ["eve"]) in desk.told()


def test_only_who_may_decide_may_claim_or_be_asked(desk: Desk) -> None:
    [one] = desk.ask(approval())
    with pytest.raises(NotAllowedError):
        desk.escalations.claim(one.id, "mallory")
    with pytest.raises(NotAllowedError, match="mallory may not"):
        desk.escalations.assign(one.id, to="mallory", by="dana")
    with pytest.raises(UsageError, match="claim for 0 s"):
        desk.escalations.claim(one.id, "dana", 0)


def test_nobody_lets_themselves_in_before_their_level(desk_of: Callable[..., Desk]) -> None:
    later = "    escalations: {rules: [{levels: [{roles: [lead], within: 4h}, {people: [gus]}]}]}\n"
    desk = desk_of(PEOPLE + later)
    [one] = desk.ask(approval())
    with pytest.raises(NotAllowedError, match="gus may not decide on escalation 1 yet"):
        desk.escalations.assign(one.id, to="gus", by="gus")
    desk.escalations.assign(one.id, to="gus", by="eve")
    assert desk.escalations.decide(one.id, APPROVE, "gus").decided_by == "gus"


def test_an_assignment_names_somebody(desk_of: Callable[..., Desk]) -> None:
    desk = desk_of()
    [one] = desk.ask(approval())
    with pytest.raises(UsageError, match="expected a name"):
        desk.escalations.assign(one.id, to=" ", by="dana")


def test_comments_are_a_part_of_the_history(desk: Desk) -> None:
    [one] = desk.ask(approval())
    desk.escalations.comment(one.id, "the customer called", "eve")
    desk.escalations.decide(one.id, APPROVE, "dana", "as agreed")
    desk.escalations.comment(one.id, "thanks", "eve")
    events = [(each.kind, each.author, each.detail) for each in desk.escalations.history(one.id)]
    assert events == [
        ("opened", "", ""),
        ("comment", "eve", "the customer called"),
        ("decided", "dana", "approve: as agreed"),
        ("comment", "eve", "thanks"),
    ]
    with pytest.raises(UsageError, match="a comment of 0 characters"):
        desk.escalations.comment(one.id, "", "eve")
