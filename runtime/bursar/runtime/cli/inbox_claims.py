"""`bursar inbox claim | release | assign | comment`: who looks at what, and what was said about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from bursar.runtime.cli.books import open_books
from bursar.runtime.cli.inbox import Id
from bursar.runtime.cli.inbox_json import escalation_json
from bursar.runtime.cli.moments import span
from bursar.runtime.cli.options import CONFIG_FILE, AsJson, By, ConfigFile, DryRun, author
from bursar.runtime.cli.output import console, print_json, print_next
from bursar.runtime.cli.words import plain

if TYPE_CHECKING:
    from bursar.runtime.escalations.escalations import Escalations
    from bursar.runtime.escalations.records import Escalation

__all__ = ["assign", "claim", "comment", "release"]


def claim(
    id: Id,
    /,
    *,
    lasting: Annotated[str, Parameter(name="--for", help="How long: 15m, 2h.")] = "15m",
    by: By = None,
    config: ConfigFile = CONFIG_FILE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Keep an escalation for yourself for a while."""
    seconds = int(span(lasting).total_seconds())
    change = _change(lambda room: room.claim(id, author(by), seconds), id, config, dry_run=dry_run)
    _tell(change, f"claimed by {author(by)} for {lasting}", config, dry_run=dry_run, as_json=as_json)


def release(
    id: Id,
    /,
    *,
    by: By = None,
    config: ConfigFile = CONFIG_FILE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Give a claim back before it ends."""
    change = _change(lambda room: room.release(id, author(by)), id, config, dry_run=dry_run)
    _tell(change, "free to be claimed", config, dry_run=dry_run, as_json=as_json)


def assign(
    id: Id,
    /,
    *,
    to: Annotated[str, Parameter(help="Who shall look at it.")],
    by: By = None,
    config: ConfigFile = CONFIG_FILE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Hand an escalation to somebody, who may then decide on it."""
    change = _change(lambda room: room.assign(id, to, author(by)), id, config, dry_run=dry_run)
    _tell(change, f"assigned to {to}", config, dry_run=dry_run, as_json=as_json)


def comment(
    id: Id,
    text: Annotated[str, Parameter(name="TEXT", help="What to say.")],
    /,
    *,
    by: By = None,
    config: ConfigFile = CONFIG_FILE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Say something about an escalation to whoever decides."""
    change = _change(lambda room: room.comment(id, text, author(by)), id, config, dry_run=dry_run)
    _tell(change, "commented on", config, dry_run=dry_run, as_json=as_json)


def _change(do: Callable[[Escalations], object], id: int, config: Path, *, dry_run: bool) -> Escalation:
    """The escalation as it is after the change; on a dry run, as it is."""
    with open_books(config) as books:
        before = books.escalations.get(id)
        if dry_run:
            return before
        do(books.escalations)
        return books.escalations.get(id)


def _tell(one: Escalation, done: str, config: Path, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        return print_json({**escalation_json(one), "dry_run": dry_run})
    console().print(plain(f"{one.id} {'would be' if dry_run else 'is'} {done}"), soft_wrap=True)
    return print_next([f"bursar inbox show {one.id}"], config)
