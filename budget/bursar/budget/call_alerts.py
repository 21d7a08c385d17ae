"""Alerts about single calls that cost what nobody expected: once a day for each model."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from bursar.budget.amounts import DIMENSIONS, Amounts
from bursar.budget.outbox import Alert, AlertKind, amount_json, tell
from bursar.budget.windows import from_us

__all__ = ["overage", "unpriced"]


def overage(
    connection: Connection,
    *,
    tenant: str,
    run_path: str,
    run_id: str,
    model: str,
    held: Amounts,
    posted: Amounts,
    now: int,
) -> None:
    """Tell that a provider billed more than the bound that it was given."""
    over = {name: (getattr(held, name), getattr(posted, name)) for name in DIMENSIONS}
    data = {
        "usd" if name == "nanousd" else name: {"bound": amount_json(name, bound), "billed": amount_json(name, billed)}
        for name, (bound, billed) in over.items()
        if billed > bound
    }
    message = f"model {model} billed run {run_id} more than the bound it was given"
    _tell(connection, "call.overage", tenant, run_path, run_id, model, message, data, now)


def unpriced(connection: Connection, *, tenant: str, run_path: str, run_id: str, model: str, now: int) -> None:
    """Tell that a model without a price was called under a limit in money, as the tenant's policy allows."""
    message = f"model {model} has no price: what run {run_id} pays for it is not counted"
    data = {"next": "bursar price check"}
    _tell(connection, "price.missing", tenant, run_path, run_id, model, message, data, now)


def _tell(
    connection: Connection,
    kind: AlertKind,
    tenant: str,
    path: str,
    run_id: str,
    model: str,
    message: str,
    data: dict[str, Any],
    now: int,
) -> None:
    key = f"{kind}:{tenant}:{model}:{from_us(now):%Y-%m-%d}"
    data = {"model": model, **data}
    alert = Alert(key=key, kind=kind, tenant=tenant, path=path, run_id=run_id, message=message, data=data)
    tell(connection, [alert], now)
