"""The Agent: instructions, tools, tier and limits in one record, checked when it is written down."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from langchain_core.tools import BaseTool

from bursar.agents.escalate import Escalate
from bursar.agents.tier import Cascade, Data, Tier
from bursar.budget.errors import UsageError
from bursar.budget.limits import Limits
from bursar.tools.adapt import as_tool
from bursar.tools.arguments import check_arguments, schema_validator
from bursar.tools.declared import TOOL_NAME, Tool, openai_tool

__all__ = ["Agent", "OnLimit"]

OnLimit = Literal[
    "finalize",  # one last answer from what was kept back for it
    "escalate",  # a person is asked for more
    "downgrade",  # lower tiers are asked; where they do not fit either, one last answer
    "stop",  # the run ends with what it has
]

_AGENT_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")

_SENTENCE_END = re.compile(r"(?<=[.!?])\s|\n")

_TASK_PARAMETERS: Mapping[str, Any] = {
    "type": "object",
    "properties": {"task": {"type": "string", "description": "What to do, with everything needed to do it."}},
    "required": ["task"],
    "additionalProperties": False,
}

_TASK_VALIDATOR = schema_validator("agent", _TASK_PARAMETERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """What a team declares about one agent; the runtime does the rest.

    Raises UsageError for a name, tool or setting that cannot work.
    """

    name: str
    """Lower-case letters, digits, `_`, `.` and `-`, at most 63; the ledger accounts for the agent under it."""

    instructions: str
    """The system message."""

    tools: Sequence[Tool | Agent | BaseTool | Callable[..., Any]] = ()
    """Tools, plain functions and LangChain tools (both the worst case: see `as_tool`), and other agents."""

    tier: Tier = "small"
    """A tier of bursar.yaml, `auto`, or a Cascade."""

    min_tier: str | None = None
    """The lowest tier that may answer, whatever the budget and whoever chooses."""

    models: Sequence[str] | None = None
    """The models of bursar.yaml that may answer; None = all of the tier."""

    data: Data = "any"
    """`local_only`: what the agent reads goes to local models alone."""

    reasoning_effort: str | None = None
    """`minimal | low | medium | high`, or the provider's own word; None leaves it to the provider."""

    max_reasoning_tokens: int | None = None
    """The most that one call may think with, a part of `max_output_tokens`; None = no cap of its own."""

    limits: Limits = field(default_factory=Limits)

    max_output_tokens: int = 4096
    """The most that one model call may write; a reservation is made for it."""

    final_output_tokens: int = 512
    """What is kept back for the last answer of a run that reaches a limit."""

    on_limit: OnLimit | None = None
    """None leaves it to the tenant."""

    escalate: Escalate = Escalate()
    """What else goes to a person."""

    description: str | None = None
    """What a model is told where this agent serves as a tool; by default the first sentence of the instructions."""

    tool_specs: tuple[Mapping[str, Any], ...] = field(init=False, repr=False, compare=False)
    """The tools as OpenAI's API takes them."""

    _by_name: Mapping[str, Tool | Agent] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_settings(self)
        tools = _tools(self)
        object.__setattr__(self, "tools", tuple(tools.values()))
        object.__setattr__(self, "tool_specs", tuple(tool.spec for tool in tools.values()))
        object.__setattr__(self, "_by_name", tools)

    def tool(self, name: str) -> Tool | Agent | None:
        """The tool or agent that the model knows by this name."""
        return self._by_name.get(name)

    @property
    def spec(self) -> Mapping[str, Any]:
        """The agent as a tool, with one parameter `task`, as OpenAI's API takes it."""
        description = self.description or _SENTENCE_END.split(self.instructions.strip(), maxsplit=1)[0]
        return openai_tool(self.name, description, _TASK_PARAMETERS)

    def check(self, arguments: str | Mapping[str, Any]) -> dict[str, Any]:
        """`{"task": str}` as a model wrote it to call this agent; raises ToolArgumentsError, written for the model."""
        return check_arguments(self.name, _TASK_VALIDATOR, arguments)


def _tools(agent: Agent) -> dict[str, Tool | Agent]:
    """The agent's tools by the names the model knows them by."""
    if not isinstance(agent.tools, Sequence) or isinstance(agent.tools, str):
        raise UsageError(f"agent {agent.name!r}: tools={agent.tools!r}, expected a list", next_step="tools=[...]")
    tools: dict[str, Tool | Agent] = {}
    for position, given in enumerate(agent.tools):
        tool = given if isinstance(given, Agent) else as_tool(given)
        if isinstance(tool, Agent):
            _check_as_tool(agent, tool)
        if tool.name in tools:
            first = list(tools).index(tool.name)
            raise UsageError(
                f"agent {agent.name!r} has two tools called {tool.name!r}: "
                f"tools[{first}] {_described(tools[tool.name])} and tools[{position}] {_described(tool)}",
                next_step='rename one: @tool(name="...")',
            )
        tools[tool.name] = tool
    return tools


def _described(tool: Tool | Agent) -> str:
    kind = "agent" if isinstance(tool, Agent) else "function"
    return f'({kind}: "{tool.spec["function"]["description"]}")'


def _check_as_tool(agent: Agent, inner: Agent) -> None:
    if not TOOL_NAME.fullmatch(inner.name):
        raise UsageError(
            f"agent {agent.name!r}: agent {inner.name!r} cannot be a tool under that name: "
            "expected lower-case letters, digits, _ or -",
        )
    if any(nested.name == agent.name for nested in _family(inner)):
        raise UsageError(
            f"agent {agent.name!r} contains an agent of its own name, in {inner.name!r}: it would call itself",
            next_step="rename one, or drop it from the tools",
        )


def _family(agent: Agent) -> Iterator[Agent]:
    """The agent and every agent below it."""
    yield agent
    for tool in agent.tools:
        if isinstance(tool, Agent):
            yield from _family(tool)


def _check_settings(agent: Agent) -> None:
    if not isinstance(agent.name, str) or not _AGENT_NAME.fullmatch(agent.name):
        raise UsageError(
            f"agent name {agent.name!r}: expected 1 to 63 lower-case letters, digits, _ . or -, "
            "beginning with a letter or digit"
        )
    for key in ("instructions", "tier", "min_tier", "reasoning_effort"):
        value = getattr(agent, key)
        unset = value is None and key not in ("instructions", "tier")
        if not (unset or isinstance(value, Cascade) or (isinstance(value, str) and value.strip())):
            raise UsageError(f"agent {agent.name!r}: {key}={value!r}, expected a text that is not empty")
    for key in ("max_output_tokens", "final_output_tokens", "max_reasoning_tokens"):
        value = getattr(agent, key)
        unset = value is None and key == "max_reasoning_tokens"
        if not unset and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise UsageError(f"agent {agent.name!r}: {key}={value!r}, expected a whole number from 1 up")
    _check_routing(agent)
    if not isinstance(agent.limits, Limits):
        raise UsageError(f"agent {agent.name!r}: limits={agent.limits!r}, expected Limits(...)")
    if not isinstance(agent.escalate, Escalate):
        raise UsageError(f"agent {agent.name!r}: escalate={agent.escalate!r}, expected Escalate(...)")
    if agent.on_limit is not None and agent.on_limit not in get_args(OnLimit):
        choices = ", ".join(get_args(OnLimit))
        raise UsageError(f"agent {agent.name!r}: on_limit={agent.on_limit!r}, expected one of {choices}, or None")


def _check_routing(agent: Agent) -> None:
    models = agent.models
    if models is not None:
        if isinstance(models, str) or not models or not all(isinstance(name, str) for name in models):
            raise UsageError(
                f"agent {agent.name!r}: models={models!r}, expected a list of names of models",
                next_step='models=["llama"]',
            )
        object.__setattr__(agent, "models", tuple(models))
    if agent.data not in get_args(Data):
        raise UsageError(f"agent {agent.name!r}: data={agent.data!r}, expected one of {', '.join(get_args(Data))}")
    thinks = agent.max_reasoning_tokens
    if thinks is not None and thinks >= agent.max_output_tokens:
        raise UsageError(
            f"agent {agent.name!r}: max_reasoning_tokens={thinks} leaves no output for the answer",
            next_step=f"set max_output_tokens above it; it is {agent.max_output_tokens}",
        )
    if isinstance(agent.tier, Cascade) and agent.tier.accept == "schema":
        raise UsageError(
            f"agent {agent.name!r}: its answers have no schema that a Cascade could check",
            next_step='accept="tools", a Judge or a function; accept="schema" is for chat_model(...)',
        )
