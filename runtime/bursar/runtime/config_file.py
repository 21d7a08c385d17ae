"""A YAML file as plain data with a place for every key, and errors that point at those places."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from bursar.budget.errors import ConfigError
from bursar.runtime.config_problems import KeyPath, Problem, dotted, one_line

if TYPE_CHECKING:
    from ruamel.yaml.nodes import MappingNode, Node

__all__ = ["Document", "read_file", "read_yaml"]

CHARACTERS_MAX = 1_000_000
DEPTH_MAX = 16
VALUES_MAX = 100_000
PROBLEMS_SHOWN_MAX = 20

_YAML = "tag:yaml.org,2002:"
_KNOWN_TAGS = frozenset(
    _YAML + name for name in ("bool", "float", "int", "map", "merge", "null", "seq", "str", "timestamp", "value")
)
_SECRET = re.compile(
    r"\b(?:(?:sk|pk|rk|gsk|xai|hf|ghp|glpat)[-_]|AIza|AKIA|ASIA|eyJ)[\w-]{4,}"  # what providers' keys begin with
    r"|[\w-]{32,}"
    r"|(?<=//)[^/]*@"  # user and password in a URL
    r"|(?<=\?).*"  # a URL's query
)


class Position(NamedTuple):
    """A place in a file; line and column count from 1."""

    line: int
    column: int


class Place(NamedTuple):
    """Where a key and its value stand, and a scalar as it may be shown: short, without secrets."""

    key: Position
    value: Position
    shown: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What a YAML file says. Scalars are the text that was written (None for null): whoever reads them knows the type,
    and no digit of an amount is lost on the way."""

    file: Path | str | None = None
    data: Any = None
    places: Mapping[KeyPath, Place] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    """What is wrong with the text itself: keys written twice, tags."""

    def error(self, problems: Iterable[Problem], *, next_step: str | None = None) -> ConfigError:
        """One error for all the problems, in the order of the file; its place is the first problem's."""
        found = sorted({(self._position(problem), self._text(problem), dotted(problem.path)) for problem in problems})
        (first, text, key), *rest = found
        where = f"{self.file}:{{}}:{{}}: " if self.places else ""
        lines = [text, *(where.format(*at) + text for at, text, _ in rest)]
        if len(lines) > PROBLEMS_SHOWN_MAX:
            lines[PROBLEMS_SHOWN_MAX:] = [f"... and {len(lines) - PROBLEMS_SHOWN_MAX} more"]
        line, column = first if self.places else (None, None)
        return ConfigError("\n".join(lines), file=self.file, line=line, column=column, key=key, next_step=next_step)

    def _position(self, problem: Problem) -> Position:
        """The place of the problem's value or key; of the nearest section around a key that is not there."""
        if place := self.places.get(problem.path):
            return place.key if problem.at_key else place.value
        for length in range(len(problem.path) - 1, -1, -1):
            if place := self.places.get(problem.path[:length]):
                return place.key
        return Position(1, 1)

    def _text(self, problem: Problem) -> str:
        place = self.places.get(problem.path)
        value = f" = {place.shown}" if place and place.shown and not problem.at_key else ""
        key = dotted(problem.path)
        return f"{key}{value}: {problem.text}" if key else problem.text


def read_file(file: Path) -> str:
    """The text of a file; raises ConfigError where there is none."""
    try:
        data = file.read_bytes()
        return data.decode("utf-8")
    except FileNotFoundError:
        raise ConfigError("there is no configuration here", file=file, next_step="bursar init") from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            "expected UTF-8 text", file=file, line=line, next_step="save it as UTF-8, or name another file"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {error.strerror}", file=file, next_step="name a file that can be read"
        ) from None


def read_yaml(text: str, *, file: Path | str) -> Document:
    """The text as plain data with a place for each key; raises ConfigError for what is no YAML."""
    if len(text) > CHARACTERS_MAX:
        raise ConfigError(f"expected at most {CHARACTERS_MAX} characters, not {len(text)}", file=file)
    reader = _Reader(file=file)
    root = reader.compose(text)
    data = None if root is None else reader.read(root, (), Position(1, 1))
    return Document(file=file, data=data, places=reader.places, problems=tuple(reader.problems))


@dataclass(slots=True, kw_only=True)
class _Reader:
    file: Path | str
    places: dict[KeyPath, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def compose(self, text: str) -> Node | None:
        from ruamel.yaml import YAML
        from ruamel.yaml.composer import MaxDepthExceededError
        from ruamel.yaml.error import MarkedYAMLError
        from ruamel.yaml.reader import ReaderError

        yaml = YAML(typ="safe", pure=True)
        yaml.max_depth = DEPTH_MAX
        yaml.composer.warn_double_anchors = False  # YAML allows it, and a warning is no answer to a user
        try:
            root: Node | None = yaml.compose(text)
            return root
        except MaxDepthExceededError as error:
            self._fail(f"nested deeper than {DEPTH_MAX}", _position(error.problem_mark))
        except MarkedYAMLError as error:
            what = ", ".join(part for part in (error.context, error.problem) if part)
            self._fail(f"not YAML: {what}", _position(error.problem_mark or error.context_mark))
        except ReaderError as error:
            before = text[: error.position]
            at = Position(before.count("\n") + 1, len(before) - before.rfind("\n"))
            self._fail(f"not YAML: the character #x{error.character:04x} is not allowed", at)
        except Exception as error:
            # The scanner lets errors of Python's own through, as for an escape beyond Unicode.
            raise ConfigError(f"not YAML: {error}", file=self.file) from None

    def read(self, node: Node, path: KeyPath, key: Position) -> Any:
        """The node as plain data; notes the place of everything in it."""
        from ruamel.yaml.nodes import MappingNode, SequenceNode

        if len(path) > DEPTH_MAX or len(self.places) > VALUES_MAX:
            # Only an alias can get here: one that holds itself, or one repeated without end.
            self._fail(f"nested deeper than {DEPTH_MAX}, or more than {VALUES_MAX} values", _position(node.start_mark))
        tag = str(node.tag)
        if tag not in _KNOWN_TAGS:
            self.problems.append(Problem(path=path, text=f"expected no tag, not {one_line(tag)}", at_key=True))
        if isinstance(node, MappingNode):
            self.places[path] = Place(key, key, None)
            return dict(self._items(node, path))
        if isinstance(node, SequenceNode):
            self.places[path] = Place(key, key, None)
            return [self.read(item, (*path, i), _position(item.start_mark)) for i, item in enumerate(node.value)]
        value = None if tag == f"{_YAML}null" else node.value
        self.places[path] = Place(key, _position(node.start_mark), _shown(value))
        return value

    def _items(self, node: MappingNode, path: KeyPath) -> Iterator[tuple[str, Any]]:
        first: dict[str, Position] = {}
        for key, value in node.value:
            at = _position(key.start_mark)
            if not isinstance(key.value, str):
                self._fail("expected plain text as a key, not a list or mapping", at)
            if earlier := first.get(key.value):
                text = f"written twice; first on line {earlier.line}"
                self.problems.append(Problem(path=(*path, key.value), text=text, at_key=True))
            first.setdefault(key.value, at)
            yield key.value, self.read(value, (*path, key.value), at)

    def _fail(self, text: str, at: Position) -> NoReturn:
        raise ConfigError(text, file=self.file, line=at.line, column=at.column) from None


def _position(mark: Any) -> Position:
    return Position(mark.line + 1, mark.column + 1)


def _shown(value: str | None) -> str:
    return "null" if value is None else f'"{one_line(_SECRET.sub("***", value))}"'
