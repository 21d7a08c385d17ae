"""What a run's tools did is shown with the run."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from bursar.runtime.cli.effects import effects_json, print_effects
from bursar.tools.journal import EffectEntry, EffectId
from bursar.tools.result import ToolResult

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
OPEN = EffectEntry(
    id=EffectId("acme", "run_1", "task::0:tool"),
    tool="refund",
    state="in_doubt",
    result=None,
    idempotency_key="run_1:task::0:tool",
    begun_at=NOON,
    settled_at=None,
    settled_by=None,
)
FAILED = EffectEntry(
    id=EffectId("acme", "run_1", "next::0:tool"),
    tool="write",
    state="done",
    result=ToolResult("no such letter", is_error=True),
    idempotency_key="run_1:next::0:tool",
    begun_at=NOON,
    settled_at=NOON,
    settled_by="check",
)


def test_each_effect_says_how_it_stands_and_by_whom(capsys: pytest.CaptureFixture[str]) -> None:
    print_effects([OPEN, FAILED])
    printed = " ".join(capsys.readouterr().out.split())
    assert "refund in doubt: a person is asked whether it happened" in printed
    assert "write done, and failed, says check" in printed


def test_nothing_is_said_where_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    print_effects([])
    assert capsys.readouterr().out == ""


def test_programs_read_the_same() -> None:
    shown = effects_json([OPEN, FAILED])
    assert [(one["state"], one["failed"], one["settled_by"]) for one in shown] == [
        ("in_doubt", None, None),
        ("done", True, "check"),
    ]
