"""`agent:NAME`: an agent of bursar.yaml that answers a chat completion by a run of its own, which the key pays for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from bursar.agents.agent import Agent
from bursar.agents.load import load_agent
from bursar.budget.errors import UsageError
from bursar.runtime.config import Config
from bursar.runtime.runs.run import Run
from bursar.runtime.runtime import Runtime
from bursar.runtime.service.answered import Answered, Sent
from bursar.runtime.service.caller import Caller
from bursar.runtime.service.errors import AgentFailed, AgentStopped, BadRequest

__all__ = ["Agents"]

_TAKEN = frozenset({"model", "messages", "stream", "stream_options", "user", "metadata", "store"})
"""What an agent takes of a body: on all the rest it decides itself."""


class Agents:
    """Runs agents for callers."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._loaded: dict[str, tuple[Agent, str]] = {}

    async def answer(self, caller: Caller, name: str, chat: Mapping[str, Any]) -> Answered:
        """The agent's answer; where it waits for a person, words that say so.

        The run is within the key's, so that the key's limits hold over it, and is the tenant's to see, to resume and to
        cancel. Raises BadRequest for what an agent does not take, AgentStopped where a limit left it nothing to say,
        AgentFailed, and what `Runtime.run` raises.
        """
        messages = _messages(name, chat)
        if name not in self._loaded:
            self._loaded[name] = await asyncio.to_thread(_load, self._runtime.config, name)
        agent, target = self._loaded[name]
        scope = caller.scope
        run = await self._runtime.run(
            agent,
            {"messages": messages},
            tenant=scope.tenant,
            team=scope.team,
            user=scope.user,
            target=target,
            within=scope.run_path,
        )
        return _answered(name, run)


def _load(config: Config, name: str) -> tuple[Agent, str]:
    place, _, attribute = config.agents[name].rpartition(":")
    file = config.base / place
    target = f"{file}:{attribute}" if file.is_file() else config.agents[name]
    try:
        found = load_agent(target)
    except UsageError as error:  # what is wrong in the file is nobody's business but the operator's
        raise config.error("agents", name, text=error.message, next_step=error.next_step) from error
    if not isinstance(found, Agent):
        raise config.error("agents", name, text=f"expected an Agent, not {type(found).__name__}")
    return found, target


def _messages(name: str, chat: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    for param, value in chat.items():
        if param not in _TAKEN and value is not None:
            raise BadRequest(
                f"{param}: agent {name} decides on it itself; leave it out", param=param, code="unsupported_parameter"
            )
    for place, message in enumerate(chat["messages"]):
        if message["role"] not in ("user", "assistant") or message.get("tool_calls"):
            raise BadRequest(
                f"messages[{place}]: agent {name} has instructions and tools of its own, and takes only what users and "
                "it have said",
                param=f"messages[{place}]",
                code="unsupported_message",
            )
    return list(chat["messages"])


def _answered(name: str, run: Run) -> Answered:
    if run.status in ("failed", "cancelled"):
        raise AgentFailed(name, run.id)
    if run.status == "stopped" and not run.output:
        raise AgentStopped(run.stop_reason, run.id)
    text = run.output or ""
    if run.status == "interrupted":
        text = f"This waits for a person: {run.stop_reason} (run {run.id})"
    return Answered(
        id=run.id,
        sent=Sent(model=f"agent:{name}", tier="-", reason=run.stop_reason),
        message={"role": "assistant", "content": text},
        finish_reason="length" if run.status == "stopped" else "stop",
        usage=run.usage,
        posted=run.spent,
        money_left=None,
        run=(run.id, run.status),
    )
