"""The journal of effects: what a tool is about to do is on disk before it acts, and how it ended is kept.

intent              it may act from now on
intent -> done      it has acted, or said itself that it could not; its result is kept
intent -> in_doubt  nobody knows, and a person is asked
any    -> not_done  it surely has not acted; it may be begun anew
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple, Self

from sqlalchemy import Connection, bindparam, insert, literal_column, select, update

from bursar.budget.accounts import current
from bursar.budget.gate import closed
from bursar.budget.refusal import Refusal
from bursar.budget.reservations import Call
from bursar.budget.schema import pot
from bursar.budget.stores.prepared import Prepared
from bursar.budget.stores.store import Store
from bursar.budget.windows import from_us, to_us
from bursar.tools.effect_table import effect
from bursar.tools.result import ToolResult

__all__ = ["Done", "EffectEntry", "EffectId", "EffectJournal", "EffectState", "Fresh", "InDoubt"]

EffectState = Literal[
    "intent",  # the tool was let act, and has not said how it ended
    "done",  # it has acted, or failed and said so
    "not_done",  # it has not acted
    "in_doubt",  # a person is asked whether it has
]


class EffectId(NamedTuple):
    """What makes a tool's call the same call when its task is run again."""

    tenant: str
    run_id: str
    key: str
    """The call's id without its thread, so that a fork of the run knows it too."""

    @classmethod
    def of(cls, call: Call) -> Self:
        """The effect of a tool's call."""
        run_id = call.scope.run_id
        return cls(call.scope.tenant, run_id, call.id.removeprefix(f"{run_id}:"))


@dataclass(frozen=True, slots=True)
class Fresh:
    """The tool may act."""

    key: str
    """The idempotency key: the same for this call however often it is begun."""


@dataclass(frozen=True, slots=True)
class Done:
    """It acted before; this is what came of it."""

    result: ToolResult


@dataclass(frozen=True, slots=True)
class InDoubt:
    """It was begun before, and nobody knows whether it acted."""

    key: str
    attempt: str
    """The one in doubt; an answer about it settles no other."""

    asked: bool
    """Whether a person is asked already, so that only a person settles it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectEntry:
    """An effect as it stands."""

    id: EffectId
    tool: str
    state: EffectState
    result: ToolResult | None
    """What the model was told; None unless it is done."""

    idempotency_key: str
    begun_at: datetime
    settled_at: datetime | None
    settled_by: str | None
    """`tool`, `check`, or who decided."""


class _Found(NamedTuple):
    state: EffectState
    attempt: str
    digest: str
    given: str
    result: str | None


_OF = tuple(effect.c[name] == bindparam(f"of_{name}") for name in EffectId._fields)
_NEW = ("tenant", "run_id", "key", "tool", "digest", "given", "attempt", "begun_us")
_FIND = Prepared(select(*(effect.c[name] for name in _Found._fields)).where(*_OF))
_SHARE = Prepared(select(pot.c.id).where(pot.c.path == bindparam("of_path")).with_for_update(read=True))
_BEGIN = Prepared(insert(effect).values(state=literal_column("'intent'"), **{name: bindparam(name) for name in _NEW}))
_FINISH = Prepared(
    update(effect)
    .where(*_OF, effect.c.attempt == bindparam("by_attempt"), effect.c.state != literal_column("'done'"))
    .values(
        state=literal_column("'done'"),
        result=bindparam("new_result"),
        settled_us=bindparam("now"),
        settled_by=literal_column("'tool'"),
    )
)


class EffectJournal:
    """The effects of one store. Blocking; each method is one transaction, and raises LedgerUnavailable."""

    def __init__(self, store: Store, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock

    def begin(
        self, call: Call, tool: str, *, attempt: str, forked_from: Sequence[str] = ()
    ) -> Fresh | Done | InDoubt | Refusal:
        """Write down that a tool is about to act, on disk when this returns; or why it may not.

        `attempt` tells this beginning from every other: asked again with the same, as after a commit that was cut off,
        the answer is the same. `forked_from` are the runs of which this is a fork: what they did is not done again. A
        Refusal means that the run was cancelled, stopped or taken over, or is out of time.
        """
        now, its = to_us(self._clock()), EffectId.of(call)
        with self._store.write(durable=True) as connection:
            found = _find(connection, its) or self._inherited(connection, call, its, forked_from)
            if found is not None and found.state == "done":
                return Done(_result(found.result))
            if (refusal := _closed(connection, call, now)) is not None:
                return refusal
            if found is None:
                given = ":".join(its[1:])
                new = (*its, tool, call.digest, given, attempt, now)
                _BEGIN(connection, dict(zip(_NEW, new, strict=True)))
                return Fresh(given)
            if found.state == "not_done":
                _change(connection, its, state="intent", attempt=attempt, digest=call.digest, begun_us=now)
            elif found.state == "in_doubt" or found.attempt != attempt:
                return InDoubt(found.given, found.attempt, found.state == "in_doubt")
            return Fresh(found.given)

    def finish(self, its: EffectId, result: ToolResult, *, attempt: str) -> bool:
        """Keep what came of an attempt; False where another was begun meanwhile, or it was settled as done."""
        kept, now = json.dumps(asdict(result)), to_us(self._clock())
        with self._store.write() as connection:
            values = {**_of(its), "by_attempt": attempt, "new_result": kept, "now": now}
            return bool(_FINISH(connection, values).rowcount)

    def withdraw(self, its: EffectId, *, attempt: str) -> None:
        """Say that an attempt surely has not acted."""
        with self._store.write() as connection:
            mine = effect.c.attempt == attempt
            _change(connection, its, mine, effect.c.state != "done", state="not_done", settled_us=None)

    def doubt(self, its: EffectId, *, attempt: str) -> None:
        """Say that a person is asked; from now on only a person settles it, or the attempt itself when it ends."""
        with self._store.write(durable=True) as connection:
            _change(connection, its, effect.c.attempt == attempt, effect.c.state == "intent", state="in_doubt")

    def settle(self, its: EffectId, doubt: InDoubt, *, result: ToolResult | None, by: str) -> bool:
        """Say what came of the attempt in doubt, or by None that nothing did; False where that is settled already."""
        state, kept = ("not_done", None) if result is None else ("done", json.dumps(asdict(result)))
        still = effect.c.state == ("in_doubt" if doubt.asked else "intent")
        with self._store.write(durable=True) as connection:
            settled = {"state": state, "result": kept, "settled_us": to_us(self._clock()), "settled_by": by}
            return bool(_change(connection, its, effect.c.attempt == doubt.attempt, still, **settled))

    def ls(self, run_id: str, *, tenant: str | None = None) -> list[EffectEntry]:
        """The effects of a run, in the order in which they were begun."""
        query = select(effect).where(effect.c.run_id == run_id).order_by(effect.c.begun_us, effect.c.key)
        if tenant is not None:
            query = query.where(effect.c.tenant == tenant)
        with self._store.read() as connection:
            rows = connection.execute(query).mappings().all()
        return [
            EffectEntry(
                id=EffectId(row["tenant"], row["run_id"], row["key"]),
                tool=row["tool"],
                state=row["state"],
                result=_result(row["result"]) if row["result"] is not None else None,
                idempotency_key=row["given"],
                begun_at=from_us(row["begun_us"]),
                settled_at=from_us(row["settled_us"]) if row["settled_us"] is not None else None,
                settled_by=row["settled_by"],
            )
            for row in rows
        ]

    def _inherited(
        self, connection: Connection, call: Call, its: EffectId, forked_from: Sequence[str]
    ) -> _Found | None:
        """What the run of which this is a fork did with the very same call, taken over as this run's own."""
        for run_id in forked_from:
            theirs = its._replace(run_id=run_id)
            found = _find(connection, theirs)
            if found is None or found.digest != call.digest or found.state == "not_done":
                continue
            columns = [column for column in effect.c if column.name != "run_id"]
            row = connection.execute(select(*columns).where(*_is(theirs))).mappings().one()
            connection.execute(insert(effect).values(**row, run_id=its.run_id))
            return found
        return None


def _closed(connection: Connection, call: Call, now: int) -> Refusal | None:
    """Why the run may not act now, or None."""
    if connection.dialect.name == "postgresql":  # whoever takes the run over waits until this is written
        _SHARE(connection, {"of_path": call.scope.run_path}).fetchall()
    return closed(current(connection, call.scope.runs, now), call, now, final=False)


def _find(connection: Connection, its: EffectId) -> _Found | None:
    row = _FIND(connection, _of(its)).fetchall()
    return _Found(*row[0]) if row else None


def _change(connection: Connection, its: EffectId, *only: Any, **values: Any) -> int:
    return connection.execute(update(effect).where(*_is(its), *only).values(**values)).rowcount


def _of(its: EffectId) -> dict[str, str]:
    return {f"of_{name}": value for name, value in its._asdict().items()}


def _is(its: EffectId) -> list[Any]:
    return [effect.c[name] == value for name, value in its._asdict().items()]


def _result(kept: str | None) -> ToolResult:
    return ToolResult(**json.loads(kept or "{}"))
