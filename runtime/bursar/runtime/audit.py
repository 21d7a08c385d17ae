"""The auditor of LangChain's models: one that would be called around the ledger is refused before it sends anything.

It sees what LangChain tells of its own models, wherever they are called with the callbacks of the run's graph. A client
of another library, or a call made with `config={"callbacks": []}`, is none of these.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langgraph.errors import GraphBubbleUp

from bursar.budget.errors import BursarError
from bursar.runtime.context import current_run, node_name

__all__ = ["AUDIT", "UngovernedModel"]


class UngovernedModel(GraphBubbleUp, BursarError):
    """A model was called around the ledger.

    A GraphBubbleUp, because LangChain's middleware would call it again, or make an answer of any other error.
    """


class _Audit(BaseCallbackHandler):
    raise_error = True
    run_inline = True  # told before the call, and in its thread

    # Nothing else is looked at, so that steps of a graph cost nothing more.
    ignore_chain = True
    ignore_agent = True
    ignore_retriever = True
    ignore_custom_event = True
    ignore_retry = True

    def on_chat_model_start(self, serialized: dict[str, Any] | None, messages: Any, **kwargs: Any) -> None:
        _require_governed(serialized or {}, kwargs)

    def on_llm_start(self, serialized: dict[str, Any] | None, prompts: Any, **kwargs: Any) -> None:
        _require_governed(serialized or {}, kwargs)


AUDIT = _Audit()


def _require_governed(serialized: Mapping[str, Any], told: Mapping[str, Any]) -> None:
    params: Mapping[str, Any] = told.get("invocation_params") or {}
    if params.get("_type") == "bursar":
        return
    run = current_run(told.get("metadata"))
    door = run.side_loop.door
    if door and re.search(re.escape(door) + r"(?!\d)", str(serialized)):  # it pays by the run's own key
        return
    model = params.get("model") or params.get("model_name")
    called = str(told.get("name") or serialized.get("name") or "a model") + (f" ({model})" if model else "")
    raise UngovernedModel(
        f"node {node_name()} called {called} around the ledger, so nothing bounds its cost; nothing was sent",
        next_step="make it chat_model(...), or give its client the addresses and keys of gateway_env()",
    )
