"""Reads a file of prices that others publish: litellm's map, OpenRouter's list of models, or a table of one's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import NoReturn

from bursar.budget.errors import ConfigError
from bursar.budget.pricing.maps import LiteLLMMap, OpenRouterModels
from bursar.budget.pricing.reader import PriceFile
from bursar.budget.pricing.table import PriceTable

__all__ = ["PriceFile", "read_price_file"]

FILE_BYTES_MAX = 64 * 2**20


def read_price_file(path: Path, *, effective: date) -> PriceFile:
    """The prices of a file; `effective` is the day from which they hold where the file does not say.

    A file with any value that cannot be gives no price at all: raises ConfigError with every problem of it.
    """
    text = _text(path)
    if not text.lstrip().startswith(("{", "[")):
        return PriceTable(path, effective).read(text)
    document = _json(path, text)
    if isinstance(document, Mapping):
        if isinstance(document.get("data"), list):
            return OpenRouterModels(path, effective).read(document["data"])
        if any(isinstance(entry, Mapping) and "litellm_provider" in entry for entry in document.values()):
            return LiteLLMMap(path, effective).read(document)
    raise ConfigError(
        "expected litellm's map of prices, OpenRouter's list of models ({\"data\": [...]}), or a table as CSV",
        file=path,
        next_step="see docs/prices.md",
    )


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {error.strerror}", file=path, next_step="name a file that can be read"
        ) from error
    if len(content) > FILE_BYTES_MAX:
        raise ConfigError(f"has more than {FILE_BYTES_MAX // 2**20} MiB, which no list of prices has", file=path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"is no text in UTF-8 (byte {error.start})", file=path) from error


def _json(path: Path, text: str) -> object:
    try:
        return json.loads(text, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        raise ConfigError(f"is no JSON: {error.msg}", file=path, line=error.lineno, column=error.colno) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"is no JSON: {error}", file=path) from error


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
