"""Which models are passed by for a while, why, and until when: a breaker for each model, of a state that others share.

closed -> open      a failure whose cause cools the model down, or so many failures in a row
open -> half_open   its time is over: one call tries the model, the others still pass it by
half_open -> closed the try was answered
half_open -> open   it failed, for twice as long as the last time

A pause that a provider asked for ends by itself: nobody need try the model first.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from bursar.runtime.models.causes import CAUSES, Failure, cause_of
from bursar.runtime.models.provider import ProviderError

__all__ = ["Cooling", "Health", "State"]

State = Literal["closed", "open", "half_open"]

FAILURES_MAX = 5
"""So many failures in a row open the breaker."""

COOLED_S = 5.0
"""How long it stays open the first time; then twice as long each time."""

COOLED_S_MAX = 300.0

QUOTA_S = 900.0
"""How long a model whose provider's budget is used up is passed by, where nobody says when it is renewed."""

SETUP_S = 60.0
"""How long a model that its key or its name keeps from answering is passed by."""

ASKED_S_MAX = 40 * 86_400.0
"""The longest that a provider may ask for: a budget by the month is renewed by then."""

Exchange = Callable[[Sequence["Cooling"], Sequence["Cooling"]], Iterable["Cooling"]]
"""Writes what was opened and what was closed, and gives what all processes know."""

_CAUSES = {cause.name: cause for cause in CAUSES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cooling:
    """Why a model is passed by, and until when."""

    model: str
    """Its name in bursar.yaml."""

    cause: str
    """The name of a row in the table of causes."""

    detail: str
    """What the provider said."""

    since: datetime
    until: datetime
    times: int = 1
    """How often in a row the breaker opened."""

    tried_until: datetime | None = None
    """For how long a call that tries the model may take; None where none does."""

    @property
    def ends_by_itself(self) -> bool:
        """Whether it was a pause that the provider asked for."""
        return _CAUSES[self.cause].cools == "asked"

    def state(self, now: datetime) -> State:
        """How the model stands."""
        if now < self.until:
            return "open"
        return "closed" if self.ends_by_itself else "half_open"

    def failure(self, now: datetime) -> Failure:
        """What a call is told that passes the model by."""
        at = max(self.until, self.tried_until or self.until)
        words = f"cools down until {at:%Y-%m-%d %H:%M:%S} UTC: {self.detail}"
        kind = _CAUSES[self.cause].error
        return Failure(self.model, kind(words, retry_after_s=max(0.0, (at - now).total_seconds())), "next", attempts=0)


class Health:
    """The state of every model, in this process; may be used from several threads and event loops."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._cooling: dict[str, Cooling] = {}
        self._failures: Counter[str] = Counter()
        self._unshared: dict[str, Cooling] = {}
        """What was opened or closed since the last `share`: the cooling that began, or the one that ended."""

        self._shared: frozenset[str] = frozenset()
        self._lock = threading.Lock()

    def state(self, model: str) -> State:
        """How a model stands: `open` is passed by, `half_open` waits for a call that tries it."""
        cooling = self._cooling.get(model)
        return "closed" if cooling is None else cooling.state(self._clock())

    def cooling(self, model: str) -> Failure | None:
        """Why a call passes the model by just now, and until when; None where it may be asked."""
        if (cooling := self._cooling.get(model)) is None:
            return None
        now = self._clock()
        tried = cooling.tried_until is not None and now < cooling.tried_until
        return cooling.failure(now) if tried or now < cooling.until else None

    def snapshot(self) -> Sequence[Cooling]:
        """Every model that is not well, by name."""
        now = self._clock()
        return sorted(
            (one for one in [*self._cooling.values()] if one.state(now) != "closed"), key=lambda one: one.model
        )

    def admit(self, model: str, within_s: float) -> Failure | None:
        """`cooling`, for a call that is about to be made: where the model waits to be tried, this call does it.

        `within_s` is how long others wait for what becomes of it at most.
        """
        if model not in self._cooling:
            return None
        with self._lock:
            cooling, failure = self._cooling.get(model), self.cooling(model)
            if cooling is not None and failure is None and cooling.state(self._clock()) == "half_open":
                until = self._clock() + timedelta(seconds=within_s)
                self._cooling[model] = replace(cooling, tried_until=until)
        return failure

    def answered(self, model: str, sent: datetime) -> None:
        """Note that a call that was sent then was answered."""
        if model not in self._cooling and model not in self._failures:
            return
        with self._lock:
            self._failures.pop(model, None)
            cooling = self._cooling.get(model)
            if cooling is not None and cooling.since <= sent:
                self._unshared[model] = self._cooling.pop(model)

    def failed(self, model: str, error: ProviderError, sent: datetime) -> None:
        """Note that a call that was sent then failed."""
        now, cools = self._clock(), cause_of(error).cools
        with self._lock:
            before = self._cooling.get(model)
            if cools == "failures" or (cools == "asked" and error.retry_after_s is None):
                self._failures[model] += 1
            found = cooling_after(error, model, before, sent, now, self._failures[model])
            if found is not None and (before is None or found.until > before.until):
                self._cooling[model] = self._unshared[model] = found
        self.broken_off(model)

    def broken_off(self, model: str) -> None:
        """Note that nothing is learned from a call: where it was the one that tries the model, the next one may."""
        if model in self._cooling:
            with self._lock:
                if (cooling := self._cooling.get(model)) is not None:
                    self._cooling[model] = replace(cooling, tried_until=None)

    def share(self, exchange: Exchange) -> None:
        """Tell other processes what changed here, and take over what changed there. Blocking."""
        with self._lock:
            unshared, self._unshared = self._unshared, {}
            now = self._clock()
            opened = [one for model, one in unshared.items() if model in self._cooling and one.state(now) != "closed"]
            closed = [one for model, one in unshared.items() if model not in self._cooling]
        try:
            known = {one.model: one for one in exchange(opened, closed)}
        except BaseException:
            with self._lock:
                self._unshared = unshared | self._unshared
            raise
        with self._lock:
            self._take_over(known)

    def _take_over(self, known: Mapping[str, Cooling]) -> None:
        for model in self._shared - known.keys() - self._unshared.keys():
            self._cooling.pop(model, None)  # somebody cleared it, or was answered
            self._failures.pop(model, None)
        for model, theirs in known.items():
            mine = self._cooling.get(model)
            if model not in self._unshared and (mine is None or mine.since < theirs.since):
                self._cooling[model] = theirs
        self._shared = frozenset(known)


def cooling_after(
    error: ProviderError, model: str, before: Cooling | None, sent: datetime, now: datetime, failures: int
) -> Cooling | None:
    """For how long a model is passed by after a call that was `sent` then; None where that changes nothing.

    `before` is what holds until now, `failures` how many there were in a row.
    """
    cause, asked, times = cause_of(error), error.retry_after_s, 1
    if cause.cools == "no":
        return None
    if cause.cools == "setup":
        cooled_s = SETUP_S
    elif cause.cools == "quota":
        cooled_s = QUOTA_S if asked is None else asked
    elif cause.cools == "asked" and asked is not None:
        cooled_s = asked
    else:
        if before is not None and sent < before.until and not before.ends_by_itself:
            return None  # it was under way before the model was found ill
        tried = before is not None and not before.ends_by_itself
        if not tried and failures < FAILURES_MAX:
            return None
        times = before.times + 1 if before is not None and tried else 1
        cooled_s = min(COOLED_S * 2.0 ** (times - 1), COOLED_S_MAX)
    until = now + timedelta(seconds=min(cooled_s, ASKED_S_MAX))
    return Cooling(model=model, cause=cause.name, detail=error.message, since=now, until=until, times=times)
