"""An escalation in words: its line in the inbox, and all that its decision needs on one screen."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from bursar.budget.money import format_usd
from bursar.budget.windows import from_us
from bursar.runtime.cli.answers import answers
from bursar.runtime.cli.moments import distance
from bursar.runtime.cli.output import Column, console, indented, print_table, print_words, status_text
from bursar.runtime.cli.words import parted, plain, short, shown, shown_time
from bursar.runtime.escalations.fitting import in_words
from bursar.runtime.escalations.rule import Rule
from bursar.runtime.runs.run import Run

if TYPE_CHECKING:
    from bursar.runtime.escalations.records import Escalation, EscalationEvent

__all__ = ["changes", "next_commands", "print_escalation", "print_list"]

_COLUMNS: Sequence[Column] = (
    ("id", "right"),
    ("reason", "whole"),
    "what",
    ("amount", "right"),
    ("due", "whole"),
    "with",
)
_SPARED = (("reason", "whole"), "with")

NARROW = 60
"""Columns of a terminal below which a list spares some of its own."""

DIGEST_SHOWN = 12

MEANINGS: Mapping[str, str] = {
    "in_doubt": "approve: it did not happen, do it now; respond: it did, with this result; reject: leave it",
    "failures": "approve: go on; respond: go on, with this advice; stop: end with what there is",
    "doubt": "approve: it will do; respond: take this answer instead; reject: answer again",
}
"""What each decision comes to where a `yes` would not tell; by the reason."""

WORDS_MAX = 120
"""How many columns of a question are shown in a list."""

VALUE_MAX = 2_000
"""How many characters of one argument are shown; --json shows all."""


def print_list(found: Sequence[Escalation], now: datetime) -> None:
    """A line for each; columns in which nothing stands are left out, and a narrow terminal spares some more."""
    rows = [_row(one, now) for one in found]
    narrow = console().width < NARROW
    kept = [
        place
        for place, column in enumerate(_COLUMNS)
        if any(row[place] for row in rows) and (not narrow or column not in _SPARED)
    ]
    print_table([_COLUMNS[place] for place in kept], [[row[place] for place in kept] for row in rows])


def _row(one: Escalation, now: datetime) -> tuple[str | Text, ...]:
    what = Text(plain(" ".join(f"{one.tenant}: {short(_asked(one))}".split())))
    what.truncate(WORDS_MAX, overflow="ellipsis")
    amount = "" if one.amount_nanousd is None else format_usd(one.amount_nanousd)
    return str(one.id), one.reason, what, amount, _due(one, now), _with(one, now)


def next_commands(one: Escalation) -> list[str]:
    """The commands that decide on it, or show what became of its run."""
    if one.status != "open":
        return [f"bursar runs show {one.run_id}"]
    return answers(one.id, one.allowed, one.payload)


def print_escalation(one: Escalation, run: Run, history: Sequence[EscalationEvent], now: datetime) -> None:
    """What is asked, exactly what would be done, the facts, and what happened."""
    out = console()
    out.print(Text.assemble((f"{one.id}  {one.reason}  ", "bold"), plain(one.status)), soft_wrap=True)
    print_words(_asked(one))
    for line in _matter(one.payload):
        out.print(indented(Text(line)))
    out.print()
    _print_facts(_facts(one, run, now))
    out.print()
    _print_facts(_happened(history, now))


def _asked(one: Escalation) -> str:
    """The question; of a refusal without the command that would grant more to whoever may."""
    return parted(one.words)[0] if one.reason == "budget" else one.words


def _matter(payload: Mapping[str, Any]) -> Iterator[str]:
    """The action with each argument, how the limit stands, or whatever else is asked about."""
    if isinstance(payload.get("args"), Mapping):
        yield plain(str(payload.get("tool", "")))
        yield from (f"  {line}" for line in _named(payload["args"]))
    elif isinstance(payload.get("refusal"), Mapping):
        yield from _limit(payload["refusal"])
    else:
        yield from _named(payload)


def _limit(refusal: Mapping[str, Any]) -> Iterator[str]:
    dimension = str(refusal["dimension"])
    for name, key in (("limit", "limit"), ("spent", "posted"), ("held", "held"), ("needed", "needed")):
        if refusal[key]:
            yield f"{name}: {shown(dimension, refusal[key])}"


def _named(given: Mapping[str, Any]) -> Iterator[str]:
    for name, value in given.items():
        yield f"{plain(name)}: {_value(value)}"


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Text]:
    """What an edit changes, as a diff of arguments; nothing where it changes nothing."""
    for name in {**before, **after}:
        old, new = (_value(given[name]) if name in given else None for given in (before, after))
        if old == new:
            continue
        if old is not None:
            yield Text(f"- {plain(name)}: {old}", style="red")
        if new is not None:
            yield Text(f"+ {plain(name)}: {new}", style="green")


def _facts(one: Escalation, run: Run, now: datetime) -> Iterator[tuple[str, str | Text]]:
    """What else a decision needs, each under its name."""
    node = f", node {one.node}" if one.node not in ("", "-") else ""
    asks = f"{one.tenant}/{one.agent}{node}" + (f", for {one.requester}" if one.requester else "")
    yield "asked by", asks
    if one.amount_nanousd is not None:
        yield "amount", format_usd(one.amount_nanousd)
    for found in one.evidence:
        yield from ((plain(name), value if isinstance(value, str) else _value(value)) for name, value in found.items())
    rule = Rule.from_record(one.rule)
    yield "may decide", _deciders(one, rule)
    if one.first_by and one.status == "open":
        yield "agreed", f"{one.first_by}; a second person has to"
    if one.status == "open" and one.reason in MEANINGS:
        yield "decisions", MEANINGS[one.reason]
    if one.status == "open":
        yield from _levels(one, rule, now)
        yield "deadline", _deadline(one, rule, now)
    if one.assignee:
        yield "assigned to", one.assignee
    if one.claimed_by and one.claimed_until and one.claimed_until > now:
        yield "claimed by", f"{one.claimed_by}, until {_moment(one.claimed_until, now)}"
    finish = "" if one.finish_nanousd is None else f", about {format_usd(one.finish_nanousd)} to finish"
    yield "cost", f"{format_usd(one.cost_nanousd)} so far{finish}"
    yield "run", Text.assemble(run.id, "  ", status_text(run.status))
    if run.output:
        yield "work so far", run.output
    yield "digest", one.digest[:DIGEST_SHOWN]
    if one.decision is not None and one.decided_at is not None:
        yield one.status, f"{in_words(one.decision)} by {one.decided_by}, {_moment(one.decided_at, now)}"


def _deciders(one: Escalation, rule: Rule) -> str:
    """Who may, on how much, and whether two must agree."""
    people = rule.may_decide(one.level)
    who = "anybody" if people is None else ", ".join(_up_to(name, rule) for name in people)
    two = f"; two of them, neither of them {one.requester}" if one.requester else "; two of them"
    return f"{who}{two if rule.needs_two(one.amount_nanousd) else ''} (escalations.{rule.name})"


def _up_to(name: str, rule: Rule) -> str:
    return f"{name} (up to {format_usd(rule.ceilings[name])})" if name in rule.ceilings else name


def _levels(one: Escalation, rule: Rule, now: datetime) -> Iterator[tuple[str, str]]:
    """Who may decide later, too."""
    raises = [at for at, kind in rule.moments if kind == "raise"]
    for at, level in list(zip(raises, rule.levels[1:], strict=False))[one.level :]:
        yield "later", f"{level.who}, from {_moment(from_us(at), now)} on"


def _print_facts(found: Iterator[tuple[str, str | Text]]) -> None:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for name, value in found:
        grid.add_row(name, Text(plain(value)) if isinstance(value, str) else value)
    console().print(grid)


def _happened(history: Sequence[EscalationEvent], now: datetime) -> Iterator[tuple[str, str]]:
    for event in history:
        by = f" by {event.author}" if event.author else ""
        yield shown_time(event.at, now=now), f"{event.kind}{by}" + (f": {event.detail}" if event.detail else "")


def _deadline(one: Escalation, rule: Rule, now: datetime) -> str:
    if one.expires_at is None:
        return "none: it waits until somebody decides"
    after = ", after its last level," if rule.on_expiry == "escalate" else ""
    if one.reason == "budget" and rule.on_expiry == "downgrade":
        end = "the run goes on with lower tiers"
    else:
        end = "it is rejected" if "reject" in one.allowed else "the run ends with what it has"
    return f"{_moment(one.expires_at, now)}, then{after} {end}"


def _moment(at: datetime, now: datetime) -> str:
    """A moment as a time of this machine's zone, and how far off it is."""
    return f"{at.astimezone():%d %b %Y %H:%M} ({distance(at, now)})"


def _due(one: Escalation, now: datetime) -> str:
    if one.status != "open":
        return shown_time(one.decided_at, now=now) if one.decided_at else ""
    return distance(one.expires_at, now) if one.expires_at else ""


def _with(one: Escalation, now: datetime) -> str:
    if one.status != "open":
        return one.decided_by or ""
    if one.claimed_by and one.claimed_until and one.claimed_until > now:
        return f"{one.claimed_by} (claimed)"
    return one.assignee or ""


def _value(value: Any) -> str:
    """A value as JSON, every character of it seen: what cannot be printed is written out."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    seen = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text[:VALUE_MAX])
    return seen if len(text) <= VALUE_MAX else f"{seen}... ({len(text):,} characters; --json shows all)"
