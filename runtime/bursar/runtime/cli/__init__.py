"""The command `bursar`: parses, calls the library, and turns what comes of it into words and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import TextIOWrapper

from cyclopts import CycloptsError

from bursar.budget.errors import BursarError, UsageError
from bursar.runtime.cli.app import app
from bursar.runtime.cli.exits import BrokenOff, Exit
from bursar.runtime.cli.output import print_error

__all__ = ["main"]

_EXITS = {UsageError: Exit.USAGE, BrokenOff: Exit.BROKEN_OFF}

ISSUES = "please report it, with the lines above, where you got Bursar from"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; `arguments` are those of the process where none are given."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show a character is no error
    given = sys.argv[1:] if arguments is None else [*arguments]
    try:
        return app(given) or Exit.OK
    except CycloptsError as error:
        print_error(str(error), next_step=_help(error.command_chain or ()))
        return Exit.USAGE
    except BursarError as error:
        lost = isinstance(error, UsageError) and not error.next_step
        print_error(str(error), next_step=_help(app.parse_commands(given)[0]) if lost else None)
        return _EXITS.get(type(error), Exit.ERROR)
    except KeyboardInterrupt:
        return Exit.BROKEN_OFF
    except Exception as error:
        return _bug(error)


def _help(command: Sequence[str]) -> str:
    return " ".join(["bursar", *command, "--help"])


def _bug(error: Exception) -> int:
    """Show what nobody foresaw, whole: it is the only way to mend it."""
    import traceback

    sys.stderr.write("".join(traceback.format_exception(error)))
    print_error(f"this is a bug in Bursar: {type(error).__name__}: {error}", next_step=ISSUES)
    return Exit.ERROR
