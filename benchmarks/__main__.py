"""`make bench`: every figure that the documents name, measured side by side in one run."""

from __future__ import annotations

import asyncio

from rich.console import Console
from rich.table import Table

from benchmarks import ledger, startup, turn

_console = Console()


def main() -> None:
    """Measure and print."""
    _turns(asyncio.run(turn.measure()))
    _ledger({scopes: ledger.measure(scopes) for scopes in (2, 4)})
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


def _ledger(found: dict[int, dict[str, float]]) -> None:
    table = Table("reserve, dispatch, settle", "CPU ms", "wall ms", "wall ms p99", "statements", title="Ledger")
    for scopes, figures in found.items():
        table.add_row(
            f"{scopes} scopes",
            f"{figures['cpu_ms']:.2f}",
            f"{figures['wall_ms_median']:.2f}",
            f"{figures['wall_ms_p99']:.2f}",
            f"{figures['statements']:.0f}",
        )
    _console.print(table)


def _startup(found: dict[str, float]) -> None:
    table = Table("start", "seconds", title="Start-up")
    for name, figure in found.items():
        table.add_row(name, f"{figure:.2f}")
    _console.print(table)


main()
