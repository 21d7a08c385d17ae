"""Which calls a report is about, as options of a command."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from bursar.budget.errors import UsageError
from bursar.runtime.cli.moments import moment, zone_of

if TYPE_CHECKING:
    from bursar.budget.reports.spend import Selection

__all__ = ["LAST_30_DAYS", "Chosen"]


def _only(what: str) -> Parameter:
    return Parameter(help=f"Only this {what}'s.")


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A stretch of time, and values that calls must have."""

    since: Annotated[str, Parameter(help="From when on: 30d or 12h ago, a day or a time.")] = "30d"
    until: Annotated[str | None, Parameter(help="Before when; now where it is left out.")] = None
    zone: Annotated[str, Parameter(help="The IANA time zone in which days begin, such as Europe/Paris.")] = "UTC"
    organisation: Annotated[str | None, _only("organisation")] = None
    tenant: Annotated[str | None, _only("tenant")] = None
    team: Annotated[str | None, _only("team")] = None
    user: Annotated[str | None, _only("user")] = None
    agent: Annotated[str | None, _only("agent")] = None
    run: Annotated[str | None, _only("run")] = None
    node: Annotated[str | None, _only("node")] = None
    tier: Annotated[str | None, _only("tier")] = None
    model: Annotated[str | None, _only("model")] = None

    def selection(self, now: datetime) -> Selection:
        """What is chosen, as the ledger reads it; raises UsageError for what is no time or zone, or no stretch."""
        from bursar.budget.reports.spend import FILTERS, Selection

        zone = zone_of(self.zone)
        since, until = moment(self.since, zone, now), now if self.until is None else moment(self.until, zone, now)
        if until <= since:
            raise UsageError(
                f"nothing lies between --since {self.since} and --until {self.until or 'now'}", next_step="--since 30d"
            )
        given = {name: getattr(self, "run" if name == "run_id" else name, None) for name in FILTERS}
        return Selection(
            since=since,
            until=until,
            zone=zone,
            where={name: value for name, value in given.items() if value is not None},
        )

    @property
    def budget_path(self) -> str | None:
        """The path of the budget that covers exactly what is chosen, if there can be one."""
        match (self.organisation, self.tenant, self.team, self.user, self.agent, self.node):
            case (str(name), None, None, None, None, None):
                path = f"org:{name}"
            case (_, str(tenant), team, user, None, None):
                parts = [tenant, f"team:{team}" if team else "", f"user:{user}" if user else ""]
                path = "/".join(part for part in parts if part)
            case (_, str(tenant), None, None, str(agent), node):
                path = f"{tenant}/{agent}/node:{node}" if node else f"{tenant}/{agent}"
            case _:
                return None
        return None if self.run or self.tier or self.model else path


LAST_30_DAYS = Chosen()
