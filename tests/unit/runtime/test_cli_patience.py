from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from bursar.runtime.cli import patience as module
from bursar.runtime.cli.patience import PATIENCE_S, patience


def shown(monkeypatch: pytest.MonkeyPatch, *, seconds: float, terminal: bool) -> str:
    """What stands on stderr after half of something that takes so long."""
    out = StringIO()
    monkeypatch.setattr(module, "console", lambda **_: Console(file=out, force_terminal=terminal, width=80))
    times = iter([0.0, 0.1, seconds])
    with patience("replaying", clock=lambda: next(times)) as tell:
        tell(0.1)
        tell(0.5)
        return out.getvalue()


def test_what_is_quick_shows_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, seconds=PATIENCE_S - 0.1, terminal=True) == ""


def test_what_takes_longer_than_two_seconds_shows_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, seconds=PATIENCE_S, terminal=True)
    assert "replaying" in text
    assert "50%" in text


def test_in_a_pipe_there_is_never_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, seconds=60, terminal=False) == ""
