"""Alerts at a terminal."""

from __future__ import annotations

import json
import logging

import pytest

from bursar.runtime.cli.alert_words import AlertWords


def told(line: str) -> str:
    return AlertWords().format(logging.LogRecord("bursar.alerts", logging.WARNING, "", 0, "%s", (line,), None))


def test_an_alert_is_told_in_words_with_the_next_command() -> None:
    line = json.dumps({"type": "limit.percent", "data": {"message": "acme has used 80 %", "next": "bursar budget ls"}})
    assert told(line) == "alert: acme has used 80 % -> bursar budget ls"


@pytest.mark.parametrize("line", ["alert 7 was given up: 410", '{"data": 1}', "[]"])
def test_any_other_line_is_shown_as_it_is(line: str) -> None:
    assert told(line) == line


def test_what_would_steer_the_terminal_is_shown_and_not_obeyed() -> None:
    assert "\x1b" not in told(json.dumps({"data": {"message": "\x1b[2J"}}))
