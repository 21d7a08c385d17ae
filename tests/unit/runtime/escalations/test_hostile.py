"""Nothing that a model or a graph writes keeps a run from ending, or from asking; on both kinds of store."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest
from langgraph.types import Interrupt as GraphInterrupt

from bursar.runtime.escalations import opening
from bursar.runtime.escalations.kinds import questions
from bursar.runtime.execution import Ending
from bursar.runtime.holds import Holds
from tests.unit.runtime.escalations.desk import Desk, question

UNSTORABLE = "it says \0 and \ud800"


def ended(desk: Desk, ending: Ending) -> str:
    """The id of a run that was executed and ended so."""
    run_id = desk.begin()
    holds = Holds(desk.records, desk.escalations, desk.ledger, "worker", 10.0, desk.now)
    hold = desk.ledger.gates.hold(f"acme/support/{run_id}", "worker", 10.0)
    holds.end(desk.records.row(run_id), hold, ending)
    return run_id


def test_a_run_ends_whatever_its_answer_or_its_error_says(desk: Desk) -> None:
    for status in ("succeeded", "failed"):
        run = desk.records.row(ended(desk, Ending(status=status, cause=UNSTORABLE, output=UNSTORABLE)))
        assert run["status"] == status
        assert run["output"].startswith("it says ")
        assert "\0" not in run["output"] + run["stop_reason"]


def test_a_run_waits_with_its_question_whatever_that_says(desk: Desk) -> None:
    asked = question(words=UNSTORABLE, payload={"value": UNSTORABLE})
    run_id = ended(desk, Ending(status="interrupted", cause=UNSTORABLE, interrupts=[asked]))
    (one,) = desk.escalations.ls(run_id=run_id)
    assert desk.status(run_id) == "interrupted"
    desk.escalations.decide(one.id, UNSTORABLE, "dana", note=UNSTORABLE)
    assert desk.status(run_id) == "queued"


@pytest.mark.parametrize(
    "value", [{"question": "which?", 1: "one"}, {("a", "tuple"): object()}, [{None: {1, 2}}], {"ratio": 0.5}]
)
def test_a_graph_may_ask_with_any_value_and_it_is_shown_as_json_has_it(desk: Desk, value: Any) -> None:
    (one,) = desk.ask(*questions(GraphInterrupt(value=value, id="a" * 32)))
    assert one.status == "open"
    assert set(one.payload) == {"value"}


def test_what_a_run_asked_before_is_read_once_however_much_it_asks(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of calls of one step are asked about in one transaction, which others wait for."""
    read = Mock(wraps=opening._by_interrupt)
    monkeypatch.setattr(opening, "_by_interrupt", read)
    assert len(desk.ask(*(question(place) for place in range(20)))) == 20
    assert read.call_count == 1
