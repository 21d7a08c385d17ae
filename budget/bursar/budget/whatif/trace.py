"""The calls that were made, in the order in which they were reserved, as admission once saw them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from sqlalchemy import BindParameter, Connection, RowMapping, bindparam, or_, select

from bursar.budget.admission import ModelQuote, ToolQuote
from bursar.budget.amounts import Amounts
from bursar.budget.journal import NOTHING, amounts_in
from bursar.budget.pricing.prices import Price
from bursar.budget.schema import account, policy, pot, price, reservation
from bursar.budget.scope import Scope
from bursar.budget.stores.store import Store

__all__ = ["BATCH", "TracedCall", "calls", "scope_paths"]

BATCH = 2_000
"""How many calls are read at once; each batch is a transaction of its own, so that no snapshot is kept for long."""


class TracedCall(NamedTuple):
    """One attempt at a call, as it really went."""

    run_id: str
    paths: tuple[str, ...]
    """The scopes that it drew on, its run's own among them under another name."""

    quote: ModelQuote | ToolQuote
    """What it asked for; where its output was capped, the bound that was sent."""

    held: Amounts
    posted: Amounts
    """Nothing where it was released or is still in flight."""

    reserved_us: int
    closed_us: int | None
    """When it was settled or released, for the last time; None where it is still in flight."""


def calls(store: Store, *, since_us: int, until_us: int) -> Iterator[TracedCall]:
    """Every call that was reserved in `since_us <= t < until_us`, in order; memory holds one batch of them."""
    prices: dict[str, Price] = {}
    last = (since_us, 0)
    while True:
        with store.read() as connection:
            rows = connection.execute(_AFTER, {"at": last[0], "after": last[1], "until": until_us}).mappings().all()
            _learn_prices(connection, rows, prices)
            agents = _agents(connection, rows)
            lenient = set(connection.execute(_LENIENT).scalars())
        for row in rows:
            yield _call(row, agents, prices, lenient)
        if len(rows) < BATCH:
            return
        last = rows[-1]["reserved_us"], rows[-1]["id"]


@lru_cache(maxsize=4096)
def scope_paths(
    tenant: str, agents: tuple[str, ...], node: str, organisation: str | None, team: str | None, user: str | None
) -> tuple[str, ...]:
    """The paths that a call draws on, in any run."""
    scope = Scope(tenant=tenant, agents=agents, run_id="-", organisation=organisation, team=team, user=user)
    return scope.with_node(node)


_COLUMNS = [column for column in reservation.c if column.name not in ("reply", "usage", "reason", "note", "digest")]
_AT: BindParameter[int] = bindparam("at")
_AFTER_ID: BindParameter[int] = bindparam("after")
_UNTIL: BindParameter[int] = bindparam("until")
_AFTER = (
    select(*_COLUMNS)
    .where(
        reservation.c.reserved_us >= _AT,  # said by itself, so that the index finds the place
        or_(reservation.c.reserved_us > _AT, reservation.c.id > _AFTER_ID),
        reservation.c.reserved_us < _UNTIL,
        reservation.c.kind.in_(["model", "tool"]),
    )
    .order_by(reservation.c.reserved_us, reservation.c.id)
    .limit(BATCH)
)
_LENIENT = select(policy.c.path).where(policy.c.unpriced == "allow_and_alert")


def _learn_prices(connection: Connection, rows: Iterable[RowMapping], prices: dict[str, Price]) -> None:
    missing = {row["price_id"] for row in rows} - prices.keys() - {None}
    if missing:
        found = connection.execute(select(price.c.id, price.c.record).where(price.c.id.in_(missing)))
        prices.update((key, Price.from_record(json.loads(record))) for key, record in found)


def _agents(connection: Connection, rows: Iterable[RowMapping]) -> Mapping[int, str]:
    """The agent that works on each run or sub-run, by the id of its account: all of a chain pay for a call."""
    ids = sorted({key for row in rows for key in json.loads(row["accounts"])})
    query = select(account.c.id, pot.c.set_by).join(pot, pot.c.id == account.c.pot_id).where(pot.c.kind == "run")
    found: dict[int, str] = {}
    for start in range(0, len(ids), BATCH):
        part = query.where(account.c.id.in_(ids[start : start + BATCH]))
        found.update((key, agent) for key, agent in connection.execute(part))
    return found


def _call(
    row: RowMapping, agents: Mapping[int, str], prices: Mapping[str, Price], lenient: Collection[str]
) -> TracedCall:
    chain = dict.fromkeys(agents[key] for key in sorted(json.loads(row["accounts"])) if key in agents)
    chain.pop(row["agent"], None)
    return TracedCall(
        run_id=row["run_id"],
        paths=scope_paths(
            row["tenant"], (*chain, row["agent"]), row["node"], row["organisation"], row["team"], row["user"]
        ),
        quote=_quote(row, prices, allow_unpriced=row["tenant"] in lenient),
        held=amounts_in("held", row),
        posted=amounts_in("posted", row) if row["state"] == "settled" else NOTHING,
        reserved_us=row["reserved_us"],
        closed_us=None if row["closed_us"] is None else max(row["closed_us"], row["reserved_us"]),
    )


def _quote(row: RowMapping, prices: Mapping[str, Price], *, allow_unpriced: bool) -> ModelQuote | ToolQuote:
    if row["kind"] == "tool":
        return ToolQuote(tool_calls=row["held_tool_calls"])
    bound = row["max_output_tokens"] or 0
    return ModelQuote(
        model=row["model"] or "",
        price=prices.get(row["price_id"]),
        input_tokens=max(0, row["held_tokens"] - bound),  # a hold that was made smaller may be less than its bound
        max_output_tokens=bound,
        allow_unpriced=allow_unpriced,
    )
