"""The effects of a run, as `bursar runs show` prints them."""

from __future__ import annotations

from collections.abc import Sequence

from bursar.runtime.cli.output import console, print_table
from bursar.runtime.cli.shapes import time_json
from bursar.runtime.cli.words import plain, shown_time
from bursar.tools.journal import EffectEntry

__all__ = ["effects_json", "print_effects"]

_WORDS = {
    "intent": "let act, and has not said how it ended",
    "done": "done",
    "not_done": "surely not done",
    "in_doubt": "in doubt: a person is asked whether it happened",
}


def effects_json(effects: Sequence[EffectEntry]) -> list[dict[str, object]]:
    """Effects as JSON."""
    return [
        {
            "tool": one.tool,
            "state": one.state,
            "failed": one.result.is_error if one.result is not None else None,
            "idempotency_key": one.idempotency_key,
            "begun_at": time_json(one.begun_at),
            "settled_at": None if one.settled_at is None else time_json(one.settled_at),
            "settled_by": one.settled_by,
        }
        for one in effects
    ]


def print_effects(effects: Sequence[EffectEntry]) -> None:
    """A line for each effect; nothing where there is none."""
    if effects:
        console().print()
        print_table(
            [("begun", "whole"), ("effect", "whole"), "how it stands"],
            [(shown_time(one.begun_at), plain(one.tool), _standing(one)) for one in effects],
        )


def _standing(one: EffectEntry) -> str:
    by = f", says {one.settled_by}" if one.settled_by not in (None, "tool") else ""
    failed = ", and failed" if one.result is not None and one.result.is_error else ""
    return f"{_WORDS[one.state]}{failed}{by}"
