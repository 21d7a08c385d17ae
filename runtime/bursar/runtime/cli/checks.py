"""What `bursar doctor` looks at: each check says what is so, and the next command where something is wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from bursar.budget.alerts.mailboxes import Mailbox
from bursar.budget.errors import BursarError
from bursar.budget.stores.store import Store
from bursar.budget.windows import utc_now
from bursar.runtime.cli.db import versions, where
from bursar.runtime.cli.servers import SERVERS, find_servers
from bursar.runtime.cli.words import counted, rates_text
from bursar.runtime.config import Config, load_config
from bursar.runtime.models.catalog import Catalog
from bursar.runtime.models.scenario import load_scenario
from bursar.runtime.runs.model_health import HealthRecords

__all__ = ["Check", "State", "checks"]

State = Literal[
    "ok",
    "note",  # worth knowing
    "warn",  # some runs will not work
    "fail",  # no run will work
]

PACKAGES = ("bursar", "langgraph", "langchain-core", "sqlalchemy", "litellm", "openai")

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
        yield from _health(config, env)
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
    """Whether webhooks and the mail server have the secrets without which no runtime opens; none is asked."""
    try:
        endpoints = config.endpoints(env)
    except BursarError as error:
        yield Check(state="fail", subject="webhook", text=error.message, next_step=error.next_step)
        return
    mailboxes = [one for one in endpoints if isinstance(one, Mailbox)]
    told = {"webhook": len(endpoints) - len(mailboxes), "mailbox": len(mailboxes)}
    for subject, count in told.items():
        if count:
            text = f"{count} to be told of alerts; try with bursar alerts test"
            yield Check(state="ok", subject=subject, text=text)


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


def _health(config: Config, env: Mapping[str, str]) -> Iterator[Check]:
    """Models that every process passes by just now, or until a call has tried them."""
    if config.database_path is not None and not config.database_path.exists():
        return
    now = utc_now()
    try:
        if versions(config, env)["runs"] is None:
            return
        with closing(Store(config.database_url(env), locked_s_max=1)) as store:
            known = HealthRecords(store).ls()
    except BursarError:
        return  # the check of the database has said so
    for one in known:
        state = one.state(now)
        if state != "closed":
            how = "is passed by until" if state == "open" else "may be tried again since"
            text = f"{one.model} {how} {one.until:%Y-%m-%d %H:%M:%S} UTC ({one.cause}): {one.detail}"
            yield Check(state="warn", subject="health", text=text, next_step=f"bursar doctor --clear {one.model}")


def _servers(servers: Mapping[int, str], config: Config | None) -> Iterator[Check]:
    """OpenAI-compatible servers on this machine; none is ever used unless the configuration names it."""
    sections = config.models.values() if config else ()
    used = {(section.api_base or "").rstrip("/").replace("localhost", "127.0.0.1") for section in sections}
    found = find_servers(servers)
    for one in found:
        kind = f"{one.kind} {one.version or ''}".strip() if one.kind else "an OpenAI-compatible server"
        shown, more = one.models[:MODELS_SHOWN_MAX], len(one.models) - MODELS_SHOWN_MAX
        listed = (", ".join(shown) or "no models") + (f" and {more} more" if more > 0 else "")
        text = f"127.0.0.1:{one.port} is {kind} with {listed}"
        if one.api_base in used or not one.models:
            yield Check(state="ok", subject="server", text=text)
        else:
            lines = "\n".join(f"  {one.section(model)}" for model in shown)
            yield Check(state="note", subject="server", text=text, next_step=f"under models:\n{lines}")
    if not found:
        ports = ", ".join(map(str, servers))
        yield Check(state="ok", subject="server", text=f"no local model server on {ports}")
