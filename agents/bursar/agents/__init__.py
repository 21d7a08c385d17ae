"""What a team declares: agents, their tools and their limits, as pure data."""

from __future__ import annotations

from bursar.agents.agent import Agent, OnLimit
from bursar.agents.escalate import Escalate
from bursar.agents.load import load_agent
from bursar.agents.tier import AUTO, Cascade, Judge

__all__ = ["AUTO", "Agent", "Cascade", "Escalate", "Judge", "OnLimit", "load_agent"]
