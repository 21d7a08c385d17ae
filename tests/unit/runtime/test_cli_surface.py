"""The commands as a whole: cheap help, one set of flags everywhere, a reference that agrees, and advice that parses."""

from __future__ import annotations

import ast
import inspect
import resource
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from cyclopts import App, Token

from bursar.agents.agent import OnLimit
from bursar.budget.refusal import Cause, Refusal
from bursar.budget.scope import Kind
from bursar.budget.windows import PERIODS
from bursar.runtime.cli import options
from bursar.runtime.cli.app import app
from bursar.runtime.cli.exits import Exit, exit_of
from bursar.runtime.cli.init import AGENT
from bursar.runtime.cli.reference import reference
from bursar.runtime.runs.run import RunStatus

DOCS = Path(__file__).parents[3] / "docs"

WRITES = (
    "init",
    "runs cancel",
    "runs resume",
    "runs retune",
    "runs fork",
    *(f"inbox {verb}" for verb in ("claim", "release", "assign", "comment")),
    *(f"inbox {verb}" for verb in ("approve", "edit", "reject", "respond", "grant", "downgrade", "stop")),
    "budget set",
    "budget policy",
    "budget grant",
    "budget revoke",
    "budget verify",
    "budget compact",
    "alerts deliver",
    "alerts test",
    "price import",
    "price gpu",
    "route train",
    "db upgrade",
    "db prune",
    "doctor",
    "key create",
    "key revoke",
)

HEAVY = ("langgraph", "langchain_core", "sqlalchemy", "litellm", "openai", "alembic", "httpx")


def leaves(group: App = app, path: str = "") -> Iterator[tuple[str, App]]:
    for name, command in group.resolved_commands().items():
        if name.startswith("-"):
            continue
        here = f"{path} {name}".strip()
        if command.default_command is None:
            yield from leaves(command, here)
        else:
            yield here, command


COMMANDS = dict(leaves())


def flags(command: App) -> set[str]:
    return {name for argument in command.assemble_argument_collection() for name in argument.names}


def imported(*arguments: str) -> set[str]:
    """The modules that the command loads, as Python itself reports them."""
    code = f"from bursar.runtime.cli import main; main({list(arguments)!r})"
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=True)
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


# Help


@pytest.mark.parametrize("arguments", [("--help",), ("runs", "--help"), ("run", "--help")])
def test_help_loads_nothing_that_executes_or_stores_runs(arguments: tuple[str, ...]) -> None:
    loaded = imported(*arguments)
    assert "bursar.runtime.cli.app" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_help_takes_less_than_four_tenths_of_a_second() -> None:
    def seconds() -> float:
        # Of CPU: other work on this machine is not the command's.
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "bursar.runtime.cli", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(5)) < 0.4


@pytest.mark.parametrize("name", COMMANDS)
def test_help_and_docstring_begin_with_the_same_sentence(name: str) -> None:
    command = COMMANDS[name]
    docstring = inspect.getdoc(command.default_command) or ""
    assert command.help.splitlines()[0] == docstring.splitlines()[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_help_text(name: str) -> None:
    for argument in COMMANDS[name].assemble_argument_collection():
        if argument.parameter.parse is not False and argument.names and not argument.children:
            assert argument.parameter.help, argument.names


def test_the_reference_in_the_documents_is_the_commands_own() -> None:
    assert (DOCS / "commands.md").read_text() == reference(), (
        "python -m bursar.runtime.cli.reference > docs/commands.md"
    )


def test_the_first_help_names_every_exit_code() -> None:
    for code in set(Exit):
        assert f" {int(code)} " in app.help


# Flags


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_speaks_json(name: str) -> None:
    assert "--json" in flags(COMMANDS[name])


@pytest.mark.parametrize("name", COMMANDS)
def test_exactly_the_commands_that_write_have_a_dry_run(name: str) -> None:
    assert ("--dry-run" in flags(COMMANDS[name])) == (name in WRITES)


def test_the_choices_of_the_command_are_the_librarys() -> None:
    assert get_args(options.OnLimit) == get_args(OnLimit)
    for per in (*PERIODS, "rolling-24h"):
        assert options.read_period(str, [Token(value=per)]) == per


def test_every_state_of_a_run_has_an_exit_code() -> None:
    assert {status: int(exit_of(status)) for status in get_args(RunStatus)} == {
        "queued": 0,
        "running": 0,
        "succeeded": 0,
        "stopped": 3,
        "interrupted": 4,
        "failed": 1,
        "cancelled": 1,
    }


# Advice


def refusals() -> Iterator[Refusal]:
    paths: dict[Kind, str] = {
        "organisation": "org:globex",
        "tenant": "acme",
        "team": "acme/team:red",
        "user": "acme/user:dana@example.com",
        "agent": "acme/support",
        "node": "acme/support/node:last answer",
        "run": "acme/support/run_1",
    }
    for cause in get_args(Cause):
        for kind, path in paths.items():
            for dimension in ("nanousd", "tokens", "steps", "tool_calls", "seconds"):
                for per in ("total",) if kind == "run" else ("month", "rolling-24h"):
                    if kind == "run" or (cause == "limit" and dimension != "seconds"):
                        yield Refusal(cause=cause, kind=kind, path=path, dimension=dimension, limit=1, per=per)


@pytest.mark.parametrize("refusal", [*refusals()], ids=lambda one: f"{one.cause}-{one.kind}-{one.dimension}-{one.per}")
def test_what_a_refusal_tells_to_do_is_a_command_that_parses(refusal: Refusal) -> None:
    advice = shlex.split(refusal.next_step)
    if refusal.cause == "unpriced":
        assert refusal.next_step.startswith("add `price: ")
        return
    assert advice.pop(0) == "bursar"
    command, bound, _ = app.parse_args(advice, exit_on_error=False, print_error=False)
    assert command.__name__ in ("resume", "retune", "grant", "set_", "show")
    assert bound.args[0] == (refusal.path if command.__name__ in ("grant", "set_") else "run_1")
    assert (command.__name__ == "set_") == refusal.per.startswith("rolling")


# The first agent


def test_the_first_agent_is_eighteen_lines_of_python_that_lint_would_take() -> None:
    assert AGENT.count("\n") == 18
    assert max(map(len, AGENT.splitlines())) <= 120
    ast.parse(AGENT)
