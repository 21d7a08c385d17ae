"""Runs inside LiteLLM's proxy: whoever asks names the budget of its key in a header, as a database of keys would."""

from __future__ import annotations

from litellm.proxy._types import UserAPIKeyAuth
from litellm.proxy.agent_endpoints.agent_registry import global_agent_registry
from starlette.requests import Request


async def authorized(request: Request, api_key: str) -> UserAPIKeyAuth:
    """A key with the budget of `x-bench-budget` (USD), of the agent that `x-bench-agent` names."""
    budget = request.headers.get("x-bench-budget")
    agent = global_agent_registry.get_agent_by_name(request.headers.get("x-bench-agent", ""))
    return UserAPIKeyAuth(
        api_key=api_key,
        max_budget=float(budget) if budget else None,
        agent_id=agent.agent_id if agent else None,
    )
