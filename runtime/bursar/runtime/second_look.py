"""What an agent asks people of its own accord: where much failed in a row, and where its answer is doubtful."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from bursar.agents.agent import Agent
from bursar.agents.tier import Judge
from bursar.runtime.ask import Ask
from bursar.runtime.context import RunContext
from bursar.runtime.escalations.asking import ask_person
from bursar.runtime.routing.cascade import judged, question_for
from bursar.runtime.stop import ModelCallFailed
from bursar.tools.result import describe_error

__all__ = ["Advice", "advised", "doubted", "second_opinion"]

Advice = Mapping[str, Any] | Literal["none", "stop"]
"""What a person tells the model, as a message; `none` where nobody was asked, `stop` where the run is to end."""

GO_ON = "A person has seen what failed, and says: go on."
NOT_ACCEPTED = "A person did not accept that answer{why}. Answer again."


def advised(agent: Agent, run: RunContext, messages: Sequence[Mapping[str, Any]], failed: Sequence[str]) -> Advice:
    """What a person says where too much failed in a row; `failed` are model calls."""
    most = agent.escalate.failures
    tools = _failed_tools(messages)
    errors, what = (failed, "model calls") if failed else (tools, "tool calls")
    if most is None or len(errors) < most:
        return "none"
    decision = ask_person(
        run,
        reason="failures",
        words=f"{len(errors)} {what} of {agent.name} have failed in a row",
        payload={"failures": list(errors)},
        allowed=["approve", "respond", "stop"],
        form={"type": "string"},
    )
    if decision["type"] == "stop":
        return "stop"
    return {"role": "user", "content": str(decision.get("message") or GO_ON)}


async def doubted(agent: Agent, run: RunContext, conversation: Sequence[Mapping[str, Any]]) -> str:
    """Why the conversation's last message will not do as the answer; empty where it will."""
    verify, answer = agent.escalate.verify, conversation[-1]
    if isinstance(verify, Judge):
        return await _judged(agent, verify, run, conversation)
    try:
        return "" if verify is None or verify(dict(answer)) else "it did not pass a check"
    except Exception as error:  # a team's own function may raise anything
        return f"its check failed: {describe_error(error)}"


def second_opinion(agent: Agent, run: RunContext, answer: str, doubt: str) -> Mapping[str, Any] | None:
    """What a person adds to a doubtful answer: a correction of it, or why to answer again; None where it will do."""
    decision = ask_person(
        run,
        reason="doubt",
        words=f"will this answer of {agent.name} do? {doubt}",
        payload={"answer": answer, "doubt": doubt},
        allowed=["approve", "respond", "reject"],
        form={"type": "string"},
    )
    message = decision.get("message")
    if decision["type"] == "respond":
        return {"role": "assistant", "content": str(message or "")}
    if decision["type"] == "reject":
        return {"role": "user", "content": NOT_ACCEPTED.format(why=f": {message}" if message else "")}
    return None


def _failed_tools(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """The tool calls that failed since one did not, or since somebody spoke."""
    failed: list[str] = []
    for message in reversed(messages):
        if message.get("role") == "assistant":
            continue
        content = str(message.get("content"))
        if message.get("role") != "tool" or not content.startswith("error: "):
            break
        failed.insert(0, content.removeprefix("error: "))
    return failed


async def _judged(agent: Agent, judge: Judge, run: RunContext, conversation: Sequence[Mapping[str, Any]]) -> str:
    question = Ask(
        tier=judge.tier,
        node="verify",
        messages=question_for(judge, conversation[:-1], conversation[-1]),
        max_output_tokens=judge.max_output_tokens,
        models=agent.models,
        data=agent.data,
        why="judges an agent's answer",
    )
    try:
        said = await run.calls.make(run, question, run.call_id())
    except ModelCallFailed:
        return "nobody could check it"
    return "" if judged(said.message) else "a judge does not accept it"
