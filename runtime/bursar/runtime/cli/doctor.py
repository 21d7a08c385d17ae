"""`bursar doctor`."""

from __future__ import annotations

from dataclasses import asdict

from rich.table import Table
from rich.text import Text

from bursar.runtime.cli.checks import Check, State, checks
from bursar.runtime.cli.exits import Exit
from bursar.runtime.cli.options import CONFIG_FILE, AsJson, ConfigFile
from bursar.runtime.cli.output import console, print_json
from bursar.runtime.cli.words import plain

__all__ = ["doctor"]

_STYLES: dict[State, str] = {"ok": "green", "note": "cyan", "warn": "yellow", "fail": "red bold"}


def doctor(*, config: ConfigFile = CONFIG_FILE, as_json: AsJson = False) -> int:
    """Look for what would keep a run from working."""
    found = [*checks(config)]
    if as_json:
        print_json([asdict(check) for check in found])
    else:
        view = Table.grid(padding=(0, 2, 0, 0))
        for check in found:
            view.add_row(Text(check.state, style=_STYLES[check.state]), check.subject, _text(check))
        console().print(view)
    return Exit.ERROR if any(check.state == "fail" for check in found) else Exit.OK


def _text(check: Check) -> Text:
    text = Text(plain(check.text), overflow="fold")
    if check.next_step:
        text.append(f"\n-> {plain(check.next_step)}", style="dim")
    return text
