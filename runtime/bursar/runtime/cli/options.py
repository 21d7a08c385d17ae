"""The options that several commands share."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter, Token
from cyclopts.validators import Number

from bursar.budget.errors import UsageError
from bursar.budget.money import NANO, NANOUSD_MAX, nanousd

__all__ = [
    "CONFIG_FILE",
    "AsJson",
    "By",
    "ConfigFile",
    "Count",
    "CountOrNone",
    "Debug",
    "DryRun",
    "OnLimit",
    "Period",
    "Reason",
    "RunId",
    "Seconds",
    "Tenant",
    "Usd",
    "UsdOrNone",
    "author",
    "flag",
]

CONFIG_FILE = Path("bursar.yaml")

DIGITS_MAX = 18
"""Of a count: any such number is within what the ledger holds."""

OnLimit = Literal["finalize", "escalate", "downgrade", "stop"]


def flag(name: str, text: str) -> Parameter:
    """A switch that is off by default and has no opposite."""
    return Parameter(name=name, help=text, negative="", show_default=False)


def read_usd(_: type, tokens: Sequence[Token]) -> Decimal:
    """An exact amount of USD; raises ValueError for anything else."""
    try:
        amount = Decimal(tokens[0].value)
        nanousd(amount)
    except (InvalidOperation, ValueError):
        raise ValueError(
            f"{tokens[0].value!r} is no amount of USD such as 0.25, from 0 to {NANOUSD_MAX // NANO:,}, of at most "
            "9 decimals"
        ) from None
    return amount


def read_count(_: type, tokens: Sequence[Token]) -> int:
    """A whole number, digit by digit: 1.5 is not 2; raises ValueError for anything else."""
    text = tokens[0].value
    if not (text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX):
        raise ValueError(f"{text!r} is no whole number such as 20")
    return int(text)


def read_period(_: type, tokens: Sequence[Token]) -> str:
    """A period of a budget; raises ValueError for anything else."""
    from bursar.budget.windows import check_period  # with SQLAlchemy

    try:
        return check_period(tokens[0].value)
    except UsageError as error:
        raise ValueError(error.message) from None


def or_none(read: Callable[[type, Sequence[Token]], Any]) -> Callable[[type, Sequence[Token]], Any]:
    """A reader that also takes the word `none`."""
    return lambda kind, tokens: "none" if tokens[0].value == "none" else read(kind, tokens)


ConfigFile = Annotated[Path, Parameter(name="--config", help="The configuration.")]
AsJson = Annotated[bool, flag("--json", "Print JSON; money as decimal strings.")]
DryRun = Annotated[bool, flag("--dry-run", "Say what would change, and change nothing.")]
Debug = Annotated[bool, flag("--debug", "Show the traceback of what made the run fail.")]
Tenant = Annotated[str | None, Parameter(help="Only this tenant's.")]
RunId = Annotated[str, Parameter(name="RUN", help="A run's id.")]
By = Annotated[str | None, Parameter(help="Who decides; the user of this machine where nobody is named.")]

Reason = Annotated[str, Parameter(help="Why; kept in the journal.")]
Period = Annotated[str, Parameter(converter=read_period)]
Usd = Annotated[Decimal | None, Parameter(converter=read_usd)]
UsdOrNone = Annotated[Decimal | Literal["none"] | None, Parameter(converter=or_none(read_usd))]
Count = Annotated[int | None, Parameter(converter=read_count)]
CountOrNone = Annotated[int | Literal["none"] | None, Parameter(converter=or_none(read_count))]
Seconds = Annotated[float | None, Parameter(validator=Number(gt=0, lte=10**9))]


def author(by: str | None) -> str:
    """Who a change is written down for."""
    if by:
        return by
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "command"
