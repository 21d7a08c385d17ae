"""The runtime room: models, paid calls, graphs and runs. `Runtime` and `chat_model` are all that most teams need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bursar.runtime.chat import chat_model
    from bursar.runtime.embeddings import embedding_model, reranker
    from bursar.runtime.governed import Governed, govern
    from bursar.runtime.runtime import Runtime
    from bursar.runtime.service.loopback import gateway_env

__all__ = ["Governed", "Runtime", "chat_model", "embedding_model", "gateway_env", "govern", "reranker"]

_HOMES = {
    "Governed": "bursar.runtime.governed",
    "Runtime": "bursar.runtime.runtime",
    "chat_model": "bursar.runtime.chat",
    "embedding_model": "bursar.runtime.embeddings",
    "gateway_env": "bursar.runtime.service.loopback",
    "govern": "bursar.runtime.governed",
    "reranker": "bursar.runtime.embeddings",
}


def __getattr__(name: str) -> Any:
    # Loaded when first named, so that the command shows its help without LangGraph.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
