"""`bursar budget simulate`: what another policy would have refused and saved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from bursar.budget.amounts import DIMENSIONS, Amounts
from bursar.runtime.cli.books import open_books
from bursar.runtime.cli.moments import moment, zone_of
from bursar.runtime.cli.options import CONFIG_FILE, AsJson, ConfigFile
from bursar.runtime.cli.output import Column, console, print_json, print_table, print_words
from bursar.runtime.cli.patience import patience
from bursar.runtime.cli.shapes import amounts_json, limit_json, refusal_json, time_json
from bursar.runtime.cli.words import counted, plain, short, shown, shown_time
from bursar.runtime.config import Config, load_config

if TYPE_CHECKING:
    from bursar.budget.whatif.simulate import Line, Outcome, Rule, StoppedRun

__all__ = ["rules_of", "simulate"]

WINDOWS_SHOWN_MAX = 12
"""Of one budget; `--json` has them all."""

RUNS_SHOWN_MAX = 5

_COLUMNS: Sequence[Column] = (
    "budget",
    "window",
    ("limit", "right"),
    ("really", "right"),
    ("then", "right"),
    ("highest", "right"),
    ("refused", "right"),
    ("runs", "right"),
)


def simulate(
    policy: Annotated[Path, Parameter(name="POLICY", help="A bursar.yaml, or its organisations and tenants alone.")],
    /,
    *,
    since: Annotated[str, Parameter(help="From when on: 30d or 12h ago, a day or a time.")] = "30d",
    zone: Annotated[str, Parameter(help="The IANA time zone of that day or time.")] = "UTC",
    config: ConfigFile = CONFIG_FILE,
    as_json: AsJson = False,
) -> None:
    """Say what another policy would have refused and saved."""
    from bursar.budget.whatif import simulate as dry_run  # with SQLAlchemy

    now = datetime.now(UTC)
    begins = moment(since, zone_of(zone), now)
    with open_books(config) as books, patience("replaying") as tell:
        rules = [*rules_of(load_config(policy, rest=books.config))]
        outcome = dry_run.simulate(books.ledger.store, rules, since=begins, until=now, progress=tell)
    if as_json:
        return print_json(_as_json(policy, outcome))
    return _print(policy, outcome)


def rules_of(config: Config) -> Iterator[Rule]:
    """The budgets of a policy, as the replay takes them."""
    from bursar.budget.whatif.simulate import Rule
    from bursar.runtime.tenants import declared_budgets, limit_of

    for path, budgets in declared_budgets(config):
        for budget in budgets:
            yield Rule(
                path=path,
                per=budget.per,
                zone=budget.zone,
                limit=limit_of(budget),
                mode=budget.mode,
                rollover_percent=budget.rollover_percent,
                overdraft_percent=budget.overdraft_percent,
            )


def _print(policy: Path, outcome: Outcome) -> None:
    told = [*_worth_telling(outcome.lines)]
    if told:
        print_table(_COLUMNS, [row for line in told for row in _rows(line)])
    if len(told) < len(outcome.lines):
        console().print(f"and {counted(len(outcome.lines) - len(told), 'window')} more, in --json", style="dim")
    runs = sorted((run for line in outcome.lines for run in line.runs), key=lambda run: run.at)
    for run in runs[:RUNS_SHOWN_MAX]:
        print_words(f"{shown_time(run.at)}  {run.run_id} would have been stopped: {_why(run)}")
    if outcome.stopped > RUNS_SHOWN_MAX:
        console().print(f"and {counted(outcome.stopped - RUNS_SHOWN_MAX, 'run')} more", style="dim")
    for sentence in _sentences(policy, outcome):
        console().print(plain(sentence), soft_wrap=True)


def _sentences(policy: Path, outcome: Outcome) -> Iterator[str]:
    if not outcome.calls:
        yield f"no call was made since {shown_time(outcome.since)}"
        return
    yield (
        f"{policy} would have refused {outcome.refused:,} of {counted(outcome.calls, 'call')} "
        f"since {shown_time(outcome.since)} and stopped {counted(outcome.stopped, 'run')}"
    )
    yield f"spent: {_sums(outcome.really_spent)} really, {_sums(outcome.spent)} then; saved: {_sums(outcome.saved)}"
    if outcome.capped or outcome.waited:
        capped, waited = counted(outcome.capped, "answer"), counted(outcome.waited, "call")
        yield f"{capped} would have been bounded more tightly, {waited} would have waited"
    for path, runs in outcome.really_stopped.items():
        yield f"really stopped by {path}: {counted(runs, 'run')}"


def _worth_telling(lines: Iterable[Line]) -> Iterator[Line]:
    """Of each budget the windows in which it would have refused, else the one with the highest use."""
    for _, of_budget in groupby(lines, key=lambda line: (line.path, line.per)):
        windows = [*of_budget]
        refusing = [line for line in windows if line.refused][:WINDOWS_SHOWN_MAX]
        yield from refusing or [max(windows, key=_share)]


def _share(line: Line) -> float:
    """How much of its tightest limit is used at most."""
    used = (getattr(line.highest, name) for name in DIMENSIONS)
    return max((one / limit for one, limit in zip(used, line.limit, strict=True) if limit), default=0.0)


def _rows(line: Line) -> Iterator[tuple[str, ...]]:
    """A row for each dimension that has a limit."""
    named = [line.path, line.window or line.per]
    counts = [f"{line.refused:,}", f"{line.stopped:,}"]
    for name, limit in zip(DIMENSIONS, line.limit, strict=True):
        if limit is not None:
            amounts = (getattr(of, name) for of in (line.really_spent, line.spent))
            spent = (shown(name, amount).partition(" ")[0] for amount in amounts)
            yield *named, shown(name, limit), *spent, _percent(getattr(line.highest, name), limit), *counts
            named, counts = ["", ""], ["", ""]


def _percent(amount: int, limit: int) -> str:
    return f"{amount * 100 // limit} %" if limit else "-"


def _sums(amounts: Amounts) -> str:
    return f"{shown('nanousd', amounts.nanousd)}, {shown('tokens', amounts.tokens)}"


def _why(run: StoppedRun) -> str:
    return short(run.refusal.words()).removeprefix("refused: ")


def _as_json(policy: Path, outcome: Outcome) -> dict[str, Any]:
    return {
        "policy": str(policy),
        "since": time_json(outcome.since),
        "until": time_json(outcome.until),
        "calls": outcome.calls,
        "refused": outcome.refused,
        "capped": outcome.capped,
        "waited": outcome.waited,
        "stopped_runs": outcome.stopped,
        "really_stopped_runs": dict(outcome.really_stopped),
        "really_spent": amounts_json(outcome.really_spent),
        "spent": amounts_json(outcome.spent),
        "saved": amounts_json(outcome.saved),
        "budgets": [_line_json(line) for line in outcome.lines],
    }


def _line_json(line: Line) -> dict[str, Any]:
    return {
        "path": line.path,
        "per": line.per,
        "window": line.window,
        "limit": limit_json(dict(zip(DIMENSIONS, line.limit, strict=True))),
        "calls": line.calls,
        "refused": line.refused,
        "stopped_runs": line.stopped,
        "first_stopped": [
            {"run": run.run_id, "at": time_json(run.at), "refused": refusal_json(run.refusal)} for run in line.runs
        ],
        "saved": amounts_json(line.saved),
        "really_spent": amounts_json(line.really_spent),
        "spent": amounts_json(line.spent),
        "really_highest": amounts_json(line.really_highest),
        "highest": amounts_json(line.highest),
    }
