"""A run in words: what it said, what it waits for, how it stands, and which commands go on from there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from rich.text import Text

from bursar.budget.money import format_usd
from bursar.runtime.cli.answers import answers
from bursar.runtime.cli.output import console, indented, print_words, status_text
from bursar.runtime.cli.words import counted, parted, plain
from bursar.runtime.runs.run import Interrupt, Run

__all__ = ["next_commands", "print_run", "summary"]

ARGUMENT_SHOWN_MAX = 500


def print_run(run: Run) -> None:
    """The answer, then why the run is where it is, then its summary."""
    if run.output:
        print_words(run.output)
        console().print()
    for interrupt in run.interrupts:
        _print_interrupt(interrupt)
    if not run.interrupts and run.status in ("stopped", "interrupted", "cancelled"):
        print_words(parted(run.stop_reason)[0])
    console().print(summary(run), soft_wrap=True)


def summary(run: Run) -> Text:
    """One line: status, cost, tokens, steps and id."""
    spent = run.spent
    parts = [format_usd(spent.nanousd), counted(spent.tokens, "token"), counted(spent.steps, "step"), run.id]
    return Text.assemble(status_text(run.status), "  ", "  ".join(parts))


def next_commands(run: Run) -> list[str]:
    """What can be done with a run as it stands; the likeliest first."""
    resume, why = f"bursar runs resume {run.id}", f"bursar budget why {run.id}"
    if run.interrupts:
        return [*dict.fromkeys(_answers(run.interrupts))]
    if run.status == "interrupted" and "paused by" in (run.stop_reason or ""):  # a mere resume is refused, too
        return [f"bursar runs retune {run.id} --resume"]
    if run.status in ("interrupted", "failed"):
        return [resume]
    if run.status == "queued":
        return ["bursar worker", f"bursar runs tail {run.id}"]
    if run.status == "running":
        return [f"bursar runs tail {run.id}"]
    mends = parted(run.stop_reason)[1] if run.status == "stopped" else ""
    return [mends, why] if mends else [why]


def _answers(asked: Sequence[Interrupt]) -> Iterator[str]:
    """Where each question is seen whole; where there is only one, also how it is answered, and how with no."""
    for one in asked:
        yield f"bursar inbox show {one.escalation}"
    if len(asked) == 1:
        commands = answers(asked[0].escalation, asked[0].allowed, asked[0].payload)
        yield from (commands[0], commands[-1])


def _print_interrupt(interrupt: Interrupt) -> None:
    asked = parted(interrupt.words)[0] if interrupt.reason == "budget" else interrupt.words
    print_words(f"waits for a person: {asked}")
    for name, value in (interrupt.payload.get("args") or {}).items():
        console().print(indented(Text(f"{plain(name)}: {plain(_shown(value))}")))


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= ARGUMENT_SHOWN_MAX else f"{text[:ARGUMENT_SHOWN_MAX]}... ({len(text):,} characters)"
