"""What goes to a person of an agent's own accord is declared, and checked when it is written down."""

from __future__ import annotations

from typing import Any

import pytest

from bursar.agents import Agent, Escalate, Judge
from bursar.budget.errors import UsageError


def test_by_default_nothing_does() -> None:
    assert Agent(name="clerk", instructions="Answer.").escalate == Escalate(failures=None, verify=None)


@pytest.mark.parametrize("verify", [None, Judge(), lambda answer: True])
def test_an_answer_is_verified_by_a_model_or_a_function(verify: Any) -> None:
    assert Escalate(failures=3, verify=verify).verify is verify


@pytest.mark.parametrize("given", [{"failures": 0}, {"failures": True}, {"failures": "3"}, {"verify": "schema"}])
def test_what_cannot_be_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="expected"):
        Escalate(**given)


def test_an_agent_takes_nothing_else_for_it() -> None:
    with pytest.raises(UsageError, match=r"expected Escalate\(\.\.\.\)"):
        Agent(name="clerk", instructions="Answer.", escalate=3)  # type: ignore[arg-type]  # the mistake under test
