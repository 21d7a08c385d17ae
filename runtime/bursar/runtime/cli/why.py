"""`bursar budget why`: what a run paid for, how a call came to its cost, and what refused a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.text import Text

from bursar.budget.amounts import Amounts
from bursar.budget.errors import NotFoundError
from bursar.runtime.cli.books import Books, open_books
from bursar.runtime.cli.options import CONFIG_FILE, AsJson, ConfigFile
from bursar.runtime.cli.output import Column, console, print_json, print_next, print_table, print_words, status_text
from bursar.runtime.cli.shapes import bill_json, money, stop_json
from bursar.runtime.cli.why_call import call_json, print_call
from bursar.runtime.cli.words import plain, rates_text, short, shown_time
from bursar.runtime.runs.run import Run

if TYPE_CHECKING:
    from bursar.budget.reports.report import Attempt, RunBill, Stop

__all__ = ["why"]

_COLUMNS: Sequence[Column] = (
    ("#", "right"),
    "call",
    ("tokens", "right"),
    ("reserved", "right"),
    ("posted", "right"),
    ("state", "whole"),
    ("why", "right"),
)


def why(
    what: Annotated[
        str,
        Parameter(
            name="WHAT",
            help="A run; a call, by its id or by its number in the run's table; a refusal such as acme#17; or a path "
            "such as acme or acme/support, for the refusals there.",
        ),
    ],
    /,
    *,
    config: ConfigFile = CONFIG_FILE,
    as_json: AsJson = False,
) -> None:
    """Explain a cost or a refusal, down to the price row and the limit."""
    with open_books(config) as books:
        if "#" in what:
            _tell_stops(what, [books.ledger.reports.stop(what)], as_json=as_json)
        elif "/" in what or _is_tenant(books, what):
            _tell_stops(what, books.ledger.reports.stops(what), as_json=as_json)
        elif ":" in what or what.isdecimal():
            attempts = books.ledger.reports.attempts(what)
            print_json(call_json(attempts)) if as_json else print_call(attempts)
        else:
            _tell_run(books.ledger.reports.bill(what), _record(books, what), as_json=as_json)


def _is_tenant(books: Books, name: str) -> bool:
    """An organisation is named like a call: both have a colon."""
    return name in books.config.tenants or name.startswith("org:")


def _record(books: Books, run_id: str) -> Run | None:
    """The run as its runtime knows it; None for one of a program that uses the ledger alone."""
    try:
        return books.records.show(books.records.row(run_id))
    except NotFoundError:
        return None


def _tell_stops(what: str, stops: Sequence[Stop], *, as_json: bool) -> None:
    if as_json:
        return print_json([stop_json(stop) for stop in stops])
    for stop in stops:
        console().print(
            Text.assemble((stop.id, "bold"), f"  {shown_time(stop.at)}  {plain(stop.run_path)}"), soft_wrap=True
        )
        print_words(stop.words)
    if not stops:
        console().print("no run was stopped there")
    runs = [path.split("/")[2] for path in (stops[0].run_path if stops else what,) if path.count("/") > 1]
    return print_next(f"bursar budget why {run}" for run in runs)


def _tell_run(bill: RunBill, found: Run | None, *, as_json: bool) -> None:
    if as_json:
        return print_json(bill_json(bill, found))
    whose = plain(bill.path.rpartition("/")[0])
    status = status_text(found.status) if found else Text()
    title = Text.assemble((bill.run_id, "bold"), f"  {whose}  ", status)
    console().print(title, soft_wrap=True)
    reasons: dict[str, int] = {}
    if bill.attempts:
        console().print()
        print_table(_COLUMNS, [_row(one, reasons) for one in bill.attempts])
    for reason, number in reasons.items():
        console().print(Text(f"[{number}] {plain(reason)}", style="dim"))
    _print_sum(bill)
    return _print_history(bill, found)


def _row(attempt: Attempt, reasons: dict[str, int]) -> tuple[str | Text, ...]:
    """One attempt with the number by which it is asked for; its reason is a footnote, since many have the same."""
    number, state = str(attempt.id), attempt.outcome or attempt.state
    if attempt.kind == "tool":
        return number, _call(attempt), "", "", "", state, ""
    footnote = reasons.setdefault(_reason(attempt), len(reasons) + 1)
    held, posted = (f"${money(amounts.nanousd)}" for amounts in (attempt.held, attempt.posted))
    return number, _call(attempt), _tokens(attempt), held, posted, state, f"[{footnote}]"


def _call(attempt: Attempt) -> Text:
    """The node and the model, and what was unusual."""
    text = Text(plain(f"{attempt.node}: {attempt.model or '-'}"))
    capped = f"output capped to {attempt.max_output_tokens:,}" if attempt.capped else None
    for line in (capped, attempt.note):
        if line:
            text.append(f"\n{plain(line)}", style="dim")
    return text


def _reason(attempt: Attempt) -> str:
    """Why this tier and model, and at which price."""
    price = attempt.price
    paid = f"price {price.id}: {rates_text(price)} ({price.source})" if price else "no price"
    return f"{attempt.reason}; {paid}" if attempt.reason else paid


def _tokens(attempt: Attempt) -> str:
    if attempt.usage is None:
        return f"{attempt.posted.tokens:,}"
    return f"{attempt.usage.input_tokens:,} + {attempt.usage.output_tokens:,}"


def _print_sum(bill: RunBill) -> None:
    total = sum((attempt.posted for attempt in bill.attempts), Amounts())
    verdict = ("equal", "green") if total == bill.posted else ("NOT EQUAL: please report this", "red bold")
    out = console()
    out.print()
    out.print(f"sum of the attempts  ${money(total.nanousd)}")
    out.print(Text.assemble(f"cost of the run      ${money(bill.posted.nanousd)}  ", verdict))
    if bill.held:
        out.print(f"held for calls now   ${money(bill.held.nanousd)}")
    if saved := bill.saved_nanousd:
        said = "saved by caches      " if saved > 0 else "caches cost, so far  "
        out.print(f"{said}${money(abs(saved))}")


def _print_history(bill: RunBill, run: Run | None) -> None:
    out = console()
    reason = run.stop_reason if run and run.status != "succeeded" else ""
    if reason:
        out.print()
        print_words(reason)
    if bill.stopped and short(bill.stopped.words()) not in reason:
        print_words(bill.stopped.words())
    if bill.changes:
        out.print()
        print_table(
            [("when", "whole"), "what", "by", "note"],
            [(shown_time(at), kind, author, short(note)) for at, kind, author, note in bill.changes],
        )
