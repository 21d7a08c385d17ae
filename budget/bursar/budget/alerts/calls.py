"""Alerts about single calls that cost what nobody expected: once a day for each model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from bursar.budget.alerts.endpoints import AlertKind
from bursar.budget.alerts.outbox import Alert, amount_json, tell
from bursar.budget.amounts import DIMENSIONS, Amounts
from bursar.budget.scope import Scope
from bursar.budget.windows import from_us

__all__ = ["overage", "unpriced"]


def overage(
    connection: Connection, scope: Scope, model: str | None, *, held: Amounts, posted: Amounts, now: int
) -> None:
    """Tell that a provider billed more than the bound that it was given and that was held for it, where it did."""
    over = {name: (getattr(held, name), getattr(posted, name)) for name in DIMENSIONS}
    data = {
        "usd" if name == "nanousd" else name: {"bound": amount_json(name, bound), "billed": amount_json(name, billed)}
        for name, (bound, billed) in over.items()
        if billed > bound
    }
    if not data:
        return
    message = f"model {model} billed run {scope.run_id} more than the bound it was given"
    _tell(connection, "call.overage", scope, model, message, {**data, "next": f"bursar budget why {scope.run_id}"}, now)


def unpriced(connection: Connection, scope: Scope, model: str | None, now: int) -> None:
    """Tell that a model without a price is called, as the tenant's policy allows."""
    message = f"model {model} has no price: what run {scope.run_id} pays for it is not counted"
    _tell(connection, "price.missing", scope, model, message, {"next": "bursar price check"}, now)


def _tell(
    connection: Connection,
    kind: AlertKind,
    scope: Scope,
    model: str | None,
    message: str,
    data: Mapping[str, Any],
    now: int,
) -> None:
    one = Alert(
        key=f"{kind}:{scope.tenant}:{model}:{from_us(now):%Y-%m-%d}",
        kind=kind,
        tenant=scope.tenant,
        path=scope.run_path,
        run_id=scope.run_id,
        message=message,
        data={"model": model, **data},
    )
    tell(connection, [one], now)
