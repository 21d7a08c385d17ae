"""Who may decide what is the tenant's data, frozen into the escalation when it is made."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from bursar.budget.errors import BursarError, ConflictError, NotAllowedError
from tests.unit.runtime.escalations.desk import PEOPLE, Desk, approval, config_text, more, question

APPROVE = {"type": "approve"}
DeskOf = Callable[..., Desk]


def rules(text: str) -> str:
    return f"{PEOPLE}    escalations:\n      rules:\n{text}"


TWO = rules("        - {levels: [{roles: [lead]}, {people: [gus]}], two_people_above_usd: 30, amount: amount_usd}\n")


def test_without_people_anybody_may_decide(desk: Desk) -> None:
    [one] = desk.ask(approval())
    assert desk.escalations.decide(one.id, APPROVE, "whoever").decided_by == "whoever"
    assert (one.rule["name"], (one.expires_at or one.created_at) - one.created_at) == (
        "default",
        one.created_at.resolution * 7 * 86_400_000_000,
    )


def test_without_a_rule_that_fits_any_of_the_tenants_people_may(desk_of: DeskOf) -> None:
    desk = desk_of(PEOPLE)
    [one] = desk.ask(approval())
    with pytest.raises(NotAllowedError, match="mallory may not decide on escalation 1; dana, eve, finn, gus may"):
        desk.escalations.decide(one.id, APPROVE, "mallory")
    desk.escalations.decide(one.id, APPROVE, "gus")


def test_the_first_rule_that_fits_decides_by_whom(desk_of: DeskOf) -> None:
    desk = desk_of(
        rules(
            """
        - {tools: [transfer], levels: [{people: [gus]}]}
        - {reasons: [budget], levels: [{people: [finn]}]}
        - {agents: [support], above_usd: 30, levels: [{teams: [risk]}], priority: 5}
        - {levels: [{roles: [lead]}]}
"""
        )
    )

    def who(asked: Any) -> list[str]:
        [one] = desk.ask(asked)
        assert one.priority == (5 if one.rule["name"] == "rules.2" else 0)
        return list(one.rule["levels"][0]["people"])

    assert who(approval()) == ["eve", "finn"]
    assert who(approval(amount_nanousd=30 * 10**9)) == ["dana", "eve"]
    assert who(approval(amount_nanousd=None)) == ["eve", "finn"]  # what nobody knows is above any amount
    assert who(approval(payload={"tool": "transfer", "args": {}})) == ["gus"]
    assert who(more("run_9")) == ["finn"]
    assert who(question()) == ["dana", "eve"]  # no matter of money


def test_a_rule_stays_as_it_was_when_the_escalation_was_made(desk_of: DeskOf) -> None:
    desk = desk_of(rules("        - {levels: [{people: [dana]}]}\n"))
    [one] = desk.ask(approval())
    later = desk_of(rules("        - {levels: [{people: [eve]}]}\n"), empty=False)
    with pytest.raises(NotAllowedError, match="dana may"):
        later.escalations.decide(one.id, APPROVE, "eve")
    later.escalations.decide(one.id, APPROVE, "dana")


@pytest.mark.parametrize(
    ("decision", "error"),
    [
        (APPROVE, None),
        ({"type": "edit", "args": {"order": "1", "amount_usd": 50}}, None),
        (
            {"type": "edit", "args": {"order": "1", "amount_usd": 50.01}},
            r"\$50.00 at most, .* about \$50.01; eve, finn",
        ),
        ({"type": "edit", "args": {"order": "1", "amount_usd": 600}}, r"about \$600.00; eve, gus may"),
        ({"type": "edit", "args": {"order": "1", "amount_usd": -1}}, "not known"),
        ({"type": "reject"}, None),
    ],
)
def test_nobody_lets_more_go_than_their_ceiling(decision: Any, error: str | None, desk_of: DeskOf) -> None:
    """The edited amount counts; a rejection lets nothing go."""
    desk = desk_of(PEOPLE)
    [one] = desk.ask(approval())
    if error is None:
        assert desk.escalations.decide(one.id, decision, "dana").status == "decided"
        return
    with pytest.raises(NotAllowedError, match=error):
        desk.escalations.decide(one.id, decision, "dana")
    assert desk.escalations.get(one.id) == one


@pytest.mark.parametrize("written", ["$1,000,000", "1000000 USD", -1, True, [1_000_000]])
def test_an_amount_that_nobody_can_read_is_above_any_ceiling(written: Any, desk_of: DeskOf) -> None:
    """The model writes it, and could write it so that it is not seen how much it is."""
    desk = desk_of(PEOPLE)
    args = {"order": "1", "amount_usd": written}
    payload = {"tool": "refund", "args": args, "amount_argument": "amount_usd"}
    [one] = desk.ask(approval(amount_nanousd=None, payload=payload))
    with pytest.raises(NotAllowedError, match="an amount that is not known"):
        desk.escalations.decide(one.id, APPROVE, "dana")
    assert desk.escalations.decide(one.id, APPROVE, "eve").status == "decided"


def test_nobody_grants_more_than_their_ceiling(desk_of: DeskOf) -> None:
    desk = desk_of(PEOPLE)
    run_id = desk.begin()
    [one] = desk.wait(run_id, [more(run_id)])
    with pytest.raises(NotAllowedError, match=r"\$51.00"):
        desk.escalations.decide(one.id, {"type": "grant", "cost_usd": "51"}, "dana")
    desk.escalations.decide(one.id, {"type": "grant", "cost_usd": "50", "steps": 3}, "dana")
    assert desk.ledger.reports.bill(run_id).limit["steps"] == 4


def test_above_an_amount_two_people_must_agree(desk_of: DeskOf) -> None:
    """The first is kept, the second completes it; the same person twice is one, whatever roles they have."""
    desk = desk_of(TWO)
    [one] = desk.ask(approval())
    first = desk.escalations.decide(one.id, APPROVE, "dana")
    assert (first.status, first.first_by, desk.status(one.run_id)) == ("open", "dana", "interrupted")
    with pytest.raises(ConflictError, match="another person must agree"):
        desk.escalations.decide(one.id, APPROVE, "dana")
    second = desk.escalations.decide(one.id, APPROVE, "eve")
    assert (second.status, second.first_by, second.decided_by) == ("decided", "dana", "eve")
    assert desk.history(one)[-2:] == [("agreed", "dana"), ("decided", "dana and eve")]
    assert desk.status(one.run_id) == "queued"


def test_of_two_people_neither_is_the_one_who_asked(desk_of: DeskOf) -> None:
    desk = desk_of(TWO)
    [one] = desk.ask(approval(), user="eve")
    with pytest.raises(NotAllowedError, match="eve's own run"):
        desk.escalations.decide(one.id, APPROVE, "eve")
    desk.escalations.decide(one.id, {"type": "reject"}, "eve")


def test_two_people_agree_to_the_same_action(desk_of: DeskOf) -> None:
    """What the second edits is another action, to which the first has not agreed."""
    desk = desk_of(TWO)
    [one] = desk.ask(approval())
    edit = {"type": "edit", "args": {"order": "1", "amount_usd": 35}}
    desk.escalations.decide(one.id, APPROVE, "dana")
    assert desk.escalations.decide(one.id, edit, "eve").status == "open"
    decided = desk.escalations.decide(one.id, edit, "dana")
    assert (decided.status, (decided.decision or {})["args"]["amount_usd"]) == ("decided", 35)


def test_one_person_is_enough_below_the_amount_and_to_say_no(desk_of: DeskOf) -> None:
    desk = desk_of(TWO)
    small, large = desk.ask(approval(1, amount_nanousd=30 * 10**9), approval(2))
    assert desk.escalations.decide(small.id, APPROVE, "dana").status == "decided"
    desk.escalations.decide(large.id, APPROVE, "dana")
    assert desk.escalations.decide(large.id, {"type": "reject"}, "eve").decision == {"type": "reject"}
    assert desk.history(large)[-1] == ("decided", "eve"), "dana agreed to something else"


def test_one_person_in_many_threads_is_not_two(desk_of: DeskOf) -> None:
    desk = desk_of(TWO)
    [one] = desk.ask(approval())

    def go() -> None:
        try:
            desk.escalations.decide(one.id, APPROVE, "dana")
        except BursarError:
            return

    threads = [threading.Thread(target=go) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert desk.escalations.get(one.id).status == "open"
    assert desk.history(one).count(("agreed", "dana")) == 1


def test_a_question_that_is_no_matter_of_money_needs_one_person_above_any_amount(desk_of: DeskOf) -> None:
    desk = desk_of(TWO)
    [one] = desk.ask(question())
    assert desk.escalations.decide(one.id, "yes", "dana").status == "decided"


def test_an_action_of_which_nobody_knows_the_amount_needs_two(desk_of: DeskOf) -> None:
    desk = desk_of(TWO)
    [one] = desk.ask(approval(payload={"tool": "refund", "args": {"order": "1"}}, amount_nanousd=None))
    assert desk.escalations.decide(one.id, APPROVE, "eve").status == "open"


def test_a_question_for_two_takes_the_same_answer_of_both(desk_of: DeskOf) -> None:
    desk = desk_of(rules("        - {levels: [{roles: [lead]}], two_people: true}\n"))
    [one] = desk.ask(question())
    assert desk.escalations.decide(one.id, "yes", "dana").status == "open"
    assert desk.escalations.decide(one.id, "yes", "eve").decision == "yes"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{levels: [{roles: [boss]}]}", "nobody in people is such a role"),
        ("{levels: [{teams: [legal]}]}", "nobody in people is such a team"),
        ("{levels: [{people: [zoe]}]}", "nobody in people is such a person"),
        ("{levels: [{within: 4h}]}", "nobody is named"),
        ("{levels: [{people: [dana]}], above_usd: 50}", "nobody here may approve more than 50"),
        ("{levels: [{people: [dana]}], two_people: true}", "expected two people"),
        ("{levels: [{people: [dana]}], two_people_above_usd: 5}", "expected two people"),
        ("{levels: [{roles: [lead]}], two_people: true, two_people_above_usd: 5}", "without two_people"),
        ("{levels: [{people: [dana]}], on_expiry: escalate}", "second level"),
        ("{levels: [{people: [dana]}], on_expiry: downgrade}", "downgrade only"),
        ("{levels: [{people: [dana], within: 1h}], on_expiry: keep}", "waits for ever"),
        ("{levels: [{people: [dana], within: soon}]}", "such as 30m, 4h or 7d"),
        ("{levels: [{people: [dana], remind: 1m}]}", "at most 100 reminders"),
        ("{levels: [{people: [dana], within: 4h, remind: 4h}]}", "nobody is ever reminded"),
    ],
)
def test_a_rule_that_cannot_work_is_refused_when_it_is_read(text: str, error: str) -> None:
    from pathlib import Path

    from bursar.budget.errors import ConfigError
    from bursar.runtime.config import parse_config

    with pytest.raises(ConfigError, match=error):
        parse_config(config_text(rules(f"        - {text}\n")), file=Path("bursar.yaml"))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("zone: Europe/Pari", "did you mean Europe/Paris"),
        ('hours: {from: "17:00", to: "09:00"}', "after from"),
        ('hours: {from: "9 am"}', "such as 09:00"),
        ("hours: {days: [sunday]}", "days"),
    ],
)
def test_hours_that_cannot_be_are_refused_when_they_are_read(text: str, error: str) -> None:
    from pathlib import Path

    from bursar.budget.errors import ConfigError
    from bursar.runtime.config import parse_config

    with pytest.raises(ConfigError, match=error):
        parse_config(config_text(f"    escalations: {{{text}}}\n"), file=Path("bursar.yaml"))
