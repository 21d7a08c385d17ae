"""`make bench`: every figure that the documents name, measured side by side in one run."""

from __future__ import annotations

import asyncio

from rich.console import Console
from rich.table import Table

from benchmarks import ledger, routing, startup, turn

_console = Console()


def main() -> None:
    """Measure and print."""
    _turns(asyncio.run(turn.measure()))
    _ledger()
    _routing(routing.measure())
    _startup(startup.measure())


def _turns(found: turn.Figures) -> None:
    table = Table("one turn: a model call and a tool call", "CPU ms", "of bare", title="Turns")
    for name, figure in found.per_turn.items():
        table.add_row(name, f"{figure:.2f}", f"{figure / found.per_turn['bare']:.2f}")
    _console.print(table)
    _console.print(
        f"gate and ledger: {found.gate_per_call:.2f} CPU ms a model call, {found.gate_per_turn:.2f} a turn, "
        f"and {found.gate_per_run:.1f} a run (admission, hold, end)\n"
    )


def _ledger() -> None:
    table = Table("one client, four scopes", "CPU ms", "wall ms", "wall ms p99", "statements", title="Ledger")
    with ledger.stores() as urls:
        for store, url in urls.items():
            for dispatch in (False, True):
                found = ledger.measure(url, ledger.Load(dispatch=dispatch))
                counted = ledger.statements(dispatch=dispatch) if store == "SQLite" else None
                table.add_row(
                    f"{store}: reserve, {'dispatch, ' if dispatch else ''}settle",
                    *(f"{figure:.2f}" for figure in (found.cpu_ms, found.wall_ms_p50, found.wall_ms_p99)),
                    str(counted or "-"),
                )
    _console.print(table)
    _console.print("more clients and tenants, and slices: make bench-ledger\n")


def _routing(found: dict[str, routing.Figures]) -> None:
    table = Table("who answers, out of five models in three tiers", "wall ms p50", "p99", title="Routing")
    for name, figures in found.items():
        table.add_row(name, f"{figures.p50_ms:.3f}", f"{figures.p99_ms:.3f}")
    _console.print(table)


def _startup(found: dict[str, float]) -> None:
    table = Table("start", "seconds", title="Start-up")
    for name, figure in found.items():
        table.add_row(name, f"{figure:.2f}")
    _console.print(table)


main()
