"""Alerts for a person at a terminal, in words; everywhere else they are lines of JSON, for what reads logs."""

from __future__ import annotations

import json
import logging
import sys

from bursar.runtime.cli.words import plain

__all__ = ["AlertWords", "alerts_in_words"]


class AlertWords(logging.Formatter):
    """What an alert says and the command that it names; any other line as it is."""

    def format(self, record: logging.LogRecord) -> str:
        """The words of one record of the logger `bursar.alerts`."""
        line = record.getMessage()
        try:
            data = json.loads(line)["data"]
            said = f"alert: {data['message']}" + (f" -> {data['next']}" if data.get("next") else "")
        except (ValueError, KeyError, TypeError):
            return plain(line)
        return plain(said)


def alerts_in_words() -> None:
    """Let this process tell alerts in words where its errors go to a terminal."""
    if sys.stderr.isatty():
        handler = logging.StreamHandler()
        handler.setFormatter(AlertWords())
        log = logging.getLogger("bursar.alerts")
        log.addHandler(handler)
        log.propagate = False
