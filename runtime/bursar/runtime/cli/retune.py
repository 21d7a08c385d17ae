"""`bursar runs retune`: new limits for a run under way, or a pause."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import Parameter

from bursar.budget.limits import Limits
from bursar.runtime.cli.books import open_books
from bursar.runtime.cli.options import (
    CONFIG_FILE,
    AsJson,
    By,
    ConfigFile,
    CountOrNone,
    DryRun,
    Reason,
    RunId,
    Seconds,
    UsdOrNone,
    author,
    flag,
)
from bursar.runtime.cli.output import console, print_json, print_next
from bursar.runtime.cli.shapes import run_json
from bursar.runtime.cli.telling import next_commands
from bursar.runtime.cli.words import plain

__all__ = ["NO_LIMITS", "NewLimits", "retune"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewLimits:
    """Limits of a run, each in the place of the one that it has."""

    usd: Annotated[UsdOrNone, Parameter(help="Dollars; `none` takes the limit away.")] = None
    tokens: Annotated[CountOrNone, Parameter(help="Input and output tokens together, or `none`.")] = None
    steps: Annotated[CountOrNone, Parameter(help="Model calls, or `none`.")] = None
    tool_calls: Annotated[CountOrNone, Parameter(help="Tool executions, or `none`.")] = None
    seconds: Annotated[Seconds, Parameter(help="Working time.")] = None

    @property
    def limits(self) -> Limits | None:
        """Those that were written down; None where none was."""
        given = {"cost_usd": self.usd, "tokens": self.tokens, "steps": self.steps, "tool_calls": self.tool_calls}
        said: dict[str, Any] = {**given, "seconds": self.seconds}
        written = {name: None if of == "none" else of for name, of in said.items() if of is not None}
        return Limits(**written) if written else None


NO_LIMITS = NewLimits()


def retune(
    run: RunId,
    /,
    *,
    limits: Annotated[NewLimits, Parameter(name="*")] = NO_LIMITS,
    pause: Annotated[bool, flag("--pause", "Refuse its calls from the next one on, until it is let go on.")] = False,
    resume: Annotated[bool, flag("--resume", "Let it go on; a worker takes it up where it waits.")] = False,
    by: By = None,
    note: Reason = "",
    config: ConfigFile = CONFIG_FILE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Change the limits of a run that goes on, in whichever process, or hold it up."""
    from bursar.budget.windows import utc_now
    from bursar.runtime.retune import Retuning, RunChange, in_words

    change = RunChange(limits=limits.limits, pause=pause, resume=resume)
    with open_books(config) as books:
        retuning, who = Retuning(books.ledger, books.records, utc_now), author(by)
        retuned = retuning.retune(run, change, by=who, note=note, dry_run=dry_run)
        after = books.records.show(books.records.row(run))
    if as_json:
        limits_json = None if retuned is None else {"before": _exact(retuned.before), "after": _exact(retuned.after)}
        return print_json({**run_json(after), "limits": limits_json, "dry_run": dry_run})
    said = [*(in_words(retuned) if retuned else ()), *["paused"] * pause, *["let go on"] * resume]
    would = "would change " if dry_run else ""
    console().print(plain(f"{would}{run}: {', '.join(said) or 'nothing changed'}"), soft_wrap=True)
    return None if dry_run else print_next(next_commands(after), config)


def _exact(limits: Mapping[str, Any]) -> dict[str, Any]:
    """Limits as JSON: money as a decimal string."""
    from bursar.budget.money import usd

    money = limits["nanousd"]
    rest = {name: of for name, of in limits.items() if name != "nanousd"}
    return {"cost_usd": None if money is None else f"{usd(int(money)):f}", **rest}
