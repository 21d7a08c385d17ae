"""`bursar runs resume`: a person's decision on what a run waits for, or more for a run that was stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from bursar.budget.errors import UsageError
from bursar.runtime.cli.options import (
    CONFIG_FILE,
    AsJson,
    By,
    ConfigFile,
    Count,
    Debug,
    DryRun,
    RunId,
    Seconds,
    Usd,
    author,
    flag,
)
from bursar.runtime.cli.output import console, opening, print_json
from bursar.runtime.cli.telling import next_commands
from bursar.runtime.cli.words import plain
from bursar.runtime.runs.run import Interrupt, Run

if TYPE_CHECKING:
    from bursar.runtime.escalations.records import Decision

__all__ = ["Answer", "decision_of", "resume"]

_KINDS = ("approve", "reject", "edit", "respond", "stop")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a person says to a run; at most one of approve, reject, edit, respond and stop."""

    approve: Annotated[bool, flag("--approve", "Let the action be done.")] = False
    reject: Annotated[bool, flag("--reject", "Do not do it; --message tells the agent why.")] = False
    edit: Annotated[str | None, Parameter(help="Do it with these arguments, as a JSON object.")] = None
    respond: Annotated[str | None, Parameter(help="Do not do it, but answer so; also answers a question.")] = None
    stop: Annotated[bool, flag("--stop", "Grant nothing: the run ends at its limit.")] = False
    grant_usd: Annotated[Usd, Parameter(help="Dollars more.")] = None
    grant_tokens: Annotated[Count, Parameter(help="Tokens more.")] = None
    grant_steps: Annotated[Count, Parameter(help="Model calls more.")] = None
    grant_tool_calls: Annotated[Count, Parameter(help="Tool executions more.")] = None
    seconds: Annotated[Seconds, Parameter(help="Working time more.")] = None
    message: Annotated[str, Parameter(help="Why: told to the agent after --reject, kept with a grant.")] = ""
    on: Annotated[str | None, Parameter(help="The interrupt's id, where the run waits on several.")] = None

    @property
    def amounts(self) -> dict[str, Any]:
        """What is granted, by the names of `Limits`."""
        given = {
            "cost_usd": None if self.grant_usd is None else f"{self.grant_usd:f}",
            "tokens": self.grant_tokens,
            "steps": self.grant_steps,
            "tool_calls": self.grant_tool_calls,
            "seconds": self.seconds,
        }
        return {name: value for name, value in given.items() if value}


async def resume(
    run: RunId,
    /,
    *,
    answer: Annotated[Answer, Parameter(name="*")] = Answer(),
    by: By = None,
    config: ConfigFile = CONFIG_FILE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> int:
    """Go on with a run: decide what it waits on, or grant it more."""
    with opening():
        from bursar.runtime.cli.follow import conclude, follow
        from bursar.runtime.runtime import Runtime

    async with Runtime.open(config) as runtime:
        before = await runtime.get(run)
        decisions = decision_of(answer, before)
        if dry_run:
            return _would(before, decisions, answer.amounts, as_json=as_json)
        if answer.amounts and not decisions:
            await runtime.grant(run, by=author(by), note=answer.message, **answer.amounts)
        events = runtime.stream_resume(run, decisions, by=author(by))
        ended = await follow(runtime, before.tenant, events, config)
    return conclude(ended, config, as_json=as_json, debug=debug)


def decision_of(answer: Answer, run: Run) -> dict[str, Decision]:
    """The answer as a decision on the interrupt that it is meant for; empty where it is none.

    Raises UsageError for several decisions at once, for one that does not fit, for one where nothing waits, for none
    where a person must decide, and where several interrupts wait and none is named.
    """
    kinds = [kind for kind in _KINDS if getattr(answer, kind) not in (False, None)]
    if answer.amounts and any(one.reason == "budget" for one in run.interrupts):
        kinds.append("grant")
    if len(kinds) > 1 or (kinds and answer.amounts and kinds != ["grant"]):
        raise UsageError(f"one decision at a time, not {' and '.join(f'--{kind}' for kind in kinds)}")
    if kinds:
        one = _meant(answer.on, kinds[0], run)
        return {one.id: _decision(answer, kinds[0], one)}
    if not answer.amounts and any(one.reason != "budget" for one in run.interrupts):
        raise UsageError(f"run {run.id} waits: {run.stop_reason}", next_step=next_commands(run)[0])
    return {}


def _meant(on: str | None, kind: str, run: Run) -> Interrupt:
    """The interrupt that is named, or the only one that can be answered so."""
    fit = [one for one in run.interrupts if kind in one.allowed or not one.allowed]
    found = [one for one in fit if on in (None, one.id)]
    if len(found) == 1:
        return found[0]
    if len(found) > 1:
        ids = ", ".join(one.id for one in found)
        raise UsageError(f"run {run.id} waits on several interrupts: {ids}", next_step="say which: --on ID")
    waits = ", ".join(f"{one.id} ({' or '.join(one.allowed)})" for one in run.interrupts) or "nothing"
    raise UsageError(
        f"--{kind} is no answer to what run {run.id} waits on: {waits}", next_step=f"bursar runs show {run.id}"
    )


def _decision(answer: Answer, kind: str, interrupt: Interrupt) -> Decision:
    if kind == "grant":
        return {"type": "grant", **answer.amounts}
    if kind == "edit":
        given = _json(answer.edit or "")
        return {"type": "edit", "args": given} if interrupt.allowed else given
    if kind == "respond":
        return {"type": "respond", "message": answer.respond} if interrupt.allowed else answer.respond
    return {"type": kind, "message": answer.message} if kind == "reject" else {"type": kind}


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UsageError(f"--edit: not JSON: {error}", next_step="""--edit '{"name": "value"}'""") from None


def _would(run: Run, decisions: Mapping[str, Decision], amounts: Mapping[str, Any], *, as_json: bool) -> int:
    granted = {} if decisions else amounts
    if as_json:
        print_json({"dry_run": True, "run": run.id, "decisions": decisions, "grant": granted})
        return 0
    what = [f"{json.dumps(decision)} on {one}" for one, decision in decisions.items()]
    what += [f"a grant of {json.dumps(granted)}"] * bool(granted)
    console().print(plain(f"would resume {run.id} with {' and '.join(what) or 'no decision'}"), soft_wrap=True)
    return 0
