"""`bursar init`: a first configuration and a first agent, both of which run as they are."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bursar.budget.errors import UsageError
from bursar.runtime.cli.options import AsJson, DryRun
from bursar.runtime.cli.output import console, print_json, print_next
from bursar.runtime.cli.words import plain
from bursar.runtime.config import starter_config

__all__ = ["AGENT", "init"]

AGENT = '''\
from bursar.agents import Agent
from bursar.budget import Limits
from bursar.tools import tool


@tool(effect="none")
def find_order(order_id: str) -> dict:
    """Look an order up by its number."""
    return {"order_id": order_id, "total_usd": 42.5, "delivered": False}


@tool(effect="irreversible", approval="always")
def refund(order_id: str, amount_usd: float) -> str:
    """Pay an order back to the customer's card."""
    return f"refunded {amount_usd} for {order_id}"


support = Agent(name="support", instructions="Settle refunds.", tools=[find_order, refund], limits=Limits(steps=12))
'''

_NEXT = (
    "bursar config check",
    'bursar run agent.py:support "Refund order 1001, it never came." --tenant acme',
    "bursar budget ls",
)


def init(
    folder: Annotated[Path, Parameter(name="FOLDER", help="Where to write them; nothing is overwritten.")] = Path(),
    /,
    *,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Write a first bursar.yaml and a first agent."""
    files = {folder / "bursar.yaml": starter_config(), folder / "agent.py": AGENT}
    if there := [str(file) for file in files if file.exists()]:
        raise UsageError(f"{' and '.join(there)} would be overwritten", next_step="bursar init OTHER_FOLDER")
    if not dry_run:
        _write(folder, files)
    if as_json:
        return print_json({"dry_run": dry_run, "files": [str(file) for file in files], "next": [*_NEXT]})
    for file, text in files.items():
        verb = "would write" if dry_run else "wrote"
        console().print(plain(f"{verb} {file} ({text.count(chr(10))} lines)"), soft_wrap=True)
    return print_next([*([] if folder == Path() else [f"cd {shlex.quote(str(folder))}"]), *_NEXT])


def _write(folder: Path, files: dict[Path, str]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            with file.open("x", encoding="utf-8") as opened:
                opened.write(text)
    except OSError as error:
        raise UsageError(f"{error.filename or folder} cannot be written: {error.strerror}") from None
