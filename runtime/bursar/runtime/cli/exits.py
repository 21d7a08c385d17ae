"""The exit codes of every command."""

from __future__ import annotations

from enum import IntEnum

from bursar.budget.errors import BursarError
from bursar.runtime.runs.run import RunStatus

__all__ = ["BrokenOff", "Exit", "exit_of"]


class Exit(IntEnum):
    """What the command came to."""

    OK = 0
    ERROR = 1
    """Something failed; one line on stderr says what and what to do."""

    USAGE = 2
    """The command was called in a way that cannot work."""

    LIMIT = 3
    """A limit refused; the run is stopped until more is granted."""

    WAITS = 4
    """The run waits for a person."""

    BROKEN_OFF = 130
    """Ctrl-C; what was in flight is settled, and the run can be resumed."""


_OF_STATUS: dict[RunStatus, Exit] = {
    "queued": Exit.OK,
    "running": Exit.OK,
    "succeeded": Exit.OK,
    "stopped": Exit.LIMIT,
    "interrupted": Exit.WAITS,
    "failed": Exit.ERROR,
    "cancelled": Exit.ERROR,
}


def exit_of(status: RunStatus) -> Exit:
    """The exit code of a command that followed a run to this state."""
    return _OF_STATUS[status]


class BrokenOff(BursarError):
    """Ctrl-C during a run. What was in flight is settled: the run can be resumed."""

    def __init__(self, run_id: str, resume: str) -> None:
        """`resume` is the command that goes on with the run."""
        super().__init__(f"broken off; run {run_id} is settled", next_step=resume)
