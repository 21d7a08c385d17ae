"""One turn of an agent (a model call and a tool call): governed, bare LangGraph, and LangChain's create_agent.

The same upstream answers all of them from a process of its own, each with checkpoints in SQLite of its own:

    governed       Bursar's agent: reserve, dispatch, settle, reply kept, tool call charged
    tools uncharged  the same, where only model calls meet the ledger
    ungoverned     the same graph and provider, without gate and ledger
    bare           a StateGraph written by hand, with the openai SDK
    create_agent   LangChain's create_agent with ChatOpenAI
"""

from __future__ import annotations

import operator
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypedDict
from unittest import mock
from uuid import uuid4

import aiosqlite
import httpx
from langchain.agents import create_agent
from langchain_core.tools import tool as langchain_tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from openai import AsyncOpenAI
from pydantic import SecretStr

from benchmarks.measure import cpu_ms
from bursar.agents import Agent
from bursar.budget import Limits
from bursar.budget.amounts import Amounts
from bursar.runtime.agent_graph import agent_graph
from bursar.runtime.attempt import Ask, PaidReply
from bursar.runtime.config import parse_config
from bursar.runtime.context import RunContext
from bursar.runtime.models.openai_sdk import OpenAIProvider
from bursar.runtime.models.provider import ModelRequest
from bursar.runtime.paid_call import PaidCalls
from bursar.runtime.runtime import Runtime
from bursar.tools import tool
from tests.support.processes import Child

TURNS = 20
FEW = 2

_CONFIG = """
database: sqlite:///{folder}/bursar.db
models:
  house:
    provider: openai_compatible
    model: house-7b
    api_base: "{base}"
    price: {{input_usd_per_mtok: "1", output_usd_per_mtok: "2"}}
tiers: {{small: [house]}}
tenants: {{acme: {{budgets: [{{usd: "100000", per: month}}]}}}}
"""


@tool(effect="none")
async def look_up(query: str) -> str:
    """Look something up."""
    return f"nothing about {query}"


AGENT = Agent(
    name="bench",
    instructions="Look things up.",
    tools=[look_up],
    limits=Limits(steps=100_000, cost_usd="1000"),
    on_limit="stop",
)


class State(TypedDict):
    messages: Annotated[list[Any], operator.add]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What `measure` found, in CPU ms."""

    per_turn: Mapping[str, float]
    gate_per_call: float
    """What gate and ledger add to a model call: the slope over their number, less the ungoverned graph's."""

    gate_per_turn: float
    """The same for a turn, whose tool call is charged too."""

    gate_per_run: float
    """What they add to a run whatever its length."""


async def measure() -> Figures:
    """CPU ms of each variant."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        child = stack.enter_context(Child("-m", "tests.support.provider", "--counting", "fixed"))
        url = child.line()
        admin = stack.enter_context(httpx.Client(base_url=url, trust_env=False))
        variants = {
            "governed": await _governed(stack, folder / "a", f"{url}/v1"),
            "tools uncharged": _uncharged(await _governed(stack, folder / "b", f"{url}/v1")),
            "ungoverned": await _ungoverned(stack, folder, f"{url}/v1"),
            "bare": await _bare(stack, folder, f"{url}/v1"),
            "create_agent": await _create_agent(stack, folder, f"{url}/v1"),
        }
        long = await cpu_ms(variants, before=partial(_restart, admin, TURNS))
        short = await cpu_ms(variants, before=partial(_restart, admin, FEW))
    slope = {name: (long[name] - short[name]) / (TURNS - FEW) for name in variants}
    gate = slope["governed"] - slope["ungoverned"]
    return Figures(
        gate_per_call=slope["tools uncharged"] - slope["ungoverned"],
        per_turn={name: figure / TURNS for name, figure in long.items()},
        gate_per_turn=gate,
        gate_per_run=short["governed"] - short["ungoverned"] - gate * FEW,
    )


def _restart(admin: httpx.Client, turns: int) -> None:
    """Begin the provider's script anew: so many turns, the last of which answers."""
    calls = [{"tool_calls": [["look_up", {"query": f"thing {turn}"}]]} for turn in range(turns - 1)]
    admin.post("/_reset").raise_for_status()
    admin.post("/_script", json={"script": [*calls, {"text": "done"}]}).raise_for_status()


async def _saver(stack: AsyncExitStack, path: Path) -> AsyncSqliteSaver:
    connection = await stack.enter_async_context(aiosqlite.connect(path))
    saver = AsyncSqliteSaver(connection)
    await saver.setup()
    return saver


async def _governed(stack: AsyncExitStack, folder: Path, base: str) -> Callable[[], Awaitable[None]]:
    folder.mkdir()  # noqa: ASYNC240 - before anything is measured
    config = parse_config(_CONFIG.format(folder=folder, base=base), file="bench.yaml")
    runtime = await stack.enter_async_context(Runtime.open(config))

    async def run() -> None:
        ended = await runtime.run(AGENT, "Look up twenty things.", tenant="acme")
        assert ended.status == "succeeded", ended

    return run


def _uncharged(governed: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    """The same without the tool calls' own charge, to see what a model call alone adds."""

    async def nothing(*_: object) -> None:
        return None

    async def run() -> None:
        with mock.patch.object(PaidCalls, "charge_tool", nothing):
            await governed()

    return run


class _NoGate:
    """Stands where PaidCalls stands, and sends at once."""

    def __init__(self, provider: OpenAIProvider) -> None:
        self._provider = provider

    async def make(self, run: RunContext, ask: Ask, call_id: str, on_delta: object = None) -> PaidReply:
        reply = await self._provider.complete(
            ModelRequest(model="house-7b", messages=ask.messages, tools=ask.tools, max_output_tokens=4096, timeout_s=60)
        )
        return PaidReply(
            message=reply.message,
            finish_reason=reply.finish_reason,
            usage=reply.usage,
            posted=Amounts(),
            model="house",
            capped=False,
            kept_back=Amounts(),
        )

    async def charge_tool(self, run: RunContext, call: object) -> None:
        return None


async def _ungoverned(stack: AsyncExitStack, folder: Path, base: str) -> Callable[[], Awaitable[None]]:
    from bursar.budget import Scope
    from bursar.budget.windows import utc_now
    from bursar.memory import open_checkpoints
    from bursar.runtime.side_loop import SideLoop

    saver = await stack.enter_async_context(open_checkpoints(f"sqlite:///{folder / 'ungoverned.db'}"))
    provider = OpenAIProvider("none", base, output_bound="max_tokens")
    stack.push_async_callback(provider.aclose)
    graph = agent_graph(AGENT, saver)

    async def run() -> None:
        run_id = f"run_{uuid4().hex}"
        context = RunContext(
            scope=Scope(tenant="acme", agents=("bench",), run_id=run_id),
            epoch=1,
            thread_id=run_id,
            on_limit="stop",
            max_output_tokens=4096,
            tiers=None,
            deadline=None,
            seconds=None,
            now=utc_now,
            calls=_NoGate(provider),  # type: ignore[arg-type]  # what is measured is a graph without a gate
            ledger=None,  # type: ignore[arg-type]  # the same
            side_loop=SideLoop(),
        )
        with context.registered():
            await graph.ainvoke(
                {"messages": [{"role": "user", "content": "Look up twenty things."}]},
                {"configurable": {"thread_id": run_id}},
                durability="sync",
            )

    return run


async def _bare(stack: AsyncExitStack, folder: Path, base: str) -> Callable[[], Awaitable[None]]:
    client = await stack.enter_async_context(AsyncOpenAI(api_key="none", base_url=base, max_retries=0))
    tools: Any = list(AGENT.tool_specs)

    async def model(state: State) -> dict[str, Any]:
        reply = await client.chat.completions.create(model="house-7b", messages=state["messages"], tools=tools)
        return {"messages": [reply.choices[0].message.model_dump(exclude_none=True)]}

    async def act(state: State) -> dict[str, Any]:
        (call,) = state["messages"][-1]["tool_calls"]
        return {"messages": [{"role": "tool", "tool_call_id": call["id"], "content": "nothing"}]}

    graph = StateGraph(State)
    graph.add_node("model", model)
    graph.add_node("act", act)
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", lambda state: "act" if state["messages"][-1].get("tool_calls") else END)
    graph.add_edge("act", "model")
    compiled = graph.compile(checkpointer=await _saver(stack, folder / "bare.db"))

    async def run() -> None:
        await compiled.ainvoke(
            {"messages": [{"role": "user", "content": "Look up twenty things."}]},
            {"configurable": {"thread_id": uuid4().hex}},
            durability="sync",
        )

    return run


async def _create_agent(stack: AsyncExitStack, folder: Path, base: str) -> Callable[[], Awaitable[None]]:
    model = ChatOpenAI(model="house-7b", base_url=base, api_key=SecretStr("none"), max_retries=0)

    @langchain_tool
    async def look_up(query: str) -> str:
        """Look something up."""
        return f"nothing about {query}"

    agent = create_agent(
        model, [look_up], system_prompt="Look things up.", checkpointer=await _saver(stack, folder / "agent.db")
    )

    async def run() -> None:
        await agent.ainvoke(
            {"messages": [{"role": "user", "content": "Look up twenty things."}]},
            {"configurable": {"thread_id": uuid4().hex}},
            durability="sync",
        )

    return run
