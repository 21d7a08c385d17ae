"""A person decides once, on exactly what was shown, and nothing else is done."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from bursar.budget.errors import BursarError, ConflictError, NotFoundError, UsageError
from bursar.runtime.escalations.digest import action_digest
from tests.unit.runtime.escalations.desk import Desk, approval, more, question

APPROVE = {"type": "approve"}


def test_a_question_is_an_escalation_from_the_moment_that_its_run_waits(desk: Desk) -> None:
    [one] = desk.ask(approval(), user="ann")
    assert (one.status, one.tenant, one.agent, one.requester) == ("open", "acme", "support", "ann")
    assert one.digest == action_digest("refund", {"order": "1", "amount_usd": 40})
    assert one.cost_nanousd == 0
    assert desk.history(one) == [("opened", "")]
    assert desk.told() == [("escalation.opened", None)]


def test_a_decision_queues_the_run_in_the_same_transaction(desk: Desk) -> None:
    [one] = desk.ask(approval())
    decided = desk.escalations.decide(one.id, APPROVE, "dana", "fine")
    assert (decided.status, decided.decision, decided.decided_by) == ("decided", APPROVE, "dana")
    assert desk.status(one.run_id) == "queued"
    assert desk.answers(one.run_id, [one.interrupt_id]) == {one.interrupt_id: {**APPROVE, "asked": one.digest}}
    assert desk.records.row(one.run_id)["stop_reason"] == "approve on: support wants to call refund"


def test_who_comes_second_is_told_who_decided_what_and_when(desk: Desk) -> None:
    [one] = desk.ask(approval())
    desk.escalations.decide(one.id, {"type": "reject", "message": "it was delivered"}, "dana")
    with pytest.raises(ConflictError, match=r"decided by dana at 2026-03-02T09:00:00\+00:00: reject \(message: it was"):
        desk.escalations.decide(one.id, APPROVE, "eve")
    assert desk.escalations.get(one.id).decided_by == "dana"


def test_a_hundred_decide_at_once_and_one_wins(desk: Desk) -> None:
    """Each of the others is told of the winner."""
    [one] = desk.ask(approval())
    start, ends = threading.Barrier(100), list[object]()

    def go(place: int) -> None:
        start.wait()
        try:
            ends.append(desk.escalations.decide(one.id, APPROVE, f"person{place}").decided_by)
        except ConflictError as error:
            ends.append(error.message)

    threads = [threading.Thread(target=go, args=(place,)) for place in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winner = desk.escalations.get(one.id).decided_by
    assert ends.count(winner) == 1
    assert sum(f"was decided by {winner} at" in str(end) for end in ends) == 99
    assert [kind for kind, _ in desk.history(one)] == ["opened", "decided"]


@pytest.mark.parametrize(
    ("decision", "error"),
    [
        ("yes", "no decision"),
        ({"type": "grant"}, "no decision"),
        ({"type": "edit"}, "expected its arguments"),
        ({"type": "edit", "args": {"order": "1"}}, "amount_usd"),
        ({"type": "edit", "args": {"order": "1", "amount_usd": "much"}}, "amount_usd"),
        ({"type": "edit", "args": {"order": "1", "amount_usd": 1, "to": "me"}}, "to"),
        ({"type": "edit", "edited_action": {"name": "pay", "args": {}}}, "same tool"),
        ({"type": "respond"}, "needs a message"),
        ({"type": "reject", "message": object()}, "plain JSON"),
    ],
)
def test_a_decision_that_does_not_fit_has_no_effect(decision: Any, error: str, desk: Desk) -> None:
    [one] = desk.ask(approval())
    with pytest.raises(UsageError, match=error):
        desk.escalations.decide(one.id, decision, "dana")
    assert desk.escalations.get(one.id) == one
    assert desk.status(one.run_id) == "interrupted"


def test_an_edit_is_another_action_with_a_digest_of_its_own(desk: Desk) -> None:
    [one] = desk.ask(approval())
    args = {"order": "1", "amount_usd": 5}
    decided = desk.escalations.decide(one.id, {"type": "edit", "args": args}, "dana")
    assert decided.decision == {"type": "edit", "tool": "refund", "args": args, "digest": action_digest("refund", args)}


def test_a_decision_on_another_action_than_was_seen_is_stale(desk: Desk) -> None:
    [one] = desk.ask(approval())
    with pytest.raises(ConflictError, match="another action"):
        desk.escalations.decide(one.id, APPROVE, "dana", digest=action_digest("refund", {"order": "2"}))
    desk.escalations.decide(one.id, APPROVE, "dana", digest=one.digest)


def test_what_is_unknown_or_anothers_is_not_there(desk: Desk) -> None:
    [one] = desk.ask(approval())
    for attempt in (
        lambda: desk.escalations.decide(one.id + 1, APPROVE, "dana"),
        lambda: desk.escalations.decide(one.id, APPROVE, "dana", tenant="other"),
        lambda: desk.escalations.get(one.id, tenant="other"),
        lambda: desk.escalations.history(one.id, tenant="other"),
    ):
        with pytest.raises(NotFoundError, match="no escalation"):
            attempt()
    assert desk.escalations.get(one.id).status == "open"


def test_several_actions_of_one_step_are_decided_each_on_its_own(desk: Desk) -> None:
    first, second = desk.ask(approval(1), approval(2))
    desk.escalations.decide(first.id, APPROVE, "dana")
    assert desk.status(first.run_id) == "queued"
    assert set(desk.answers(first.run_id, [first.interrupt_id, second.interrupt_id])) == {first.interrupt_id}
    assert desk.escalations.get(second.id).status == "open"


def test_decisions_given_together_are_made_all_or_none(desk: Desk) -> None:
    first, second = desk.ask(approval(1), approval(2))
    with pytest.raises(UsageError):
        desk.escalations.decide_for(
            first.run_id, {first.interrupt_id: APPROVE, second.interrupt_id: {"type": "grant"}}, by="dana"
        )
    assert [one.status for one in desk.escalations.ls(run_id=first.run_id)] == ["open", "open"]
    with pytest.raises(ConflictError, match="does not wait on interrupt nothing"):
        desk.escalations.decide_for(first.run_id, {"nothing": APPROVE}, by="dana")


def test_a_batch_is_answered_once_all_of_it_is_decided(desk: Desk) -> None:
    """In the order in which it was asked, whatever the order of decisions."""
    graph = "a" * 32
    parts = [approval(id=f"{graph}:{place}", kind="batch") for place in range(2)]
    first, second = desk.ask(*parts)
    desk.escalations.decide(second.id, {"type": "edit", "args": {"order": "1", "amount_usd": 2}}, "dana")
    assert (desk.status(first.run_id), desk.answers(first.run_id, [graph])) == ("interrupted", {})
    desk.escalations.decide(first.id, {"type": "reject", "message": "no"}, "eve")
    edited = {"name": "refund", "args": {"order": "1", "amount_usd": 2}}
    assert desk.status(first.run_id) == "queued"
    assert desk.answers(first.run_id, [graph]) == {
        graph: {"decisions": [{"type": "reject", "message": "no"}, {"type": "edit", "edited_action": edited}]}
    }


def test_a_graphs_own_question_takes_any_answer_that_fits_its_form(desk: Desk) -> None:
    colours = {"type": "string", "enum": ["red", "blue"]}
    [one] = desk.ask(question(form=colours))
    with pytest.raises(UsageError, match="green"):
        desk.escalations.decide(one.id, "green", "dana")
    desk.escalations.decide(one.id, "blue", "dana")
    assert desk.answers(one.run_id, [one.interrupt_id]) == {one.interrupt_id: "blue"}


def test_what_a_run_does_not_ask_any_more_is_withdrawn(desk: Desk) -> None:
    [one] = desk.ask(approval(1))
    desk.wait(one.run_id, [approval(2)])
    assert desk.escalations.get(one.id).status == "withdrawn"
    with pytest.raises(ConflictError, match="withdrawn"):
        desk.escalations.decide(one.id, APPROVE, "dana")


def test_a_decision_while_the_run_is_executed_queues_it_at_the_end(desk: Desk) -> None:
    first, second = desk.ask(approval(1), approval(2))
    desk.escalations.decide(first.id, APPROVE, "dana")
    desk.records.change(first.run_id, "running", cause="taken up", also=desk.escalations.take)
    desk.escalations.decide(second.id, APPROVE, "eve")
    assert desk.status(first.run_id) == "running"
    desk.wait(first.run_id, [approval(2)])
    assert desk.status(first.run_id) == "queued"


def test_a_decision_that_the_graph_did_not_keep_is_handed_to_it_again(desk: Desk) -> None:
    [one] = desk.ask(approval())
    desk.escalations.decide(one.id, APPROVE, "dana")
    desk.records.change(one.run_id, "running", cause="taken up", also=desk.escalations.take)
    assert set(desk.answers(one.run_id, [one.interrupt_id])) == {one.interrupt_id}
    assert desk.answers(one.run_id, []) == {}


def test_of_many_who_grant_at_once_one_grants(desk: Desk) -> None:
    """A loser of the race has never granted anything."""
    run_id = desk.begin()
    [one] = desk.wait(run_id, [more(run_id)])
    ends = list[str]()

    def go(place: int) -> None:
        try:
            desk.escalations.decide(one.id, {"type": "grant", "steps": 7}, f"person{place}")
            ends.append("granted")
        except ConflictError:
            ends.append("too late")

    threads = [threading.Thread(target=go, args=(place,)) for place in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ends) == ["granted"] + ["too late"] * 15
    assert desk.ledger.reports.bill(run_id).limit["steps"] == 1 + 7
    assert desk.status(run_id) == "queued"


def test_a_run_that_is_stopped_at_its_limit_asks_nothing_else(desk: Desk) -> None:
    run_id = desk.begin()
    asked = {one.reason: one for one in desk.wait(run_id, [more(run_id), approval()])}
    desk.escalations.decide(asked["budget"].id, {"type": "stop"}, "dana")
    assert desk.status(run_id) == "stopped"
    assert desk.escalations.get(asked["approval"].id).status == "withdrawn"


def test_a_downgraded_run_goes_on_with_lower_tiers(desk: Desk) -> None:
    run_id = desk.begin()
    [one] = desk.wait(run_id, [more(run_id)])
    desk.escalations.decide(one.id, {"type": "downgrade"}, "dana")
    row = desk.records.row(run_id)
    assert (row["status"], row["on_limit"]) == ("queued", "downgrade")


def test_a_grant_that_cannot_be_grants_nothing(desk: Desk) -> None:
    run_id = desk.begin()
    [one] = desk.wait(run_id, [more(run_id)])
    with pytest.raises(BursarError):
        desk.escalations.decide(one.id, {"type": "grant", "steps": 5, "seconds": 10**12}, "dana")
    assert desk.ledger.reports.bill(run_id).limit["steps"] == 1
    assert desk.status(run_id) == "interrupted"


@pytest.mark.parametrize(
    "form",
    [
        {"type": "strng"},
        {"type": "string", "pattern": "("},
        {"$ref": "#/nowhere"},
        {"$ref": "http://127.0.0.1:9/schema.json"},
        ["string"],
    ],
)
def test_a_form_that_is_no_schema_is_said_and_never_fetched(form: Any, desk: Desk, no_network: list[str]) -> None:
    [one] = desk.ask(question(form=form))
    with pytest.raises(UsageError, match="no JSON Schema"):
        desk.escalations.decide(one.id, "blue", "dana")
    assert no_network == []


@pytest.mark.parametrize(
    ("decision", "error"),
    [
        ({"type": "edit", "edited_action": "refund"}, "expected its arguments"),
        ({"type": ["approve"]}, "is no decision on it"),
        ({"type": "edit", "args": [40]}, "expected its arguments"),
        ({"type": "stop"}, "it takes approve, edit, reject, respond -> bursar inbox show 1"),
    ],
)
def test_a_decision_of_another_shape_is_a_mistake_in_words(decision: Any, error: str, desk: Desk) -> None:
    [one] = desk.ask(approval())
    with pytest.raises(UsageError, match=error):
        desk.escalations.decide(one.id, decision, "dana")
    assert desk.escalations.get(one.id) == one


@pytest.mark.parametrize("given", [{}, {"cost_usd": "0"}, {"steps": 0, "seconds": 0}])
def test_a_grant_gives_something(given: dict[str, Any], desk: Desk) -> None:
    """The run would wait for the same again."""
    run_id = desk.begin()
    [one] = desk.wait(run_id, [more(run_id)])
    with pytest.raises(UsageError, match="a grant of nothing"):
        desk.escalations.decide(one.id, {"type": "grant", **given}, "dana")
    assert desk.escalations.get(one.id) == one


@pytest.mark.parametrize("decisions", [5, None, {"0": "a", "1": "b"}, "ab"])
def test_the_decisions_on_a_batch_are_a_list(decisions: Any, desk: Desk) -> None:
    run_id = desk.begin()
    parts = [approval(id=f"{'b' * 32}:{place}", kind="batch") for place in range(2)]
    desk.wait(run_id, parts)
    with pytest.raises(UsageError, match="asks for 2 decisions, not"):
        desk.escalations.decide_for(run_id, {"b" * 32: {"decisions": decisions}}, by="dana")


@pytest.mark.parametrize("id", [0, -1, 2**63, 2**70])
def test_a_number_that_no_escalation_can_have_is_one_that_is_not_there(id: int, desk: Desk) -> None:
    with pytest.raises(NotFoundError, match=f"there is no escalation {id}"):
        desk.escalations.get(id)
    with pytest.raises(NotFoundError, match=f"there is no escalation {id}"):
        desk.escalations.decide(id, APPROVE, "dana")


@pytest.mark.parametrize("amounts", [{"tokens": 10**30}, {"steps": 2**63}, {"tool_calls": -1}])
def test_nobody_grants_a_number_that_no_ledger_holds(amounts: Any, desk: Desk) -> None:
    run_id = desk.begin()
    [one] = desk.wait(run_id, [more(run_id)])
    with pytest.raises(UsageError, match="expected a whole number"):
        desk.escalations.decide(one.id, {"type": "grant", **amounts}, "dana")
