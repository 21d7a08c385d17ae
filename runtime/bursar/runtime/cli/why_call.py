"""One call, explained from its scope to its posting: limits, reservation, price row, usage, arithmetic and tier."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from bursar.budget.amounts import DIMENSIONS
from bursar.budget.money import ceil_nanousd
from bursar.runtime.cli.output import console
from bursar.runtime.cli.shapes import attempt_json, limit_json, money
from bursar.runtime.cli.words import plain, rate_text, shown

if TYPE_CHECKING:
    from decimal import Decimal

    from bursar.budget.reports.report import Attempt, Draw

__all__ = ["call_json", "print_call"]


def print_call(attempts: Sequence[tuple[Attempt, Sequence[Draw]]]) -> None:
    """Every attempt at a call, or one of them, line by line."""
    for number, (attempt, draws) in enumerate(attempts):
        if number:
            console().print()
        title = f"{attempt.call}, attempt {attempt.attempt + 1}"
        console().print(Text.assemble((plain(title), "bold"), f"  {attempt.outcome or attempt.state}"), soft_wrap=True)
        lines = Table.grid(padding=(0, 2, 0, 0))
        for label, what in _chain(attempt, draws):
            lines.add_row(Text(label, style="dim"), what if isinstance(what, Table) else Text(plain(what)))
        console().print(lines)


def call_json(attempts: Sequence[tuple[Attempt, Sequence[Draw]]]) -> list[dict[str, Any]]:
    """The same as JSON."""
    return [
        {
            **attempt_json(attempt),
            "call": attempt.call,
            "limits": [
                {"path": draw.path, "per": draw.per, "window": draw.window, "limit": limit_json(draw.limit)}
                for draw in draws
            ],
            "arithmetic": [
                {
                    "label": line.label,
                    "tokens": line.tokens,
                    "usd_per_mtok": None if line.usd_per_mtok is None else f"{line.usd_per_mtok:f}",
                    "usd": f"{line.usd:f}",
                }
                for line in _lines(attempt)
            ],
        }
        for attempt, draws in attempts
    ]


def _chain(attempt: Attempt, draws: Sequence[Draw]) -> Iterator[tuple[str, str | Table]]:
    yield "scope", _scope(attempt)
    limits = [line for draw in draws for line in _limits(draw)]
    yield "limits", "\n".join(limits) or "none"
    yield "reserved", _reserved(attempt)
    if attempt.price is not None:
        yield "price", f"{attempt.price.id} ({attempt.price.source})"
    elif attempt.kind == "model":
        yield "price", "none: money was not counted"
    if attempt.usage is not None:
        yield ("at most" if attempt.outcome == "unknown" else "usage"), _usage(attempt)
    if lines := _lines(attempt):
        yield "cost", _arithmetic(lines)
    yield "posted", _posted(attempt)
    if attempt.tier or attempt.reason:
        yield "tier", f"{attempt.tier or '-'}, model {attempt.model}: {attempt.reason or 'no reason given'}"
    if attempt.note:
        yield "note", attempt.note


def _scope(attempt: Attempt) -> str:
    parts = {
        "organisation": attempt.organisation,
        "tenant": attempt.tenant,
        "team": attempt.team,
        "user": attempt.user,
        "agent": attempt.agent,
        "run": attempt.run_id,
        "node": attempt.node,
    }
    return " > ".join(f"{kind} {name}" for kind, name in parts.items() if name)


def _limits(draw: Draw) -> Iterator[str]:
    """One line for each limit of a budget."""
    window = draw.per if draw.per.startswith("rolling") else draw.window or "total"
    limited = [name for name in DIMENSIONS if draw.limit[name] is not None]
    if limited:
        yield f"{draw.path} ({window}): {', '.join(shown(name, draw.limit[name]) for name in limited)}"


def _reserved(attempt: Attempt) -> str:
    amounts = [shown(name, amount) for name in DIMENSIONS if (amount := getattr(attempt.held, name))]
    bound = ""
    if attempt.kind == "model" and attempt.max_output_tokens is not None:
        capped = ", lowered to what fitted" if attempt.capped else ""
        bound = f"; at most {attempt.max_output_tokens:,} output tokens{capped}"
    return f"{', '.join(amounts) or 'nothing'}{bound}, at {attempt.reserved_at:%Y-%m-%d %H:%M:%S} UTC"


def _usage(attempt: Attempt) -> str:
    counts: Mapping[str, Any] = attempt.usage.to_record() if attempt.usage else {}
    named = {name.removesuffix("_tokens").replace("_", " "): count for name, count in counts.items()}
    return ", ".join(f"{count:,} {name}" for name, count in named.items() if type(count) is int and count)


def _lines(attempt: Attempt) -> Sequence[Any]:
    if attempt.usage is None or attempt.price is None or attempt.outcome == "unknown":
        return ()
    return attempt.price.explain(attempt.usage)


def _arithmetic(lines: Sequence[Any]) -> Table:
    """A line for each kind of token, and the sum, which alone is rounded."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for side in ("left", "right", "left", "right"):
        table.add_column(justify=side)
    for line in lines:
        rate = "" if line.usd_per_mtok is None else f"x ${rate_text(line.usd_per_mtok)} per million"
        table.add_row(line.label, f"{line.tokens:,}" if line.tokens else "", rate, f"${line.usd.normalize():f}")
    total = sum((line.usd for line in lines), start=lines[0].usd * 0)
    table.add_row("in all", "", _rounding(total), f"${money(ceil_nanousd(total))}")
    return table


def _rounding(total: Decimal) -> str:
    return "" if ceil_nanousd(total) == total.scaleb(9) else f"rounded up from ${total.normalize():f}"


def _posted(attempt: Attempt) -> str:
    if attempt.state != "settled":
        return f"nothing: {attempt.state}"
    counts = [shown(name, count) for name in DIMENSIONS[1:] if (count := getattr(attempt.posted, name))]
    what = ", ".join([f"${money(attempt.posted.nanousd)}", *counts])
    if attempt.outcome == "unknown":
        bound = "the most that it can have used" if attempt.posted != attempt.held else "all that was reserved"
        return f"{what}: {bound}, since nobody knows what it came to"
    if attempt.posted.nanousd > attempt.held.nanousd:
        return f"{what}: more than was reserved, since the provider billed more than the bound it was given"
    return what
