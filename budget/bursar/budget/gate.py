"""A run's gate, checked by every `reserve`: who holds the run, and whether it is stopped, cancelled or out of time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, bindparam, select, update
from sqlalchemy.exc import IntegrityError

from bursar.budget.accounts import Standing, create_pot, within
from bursar.budget.amounts import DIMENSIONS
from bursar.budget.errors import ConflictError, NotFoundError, UsageError
from bursar.budget.journal import claim, journal
from bursar.budget.limits import SECONDS_MAX, Limits
from bursar.budget.refusal import Refusal
from bursar.budget.reservations import Call
from bursar.budget.schema import pot
from bursar.budget.scope import Scope, chain_of
from bursar.budget.stores.prepared import Record
from bursar.budget.stores.store import Store
from bursar.budget.windows import from_us, to_us

__all__ = [
    "Gates",
    "Hold",
    "Sign",
    "cancel",
    "closed",
    "cut_off",
    "extend",
    "let_go",
    "one_owner",
    "open_run",
    "overdue",
    "reopen",
    "take",
    "try_again",
    "use_final",
]

_SECOND_US = 1_000_000

_ANY_OF_RUN = select(pot.c.id).where(pot.c.run_id == bindparam("of_run")).limit(1)

_GOES_ON = {"stopped": None, "stopped_by": None, "final_call": None}


@dataclass(frozen=True, slots=True)
class Hold:
    """The right to execute a run, until it is let go or falls silent."""

    epoch: int
    deadline: datetime | None
    """When the run's time is used up, if it has a limit."""

    seconds: int | None
    """The run's limit in working time."""

    until: datetime | None = None
    """When the run has to end, whether it works or waits."""


@dataclass(frozen=True, slots=True)
class Sign:
    """The last sign of life of whoever holds a run; while it stays the same, nothing was heard of them."""

    holder: str | None
    epoch: int
    lease_until_us: int | None


class Gates:
    """Opens runs, and decides who may execute them."""

    def __init__(self, store: Store, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock

    def open(
        self,
        scope: Scope,
        limits: Limits,
        *,
        nodes: Mapping[str, Limits] | None = None,
        until: datetime | None = None,
    ) -> None:
        """Make the pot of a run, or of an agent used as a tool in it; does nothing where it exists.

        `nodes` are what single nodes may use in it, by their names; of these only what was written down counts.
        `until` is when a run has to end, whether it works or waits.
        Raises ConflictError for a run's id that another agent or tenant has used, NotFoundError for an agent used as a
        tool in a run that was not opened.
        """
        with one_owner(scope), self._store.write() as connection:
            open_run(connection, scope, limits, to_us(self._clock()), nodes=nodes, until=until)

    def hold(self, path: str, holder: str, lease_s: float) -> Hold:
        """Take a run to execute it: whoever held it before can no longer reserve.

        Raises ConflictError while another holder is alive, NotFoundError for an unknown run.
        """
        with self._store.write() as connection:
            return take(connection, path, holder, lease_s, to_us(self._clock()))

    def renew(self, holder: str, lease_s: float) -> None:
        """A sign of life for every run of a holder."""
        until = to_us(self._clock()) + int(lease_s * _SECOND_US)
        with self._store.write() as connection:
            connection.execute(update(pot).where(pot.c.holder == holder).values(lease_until_us=until))

    def let_go(self, path: str, epoch: int) -> bool:
        """End a hold; its working time is added up. False, and nothing is done, where the run was taken over."""
        with self._store.write() as connection:
            return let_go(connection, path, epoch, to_us(self._clock())) is not None

    def stop(self, path: str, refusal: Refusal) -> None:
        """Stop a run at a limit: no reservation is made for it until more is granted, whatever its program does.

        The first refusal stays; raises NotFoundError for an unknown run, as every way to change one does.
        """
        now = to_us(self._clock())
        with self._store.write(durable=True) as connection:
            row = _run(connection, path)
            if row["stopped"] is None:
                values = {"stopped": json.dumps(refusal.to_record()), "stopped_by": refusal.path}
                connection.execute(update(pot).where(pot.c.id == row["id"]).values(**values))
                journal(
                    connection,
                    chain=chain_of(path),
                    kind="stop",
                    at_us=now,
                    path=path,
                    note=refusal.words(),
                    detail=refusal.to_record(),
                )

    def stopped(self, path: str) -> Refusal | None:
        """The refusal that stopped a run, or None while it may go on."""
        with self._store.read() as connection:
            found = _found(connection, path)
            return _stopped(found["stopped"])

    def refused(self, path: str) -> Refusal | None:
        """Why a run gets no further reservation: it was stopped, or a person holds it up; None while it does."""
        with self._store.read() as connection:
            row = _found(connection, path)
        if row["paused_by"] is not None and row["stopped"] is None:
            return Refusal(cause="paused", kind="run", path=path, detail=row["paused_by"])
        return _stopped(row["stopped"])

    def deadline(self, path: str) -> datetime | None:
        """When the working time of a run that is held is used up, or it has to end; None without a limit in time."""
        with self._store.read() as connection:
            row = _found(connection, path)
        limit, since = row["seconds_us"], row["held_since_us"]
        ends = None if limit is None or since is None else since + limit - row["used_us"]
        return min((from_us(at) for at in (ends, row["until_us"]) if at is not None), default=None)

    def reopen(self, path: str, *, author: str) -> None:
        """Let a stopped run try again: its limits still hold, so it is stopped anew where nothing changed.

        The same goes for the agents that it uses as tools.
        """
        with self._store.write(durable=True) as connection:
            try_again(connection, path, to_us(self._clock()), author=author)

    def extend(self, path: str, seconds: float, *, author: str) -> None:
        """Give a run more working time, counted from what it has used, and let it go on where its own limit stopped it.

        A run without a limit in time keeps none. Raises UsageError for a time that is not above 0, or too long.
        """
        with self._store.write(durable=True) as connection:
            extend(connection, path, seconds, to_us(self._clock()), author=author)

    def cancel(self, path: str, *, author: str) -> None:
        """Refuse every further reservation of a run, or of an agent used as a tool in it, in every process."""
        with self._store.write(durable=True) as connection:
            cancel(connection, path, to_us(self._clock()), author=author)

    def is_cancelled(self, path: str) -> bool:
        """Whether somebody cancelled a run."""
        with self._store.read() as connection:
            return _found(connection, path)["cancelled_us"] is not None

    def cancelled(self, holder: str) -> set[str]:
        """The ids of the runs of this holder that somebody cancelled."""
        with self._store.read() as connection:
            query = select(pot.c.run_id).where(pot.c.holder == holder, pot.c.cancelled_us.is_not(None))
            return set(connection.execute(query).scalars())


def open_run(
    connection: Connection,
    scope: Scope,
    limits: Limits,
    now: int,
    *,
    nodes: Mapping[str, Limits] | None = None,
    until: datetime | None = None,
) -> None:
    """`Gates.open` within a transaction, which `one_owner` has to be around."""
    path = scope.run_paths[-1]
    seconds = None if scope.sub_runs else limits.seconds  # an agent used as a tool works on its run's time
    gate = {
        "epoch": None if scope.sub_runs else 0,
        "seconds_us": None if seconds is None else int(seconds * _SECOND_US),
        "until_us": None if until is None else to_us(until),
    }
    claim(connection, [scope.tenant])
    if _may_open(connection, scope):
        parent = None if scope.sub_runs else scope.within
        _open(connection, scope, path, limits.as_amounts_limit(), now, kind="run", parent=parent, **gate)
        for node, of_node in (nodes or {}).items():
            _open(connection, scope, f"{path}/node:{node}", of_node.given_amounts(), now, kind="node")


@contextmanager
def one_owner(scope: Scope) -> Iterator[None]:
    """Say in words that another tenant opened a run of this id in the same moment."""
    try:
        yield
    except IntegrityError as error:
        raise _taken(scope) from error


def take(
    connection: Connection, path: str, holder: str, lease_s: float, now: int, *, silent: Sign | None = None
) -> Hold:
    """`Gates.hold` within a transaction.

    With `silent`, a run is taken only from whoever gave this last sign, and whatever the clocks say of their lease:
    who takes it has watched that no other sign came.
    """
    row = _run(connection, path)
    if silent is not None:
        if silent != Sign(row["holder"], row["epoch"], row["lease_until_us"]):
            raise ConflictError(f"run {row['run_id']} is alive", next_step=f"bursar runs show {row['run_id']}")
    elif row["holder"] is not None and row["holder"] != holder and row["lease_until_us"] > now:
        until = from_us(row["lease_until_us"]).isoformat(timespec="seconds")
        raise ConflictError(
            f"run {row['run_id']} is being executed by {row['holder']}, which was alive until {until} at least",
            next_step=f"bursar runs show {row['run_id']}",
        )
    used = _used_us(row, until=_last_sign_us(row, now))
    values = {
        "holder": holder,
        "epoch": row["epoch"] + 1,
        "lease_until_us": now + int(lease_s * _SECOND_US),
        "held_since_us": now,
        "used_us": used,
    }
    connection.execute(update(pot).where(pot.c.id == row["id"]).values(values))
    until_us, limit = row["until_us"], row["seconds_us"]
    ends = None if until_us is None else from_us(until_us)
    if limit is None:
        return Hold(row["epoch"] + 1, None, None, ends)
    return Hold(row["epoch"] + 1, from_us(now) + timedelta(microseconds=limit - used), limit // _SECOND_US, ends)


def let_go(connection: Connection, path: str, epoch: int, now: int) -> Record | None:
    """`Gates.let_go` within a transaction; returns the run's pot as it was, or None where the run was taken over."""
    row = _run(connection, path)
    if row["epoch"] != epoch or row["holder"] is None:
        return None
    values = {"holder": None, "lease_until_us": None, "held_since_us": None, "used_us": _used_us(row, until=now)}
    connection.execute(update(pot).where(pot.c.id == row["id"]).values(values))
    return row


def cancel(connection: Connection, path: str, now: int, *, author: str) -> None:
    """`Gates.cancel` within a transaction."""
    connection.execute(update(pot).where(pot.c.id == _run(connection, path)["id"]).values(cancelled_us=now))
    journal(connection, chain=chain_of(path), kind="cancel", at_us=now, path=path, author=author)


def closed(rows: Iterable[Standing], call: Call, now: int, *, final: bool) -> Refusal | None:
    """Why no pot of a run may be drawn on now, or None; raises NotFoundError where one was never opened."""
    by_path = {row.path: row for row in rows if row.kind == "run"}
    for path in call.scope.runs:
        if path not in by_path:
            raise NotFoundError(
                f"run {path} was never opened, so nothing bounds it", next_step="Ledger.gates.open(...)"
            )
    last_word = final and by_path[call.scope.run_paths[-1]].final_call in (None, call.id)
    for row in by_path.values():
        if (refusal := _closed(row, call, now, last_word=last_word)) is not None:
            return refusal
    return None


def cut_off(rows: Iterable[Standing], call: Call, now: int) -> Refusal | None:
    """Why a call that is under way should not go on, or None: a run that was stopped or paused lets it end."""
    refusals = (_closed(row, call, now, last_word=True) for row in rows if row.kind == "run")
    return next((one for one in refusals if one is not None and one.cause != "paused"), None)


def _closed(row: Standing, call: Call, now: int, *, last_word: bool) -> Refusal | None:
    path = row.path
    if path != call.scope.within and row.epoch not in (None, call.epoch):
        return Refusal(cause="fenced", kind="run", path=path)
    if row.cancelled_us is not None:
        return Refusal(cause="cancelled", kind="run", path=path)
    if row.until_us is not None and now >= row.until_us:
        return overdue(path, from_us(row.until_us))
    if row.seconds_us is not None and _worked_us(row.used_us, row.held_since_us, until=now) >= row.seconds_us:
        limit = row.seconds_us // _SECOND_US
        return Refusal(cause="deadline", kind="run", path=path, dimension="seconds", limit=limit)
    if row.stopped is not None and not last_word:
        earlier = _stopped(row.stopped)
        return Refusal(cause="stopped", kind="run", path=path, dimension=earlier.dimension if earlier else "")
    if row.paused_by is not None:
        return Refusal(cause="paused", kind="run", path=path, detail=row.paused_by)
    return None


def overdue(path: str, until: datetime) -> Refusal:
    """Why a run does not go on that had to end by then."""
    return Refusal(cause="deadline", kind="run", path=path, detail=until.isoformat(timespec="seconds"))


def try_again(connection: Connection, path: str, now: int, *, author: str) -> None:
    """`Gates.reopen` within a transaction."""
    its_own = pot.c.run_id == _run(connection, path)["run_id"]
    connection.execute(update(pot).where(its_own, within(path)).values(_GOES_ON))
    journal(connection, chain=chain_of(path), kind="reopen", at_us=now, path=path, author=author)


def extend(connection: Connection, path: str, seconds: float, now: int, *, author: str) -> None:
    """`Gates.extend` within a transaction."""
    if type(seconds) not in (int, float) or not 0 < seconds <= SECONDS_MAX:
        raise UsageError(f"grant seconds {seconds!r}: expected a number above 0, at most {SECONDS_MAX}")
    row = _run(connection, path)
    if row["seconds_us"] is not None:
        used = _used_us(row, until=_last_sign_us(row, now))
        until = max(row["seconds_us"], used) + int(seconds * _SECOND_US)
        if until > SECONDS_MAX * _SECOND_US:
            raise UsageError(f"a grant to {path} must not raise its time above {SECONDS_MAX} s")
        connection.execute(update(pot).where(pot.c.id == row["id"]).values(seconds_us=until))
    note = f"{seconds} s more working time"
    journal(connection, chain=chain_of(path), kind="extend", at_us=now, path=path, author=author, note=note)
    reopen(connection, path)


def reopen(connection: Connection, path: str) -> None:
    """Let the runs that a scope stopped go on, since it was granted more."""
    connection.execute(update(pot).where(pot.c.stopped_by == path).values(_GOES_ON))


def use_final(connection: Connection, call: Call) -> None:
    """Remember which call is the run's last answer: there is one only, in as many attempts as it takes."""
    connection.execute(update(pot).where(pot.c.path == call.scope.run_paths[-1]).values(final_call=call.id))


def _taken(scope: Scope) -> ConflictError:
    return ConflictError(f"there is a run {scope.run_id!r} already, of another agent", next_step="use another id")


def _may_open(connection: Connection, scope: Scope) -> bool:
    """Whether the scope's last pot can be made; False where it exists."""
    # Not all of the run's pots: a key of the gateway has one for each of its sessions.
    paths = set(connection.execute(select(pot.c.path).where(pot.c.path.in_(scope.run_paths))).scalars())
    if scope.run_path not in paths and connection.execute(_ANY_OF_RUN, {"of_run": scope.run_id}).first():
        raise _taken(scope)
    for path in scope.run_paths[:-1]:
        if path not in paths:
            raise NotFoundError(f"run {path} was never opened", next_step="Ledger.gates.open(...)")
    return scope.run_paths[-1] not in paths


def _open(
    connection: Connection, scope: Scope, path: str, limit: Mapping[str, int | None], now: int, **values: object
) -> None:
    pot_values = {
        "path": path,
        "tenant": scope.tenant,
        "per": "total",
        "zone": "UTC",
        "source": "run",
        "set_by": scope.agents[-1],
        "set_us": now,
        "run_id": scope.run_id,
        **{f"limit_{name}": limit[name] for name in DIMENSIONS},
        **values,
    }
    account_id = create_pot(connection, pot_values, now)
    journal(
        connection,
        chain=scope.tenant,
        kind="open",
        at_us=now,
        accounts=json.dumps([account_id]),
        path=path,
        limit=limit,
        author=scope.agents[-1],
    )


def _stopped(record: str | None) -> Refusal | None:
    return None if record is None else Refusal.from_record(json.loads(record))


def _last_sign_us(row: Record, now: int) -> int:
    """Until when a holder is known to have worked: one that fell silent is believed to the end of its lease."""
    return int(min(now, row["lease_until_us"] or now))


def _used_us(row: Record, *, until: int) -> int:
    return _worked_us(row["used_us"], row["held_since_us"], until=until)


def _worked_us(used_us: int, since_us: int | None, *, until: int) -> int:
    return used_us + (max(0, until - since_us) if since_us is not None else 0)


def _run(connection: Connection, path: str) -> Record:
    """The pot of a run that is about to be changed, locked."""
    claim(connection, [chain_of(path)])
    return _found(connection, path)


def _found(connection: Connection, path: str) -> Record:
    row = connection.execute(select(pot).where(pot.c.path == path, pot.c.kind == "run")).mappings().first()
    if row is None:
        raise NotFoundError(f"there is no run {path}", next_step="bursar runs ls")
    return row
