"""What a budget may be given out of the one above it: no more than its free part, unless that one is oversubscribed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, select

from bursar.budget.amounts import DIMENSIONS
from bursar.budget.errors import UsageError
from bursar.budget.money import format_usd
from bursar.budget.schema import pot

__all__ = ["check_parts", "parent_of"]


def parent_of(path: str) -> str | None:
    """The path of the budget above: `acme` for `acme/support` and `acme/team:red`; None for a tenant."""
    return path.rpartition("/")[0] or None


def check_parts(connection: Connection, wanted: Mapping[str, Any], before: RowMapping | None) -> None:
    """Raise UsageError where a pot would get more, and then more than the free part of the pot above.

    Only hard limits of the same period are compared; agents, teams and users each share out the whole. A limit may
    always be lowered, that of the whole below its parts, too: it bounds them all the same, and it must work as a brake.
    `before` is the pot as it was, None for a new one.
    """
    if wanted["mode"] != "hard" or wanted["parent"] is None:
        return
    above = _pot(connection, wanted["parent"], wanted["per"])
    if above is not None and above["mode"] == "hard" and not above["oversubscribed"]:
        beside = [row for row in _below(connection, above) if row["kind"] == wanted["kind"]]
        parts = [*(row for row in beside if row["path"] != wanted["path"]), wanted]
        _check(above, parts, [name for name in DIMENSIONS if _is_more(name, wanted, before)])


def _is_more(name: str, wanted: Mapping[str, Any], before: RowMapping | None) -> bool:
    new = wanted.get(f"limit_{name}") or 0
    given = before is not None and before["mode"] == "hard" and before["parent"] == wanted["parent"]
    return bool(new > (before[f"limit_{name}"] or 0 if before is not None and given else 0))


def _pot(connection: Connection, path: str, per: str) -> RowMapping | None:
    return connection.execute(select(pot).where(pot.c.path == path, pot.c.per == per)).mappings().first()


def _below(connection: Connection, above: RowMapping) -> Sequence[RowMapping]:
    given = select(pot).where(pot.c.parent == above["path"], pot.c.per == above["per"], pot.c.mode == "hard")
    return connection.execute(given.order_by(pot.c.id)).mappings().all()


def _check(above: RowMapping, parts: Sequence[Any], dimensions: Iterable[str]) -> None:
    for name in dimensions:
        whole = above.get(f"limit_{name}")
        given = {row["path"]: row.get(f"limit_{name}") or 0 for row in parts}
        if whole is None or sum(given.values()) <= whole:
            continue
        listed = ", ".join(f"{path} {_show(name, amount)}" for path, amount in given.items() if amount)
        raise UsageError(
            f"{above['path']} has {_show(name, whole)} per {above['per']}, and its parts would be given "
            f"{_show(name, sum(given.values()))}: {listed}",
            next_step=f"raise {above['path']}, lower a part, or bursar budget set {above['path']} "
            f"--per {above['per']} --oversubscribe",
        )


def _show(name: str, amount: int) -> str:
    return format_usd(amount) if name == "nanousd" else f"{amount:,} {name.replace('_', ' ')}"
