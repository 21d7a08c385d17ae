"""Deciding for a command: bound to what was read, then the run goes on right here, or with a worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.text import Text

from bursar.budget.errors import BursarError, ConflictError
from bursar.runtime.cli.books import open_books
from bursar.runtime.cli.exits import Exit, exit_of
from bursar.runtime.cli.inbox_json import escalation_json
from bursar.runtime.cli.inbox_words import changes
from bursar.runtime.cli.options import CONFIG_FILE, AsJson, By, ConfigFile, Debug, DryRun, author, flag
from bursar.runtime.cli.output import (
    console,
    indented,
    opening,
    print_error,
    print_json,
    print_next,
    status_text,
)
from bursar.runtime.cli.shapes import run_json
from bursar.runtime.cli.telling import next_commands
from bursar.runtime.cli.words import parted, plain

if TYPE_CHECKING:
    from bursar.runtime.escalations.records import Decision, Escalation
    from bursar.runtime.runs.run import Run
    from bursar.runtime.work import Source

__all__ = ["Choose", "How", "decide", "decide_all"]

Choose = Callable[["Escalation"], "Decision"]
"""The decision on an escalation that was read."""


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """What all decisions have in common."""

    digest: Annotated[str, Parameter(help="As `inbox show` printed it: refused where the action is another.")] = ""
    detach: Annotated[bool, flag("--detach", "Leave the run to a worker, and return at once.")] = False
    by: By = None
    config: ConfigFile = CONFIG_FILE
    dry_run: DryRun = False
    as_json: AsJson = False
    debug: Debug = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decided:
    """A decision that was made, or on a dry run would be, and how the run stands."""

    escalation: Escalation
    decision: Decision
    run: Run
    target: str | None


async def decide(id: int, choose: Choose, how: How, *, note: str = "") -> int:
    """Decide on an escalation and go on with its run; returns the command's exit code."""
    code, told = await _decide(id, choose, how, note)
    if how.as_json:
        print_json(told)
    return code


async def decide_all(ids: Sequence[int], choose: Choose, how: How) -> int:
    """Decide on each, whatever becomes of the others; returns 1 where one failed."""
    if len(ids) == 1:
        return await decide(ids[0], choose, how)
    all_told, failed = [], False
    for id in dict.fromkeys(ids):
        try:
            _, told = await _decide(id, choose, how, "")
        except BursarError as error:
            print_error(f"{id}: {error.message}", next_step=error.next_step)
            failed, told = True, {"id": id, "error": error.message}
        all_told.append(told)
    if how.as_json:
        print_json(all_told)
    return Exit.ERROR if failed else Exit.OK


async def _decide(id: int, choose: Choose, how: How, note: str) -> tuple[int, Mapping[str, Any]]:
    decided = _decided(id, choose, how, note)
    if not how.as_json:
        _say(decided, how)
    run, code = decided.run, Exit.OK
    if not how.dry_run and decided.escalation.status == "open":
        code = Exit.WAITS
    elif not how.dry_run and not how.detach and run.status == "queued":
        run, code = await _go_on(decided, how)
    return code, {**escalation_json(decided.escalation), "of": run_json(run), "dry_run": how.dry_run}


def _decided(id: int, choose: Choose, how: How, note: str) -> _Decided:
    with open_books(how.config) as books:
        found = books.escalations.get(id)
        if not found.digest.startswith(how.digest):
            raise ConflictError(f"escalation {id} is not about {how.digest}", next_step=f"bursar inbox show {id}")
        decision = choose(found)
        if how.dry_run:
            books.escalations.rehearse(id, decision, author(how.by), digest=found.digest)
        else:
            found = books.escalations.decide(id, decision, author(how.by), note, digest=found.digest)
        row = books.records.row(found.run_id)
        return _Decided(escalation=found, decision=decision, run=books.records.show(row), target=row["target"])


async def _go_on(decided: _Decided, how: How) -> tuple[Run, Exit]:
    """Execute the run here and follow it, unless its agent is not to be found here, or a worker was faster."""
    with opening():
        from bursar.runtime.cli.follow import conclude, follow
        from bursar.runtime.runtime import Runtime

        source, why = _source(decided.target)
    if source is None:
        return _left(decided, how, why)
    async with Runtime.open(how.config) as runtime:
        try:
            events = runtime.stream_resume(decided.run.id, by=author(how.by), source=source)
            ended = await follow(runtime, decided.run.tenant, events, how.config)
        except ConflictError:
            return _left(decided, how, "one has taken it up already")
    return ended, exit_of(ended.status) if how.as_json else conclude(ended, how.config, as_json=False, debug=how.debug)


def _source(target: str | None) -> tuple[Source | None, str]:
    """What the run executes, or why that is not to be found here."""
    from bursar.agents.load import load_agent

    if not target:
        return None, "the program that began it did not say where its agent is"
    try:
        return load_agent(target), ""
    except BursarError as error:
        return None, error.message


def _left(decided: _Decided, how: How, why: str) -> tuple[Run, Exit]:
    if not how.as_json:
        console().print(plain(f"a worker (`bursar worker`) goes on with run {decided.run.id}: {why}"), soft_wrap=True)
        print_next([f"bursar runs tail {decided.run.id}"], how.config)
    return decided.run, Exit.OK


def _say(decided: _Decided, how: How) -> None:
    """What was decided, what an edit changes, and what comes next where this command goes no further."""
    one, decision, run = decided.escalation, decided.decision, decided.run
    kind = decision["type"] if isinstance(decision, Mapping) and "type" in decision else "respond"
    who, out = author(how.by), console()
    done = f"would {kind} {one.id}" if how.dry_run else f"{one.id}: {kind} by {who}"
    out.print(plain(f"{done}: {parted(one.words)[0]}"), soft_wrap=True)
    if kind == "edit":
        for line in changes(one.payload["args"], decision["args"]):
            out.print(indented(line))
    if how.dry_run:
        return
    if one.status == "open":
        out.print(plain(f"a second person has to agree with {one.first_by}"), soft_wrap=True)
        print_next([f"bursar inbox show {one.id}"], how.config)
    elif how.detach or run.status != "queued":
        out.print(Text.assemble(f"run {run.id} is ", status_text(run.status)), soft_wrap=True)
        print_next(["bursar worker"] if run.status == "queued" else next_commands(run), how.config)
