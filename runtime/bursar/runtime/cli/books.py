"""What commands read: the configuration, its ledger and its runs, open for as long as a command needs them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bursar.budget.errors import UsageError
from bursar.runtime.config import Config, load_config

if TYPE_CHECKING:
    from bursar.budget.ledger import Ledger
    from bursar.runtime.escalations.escalations import Escalations
    from bursar.runtime.runs.records import Records

__all__ = ["Books", "open_books", "require_known"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """A configuration with its open store."""

    config: Config
    ledger: Ledger
    records: Records

    @property
    def escalations(self) -> Escalations:
        """What people have to decide."""
        from bursar.budget.windows import utc_now
        from bursar.runtime.escalations.escalations import Escalations

        return Escalations(self.ledger, self.config, utc_now)


@contextmanager
def open_books(file: Path) -> Iterator[Books]:
    """Open the store that a configuration names; raises ConfigError and LedgerError."""
    from bursar.runtime.opening import open_ledger  # with SQLAlchemy

    config = load_config(file)
    ledger, records = open_ledger(config)
    try:
        yield Books(config=config, ledger=ledger, records=records)
    finally:
        ledger.close()


def require_known(config: Config, path: str) -> None:
    """Raise UsageError for a path in a tenant or an organisation that the configuration does not name."""
    from bursar.runtime.tenants import tenant_of

    name = path.split("/")[0]
    if not name.startswith("org:"):
        tenant_of(config, name)
    elif name[4:] not in config.organisations:
        known = ", ".join(config.organisations) or "none"
        raise UsageError(
            f"organisation {name[4:]!r} is not in the configuration (it has {known})",
            next_step=f"add `{name[4:]}: {{budgets: [{{usd: 5, per: month}}]}}` under organisations:",
        )
