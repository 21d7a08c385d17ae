"""A fork: a new run, with a budget of its own, that goes on from a checkpoint of another.

What the other run did until then is not done again: its state is copied, an effect that it had is looked up, and a call
that it had settled where the fork goes on is answered from its ledger.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Self

from langgraph._internal._constants import TASKS
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.constants import START
from langgraph.types import Send
from sqlalchemy import Connection, func, select

from bursar.agents.agent import OnLimit
from bursar.budget.amounts import DIMENSIONS
from bursar.budget.errors import ConflictError, NotFoundError, UsageError
from bursar.budget.ledger import Ledger
from bursar.budget.limits import Limits
from bursar.budget.money import usd
from bursar.budget.retune import Amount, limits_of
from bursar.budget.schema import pot, reservation
from bursar.budget.stores.store import Store
from bursar.budget.windows import to_us
from bursar.runtime.accepting import NewRun
from bursar.runtime.config import Config
from bursar.runtime.runs.records import Record, new_run_id, run_path
from bursar.runtime.tenants import scope_of, tiers_of
from bursar.runtime.work import Work

__all__ = ["Checkpoint", "Fork", "Forked", "checkpoint_of", "chosen", "forked", "settled_before"]

_NEXT = "branch:to:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A state that a run was in, from which a fork can go on."""

    id: str
    at: datetime
    step: int
    next: Sequence[str]
    """The nodes that come next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork:
    """How a fork is to differ from its run."""

    checkpoint: str | None = None
    """None = the newest."""

    tier: str | None = None
    """Which answers every call of the fork; None leaves that to the nodes."""

    limits: Limits | None = None
    """Those that are written down, in place of the run's own."""

    on_limit: OnLimit | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Forked:
    """Where a fork comes from, as its calls and effects need to know it; kept in its row as JSON."""

    runs: Sequence[str]
    """The run, the one of which that was a fork, and so on: what they did is not done again."""

    replies: Sequence[str]
    """Those of them whose settled calls are replayed: the fork is in the middle of the same tasks."""

    before_us: int
    """When it was made; calls that were settled later are not its own."""

    @classmethod
    def read(cls, text: str | None) -> Self | None:
        """What `written` wrote."""
        return None if text is None else cls(**json.loads(text))

    def written(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))


def checkpoint_of(found: CheckpointTuple) -> Checkpoint:
    """A checkpoint of the saver's, for people."""
    content = found.checkpoint
    values = content["channel_values"]
    following = [name.removeprefix(_NEXT) for name in values if name == START or name.startswith(_NEXT)]
    following += [send.node for send in values.get(TASKS, ()) if isinstance(send, Send)]
    at = datetime.fromisoformat(content["ts"])
    return Checkpoint(id=content["id"], at=at, step=found.metadata.get("step", 0), next=following)


def chosen(found: Sequence[Checkpoint], run_id: str, checkpoint: str | None) -> Checkpoint:
    """The one of that id, or the newest, which comes first.

    Raises NotFoundError where there is none of that id, and ConflictError where there is none at all.
    """
    if not found:
        raise ConflictError(f"run {run_id} has no checkpoint yet", next_step="start a new one")
    for one in found:
        if checkpoint in (None, one.id):
            return one
    raise NotFoundError(f"run {run_id} has no checkpoint {checkpoint}", next_step=f"bursar runs checkpoints {run_id}")


def forked(
    row: Record, work: Work, fork: Fork, config: Config, ledger: Ledger, *, is_newest: bool, now: datetime
) -> NewRun:
    """The run that a fork would be; nothing is written. Blocking.

    `is_newest` says that it goes on where the run itself would, so that calls of its unfinished tasks are settled
    already. Raises UsageError for a tier that there is not, or that the tenant may not use.
    """
    _require_tier(config, row["tenant"], fork.tier)
    before = Forked.read(row["fork"])
    same = is_newest and fork.tier is None
    lineage = Forked(
        runs=[row["id"], *(before.runs if before else ())],
        replies=[row["id"], *(before.replies if before else ())] if same else [],
        before_us=to_us(now),
    )
    run_id = new_run_id(now)
    kept = (
        "tenant",
        "team",
        "user",
        "agent",
        "target",
        "within",
        "context",
        "max_output_tokens",
        "input_type",
        "input",
    )
    values = {name: row[name] for name in kept} | {
        "id": run_id,
        "on_limit": fork.on_limit or row["on_limit"],
        "forked_from": row["id"],
        "fork": lineage.written(),
        "tier": fork.tier or row["tier"],
    }
    with ledger.store.read() as connection:
        limits = _limits(limits_of(connection, run_path(row)))
        nodes = dict(_node_limits(connection, run_path(row)))
    scope = replace(scope_of(row, config), run_id=run_id)
    limits = limits if fork.limits is None else _in_place(limits, fork.limits)
    return NewRun(values=values, scope=scope, limits=limits, nodes=nodes, work=work, given=None)


def settled_before(store: Store, lineage: Forked, thread_id: str, call_id: str) -> tuple[str | None] | None:
    """The reply to the same call of the run of which this is a fork, in a tuple, or None where it settled none."""
    of_task = call_id.removeprefix(f"{thread_id}:")
    with store.read() as connection:
        for run_id in lineage.replies:
            settled = select(reservation.c.reply).where(
                reservation.c.run_id == run_id,
                reservation.c.call == f"{run_id}:{of_task}",
                reservation.c.state == "settled",
                reservation.c.outcome != "unknown",
                reservation.c.closed_us <= lineage.before_us,
            )
            found = connection.execute(settled.order_by(reservation.c.attempt.desc()).limit(1)).first()
            if found is not None:
                return (found[0],)
    return None


def _require_tier(config: Config, tenant: str, tier: str | None) -> None:
    allowed = tiers_of(config, tenant)
    known = [name for name in config.tiers if allowed is None or name in allowed]
    if tier is not None and tier not in known:
        raise UsageError(f"tier {tier!r}: tenant {tenant} may use {', '.join(known)}")


def _limits(amounts: Mapping[str, Amount]) -> Limits:
    money = amounts["nanousd"]
    rest: Any = {name: of for name, of in amounts.items() if name != "nanousd"}
    return Limits(cost_usd=None if money is None else usd(int(money)), **rest)


def _in_place(limits: Limits, given: Limits) -> Limits:
    """The limits with those that are written down in another's place."""
    new = {key: of for key, of in given.to_record().items() if ("nanousd" if key == "cost_usd" else key) in given.given}
    return Limits.from_record({**limits.to_record(), **new})


def _node_limits(connection: Connection, path: str) -> Iterator[tuple[str, Limits]]:
    begins = f"{path}/node:"
    nodes = select(pot).where(pot.c.kind == "node", func.substr(pot.c.path, 1, len(begins)) == begins)
    for row in connection.execute(nodes).mappings():
        of_node: dict[str, Amount] = {name: row[f"limit_{name}"] for name in DIMENSIONS}
        yield row["path"].removeprefix(begins), _limits({**of_node, "seconds": None})
