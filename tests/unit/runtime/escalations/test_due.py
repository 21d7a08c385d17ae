"""What is due happens at its time, once, also where no process was up then."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bursar.budget.errors import ConflictError, NotAllowedError
from bursar.budget.windows import to_us
from tests.unit.runtime.escalations.desk import PEOPLE, START, Desk, approval, more, question

APPROVE = {"type": "approve"}
DeskOf = Callable[..., Desk]


def rules(text: str, more: str = "") -> str:
    return f"{PEOPLE}    escalations:\n{more}      rules:\n        - {text}\n"


LEVELS = rules("{levels: [{people: [dana], within: 4h, remind: 1h}, {teams: [risk], within: 1d}], on_expiry: escalate}")


def test_people_are_reminded_then_the_next_level_is_asked_then_it_is_rejected(desk_of: DeskOf) -> None:
    desk = desk_of(LEVELS)
    [one] = desk.ask(approval())
    assert one.expires_at == START + timedelta(hours=28)
    with pytest.raises(NotAllowedError, match="eve may not decide on escalation 1 yet; dana may"):
        desk.escalations.decide(one.id, APPROVE, "eve")
    for _ in range(4):
        desk.later(hours=1)
    assert desk.told()[1:] == [
        *[("escalation.reminder", ["dana"])] * 3,
        ("escalation.raised", ["dana", "eve", "finn"]),
    ]
    assert desk.escalations.get(one.id).level == 1
    desk.later(hours=23, minutes=59, seconds=59)
    assert desk.escalations.get(one.id).status == "open"
    desk.later(seconds=1)
    ended = desk.escalations.get(one.id)
    assert (ended.status, ended.decided_by, (ended.decision or {})["type"]) == ("expired", "policy", "reject")
    assert desk.status(one.run_id) == "queued"
    assert desk.told()[-1][0] == "escalation.expired"


def test_the_next_level_may_decide_once_it_is_asked_and_those_before_still_may(desk_of: DeskOf) -> None:
    desk = desk_of(LEVELS)
    first, second = desk.ask(approval(1), approval(2))
    desk.later(hours=4)
    desk.escalations.decide(first.id, APPROVE, "finn")
    desk.escalations.decide(second.id, APPROVE, "dana")


def test_what_was_missed_happens_at_the_start_of_the_next_process(desk_of: DeskOf) -> None:
    """Nobody is told of what is long past: the last of it counts."""
    desk = desk_of(LEVELS)
    [one] = desk.ask(approval())
    desk.later(hours=5)
    assert [kind for kind, _ in desk.history(one)] == ["opened", "raised"]
    desk.later(days=30)
    assert [kind for kind, _ in desk.history(one)] == ["opened", "raised", "expired"]


def test_of_many_processes_one_does_what_is_due(desk_of: DeskOf) -> None:
    desk, other = desk_of(LEVELS), desk_of(LEVELS, empty=False)
    [one] = desk.ask(approval())
    for hour in range(1, 29):
        desk.at = other.at = START + timedelta(hours=hour)
        desk.escalations.act_on_due()
        other.escalations.act_on_due()
    assert [kind for kind, _ in desk.history(one)] == ["opened", *["reminder"] * 3, "raised", "expired"]


def test_a_decision_after_the_deadline_has_no_effect_also_before_the_clock_has_acted(desk: Desk) -> None:
    [one] = desk.ask(approval())
    desk.at += timedelta(days=7)
    with pytest.raises(ConflictError, match="expired at 2026-03-09T09:00:00"):
        desk.escalations.decide(one.id, APPROVE, "dana")
    desk.escalations.act_on_due()
    with pytest.raises(ConflictError, match="expired"):
        desk.escalations.decide(one.id, APPROVE, "dana")
    assert desk.escalations.get(one.id).decision == {
        "type": "reject",
        "message": "nobody decided by 2026-03-09T09:00:00+00:00",
    }


def test_what_is_decided_is_never_due(desk: Desk) -> None:
    [one] = desk.ask(approval())
    desk.escalations.decide(one.id, APPROVE, "dana")
    desk.later(days=8)
    assert [kind for kind, _ in desk.history(one)] == ["opened", "decided"]
    assert desk.escalations.act_on_due() is None


def test_the_clock_knows_when_the_next_is_due(desk_of: DeskOf) -> None:
    desk = desk_of(LEVELS)
    desk.ask(approval())
    assert desk.escalations.act_on_due() == START + timedelta(hours=1)


@pytest.mark.parametrize(
    ("rule", "status", "on_limit"),
    [("{levels: [{people: [dana]}]}", "stopped", "escalate"), ("", "queued", "downgrade")],
)
def test_a_run_at_its_limit_ends_or_goes_on_with_lower_tiers(
    rule: str, status: str, on_limit: str, desk_of: DeskOf
) -> None:
    desk = desk_of(rules(rule or "{reasons: [budget], levels: [{people: [dana]}], on_expiry: downgrade}"))
    run_id = desk.begin()
    desk.wait(run_id, [more(run_id)])
    desk.later(days=7)
    row = desk.records.row(run_id)
    assert (row["status"], row["on_limit"]) == (status, on_limit)


def test_a_graphs_own_question_that_nobody_answers_ends_its_run(desk: Desk) -> None:
    """No answer is made up: who knows what the graph would take for a yes."""
    [one] = desk.ask(question())
    desk.later(days=7)
    assert (desk.status(one.run_id), desk.answers(one.run_id, [one.interrupt_id])) == ("stopped", {})
    assert "nobody decided by 2026-03-09" in desk.records.row(one.run_id)["stop_reason"]
    [again] = desk.wait(one.run_id, [question()])  # somebody resumed the run, which asks anew
    assert (again.id, again.status) == (one.id, "open")


def test_what_is_due_at_once_is_done_in_turns_each_without_delay(desk: Desk) -> None:
    """A look deals with a few, so that calls need not wait for the ledger, and says that more is due."""
    made = desk.ask(*[approval(place) for place in range(30)])
    desk.at += timedelta(days=7)
    assert desk.escalations.act_on_due() == made[0].expires_at
    assert desk.escalations.act_on_due() is None
    assert len(desk.escalations.ls(status="expired")) == 30


def test_what_is_kept_waits_for_ever(desk_of: DeskOf) -> None:
    desk = desk_of(rules("{levels: [{people: [dana], remind: 2d}], on_expiry: keep}"))
    [one] = desk.ask(approval())
    assert one.expires_at is None
    desk.later(days=365)
    assert desk.escalations.decide(one.id, APPROVE, "dana").status == "decided"


def test_time_passes_in_working_hours_alone(desk_of: DeskOf) -> None:
    hours = '      zone: Europe/Paris\n      hours: {from: "09:00", to: "17:00"}\n'
    desk = desk_of(rules("{levels: [{people: [dana], within: 4h}]}", hours))
    desk.at = datetime(2026, 3, 27, 15, 0, tzinfo=UTC)  # Friday, 16:00 in Paris; on Sunday clocks are set forward
    [one] = desk.ask(approval())
    assert one.expires_at == datetime(2026, 3, 30, 10, 0, tzinfo=UTC)  # Monday, 12:00


def test_who_asks_may_set_an_earlier_deadline(desk_of: DeskOf) -> None:
    desk = desk_of(LEVELS)
    at = int((START + timedelta(minutes=90)).timestamp() * 1_000_000)
    [one] = desk.ask(approval(expires_us=at))
    desk.later(hours=1)
    desk.later(minutes=30)
    assert [kind for kind, _ in desk.history(one)] == ["opened", "reminder", "expired"]


@pytest.mark.parametrize("expires_us", [to_us(START) - 1, 0, to_us(START)])
def test_a_question_that_is_over_when_it_is_asked_expires_at_once(expires_us: int, desk: Desk) -> None:
    """Nobody can answer it any more, so its run must not wait for that."""
    [one] = desk.ask(question(expires_us=expires_us))
    desk.later(seconds=1)
    assert desk.escalations.get(one.id).status == "expired"
    assert desk.status(one.run_id) == "stopped"


def test_notices_never_hold_what_the_arguments_are(desk: Desk) -> None:
    desk.ask(approval(payload={"tool": "refund", "args": {"iban": "DE89 3704"}}))
    [alert] = desk.ledger.alerts.ls()
    assert "DE89" not in str(alert)
    wanted: dict[str, Any] = {"reason": "approval", "agent": "support", "escalation": 1, "amount_usd": "40.000000000"}
    assert wanted.items() <= dict(alert.data).items()
