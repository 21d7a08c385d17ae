"""The secret under which keys are hashed: from the environment, or from a file beside the SQLite database."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from bursar.budget.errors import ConfigError
from bursar.runtime.config import Config

__all__ = ["key_secret"]

SECRET_CHARACTERS_MIN = 32


def key_secret(config: Config, *, env: Mapping[str, str] = os.environ, make: bool = False) -> bytes:
    """The secret; with `make` its file is written where there is none.

    Raises ConfigError where nothing names a secret, and for one that is shorter than 32 characters.
    """
    variable, path = config.gateway.key_secret_env, _file(config)
    if variable is not None:
        where, found = f"the environment variable {variable}", env.get(variable, "").strip()
    elif path is None:
        raise config.error(
            "gateway",
            text="gateway.key_secret_env is needed with a PostgreSQL database: every gateway has to hash keys alike",
            next_step="gateway: {key_secret_env: BURSAR_KEY_SECRET}; export BURSAR_KEY_SECRET=$(openssl rand -hex 32)",
        )
    else:
        where, found = str(path), _read(path, make=make)
    if len(found) < SECRET_CHARACTERS_MIN:
        raise ConfigError(
            f"{where} holds no secret of at least {SECRET_CHARACTERS_MIN} characters",
            key="gateway.key_secret_env",
            next_step=f"export {variable}=$(openssl rand -hex 32)" if variable else "bursar key create --tenant ...",
        )
    return found.encode()


def _file(config: Config) -> Path | None:
    return None if config.database_path is None else config.database_path.with_suffix(".keysecret")


def _read(path: Path, *, make: bool) -> str:
    if make and not path.exists():
        _write(path)
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""


def _write(path: Path) -> None:
    """Write it whole or not at all: who else makes one in this moment reads the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=path.name)  # readable by its owner alone
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        os.unlink(draft)
