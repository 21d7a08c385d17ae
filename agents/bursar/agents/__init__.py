"""What a team declares: agents, their tools and their limits, as pure data."""

from __future__ import annotations

from bursar.agents.agent import Agent, OnLimit
from bursar.agents.load import load_agent

__all__ = ["Agent", "OnLimit", "load_agent"]
