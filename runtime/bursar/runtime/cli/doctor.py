"""`bursar doctor`."""

from __future__ import annotations

import difflib
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from bursar.budget.errors import UsageError
from bursar.runtime.cli.books import open_books
from bursar.runtime.cli.checks import Check, State, checks
from bursar.runtime.cli.exits import Exit
from bursar.runtime.cli.options import CONFIG_FILE, AsJson, ConfigFile, DryRun
from bursar.runtime.cli.output import console, print_json
from bursar.runtime.cli.words import plain
from bursar.runtime.runs.model_health import HealthRecords

__all__ = ["doctor"]

_STYLES: dict[State, str] = {"ok": "green", "note": "cyan", "warn": "yellow", "fail": "red bold"}


Clear = Annotated[
    str | None,
    Parameter(help="Let calls ask this model again that they pass by; `all` for every model.", show_default=False),
]


def doctor(
    *, clear: Clear = None, config: ConfigFile = CONFIG_FILE, dry_run: DryRun = False, as_json: AsJson = False
) -> int:
    """Look for what would keep a run from working.

    Shows models that calls pass by because they failed, and local model servers that bursar.yaml could name; none is
    used by itself.
    """
    if clear is not None:
        return _clear(clear, config, dry_run=dry_run, as_json=as_json)
    found = [*checks(config)]
    if as_json:
        print_json([asdict(check) for check in found])
    else:
        view = Table.grid(padding=(0, 2, 0, 0))
        for check in found:
            view.add_row(Text(check.state, style=_STYLES[check.state]), check.subject, _text(check))
        console().print(view)
    return Exit.ERROR if any(check.state == "fail" for check in found) else Exit.OK


def _clear(model: str, config: Path, *, dry_run: bool, as_json: bool) -> int:
    with open_books(config) as books:
        records, chosen = HealthRecords(books.ledger.store), None if model == "all" else model
        known = [one for one in records.ls() if chosen in (None, one.model)]
        if not known and model not in ("all", *books.config.models):
            near = ", ".join(difflib.get_close_matches(model, books.config.models, 3) or books.config.models)
            raise UsageError(f"there is no model {model!r} in {config}", next_step=f"use one of {near}, or all")
        cleared = known if dry_run else records.clear(chosen)
    if as_json:
        gone = [{"model": one.model, "cause": one.cause, "until": one.until.isoformat()} for one in cleared]
        print_json({"dry_run": dry_run, "cleared": gone})
        return Exit.OK
    names = ", ".join(one.model for one in cleared)
    done = f"{names} would be asked again" if dry_run else f"{names}: asked again, by every process within seconds"
    console().print(plain(done if cleared else "no model was passed by"), soft_wrap=True)
    return Exit.OK


def _text(check: Check) -> Text:
    text = Text(plain(check.text), overflow="fold")
    if check.next_step:
        text.append(f"\n-> {plain(check.next_step)}", style="dim")
    return text
