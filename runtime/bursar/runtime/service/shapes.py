"""Bodies of requests as typed records, and what is wrong with one in the words of the API that it was written for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bursar.runtime.config_problems import KeyPath, dotted, expected, nearest, one_line
from bursar.runtime.service.errors import BadRequest

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = ["Body", "Many", "ParameterError", "Part", "read_body"]

T = TypeVar("T")

Many = Annotated[list[T], Field(fail_fast=True)]
"""A list in a body, read up to its first mistake: millions of them must not become millions of errors."""


class ParameterError(BadRequest):
    """A parameter of the body is not what it has to be."""

    def __init__(self, param: str, message: str, code: str = "invalid_value") -> None:
        """`param` is the way to it, such as `messages[0].content`; empty for the body itself."""
        super().__init__(f"{param}: {message}" if param else message, param=param or None, code=code)


class Part(BaseModel):
    """A part of a body. What it holds beside its fields is let go: clients send answers back with all their fields."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class Body(BaseModel):
    """A whole body; a parameter that it does not know is an error, since what it would have done cannot be told."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


_CODES = {"extra_forbidden": "unknown_parameter", "missing": "missing_required_parameter"}
"""OpenAI's words for the mistakes that it tells apart."""

_Body = TypeVar("_Body", bound=Body)


def read_body(kind: type[_Body], raw: object) -> _Body:
    """The body as a record; raises ParameterError for the first thing that is wrong with it."""
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    param, code = dotted(_way(first["loc"], raw)), _CODES.get(first["type"], "invalid_value")
    raise ParameterError(param, _words(first, kind), code)


def _words(problem: ErrorDetails, kind: type[Body]) -> str:
    context = problem.get("ctx", {})
    if problem["type"] == "union_tag_invalid":
        return f"{one_line(context['tag'])!r} is not supported here; expected one of {context['expected_tags']}"
    if problem["type"] == "extra_forbidden":
        return f"unknown parameter{nearest(str(problem['loc'][-1]), kind.model_fields.keys())}"
    return str(context["error"]) if problem["type"] == "value_error" else expected(problem)


def _way(loc: KeyPath, raw: object) -> KeyPath:
    """The way to a value without the tags of unions, which pydantic writes into it."""
    path: KeyPath = ()
    for place, part in enumerate(loc):
        last = place == len(loc) - 1
        if isinstance(raw, Mapping) and (part in raw or last):
            path, raw = (*path, part), raw.get(part)
        elif isinstance(raw, list) and isinstance(part, int):
            path, raw = (*path, part), raw[part]
    return path
