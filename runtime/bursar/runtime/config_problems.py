"""What is wrong in a configuration, one key at a time, in words that say what was expected."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

__all__ = ["KeyPath", "Problem", "Problems", "dotted", "expected", "explain", "nearest", "one_line"]

CHOICES_SHOWN_MAX = 12
TEXT_SHOWN_MAX = 64

KeyPath = tuple[str | int, ...]
"""The way to a value: keys of mappings and indices of lists."""

_EXPECTED = {
    "decimal_parsing": "expected a number",
    "decimal_max_places": "expected at most {decimal_places} digits after the point",
    "decimal_type": "expected a number",
    "dict_type": "expected a mapping",
    "extra_forbidden": "unknown key",
    "finite_number": "expected a finite number",
    "float_parsing": "expected a number",
    "float_type": "expected a number",
    "greater_than": "expected more than {gt:.16g}",
    "greater_than_equal": "expected at least {ge:.16g}",
    "int_parsing": "expected a whole number",
    "int_parsing_size": "expected a whole number of fewer digits",
    "int_type": "expected a whole number",
    "less_than_equal": "expected at most {le:.16g}",
    "list_type": "expected a list",
    "missing": "this key is required",
    "model_type": "expected a mapping",
    "string_type": "expected text",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
}
"""Pydantic's error types in words for people who have never seen its own; any other type keeps pydantic's message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong, at one key."""

    path: KeyPath
    text: str
    """What was expected."""

    at_key: bool = False
    """Whether to point at the key and keep the value out of sight."""

    def __str__(self) -> str:
        return f"{dotted(self.path)}: {self.text}" if self.path else self.text


class Problems(ValueError):
    """Several wrong things below one section; paths are relative to it."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(map(str, self.problems)))


def dotted(path: KeyPath) -> str:
    """`("tenants", "acme", "budgets", 0)` as `tenants.acme.budgets[0]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{one_line(part)}" for part in path).removeprefix(".")


def one_line(text: str) -> str:
    """The text as a terminal can show it: without control characters, and cut where it is long."""
    text = text if len(text) <= TEXT_SHOWN_MAX else f"{text[: TEXT_SHOWN_MAX - 3]}..."
    return text if text.isprintable() else repr(text)[1:-1]


def nearest(written: str, choices: Collection[str]) -> str:
    """`; did you mean small?`, or where nothing is near, `; expected one of frontier, small`."""
    if near := difflib.get_close_matches(written, choices, n=1):
        return f"; did you mean {one_line(near[0])}?"
    shown = [one_line(choice) for choice in [*choices][:CHOICES_SHOWN_MAX]]
    return f"; expected one of {', '.join(shown)}{', ...' * (len(choices) > len(shown))}" if shown else ""


def explain(error: ValidationError, *, written: Collection[KeyPath], schema: Mapping[str, Any]) -> Iterator[Problem]:
    """Pydantic's errors as problems; `written` are the keys of the file, `schema` says which there may be."""
    for item in error.errors(include_url=False):
        kind, loc, context = item["type"], item["loc"], item.get("ctx", {})
        path = _path(loc, written)
        if isinstance(problems := context.get("error"), Problems):
            yield from (replace(problem, path=path + problem.path) for problem in problems.problems)
            continue
        text = str(context["error"]) if kind == "value_error" else expected(item)
        if kind == "extra_forbidden":
            text += nearest(str(loc[-1]), _keys(schema, path[:-1]))
        yield Problem(path=path, text=text, at_key=kind == "extra_forbidden" or loc[-1:] == ("[key]",))


def expected(item: ErrorDetails) -> str:
    """What was expected where pydantic found something else."""
    kind = item["type"]
    if kind not in _EXPECTED:
        return item["msg"].replace("Input should be", "expected")
    text = _EXPECTED[kind].format(**item.get("ctx", {}))
    if kind.endswith("_type") and isinstance(item["input"], (list, dict)):
        text += ", not a list" if isinstance(item["input"], list) else ", not a mapping"
    return text


def _path(loc: KeyPath, written: Collection[KeyPath]) -> KeyPath:
    """The key that pydantic means, without its marks in brackets: `[key]`, and the tags of unions."""
    path: KeyPath = ()
    for part in loc:
        if (*path, part) in written or not str(part).startswith("["):
            path = (*path, part)
    return path


def _keys(schema: Mapping[str, Any], path: KeyPath) -> list[str]:
    """The keys that a section may have."""
    node = schema
    for part in path:
        node = _section(schema, node)
        if isinstance(part, int):
            node = node["items"]
        else:
            node = node.get("properties", {}).get(part) or next(iter(node["patternProperties"].values()))
    return [key for section in _sections(schema, node) for key in section.get("properties", ())]


def _section(schema: Mapping[str, Any], node: Mapping[str, Any]) -> Mapping[str, Any]:
    """A schema node without its `$ref`; of alternatives the first that is a mapping or a list."""
    return next(_sections(schema, node), node)


def _sections(schema: Mapping[str, Any], node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The mappings and lists that a schema node stands for."""
    if "$ref" in node:
        yield from _sections(schema, schema["$defs"][node["$ref"].rpartition("/")[2]])
    elif node.get("type") in ("object", "array"):
        yield node
    for branch in (*node.get("anyOf", ()), *node.get("oneOf", ())):
        yield from _sections(schema, branch)
