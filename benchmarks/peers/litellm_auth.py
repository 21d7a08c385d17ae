"""Runs inside LiteLLM's proxy: whoever asks names the budget of its key in a header, as a database of keys would."""

from __future__ import annotations

from litellm.proxy._types import UserAPIKeyAuth
from litellm.proxy.agent_endpoints.agent_registry import global_agent_registry
from starlette.requests import Request


async def authorized(request: Request, api_key: str) -> UserAPIKeyAuth:
    """A key with the budget of `x-bench-budget` (USD), and of the agent that `x-bench-agent` names."""
    budget = request.headers.get("x-bench-budget")
    return UserAPIKeyAuth(
        api_key=api_key,
        max_budget=float(budget) if budget else None,
        agent_id=_agent_id(request.headers.get("x-bench-agent")),
    )


def _agent_id(name: str | None) -> str | None:
    if name is None:
        return None
    agent = global_agent_registry.get_agent_by_name(name)
    if agent is None:  # it would be measured without its limit
        raise RuntimeError(f"the proxy took no agent {name} from its configuration")
    return agent.agent_id
