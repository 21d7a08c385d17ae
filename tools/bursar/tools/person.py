"""The tool by which an agent asks a person."""

from __future__ import annotations

from bursar.budget.errors import UsageError
from bursar.tools.declared import tool

__all__ = ["ask_human"]


@tool(effect="none")
def ask_human(question: str, choices: list[str] | None = None) -> str:
    """Ask a person a question and wait for the answer. Ask only what you cannot find out otherwise.

    Args:
        question: The question, with everything needed to answer it.
        choices: The answers to choose from; leave it out where any answer will do.
    """
    raise UsageError("ask_human asks a person only within an agent's run", next_step="Agent(tools=[ask_human])")
