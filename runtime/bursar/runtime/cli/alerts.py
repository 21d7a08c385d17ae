"""`bursar alerts ls | deliver | test`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from cyclopts import Parameter
from cyclopts.validators import Number

from bursar.budget.alerts.endpoints import AlertKind
from bursar.runtime.cli.books import open_books, require_known
from bursar.runtime.cli.exits import Exit
from bursar.runtime.cli.options import CONFIG_FILE, AsJson, ConfigFile, DryRun, Tenant
from bursar.runtime.cli.output import Column, console, print_json, print_next, print_table
from bursar.runtime.cli.shapes import time_json
from bursar.runtime.cli.words import counted, plain, shown_time
from bursar.runtime.config import load_config

if TYPE_CHECKING:
    from bursar.budget.alerts.alerts import AlertLine, DeliveryLine
    from bursar.budget.alerts.courier import Address
    from bursar.budget.alerts.webhooks import Answer

__all__ = ["deliver", "ls", "try_out"]

_COLUMNS: Sequence[Column] = (("when", "whole"), ("kind", "whole"), "what", "told")


def ls(
    *,
    tenant: Tenant = None,
    kind: Annotated[AlertKind | None, Parameter(help="Only those of this kind.")] = None,
    run: Annotated[str | None, Parameter(help="Only those that name this run.")] = None,
    limit: Annotated[int, Parameter(help="At most so many.", validator=Number(gte=1, lte=10_000))] = 20,
    config: ConfigFile = CONFIG_FILE,
    as_json: AsJson = False,
) -> None:
    """List alerts, the newest first, and who was told."""
    with open_books(config) as books:
        found = books.ledger.alerts.ls(tenant, kind=kind, run_id=run, limit=limit)
    if as_json:
        print_json([_json(one) for one in found])
    elif not found:
        console().print("no alerts")
    else:
        print_table(_COLUMNS, [_row(one) for one in found])


def deliver(*, config: ConfigFile = CONFIG_FILE, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Look for alerts and send what is due, once."""
    endpoints = load_config(config).endpoints()
    with open_books(config) as books:
        alerts = books.ledger.alerts
        if dry_run:
            due = {_shown(one.url): alerts.due(one) for one in endpoints}
            return print_json({"dry_run": True, "due": due}) if as_json else _print_due(due)
        alerts.sweep()
        done = alerts.deliver(endpoints)
    if as_json:
        return print_json({"delivered": done.delivered, "failed": done.failed})
    console().print(f"{counted(done.delivered, 'alert')} delivered, {done.failed} failed")
    return print_next(["bursar alerts ls"] if done.failed else [], config)


def try_out(
    *, tenant: Tenant = None, config: ConfigFile = CONFIG_FILE, dry_run: DryRun = False, as_json: AsJson = False
) -> int:
    """Send a test to every webhook, signed, and to every mailbox."""
    endpoints = [one for one in load_config(config).endpoints() if tenant in (None, one.tenant)]
    with open_books(config) as books:
        if tenant and not endpoints:
            require_known(books.config, tenant)
        found = [(one, None if dry_run else books.ledger.alerts.test(one)) for one in endpoints]
    if as_json:
        print_json([_answer_json(one, answer) for one, answer in found])
    elif not found:
        _no_webhooks()
    else:
        rows = [(one.tenant, _shown(one.url), answer.note if answer else "would be tested") for one, answer in found]
        print_table(("tenant", "endpoint", "answer"), rows)
    failed = any(answer is not None and not answer.delivered for _, answer in found)
    return Exit.ERROR if failed else Exit.OK


def _print_due(due: dict[str, int]) -> None:
    for endpoint, count in due.items():
        console().print(f"would send {counted(count, 'alert')} to {plain(endpoint)}")
    if not due:
        _no_webhooks()


def _no_webhooks() -> None:
    console().print("nobody is told; name `webhooks:` of a tenant, or `smtp:` and its `people:`")


def _answer_json(one: Address, answer: Answer | None) -> dict[str, Any]:
    tested = {} if answer is None else {"delivered": answer.delivered, "note": answer.note}
    return {"tenant": one.tenant, "endpoint": _shown(one.url), "dry_run": answer is None, **tested}


def _row(one: AlertLine) -> tuple[str, ...]:
    return shown_time(one.at), one.kind, one.data["message"], ", ".join(_told(line) for line in one.deliveries) or "-"


def _told(line: DeliveryLine) -> str:
    said = "" if line.state == "delivered" else f" ({line.state}: {line.note or 'not tried yet'})"
    return f"{_shown(line.endpoint)}{said}"


def _shown(endpoint: str) -> str:
    """An endpoint without its path, into which many services put a token."""
    url = urlsplit(endpoint)
    return f"{url.scheme}://{url.netloc}" if url.netloc else endpoint


def _json(one: AlertLine) -> dict[str, Any]:
    return {
        "id": one.id,
        "at": time_json(one.at),
        "kind": one.kind,
        "tenant": one.tenant,
        "data": one.data,
        "deliveries": [
            {
                "endpoint": _shown(line.endpoint),
                "state": line.state,
                "attempts": line.attempts,
                "next_at": time_json(line.next_at),
                "note": line.note,
            }
            for line in one.deliveries
        ],
    }
