"""One tool call of an agent: checked, approved where its rule says so, charged, and made at most once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypedDict

from bursar.agents.agent import Agent
from bursar.budget.reservations import Call
from bursar.runtime.context import RunContext, digest_of
from bursar.runtime.escalations.asking import ask_person
from bursar.runtime.escalations.digest import action_digest
from bursar.runtime.stop import LimitReached
from bursar.tools.approval import Verdict, verdict_on
from bursar.tools.arguments import ToolArgumentsError
from bursar.tools.declared import Tool
from bursar.tools.person import ask_human
from bursar.tools.result import ToolResult

__all__ = ["Asked", "Delegate", "made", "verdict_of"]

Delegate = Callable[[RunContext, Agent, str, Mapping[str, str]], Awaitable[tuple[str, Mapping[str, str]]]]
"""Lets an agent that serves as a tool do a task, knowing what people refused; returns what it answers, or why not, and
what they have refused by then."""


class Asked(TypedDict):
    """A tool call as the model asked for it; JSON, since it is what the call's task is begun with."""

    call: Mapping[str, Any]
    """In OpenAI's shape."""

    kept_back: dict[str, int]
    verdict: Verdict
    """What its approval rule said, before anything was asked of anybody."""

    refused: Mapping[str, str]
    """What the model was told of calls that people refused, by the digests of these."""


def verdict_of(agent: Agent, call: Mapping[str, Any]) -> Verdict:
    """What the called tool's rule says; asked once for each call, since its answer may not stay the same."""
    found = agent.tool(call["function"]["name"])
    rule = found.approval if isinstance(found, Tool) else "never"
    if not callable(rule) or not isinstance(found, Tool):
        return verdict_on(rule, {})
    try:
        return verdict_on(rule, found.check(call["function"]["arguments"]))
    except ToolArgumentsError:  # which its task will say
        return verdict_on("always", {})


async def made(agent: Agent, run: RunContext, asked: Asked, delegate: Delegate) -> dict[str, Any]:
    """What an agent's state is told of one of its tool calls. Interrupts where a person has to decide."""
    call = asked["call"]
    name = call["function"]["name"]
    found = agent.tool(name)
    asks = asked["verdict"]["asks"]
    if found is None or (asks and isinstance(found, Agent)):  # a tool with a rule was asked for, not an agent
        known = ", ".join(tool.name for tool in agent.tools) or "none"  # type: ignore[union-attr]
        return told(call, f"error: there is no tool {name!r}; the tools are: {known}")
    try:
        arguments = found.check(call["function"]["arguments"])
        digest = action_digest(name, arguments)
        if digest in asked["refused"]:
            return told(call, f"{asked['refused'][digest]}; nobody is asked again about the same call")
        if asks and isinstance(found, Tool):
            decision = _decision(run, found, arguments, asked)
            if decision["type"] == "respond":
                return told(call, str(decision.get("message") or ""))
            if decision["type"] == "reject":
                return _refused(call, digest, _rejection(decision))
            if decision["type"] == "edit":
                arguments = found.check(decision["args"])
    except ToolArgumentsError as error:
        return told(call, f"error: {error}")
    try:
        return await _act(run, found, arguments, asked, delegate)
    except LimitReached as reached:
        if reached.is_paused or not run.gives_last_answer:
            raise
        stopped = reached.refusal.words(final=True)
        return {**told(call, "error: not finished, a limit was reached"), "stopped": stopped}


def told(call: Mapping[str, Any], content: str) -> dict[str, Any]:
    """The update of the state by which the model hears of a call."""
    return {"messages": [{"role": "tool", "tool_call_id": call["id"], "content": content}]}


async def _act(
    run: RunContext, found: Tool | Agent, arguments: Mapping[str, Any], asked: Asked, delegate: Delegate
) -> dict[str, Any]:
    call = asked["call"]
    charge = Call(
        id=f"{run.call_id()}:tool",
        scope=run.scope,
        epoch=run.epoch,
        node="tool",
        model=found.name,
        digest=digest_of({"tool": found.name, "args": arguments}),
    )
    await run.calls.charge_tool(run, charge)  # once for this task, however often it is run
    run.tell("tool", node="tool", text=found.name, data={"args": dict(arguments)})
    if isinstance(found, Agent):
        answer, refused = await delegate(run, found, arguments["task"], asked["refused"])
        return {**told(call, answer), "refused": refused}
    if found is ask_human:
        return told(call, _answer(run, arguments))
    result, is_known = await run.calls.effects.act(run, found, arguments, charge)
    run.tell("result", node="tool", text=found.name, data={"error": result.is_error})
    if not is_known:
        return _refused(call, action_digest(found.name, arguments), f"error: {result.content}")
    return told(call, _content(result))


def _decision(run: RunContext, found: Tool, arguments: Mapping[str, Any], asked: Asked) -> Mapping[str, Any]:
    verdict = asked["verdict"]
    payload = {"tool": found.name, "args": dict(arguments), "tool_call_id": asked["call"]["id"]}
    if verdict["amount_argument"] is not None:
        payload["amount_argument"] = verdict["amount_argument"]
    return ask_person(
        run,
        reason="approval",
        words=f"{run.scope.agents[-1]} wants to call {found.name}",
        payload=payload,
        allowed=["approve", "edit", "reject", "respond"],
        form=found.parameters,
        amount_nanousd=verdict["amount_nanousd"],
        evidence=[{"rule": verdict["why"]}] if verdict["why"] else (),
    )


def _answer(run: RunContext, arguments: Mapping[str, Any]) -> str:
    """What a person answers the agent."""
    choices = arguments.get("choices")
    decision = ask_person(
        run,
        reason="question",
        words=arguments["question"],
        payload={"question": arguments["question"], "choices": choices},
        allowed=["respond", "reject"],
        form={"type": "string", "enum": choices} if choices else {"type": "string"},
    )
    return str(decision.get("message") or "") if decision["type"] == "respond" else _rejection(decision, "not answered")


def _rejection(decision: Mapping[str, Any], what: str = "it was not done") -> str:
    message = decision.get("message")
    return f"rejected by a person{f': {message}' if message else ''}; {what}"


def _refused(call: Mapping[str, Any], digest: str, words: str) -> dict[str, Any]:
    return {**told(call, words), "refused": {digest: words}}


def _content(result: ToolResult) -> str:
    return f"error: {result.content}" if result.is_error else result.content
