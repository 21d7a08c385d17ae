"""`bursar demo`: four runs on simulated models, told in a terminal."""

from __future__ import annotations

import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.panel import Panel
from rich.text import Text

from bursar.budget.errors import UsageError
from bursar.budget.money import format_usd
from bursar.runtime.cli.books import Books, open_books
from bursar.runtime.cli.options import AsJson
from bursar.runtime.cli.output import Column, console, indented, opening, print_json, print_table, status_text
from bursar.runtime.cli.shapes import budget_json, run_json
from bursar.runtime.cli.words import counted, parted, plain, shown, shown_left
from bursar.runtime.runs.run import Run

if TYPE_CHECKING:
    from bursar.runtime.demo.story import Act, Played
    from bursar.runtime.escalations.records import Escalation

__all__ = ["demo"]

WIDTH = 80

_BANNER = (
    "Two tenants, four runs, one ledger. The models are simulated, the counting is not: real token counts at list "
    "prices, reserved before each call. No key, no network."
)

_COLUMNS: Sequence[Column] = (
    "tenant",
    *((name, "right") for name in ("runs", "calls", "tokens", "cost", "limit", "left")),
)


async def demo(
    *,
    keep: Annotated[Path | None, Parameter(help="An empty folder to play in; without it a new temporary one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Play four runs of two tenants: no key, no network."""
    folder = _folder(keep)
    if not as_json:
        console().print(Panel(_BANNER, title="Bursar", title_align="left", border_style="dim"), width=WIDTH)
    with opening():
        from bursar.runtime.cli.follow import follow
        from bursar.runtime.demo.story import ACTS, play, prepare
        from bursar.runtime.runtime import Runtime

        config = prepare(folder)
    runs: list[Run] = []
    async with Runtime.open(config) as runtime:
        for number, act in enumerate(ACTS, 1):
            played = await play(runtime, act, folder, partial(follow, config=config))
            runs.append(played.run)
            if not as_json:
                _print_act(number, act, played)
    with open_books(config) as books:
        if as_json:
            tenants = [budget_json(line) for line in books.ledger.budgets.ls()]
            return print_json({"folder": str(folder), "runs": [run_json(run) for run in runs], "tenants": tenants})
        _print_tenants(books)
    return _print_next(folder, runs)


def _folder(keep: Path | None) -> Path:
    if keep is None:
        return Path(tempfile.mkdtemp(prefix="bursar-demo-"))
    try:
        keep.mkdir(parents=True, exist_ok=True)
        if any(keep.iterdir()):
            raise UsageError(f"{keep} is not empty", next_step="bursar demo --keep NEW_FOLDER")
    except OSError as error:
        raise UsageError(f"{keep} cannot be used: {error.strerror}") from None
    return keep.resolve()


def _print_act(number: int, act: Act, played: Played) -> None:
    out = console()
    out.print()
    out.print(Text.assemble((f"{number}  ", "dim"), (act.title, "bold")))
    lines = [Text(f'"{act.text}"', style="italic"), *_told(played.begun)]
    if played.asked and played.decided:
        lines += [*_decided(played.asked, played.refused), *_told(played.decided)]
    if act.unlimited:
        lines.append(_weekend(played.run))
    for line in lines:
        out.print(indented(line, 3), width=min(WIDTH, out.width))


def _told(run: Run) -> Iterator[Text]:
    """How a run stands: its figures, then what it says or was refused for."""
    spent = run.spent
    calls, tokens = counted(spent.steps, "call"), counted(spent.tokens, "token")
    figures = f"  {calls}  {tokens}  {format_usd(spent.nanousd)}"
    yield Text.assemble(status_text(run.status), figures)
    if run.status == "stopped":
        yield Text(plain(parted(run.stop_reason)[0]), style="yellow")
    if run.output and not run.interrupts:
        yield Text(plain(run.output))


def _decided(asked: Escalation, refused: str) -> Iterator[Text]:
    """What a person was asked, until when, and who decided."""
    from bursar.runtime.demo.story import COLLEAGUE, REVIEWER

    arguments = ", ".join(f"{name}={value!r}" for name, value in asked.payload["args"].items())
    yield Text(plain(f"waits for a person to allow {asked.payload['tool']}({arguments})"), style="cyan")
    if asked.expires_at:
        yield Text(f"until {asked.expires_at.astimezone():%H:%M}, when it is rejected; in the inbox it is {asked.id}")
    if refused:
        yield Text(plain(f"{COLLEAGUE} tries: {refused}"), style="yellow")
    yield Text(f"{REVIEWER} approves")


def _weekend(run: Run) -> Text:
    from bursar.runtime.demo.story import weekend

    bill = weekend(run)
    return Text.assemble(
        "Unlimited it would have cost ",
        (f"${bill.cost_usd:,.0f}", "bold red"),
        f" from Friday 18:00 to Monday 8:00: {bill.calls:,} calls, assuming one every {bill.seconds_per_call} s, ",
        f"at the ${bill.call_usd:.4f} that its calls cost on average. Each was longer than the last, ",
        "so that is the least.",
    )


def _print_tenants(books: Books) -> None:
    """The table of the ledger; each tenant of the demo has one budget."""
    console().print()
    rows = []
    for line in books.ledger.budgets.ls():
        runs, posted, limit = len(books.records.ls(tenant=line.path)), line.posted, line.limit["nanousd"]
        figures = (str(runs), str(posted.steps), f"{posted.tokens:,}", format_usd(posted.nanousd))
        left = shown_left("nanousd", limit, posted.nanousd)
        rows.append((line.path, *figures, shown("nanousd", limit), left))
    print_table(_COLUMNS, rows)


def _print_next(folder: Path, runs: Sequence[Run]) -> None:
    runaway, refused, command = runs[-2], runs[-1], _program()
    out = console()
    out.print()
    out.print(Text("Try next", style="bold"))
    for why, line in (
        ("all of this is kept, with its ledger", f"cd {shlex.quote(str(folder))}"),
        ("what was decided, by whom and why only by them", f"{command} inbox show 1"),
        ("every call of the runaway, to the nano-dollar", f"{command} budget why {runaway.id}"),
        ("more for the tenant that was refused", f"{command} budget grant {refused.tenant} --usd 1"),
        ("and its run goes on", f"{command} runs resume {refused.id}"),
    ):
        out.print(Text(f"  # {why}", style="dim"))
        out.print(Text(f"  {line}"), soft_wrap=True)


def _program() -> str:
    """How to call this command again from any folder."""
    here, found = Path(sys.executable).with_name("bursar"), shutil.which("bursar")
    if not here.exists():
        return f"{shlex.quote(sys.executable)} -m bursar.runtime.cli"
    return "bursar" if found and here.samefile(found) else shlex.quote(str(here))
