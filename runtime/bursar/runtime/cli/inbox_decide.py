"""`bursar inbox approve | edit | reject | respond | grant | downgrade | stop`: each is a decision, made once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from bursar.budget.errors import UsageError
from bursar.runtime.cli.inbox import Id
from bursar.runtime.cli.inbox_deciding import How, decide, decide_all
from bursar.runtime.cli.options import Count, Seconds, Usd

if TYPE_CHECKING:
    from bursar.runtime.escalations.records import Decision, Escalation

__all__ = ["approve", "downgrade", "edit", "grant", "reject", "respond", "stop"]

Note = Annotated[str, Parameter(help="Why; kept in the history.")]
HOW = How()


async def approve(id: Id, /, *, note: Note = "", how: How = HOW) -> int:
    """Let the action be done, exactly as it is shown."""
    return await decide(id, lambda _: {"type": "approve"}, how, note=note)


async def edit(
    id: Id,
    /,
    *,
    args: Annotated[str, Parameter(help="All of its arguments, as a JSON object.")],
    note: Note = "",
    how: How = HOW,
) -> int:
    """Let the action be done with other arguments, checked as the agent's own."""
    given = _json(args)
    if not isinstance(given, dict):
        raise UsageError(f"--args {args}: expected a JSON object", next_step="""--args '{"name": "value"}'""")
    return await decide(id, lambda _: {"type": "edit", "args": given}, how, note=note)


async def reject(
    ids: Annotated[list[int], Parameter(name="ID", help="Escalations' numbers; one reason for all.")],
    /,
    *,
    reason: Annotated[str, Parameter(help="Why not; the agent is told.")],
    how: How = HOW,
) -> int:
    """Do not let the action be done; takes several, with one reason."""
    return await decide_all(ids, lambda _: {"type": "reject", "message": reason}, how)


async def respond(
    id: Id,
    answer: Annotated[str, Parameter(name="ANSWER", help="A text, or JSON where the question asks for a shape.")],
    /,
    *,
    note: Note = "",
    how: How = HOW,
) -> int:
    """Answer a question, or answer in the place of an action."""
    return await decide(id, lambda one: _answer(one, answer), how, note=note)


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class More:
    """What is granted."""

    usd: Annotated[Usd, Parameter(help="Dollars more.")] = None
    tokens: Annotated[Count, Parameter(help="Tokens more.")] = None
    steps: Annotated[Count, Parameter(help="Model calls more.")] = None
    tool_calls: Annotated[Count, Parameter(help="Tool executions more.")] = None
    seconds: Annotated[Seconds, Parameter(help="Working time more.")] = None

    @property
    def amounts(self) -> Mapping[str, Any]:
        """By the names of `Limits`."""
        usd = None if self.usd is None else f"{self.usd:f}"
        given = {"cost_usd": usd, "tokens": self.tokens, "steps": self.steps, "tool_calls": self.tool_calls}
        return {name: value for name, value in {**given, "seconds": self.seconds}.items() if value}


async def grant(id: Id, /, *, more: More = More(), note: Note = "", how: How = HOW) -> int:
    """Give the limit that was reached more."""
    if not more.amounts:
        raise UsageError("a grant of nothing", next_step=f"bursar inbox show {id}")
    return await decide(id, lambda _: {"type": "grant", **more.amounts}, how, note=note)


async def downgrade(id: Id, /, *, note: Note = "", how: How = HOW) -> int:
    """Grant nothing: the run goes on with the models of lower tiers."""
    return await decide(id, lambda _: {"type": "downgrade"}, how, note=note)


async def stop(id: Id, /, *, note: Note = "", how: How = HOW) -> int:
    """Grant nothing: the run ends with what it has."""
    return await decide(id, lambda _: {"type": "stop"}, how, note=note)


def _answer(one: Escalation, text: str) -> Decision:
    """A decision of the type `respond`, or what a graph of one's own expects: JSON, unless it asks for a text."""
    if one.allowed:
        return {"type": "respond", "message": text}
    try:
        given = json.loads(text)
    except ValueError:
        return text
    wants_text = one.form is not None and one.form.get("type") == "string"
    return text if wants_text or (one.form is None and not isinstance(given, dict | list)) else given


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UsageError(f"--args: not JSON: {error}", next_step="""--args '{"name": "value"}'""") from None
