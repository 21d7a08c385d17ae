"""Where runs are killed: before and after each thing that is written down, or done, on the way of a run.

`deciding` lies within the transaction that decides, and each other moment before or after one.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import os
import signal
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

from bursar.budget.ledger import Ledger
from bursar.memory import CheckpointSaver
from bursar.runtime.escalations import escalations
from bursar.runtime.escalations.escalations import Escalations
from bursar.runtime.holds import Holds
from bursar.tools.journal import EffectJournal

__all__ = ["BOUNDARIES", "Boundary", "killed_at"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Boundary:
    """A moment in a run."""

    owner: type | ModuleType
    method: str
    moment: Literal["before", "after"]
    works: Sequence[str] = ("agent", "graph", "signer")
    occasions: int = 2
    """How often each of these is there at least; each trial takes the next."""

    when: Literal["begun", "asked"] | None = None
    """From when on it is deadly; None = once the run has asked what it asks."""

    cuts_off: bool = False
    """Whether a model call is in flight then, so that its outcome stays unknown."""

    def case(self, trial: int) -> tuple[str, int]:
        """Which work is killed in a trial, and at which occasion."""
        cases = [(work, occasion) for occasion in range(1, self.occasions + 1) for work in self.works]
        return cases[trial % len(cases)]


_MODEL = {
    "before-reserve": Boundary(owner=Ledger, method="reserve", moment="before"),
    "reserved": Boundary(owner=Ledger, method="reserve", moment="after"),
    "dispatched": Boundary(owner=Ledger, method="dispatch_all", moment="after", cuts_off=True),
    "answered": Boundary(owner=Ledger, method="settle", moment="before", cuts_off=True),
    "settled": Boundary(owner=Ledger, method="settle", moment="after"),
}

_ACT: dict[str, Any] = {"works": ("agent", "signer")}

_TOOL = {
    "before-intent": Boundary(owner=EffectJournal, method="begin", moment="before", **_ACT),
    "intent": Boundary(owner=EffectJournal, method="begin", moment="after", **_ACT),
    "done": Boundary(owner=EffectJournal, method="finish", moment="before", **_ACT),
    "journaled": Boundary(owner=EffectJournal, method="finish", moment="after", **_ACT),
}

_CHECKPOINT = {
    "before-checkpoint": Boundary(owner=CheckpointSaver, method="aput", moment="before"),
    "checkpoint": Boundary(owner=CheckpointSaver, method="aput", moment="after"),
    "before-writes": Boundary(owner=CheckpointSaver, method="aput_writes", moment="before"),
    "writes": Boundary(owner=CheckpointSaver, method="aput_writes", moment="after"),
}

_ASK: dict[str, Any] = {"works": ("signer", "poor"), "occasions": 1, "when": "begun"}

_INTERRUPT = {
    "before-asking": Boundary(owner=Holds, method="end", moment="before", **_ASK),
    "asked": Boundary(owner=Holds, method="end", moment="after", **_ASK),
}

_DECIDE: dict[str, Any] = {"works": ("signer", "poor"), "occasions": 1}

_DECISION = {
    "before-decision": Boundary(owner=Escalations, method="decide", moment="before", **_DECIDE),
    "deciding": Boundary(owner=escalations, method="decide", moment="after", **_DECIDE),
    "decided": Boundary(owner=Escalations, method="decide", moment="after", **_DECIDE),
    "before-taken": Boundary(owner=Holds, method="claim", moment="before", **_DECIDE),
    "taken": Boundary(owner=Holds, method="claim", moment="after", **_DECIDE),
    "before-the-end": Boundary(owner=Holds, method="end", moment="before", **_DECIDE),
}

BOUNDARIES = {**_MODEL, **_TOOL, **_CHECKPOINT, **_INTERRUPT, **_DECISION}


def killed_at(boundary: Boundary, occasion: int) -> None:
    """Let this process die when it is there for so many times from now on."""
    original = getattr(boundary.owner, boundary.method)
    times = itertools.count(1)

    def there(moment: str) -> None:
        if boundary.moment == moment and next(times) == occasion:
            os.kill(os.getpid(), signal.SIGKILL)

    @functools.wraps(original)
    def dying(*args: Any, **kwargs: Any) -> Any:
        there("before")
        result = original(*args, **kwargs)
        if not inspect.isawaitable(result):
            there("after")
            return result
        return finished(result)

    async def finished(result: Awaitable[Any]) -> Any:
        value = await result
        there("after")
        return value

    setattr(boundary.owner, boundary.method, dying)
