"""`bursar route report`: what each node's cascade has come to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rich.text import Text

from bursar.budget.money import format_usd, usd
from bursar.runtime.cli.books import open_books
from bursar.runtime.cli.options import CONFIG_FILE, AsJson, ConfigFile, Tenant
from bursar.runtime.cli.output import Column, console, print_json, print_table
from bursar.runtime.cli.words import plain

if TYPE_CHECKING:
    from bursar.runtime.routing.tally import Tally
    from bursar.runtime.runs.cascades import Which

__all__ = ["report"]

_COLUMNS: tuple[Column, ...] = (
    ("tried", "right"),
    ("accepted", "right"),
    ("straight", "right"),
    ("cheap", "right"),
    ("verified", "right"),
    ("strong", "right"),
    ("saved", "right"),
)


def report(*, tenant: Tenant = None, config: ConfigFile = CONFIG_FILE, as_json: AsJson = False) -> None:
    """Say what each node's cascade has come to, beside asking the stronger tier each time."""
    from bursar.runtime.runs.cascades import Cascades

    with open_books(config) as books:
        tallies = Cascades(books.ledger.store).ls(tenant)
    if as_json:
        print_json([_json(which, tally) for which, tally in tallies.items()])
    elif not tallies:
        console().print("no cascade has been used yet")
    else:
        for which, tally in tallies.items():
            _print(which, tally)
        console().print("accepted with its 95 % interval; saved is an estimate")


def _print(which: Which, tally: Tally) -> None:
    """A cascade's name, and below it what it has come to: side by side they would not fit a terminal."""
    name = Text(plain(f"{which.tenant}/{which.agent}/{which.node}"), style="bold")
    cascade = f"  {which.first}, then {which.then} ({which.verifier})"
    console().print(name.append(plain(cascade), style="not bold"), soft_wrap=True)
    print_table(_COLUMNS, [tuple(_row(tally))])
    console().print()


def _row(tally: Tally) -> Iterable[str]:
    interval = tally.accepted_percent
    yield f"{tally.tried:,}"
    yield f"{tally.accepted:,} ({interval[0]:.0f} to {interval[1]:.0f} %)" if interval else "-"
    yield f"{tally.straight:,}"
    for amount in (tally.first_nanousd, tally.verify_nanousd, tally.then_nanousd, tally.saved_nanousd):
        yield format_usd(amount)


def _json(which: Which, tally: Tally) -> dict[str, Any]:
    interval = tally.accepted_percent
    return {
        "tenant": which.tenant,
        "agent": which.agent,
        "node": which.node,
        "first": which.first,
        "then": which.then,
        "verifier": which.verifier,
        "tried": tally.tried,
        "accepted": tally.accepted,
        "accepted_percent_95": [round(bound, 1) for bound in interval] if interval else None,
        "straight": tally.straight,
        "first_usd": f"{usd(tally.first_nanousd):f}",
        "verify_usd": f"{usd(tally.verify_nanousd):f}",
        "then_usd": f"{usd(tally.then_nanousd):f}",
        "saved_usd_estimate": f"{usd(tally.saved_nanousd):f}",
    }
