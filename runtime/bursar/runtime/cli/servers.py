"""Model servers on this machine: found by asking the ports on which they listen by default, and only when told to look.

What a server is, it says itself: by the path under which it tells its version, or by whom it names as its models'
owner. None is ever used unless bursar.yaml names it.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

__all__ = ["SERVERS", "LocalServer", "find_servers"]

SERVERS: Mapping[int, str] = {8000: "vLLM", 11434: "Ollama", 1234: "LM Studio", 8080: "llama-server"}
"""Who listens where by default."""

TIMEOUT_S = 0.5
"""How long a port has for each answer; all are asked at once."""

MODELS_MAX = 100

_VERSIONS = {"/version": "vLLM", "/api/version": "Ollama"}
_OWNERS = {"vllm": "vLLM", "library": "Ollama", "llamacpp": "llama-server", "organization_owner": "LM Studio"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalServer:
    """An OpenAI-compatible server on the loopback interface."""

    port: int
    kind: str | None
    """`vLLM`, `Ollama`, `LM Studio` or `llama-server`; None where it does not say."""

    version: str | None
    models: Sequence[str]
    windows: Mapping[str, int]
    """The context windows of models, where it tells them."""

    @property
    def api_base(self) -> str:
        """What `api_base` of its models is in bursar.yaml."""
        return f"http://127.0.0.1:{self.port}/v1"

    def section(self, model: str) -> str:
        """The line under `models:` that would make a model of it usable."""
        fields = {
            "provider": "vllm" if self.kind == "vLLM" else "openai_compatible",
            "model": json.dumps(model),
            "api_base": json.dumps(self.api_base),
            "price": "free",
        }
        if model in self.windows:
            fields["context_window"] = str(self.windows[model])
        name = re.sub(r"[^a-z0-9]+", "-", model.rpartition("/")[2].lower()).strip("-") or "local"
        return f"{name}: {{{', '.join(f'{key}: {value}' for key, value in fields.items())}}}"


def find_servers(ports: Mapping[int, str] = SERVERS) -> list[LocalServer]:
    """The servers that answer on these ports of 127.0.0.1, in their order; raises nothing."""
    return asyncio.run(_find(ports))


async def _find(ports: Mapping[int, str]) -> list[LocalServer]:
    import httpx

    async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as client:
        found = await asyncio.gather(*(_at(client, port) for port in ports))
    return [server for server in found if server is not None]


async def _at(client: httpx.AsyncClient, port: int) -> LocalServer | None:
    listed, *told = await asyncio.gather(*(_json(client, port, path) for path in ("/v1/models", *_VERSIONS)))
    models = _models(listed)
    if models is None:
        return None
    versions = {
        kind: str(one["version"])
        for kind, one in zip(_VERSIONS.values(), told, strict=True)
        if isinstance(one, dict) and "version" in one
    }
    owners = [kind for model in models if (kind := _OWNERS.get(str(model.get("owned_by"))))]
    kind = next(iter([*owners, *versions]), None)
    windows = {model["id"]: model["max_model_len"] for model in models if isinstance(model.get("max_model_len"), int)}
    names = [model["id"] for model in models]
    return LocalServer(port=port, kind=kind, version=versions.get(kind or ""), models=names, windows=windows)


def _models(listed: Any) -> list[dict[str, Any]] | None:
    """The entries of a list of models; None where it is none."""
    entries = listed.get("data") if isinstance(listed, dict) else None
    if not isinstance(entries, list):
        return None
    return [one for one in entries[:MODELS_MAX] if isinstance(one, dict) and isinstance(one.get("id"), str)]


async def _json(client: httpx.AsyncClient, port: int, path: str) -> Any:
    """What a port answers; None for anything but JSON."""
    import httpx

    try:
        async with asyncio.timeout(TIMEOUT_S):  # httpx's own is for each read
            answer = await client.get(f"http://127.0.0.1:{port}{path}")
        return answer.raise_for_status().json()
    except (httpx.HTTPError, ValueError, TimeoutError, RecursionError):
        return None
