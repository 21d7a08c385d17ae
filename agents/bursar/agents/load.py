"""Finding an agent or a graph where a team wrote it: `examples/support.py:support` or `package.module:name`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from bursar.agents.agent import Agent
from bursar.budget.errors import UsageError
from bursar.tools.result import describe_error

__all__ = ["load_agent"]


def load_agent(target: str) -> Any:
    """The Agent or graph (anything with `compile`, `ainvoke` or a `graph`) that is named.

    `target` is `FILE.py:NAME` or `PACKAGE.MODULE:NAME`; without `:NAME`, the one Agent that is defined there. While it
    is imported, and only then, the file's folder (for a module, the working directory) can be imported from. Raises
    UsageError for whatever is wrong there, with its line.
    """
    place, _, name = target.rpartition(":") if ":" in Path(target).name else (target, "", "")
    module = _load(place)
    if not name:
        return _only_agent(module, place)
    found = vars(module).get(name)
    if _is_runnable(found):
        return found
    agents = ", ".join(_agents(module)) or "none"
    what = f"{target} is of type {type(found).__name__}" if name in vars(module) else f"{place} defines no {name!r}"
    near = get_close_matches(name, [key for key, value in vars(module).items() if _is_runnable(value)], n=1)
    raise UsageError(
        f"{what}; expected an Agent or a LangGraph graph (agents there: {agents})",
        next_step=f"did you mean {place}:{near[0]}?" if near else None,
    )


def _load(place: str) -> ModuleType:
    if _is_module_name(place):
        with _importing(place, Path.cwd()):
            return importlib.import_module(place)
    path = Path(place).resolve()
    # A name of its own, and the same one in every process, so that what the file defines can be found again by name.
    name = f"bursar_file_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UsageError(f"there is no Python file {place!r}", next_step="give FILE.py:NAME or PACKAGE.MODULE:NAME")
    module = importlib.util.module_from_spec(spec)
    with _importing(place, path.parent):
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return module


def _is_module_name(place: str) -> bool:
    is_dotted = all(part.isidentifier() for part in place.split("."))
    return is_dotted and not place.endswith(".py") and not Path(place).is_file()


@contextmanager
def _importing(place: str, folder: Path) -> Iterator[None]:
    """Import with `folder` in front of the path; what fails becomes a UsageError that names the line."""
    sys.path.insert(0, str(folder))
    try:
        yield
    except SyntaxError as error:
        where = f"{_shown(error.filename)}:{error.lineno}" if error.filename else place
        raise UsageError(f"{where}: syntax error: {error.msg}: {(error.text or '').strip()}") from error
    except (Exception, SystemExit) as error:
        raise UsageError(f"{_raised_at(error, folder) or place}: {describe_error(error)}") from error
    finally:
        with suppress(ValueError):  # the file may have taken it off itself
            sys.path.remove(str(folder))


def _raised_at(error: BaseException, folder: Path) -> str | None:
    """The team's own line nearest to the error, not the library's that it called."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(folder) and "site-packages" not in path.parts:
            return f"{_shown(frame.filename)}:{frame.lineno}"
    return None


def _shown(filename: str) -> str:
    path, here = Path(filename), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _only_agent(module: ModuleType, place: str) -> Agent:
    agents = _agents(module)
    if not agents:
        raise UsageError(f"{place} defines no Agent", next_step=f"name the object to run: {place}:NAME")
    if len(agents) > 1:
        choices = " or ".join(f"{place}:{name}" for name in agents)
        raise UsageError(f"{place} defines {len(agents)} agents", next_step=f"say which: {choices}")
    return next(iter(agents.values()))


def _agents(module: ModuleType) -> dict[str, Agent]:
    return {key: value for key, value in vars(module).items() if isinstance(value, Agent)}


def _is_runnable(found: object) -> bool:
    if isinstance(found, (type, ModuleType)):
        return False
    return isinstance(found, Agent) or any(hasattr(found, name) for name in ("compile", "ainvoke", "graph"))
