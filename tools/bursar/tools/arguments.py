"""The arguments that a model wrote for a tool: hostile text until they are checked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import jsonschema
from jsonschema.exceptions import best_match
from jsonschema.protocols import Validator
from pydantic import ValidationError
from pydantic_core import from_json, to_json
from referencing import Registry
from referencing.exceptions import Unresolvable

from bursar.budget.errors import BursarError, UsageError

__all__ = ["ARGUMENTS_LIMIT_CHARS", "ToolArgumentsError", "check_arguments", "schema_validator", "type_complaints"]

ARGUMENTS_LIMIT_CHARS = 1_000_000
"""The longest arguments that are parsed at all."""

_COMPLAINTS_MAX = 5
_QUOTE_LIMIT_CHARS = 300


class ToolArgumentsError(BursarError):
    """The arguments do not fit the tool's parameters."""

    def __init__(self, tool: str, *complaints: str) -> None:
        """The message is written for the model: each complaint names a field and what was expected there."""
        super().__init__(
            f"The arguments for {tool} were refused: {'; '.join(complaints)}. "
            f"Nothing was done. Call {tool} again with arguments that fit its parameters."
        )


def schema_validator(tool: str, parameters: Mapping[str, Any]) -> Validator:
    """A validator of the JSON Schema `parameters`, which never fetches a reference from the network.

    Raises UsageError for a schema that is none.
    """
    try:
        jsonschema.Draft202012Validator.check_schema(parameters)
    except jsonschema.SchemaError as error:
        raise UsageError(f"tool {tool!r}: its parameters are not a JSON Schema: {_quote(error.message)}") from error
    return jsonschema.Draft202012Validator(parameters, registry=Registry())


def check_arguments(tool: str, validator: Validator, arguments: str | Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as a fresh JSON object that fits the validator's schema; raises ToolArgumentsError."""
    checked = _parse(tool, arguments)
    try:
        complaints = [_complaint(error) for error in islice(validator.iter_errors(checked), _COMPLAINTS_MAX)]
    except (RecursionError, Unresolvable) as error:
        raise ToolArgumentsError(tool, f"not checkable against the schema ({type(error).__name__})") from error
    if complaints:
        raise ToolArgumentsError(tool, *complaints)
    return checked


def type_complaints(error: ValidationError) -> list[str]:
    """What Python's types ask for beyond the JSON Schema, such as a date that exists, in the same words."""
    details = error.errors(include_url=False, include_context=False)[:_COMPLAINTS_MAX]
    return [
        f"{_path(detail['loc'])}: {_quote(detail['msg'])}, got {_quote(repr(detail['input']))}" for detail in details
    ]


def _parse(tool: str, arguments: str | Mapping[str, Any]) -> dict[str, Any]:
    """Both doors go by the text, so that the same rules hold and the result shares nothing with its source."""
    try:
        text = arguments if isinstance(arguments, str) else to_json(dict(arguments)).decode()
        # Some providers write nothing at all where a call has no arguments.
        parsed = {} if not text or text.isspace() else _from_json(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise ToolArgumentsError(tool, f"not readable as JSON ({_quote(str(error))})") from error
    if not isinstance(parsed, dict):
        raise ToolArgumentsError(tool, f"expected a JSON object, got {_quote(json.dumps(parsed))}")
    return parsed


def _from_json(text: str) -> Any:
    if len(text) > ARGUMENTS_LIMIT_CHARS:
        raise ValueError(f"{len(text):,} characters long, at most {ARGUMENTS_LIMIT_CHARS:,} are read")
    parsed = from_json(text, allow_inf_nan=False)
    json.dumps(parsed, allow_nan=False)  # 1e400 is JSON, and infinite once it is read
    return parsed


def _complaint(error: jsonschema.ValidationError) -> str:
    error = best_match([error]) or error  # of alternatives, the one that the model most likely meant
    where = _path(error.absolute_path)
    if error.validator in ("required", "additionalProperties") and isinstance(error.schema, Mapping):
        known = ", ".join(error.schema.get("properties", ())) or "none"
        return f"{where}: {_quote(error.message)} (properties: {_quote(known)})"
    return f"{where}: expected {_quote(json.dumps(error.schema))}, got {_quote(json.dumps(error.instance))}"


def _path(parts: Iterable[str | int]) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return _quote(path.removeprefix(".")) or "arguments"


def _quote(text: str) -> str:
    return text if len(text) <= _QUOTE_LIMIT_CHARS else f"{text[:_QUOTE_LIMIT_CHARS]}..."
