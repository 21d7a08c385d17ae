"""An Agent as a LangGraph graph: a model node, one task for each tool call, and back.

The state is plain JSON: messages in the shape of OpenAI's chat completions, so that nothing has to be reconstructed
from a checkpoint and nothing converted before a call.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Send

from bursar.agents.agent import Agent
from bursar.budget.amounts import Amounts
from bursar.runtime.ask import Ask, PaidReply, answering
from bursar.runtime.context import RunContext, current_run, task_id
from bursar.runtime.routing.session import MADE_BY
from bursar.runtime.second_look import advised, doubted, second_opinion
from bursar.runtime.stop import LimitReached, ModelCallFailed
from bursar.runtime.tool_task import Asked, made, verdict_of
from bursar.tools.approval import Verdict

__all__ = ["AgentState", "agent_graph", "answer_in"]

LAST_ANSWER = (
    "You have reached a limit and cannot call tools any more. Answer now, as well as you can with what you have, "
    "and say what is missing."
)


def _first(before: str, after: str) -> str:
    return before or after


class AgentState(TypedDict, total=False):
    """The state of an agent's run; JSON only."""

    messages: Annotated[list[dict[str, Any]], operator.add]
    stopped: Annotated[str, _first]
    """Why the run reached a limit; empty while it did not."""

    kept_back: dict[str, int]
    """What was left for a last answer when the model was asked last."""

    verdicts: list[Verdict]
    """What the approval rules said of the calls that the model asked for last, in their order."""

    refused: Annotated[dict[str, str], operator.or_]
    """What the model was told of calls that people refused, by their digests."""

    failed: list[str]
    """Why the model could not be asked, each time since it last answered."""

    doubt: str
    """Why the answer will not do; empty where it will."""


def agent_graph(agent: Agent, checkpointer: Any = None) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Compile an agent; without a checkpointer it works inside another graph's task, on that graph's checkpoints."""
    nodes = _Nodes(agent)
    graph = StateGraph(AgentState)
    graph.add_node("model", nodes.model)
    graph.add_node("tool", nodes.tool)
    graph.add_edge(START, "model")
    graph.add_edge("tool", "model")
    last = END
    if agent.escalate.verify is not None:
        last = "verify"
        graph.add_node("verify", nodes.verify)
        graph.add_node("doubt", nodes.doubt)
        graph.add_conditional_edges("verify", lambda state: "doubt" if state["doubt"] else END, ["doubt", END])
        graph.add_conditional_edges("doubt", _after_doubt, ["model", END])
    graph.add_conditional_edges("model", partial(_next, last=last), ["model", "tool", last, END])
    return graph.compile(checkpointer=checkpointer, name=agent.name)


def answer_in(state: Mapping[str, Any]) -> str | None:
    """The last thing that the model said in an agent's state, if it said anything."""
    for message in reversed(state.get("messages") or ()):
        if message.get("role") == "assistant" and message.get("content"):
            return str(message["content"])
    return None


def _next(state: AgentState, *, last: str) -> list[Send] | str:
    """Where it goes from the model; `last` is where an answer goes."""
    if state.get("failed"):
        return "model"
    calls = state["messages"][-1].get("tool_calls")
    if not calls:
        return END if state.get("stopped") else last
    shared = {"kept_back": state["kept_back"], "refused": state.get("refused", {})}
    asked = zip(calls, state["verdicts"], strict=True)
    return [Send("tool", {"call": call, "verdict": verdict, **shared}) for call, verdict in asked]


def _after_doubt(state: AgentState) -> str:
    return "model" if state["messages"][-1]["role"] == "user" else END


class _Nodes:
    """The nodes of one agent's graph. A model node makes at most one paid call; a tool task runs at most one tool."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._inner = {tool.name: agent_graph(tool) for tool in agent.tools if isinstance(tool, Agent)}

    async def model(self, state: AgentState) -> AgentState:
        """Ask the model; at a limit, give the last answer or let the run be stopped, as its policy says."""
        run = current_run()
        call_id = run.call_id()
        if state.get("stopped"):
            return await self._last_answer(run, state, call_id, state["stopped"])
        advice = advised(self._agent, run, state["messages"], state.get("failed", []))
        if advice == "stop":
            return {"stopped": "a person stopped it: too much had failed", "failed": []}
        if advice == "none":
            return await self._turn(run, state, call_id)
        said = dict(advice)
        update = await self._turn(run, {**state, "messages": [*state["messages"], said], "failed": []}, call_id)
        return {**update, "messages": [said, *update["messages"]]}

    async def _turn(self, run: RunContext, state: AgentState, call_id: str) -> AgentState:
        """The model's answer, or that it failed, where a person is to be asked about that."""
        try:
            return await self._answer(run, state, call_id)
        except ModelCallFailed as error:
            if self._agent.escalate.failures is None:
                raise
            return {"messages": [], "failed": [*state.get("failed", []), str(error)]}
        except LimitReached as reached:
            if reached.is_paused or not run.gives_last_answer:
                raise
            return await self._last_answer(run, state, call_id, reached.refusal.words(final=True), reached)

    async def _answer(self, run: RunContext, state: AgentState, call_id: str) -> AgentState:
        agent = self._agent
        paid = await run.calls.make(
            run,
            self._ask(
                "model",
                self._conversation(state),
                tools=agent.tool_specs,
                max_output_tokens=agent.max_output_tokens,
                reasoning_effort=agent.reasoning_effort,
                max_reasoning_tokens=agent.max_reasoning_tokens,
                kept_back_tokens=agent.final_output_tokens if run.gives_last_answer else 0,
            ),
            call_id,
            run.on_delta,
        )
        update: AgentState = {"messages": [_said(paid)], "kept_back": asdict(paid.kept_back), "failed": []}
        if calls := paid.message.get("tool_calls"):
            update["verdicts"] = [verdict_of(agent, call) for call in calls]
        if paid.capped and paid.finish_reason == "length" and not paid.message.get("tool_calls"):
            update["stopped"] = "the answer was cut: no more output fitted under a limit"
        return update

    async def _last_answer(
        self, run: RunContext, state: AgentState, call_id: str, why: str, reached: LimitReached | None = None
    ) -> AgentState:
        """One answer without tools, from what was kept back; where not even that fits, what was said before stands."""
        agent = self._agent
        messages = [*self._conversation(state), {"role": "user", "content": LAST_ANSWER}]
        ask = self._ask("last answer", messages, max_output_tokens=agent.final_output_tokens, final=True)
        try:
            paid = await run.calls.make(run, ask, f"{call_id}:last", run.on_delta)
        except LimitReached as refused:
            raise reached or refused from None
        return {"messages": [{**_said(paid), "tool_calls": None}], "stopped": why, "failed": []}

    def _ask(self, node: str, messages: Sequence[Mapping[str, Any]], **more: Any) -> Ask:
        """A question as the agent's declaration has it."""
        agent = self._agent
        tier, cascade = answering(agent.tier)
        return Ask(
            tier=tier,
            cascade=cascade,
            min_tier=agent.min_tier,
            models=agent.models,
            data=agent.data,
            node=node,
            messages=messages,
            **more,
        )

    async def tool(self, state: Asked) -> AgentState:
        """Make one tool call; what came of it goes to the model."""
        run = current_run().keeping(Amounts(**state["kept_back"]))
        return await made(self._agent, run, state, self._delegate)  # type: ignore[return-value]  # an update of it

    async def verify(self, state: AgentState) -> AgentState:
        """Find out whether the answer will do, in a node of its own: that is kept before anybody is asked."""
        return {"doubt": await doubted(self._agent, current_run(), self._conversation(state))}

    async def doubt(self, state: AgentState) -> AgentState:
        """Ask a person about an answer that may not do."""
        answer = str(state["messages"][-1].get("content") or "")
        added = second_opinion(self._agent, current_run(), answer, state["doubt"])
        return {"messages": [dict(added)] if added is not None else [], "doubt": ""}

    async def _delegate(
        self, run: RunContext, agent: Agent, task: str, refused: Mapping[str, str]
    ) -> tuple[str, Mapping[str, str]]:
        """Let another agent do the task, inside its own limits and on this run's money."""
        inner = run.child(agent, f"{agent.name}.{task_id()[:8]}")  # the same when the task is run again
        await run.calls.open(run, inner.scope, agent.limits)
        try:
            with inner.entered():
                state = await self._inner[agent.name].ainvoke(
                    {"messages": [{"role": "user", "content": task}], "refused": dict(refused)}
                )
        except LimitReached as reached:
            if reached.refusal.path != inner.scope.run_paths[-1]:
                raise  # not its own limit
            return f"error: {agent.name} was stopped. {reached.refusal.words()}", {}
        return answer_in(state) or "error: no answer", state.get("refused", {})

    def _conversation(self, state: AgentState) -> Sequence[Mapping[str, Any]]:
        return [{"role": "system", "content": self._agent.instructions}, *state["messages"]]


def _said(paid: PaidReply) -> dict[str, Any]:
    """The answer as a message of the state, with who wrote it."""
    return {**paid.message, MADE_BY: paid.model}
