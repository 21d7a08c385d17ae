"""Every error that Bursar raises on purpose.

BursarError
├── ConfigError            a setting is wrong; names file, line, key, value and what was expected
├── UsageError             a call was made in a way that cannot work
├── NotFoundError          no such run, tenant, budget or price
├── NotAllowedError        this person may not do it; says who may
├── ConflictError          the thing changed since you looked at it
│   └── CallInFlight       an attempt at the same call is under way
├── PriceMissingError      a model without a price under a money limit
└── LedgerError
    ├── LedgerUnavailable  the store could not be reached or stayed locked; nothing was reserved
    ├── LedgerVersionError the store was written by another version
    └── ReservationError   a reservation was used against its state machine

A limit that refuses a call is no error of the caller's: it is a `Refusal` (see `bursar.budget.refusal`), and the
runtime turns it into a stop, a question to a person or a last answer.
"""

from __future__ import annotations

from pathlib import Path

__all__ = [
    "BursarError",
    "CallInFlight",
    "ConfigError",
    "ConflictError",
    "LedgerError",
    "LedgerUnavailable",
    "LedgerVersionError",
    "NotAllowedError",
    "NotFoundError",
    "PriceMissingError",
    "ReservationError",
    "UsageError",
]


class BursarError(Exception):
    """Something that Bursar can name went wrong."""

    def __init__(self, message: str | None = None, *, next_step: str | None = None) -> None:
        """`next_step` is the command or line that mends it; it is shown after an arrow."""
        self.message = message or (type(self).__doc__ or "").splitlines()[0]
        self.next_step = next_step
        super().__init__(f"{self.message} -> {next_step}" if next_step else self.message)


class ConfigError(BursarError):
    """A setting is wrong."""

    def __init__(
        self,
        message: str,
        *,
        file: Path | str | None = None,
        line: int | None = None,
        column: int | None = None,
        key: str | None = None,
        next_step: str | None = None,
    ) -> None:
        """`line` and `column` count from 1; `key` is the dotted path of the setting."""
        self.file, self.line, self.column, self.key = file, line, column, key
        where = ":".join(str(part) for part in (file, line, column) if part is not None)
        super().__init__(f"{where}: {message}" if where else message, next_step=next_step)


class UsageError(BursarError):
    """A call was made in a way that cannot work."""


class NotFoundError(BursarError):
    """There is no such thing here."""


class NotAllowedError(BursarError):
    """This person may not do it."""


class ConflictError(BursarError):
    """It changed since you looked at it."""


class CallInFlight(ConflictError):
    """An attempt at the same call is under way, and has not been answered yet."""


class PriceMissingError(BursarError):
    """A model has no price, and a money limit is in force."""


class LedgerError(BursarError):
    """The ledger could not do what was asked."""


class LedgerUnavailable(LedgerError):
    """The ledger's store cannot be used now; nothing was reserved and nothing was sent."""

    def __init__(self, message: str | None = None, *, next_step: str | None = None, in_doubt: bool = False) -> None:
        """`in_doubt` says that the connection broke during a commit, so that what was asked may have been done."""
        self.in_doubt = in_doubt
        super().__init__(message, next_step=next_step)


class LedgerVersionError(LedgerError):
    """The ledger's store was written by another version of Bursar."""


class ReservationError(LedgerError):
    """A reservation was used against its state machine."""
