"""The options that several commands share."""

from __future__ import annotations

import getpass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from bursar.budget.money import nanousd

__all__ = [
    "AsJson",
    "By",
    "ConfigFile",
    "Count",
    "Debug",
    "DryRun",
    "OnLimit",
    "Period",
    "RunId",
    "Seconds",
    "Tenant",
    "Usd",
    "amount_usd",
    "author",
    "flag",
]

OnLimit = Literal["finalize", "escalate", "stop"]
Period = Literal["hour", "day", "week", "month", "total"]


def flag(name: str, text: str) -> Parameter:
    """A switch that is off by default and has no opposite."""
    return Parameter(name=name, help=text, negative="", show_default=False)


def amount_usd(_: type, value: Any) -> None:
    """A validator: an exact amount of USD; raises ValueError for any other number."""
    if isinstance(value, Decimal):
        try:
            nanousd(value)
        except ValueError:
            raise ValueError("Expected an amount of USD such as 0.25, of at most 9 decimals.") from None


ConfigFile = Annotated[Path, Parameter(name="--config", help="The configuration.")]
AsJson = Annotated[bool, flag("--json", "Print JSON; money as decimal strings.")]
DryRun = Annotated[bool, flag("--dry-run", "Say what would change, and change nothing.")]
Debug = Annotated[bool, flag("--debug", "Show the traceback of what made the run fail.")]
Tenant = Annotated[str | None, Parameter(help="Only this tenant's.")]
RunId = Annotated[str, Parameter(name="RUN", help="A run's id.")]
By = Annotated[str | None, Parameter(help="Who decides; the user of this machine where nobody is named.")]

Usd = Annotated[Decimal | None, Parameter(validator=amount_usd)]
Count = Annotated[int | None, Parameter(validator=Number(gte=0))]
Seconds = Annotated[float | None, Parameter(validator=Number(gt=0, lte=10**9))]


def author(by: str | None) -> str:
    """Who a change is written down for."""
    if by:
        return by
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "command"
