"""What `bursar doctor` looks at: each check says what is so, and the next command where something is wrong."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from bursar.budget.errors import BursarError
from bursar.budget.stores.store import Store
from bursar.runtime.cli.db import versions, where
from bursar.runtime.cli.words import counted, rates_text
from bursar.runtime.config import Config, load_config
from bursar.runtime.models.catalog import Catalog
from bursar.runtime.models.scenario import load_scenario

__all__ = ["Check", "State", "checks"]

State = Literal[
    "ok",
    "note",  # worth knowing
    "warn",  # some runs will not work
    "fail",  # no run will work
]

PACKAGES = ("bursar", "langgraph", "langchain-core", "sqlalchemy", "litellm", "openai")

SERVERS: Mapping[int, str] = {8000: "vLLM", 11434: "Ollama", 1234: "LM Studio", 8080: "llama-server"}
"""Where local OpenAI-compatible servers listen by default."""

SERVER_TIMEOUT_S = 0.2
MODELS_SHOWN_MAX = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of `bursar doctor`."""

    state: State
    subject: str
    text: str
    next_step: str | None = None


def checks(file: Path, env: Mapping[str, str] = os.environ, servers: Mapping[int, str] = SERVERS) -> Iterator[Check]:
    """Everything that a run needs, one after the other; raises nothing."""
    yield _python()
    config: Config | None = None
    try:
        config = load_config(file)
    except BursarError as error:
        yield Check(state="fail", subject="config", text=error.message, next_step=error.next_step)
    if config is not None:
        tiers = ", ".join(f"{name} ({len(models)})" for name, models in config.tiers.items())
        yield Check(state="ok", subject="config", text=f"{file}: {counted(len(config.models), 'model')}; tiers {tiers}")
        yield _database(config, env)
        yield from _keys(config, env)
        yield from _webhooks(config, env)
        yield from _models(config)
    yield from _servers(servers, config)


def _python() -> Check:
    found = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    version = ".".join(map(str, sys.version_info[:3]))
    return Check(state="ok", subject="python", text=f"{version}; {found}")


def _database(config: Config, env: Mapping[str, str]) -> Check:
    if config.database_path is not None and not config.database_path.exists():
        return Check(state="ok", subject="database", text=f"{where(config)}: the first run makes it")
    try:
        found = versions(config, env)
        with closing(Store(config.database_url(env), locked_s_max=1)) as store, store.write() as connection:
            server = connection.dialect.server_version_info or ()  # it can be written, and nobody holds it
    except BursarError as error:
        return Check(state="fail", subject="database", text=error.message, next_step=error.next_step)
    kind = f" (PostgreSQL {server[0]})" if store.dialect == "postgresql" else ""
    text = ", ".join(f"{part} at {version or 'nothing'}" for part, version in found.items())
    return Check(state="ok", subject="database", text=f"{where(config)}{kind}: {text}")


def _keys(config: Config, env: Mapping[str, str]) -> Iterator[Check]:
    """Each variable that a model's key is in, and keys at hand that no model uses; never a value."""
    users: dict[str, list[str]] = {}
    for name, section in config.models.items():
        if section.api_key_env:
            users.setdefault(section.api_key_env, []).append(name)
    for variable, models in users.items():
        if env.get(variable, "").strip():
            yield Check(state="ok", subject="key", text=f"{variable} is set, for {', '.join(models)}")
        else:
            text = f"{variable} is not set, and {', '.join(models)} cannot be asked without it"
            yield Check(state="warn", subject="key", text=text, next_step=f"export {variable}=...")
    for variable in sorted(name for name, value in env.items() if name.endswith("_API_KEY") and value):
        if variable not in users:
            yield Check(state="note", subject="key", text=f"{variable} is set, and no model uses it")


def _webhooks(config: Config, env: Mapping[str, str]) -> Iterator[Check]:
    """Whether every webhook has the secret without which no runtime opens; none is asked."""
    try:
        endpoints = config.endpoints(env)
    except BursarError as error:
        yield Check(state="fail", subject="webhook", text=error.message, next_step=error.next_step)
        return
    if endpoints:
        text = f"{counted(len(endpoints), 'webhook')} with a secret; try them with bursar alerts test"
        yield Check(state="ok", subject="webhook", text=text)


def _models(config: Config) -> Iterator[Check]:
    catalog = Catalog(config)
    for name, section in config.models.items():
        price = catalog.price(name)
        try:
            if section.scenario:
                load_scenario(section.scenario, base=config.base)
        except BursarError as error:
            yield Check(state="warn", subject="model", text=f"{name}: {error.message}", next_step=error.next_step)
        else:
            if price is not None:
                yield Check(state="ok", subject="model", text=f"{name}: {rates_text(price)}")
        if price is None:
            text = f"{name} has no price, and is refused wherever money is limited"
            yield Check(state="warn", subject="model", text=text, next_step=f"bursar price ls {section.model}")


def _servers(servers: Mapping[int, str], config: Config | None) -> Iterator[Check]:
    """OpenAI-compatible servers on this machine; none is ever used unless the configuration names it."""
    sections = config.models.values() if config else ()
    used = {(section.api_base or "").rstrip("/").replace("localhost", "127.0.0.1") for section in sections}
    found = {port: models for port in servers if (models := _served(port)) is not None}
    for port, models in found.items():
        base, listed = f"http://127.0.0.1:{port}/v1", ", ".join(models[:MODELS_SHOWN_MAX]) or "no models"
        text = f"127.0.0.1:{port} answers, as {servers[port]} would: {listed}"
        if base in used or not models:
            yield Check(state="ok", subject="server", text=text)
            continue
        section = f'{{provider: openai_compatible, model: {json.dumps(models[0])}, api_base: "{base}", price: free}}'
        yield Check(state="note", subject="server", text=text, next_step=f"under models: local: {section}")
    if not found:
        ports = ", ".join(map(str, servers))
        yield Check(state="ok", subject="server", text=f"no local model server on {ports}")


def _served(port: int) -> Sequence[str] | None:
    """The models that a server on this machine lists; None where nothing answers like one."""
    import httpx

    try:
        answer = httpx.get(f"http://127.0.0.1:{port}/v1/models", timeout=SERVER_TIMEOUT_S, trust_env=False)
        listed: Any = answer.raise_for_status().json()["data"]
        return [str(model["id"]) for model in listed]
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return None
