"""Which pots a call draws on, all at once: organisation > tenant > team > user | agent > run > node.

A pot is named by its path:

org:globex                             an organisation, over all of its tenants
acme                                   a tenant
acme/team:red, acme/user:dana          a team, a user
acme/team:red/user:dana                what a user may spend in a team
acme/support                           an agent
acme/support/node:draft                a node, in all runs of the agent
acme/support/run_1                     a run
acme/support/run_1/researcher.2        an agent used as a tool in a run
acme/support/run_1/node:draft          a node in one run
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal
from unicodedata import category

from bursar.budget.errors import UsageError

__all__ = ["Kind", "Scope", "budget_kind", "chain_of"]

Kind = Literal["organisation", "tenant", "team", "user", "agent", "run", "node"]

_PREFIXES: dict[str, Kind] = {"org:": "organisation", "team:": "team", "user:": "user", "node:": "node"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Whose call it is: a tenant, the chain of agents that work, and the run with its sub-runs.

    Raises UsageError for an empty chain of agents, for a name that is empty, has a '/' in it or begins like a path of
    another kind (`team:`, `user:`, `node:`, `org:`), and where it is `within` another tenant's run.

    Every agent of the chain pays: an agent cannot get around its own budget by handing its work to another.
    """

    tenant: str
    agents: tuple[str, ...]
    """The run's agent first, the one that calls last; never empty."""

    run_id: str
    sub_runs: tuple[str, ...] = ()
    """One name for each agent used as a tool on the way, outermost first."""

    organisation: str | None = None
    team: str | None = None
    user: str | None = None

    within: str | None = None
    """The path of another run that pays for this one too, such as that of the key by which an agent was asked for."""

    paths: tuple[str, ...] = field(init=False)
    """The paths of all pots but the nodes': organisation, tenant, team and user, agents, run and sub-runs."""

    def __post_init__(self) -> None:
        if not self.agents:
            raise UsageError(f"run {self.run_id!r} of tenant {self.tenant!r} needs an agent that pays for it")
        people = [name for name in (self.organisation, self.team, self.user) if name is not None]
        for name in (*people, self.tenant, *self.agents, self.run_id, *self.sub_runs):
            _check_name(name)
        if self.within is not None and not self.within.startswith(f"{self.tenant}/"):
            raise UsageError(f"run {self.run_id!r} of tenant {self.tenant!r} cannot be within {self.within!r}")
        organisation = () if self.organisation is None else (f"org:{self.organisation}",)
        outer = () if self.within is None else self.within.split("/")[1:2]  # whoever asked for the run pays too
        agents = dict.fromkeys(f"{self.tenant}/{agent}" for agent in (*outer, *self.agents))
        above = (*organisation, self.tenant, *self._people(), *agents)
        object.__setattr__(self, "paths", (*above, *self.runs))

    @property
    def run_path(self) -> str:
        """The path of the run's own pot: `acme/support/run_1`."""
        return f"{self.tenant}/{self.agents[0]}/{self.run_id}"

    @property
    def run_paths(self) -> tuple[str, ...]:
        """The run's pot and the pots of its sub-runs, outermost first."""
        paths = [self.run_path]
        for name in self.sub_runs:
            paths.append(f"{paths[-1]}/{name}")
        return tuple(paths)

    @property
    def runs(self) -> tuple[str, ...]:
        """The run that this one is within, and `run_paths`: all whose gates have to be open."""
        return self.run_paths if self.within is None else (self.within, *self.run_paths)

    @property
    def chains(self) -> tuple[str, ...]:
        """Whose ledgers a call changes (see `bursar.budget.journal`)."""
        return (self.tenant,) if self.organisation is None else (f"org:{self.organisation}", self.tenant)

    def with_node(self, node: str) -> tuple[str, ...]:
        """`paths`, and those of a node of the agent that calls: in all of its runs, and in this one."""
        return _with_node(self, node)

    def child(self, agent: str, name: str) -> Scope:
        """The scope of an agent that is used as a tool here."""
        return Scope(
            tenant=self.tenant,
            agents=(*self.agents, agent),
            run_id=self.run_id,
            sub_runs=(*self.sub_runs, name),
            organisation=self.organisation,
            team=self.team,
            user=self.user,
            within=self.within,
        )

    def _people(self) -> list[str]:
        paths = []
        if self.team is not None:
            paths.append(f"{self.tenant}/team:{self.team}")
        if self.user is not None:
            paths.append(f"{self.tenant}/user:{self.user}")
        if self.team is not None and self.user is not None:
            paths.append(f"{self.tenant}/team:{self.team}/user:{self.user}")
        return paths


@lru_cache(maxsize=1024)
def _with_node(scope: Scope, node: str) -> tuple[str, ...]:
    return (*scope.paths, f"{scope.tenant}/{scope.agents[-1]}/node:{node}", f"{scope.run_paths[-1]}/node:{node}")


def chain_of(path: str) -> str:
    """The chain in which changes of a pot are journaled: its tenant or organisation."""
    return path.split("/", 1)[0]


def budget_kind(path: str) -> Kind:
    """What a path that may be given a budget names; raises UsageError for any other path.

    A run's own limits are set when it is opened, and then only by grants; its nodes may be given budgets.
    """
    parts = path.split("/")
    kinds = [_kind_of(part) for part in parts]
    if all(len(part) > len(_prefix(part)) for part in parts) and _is_text(path):
        match kinds:
            case ["organisation"] | ["tenant"]:
                return kinds[0]
            case ["tenant", ("team" | "user" | "node") as last] if last != "node":
                return last
            case ["tenant", "tenant"]:
                return "agent"
            case ["tenant", "team", "user"]:
                return "user"
            case ["tenant", "tenant", *runs, "node"] if all(kind == "tenant" for kind in runs):
                return "node"
    raise UsageError(
        f"a budget belongs to an organisation, a tenant, a team, a user, an agent or a node, not to {path!r}",
        next_step="acme, acme/support, acme/team:red, acme/user:dana, acme/support/node:draft or org:globex",
    )


def _prefix(name: str) -> str:
    return next((prefix for prefix in _PREFIXES if name.startswith(prefix)), "")


def _kind_of(part: str) -> Kind:
    return _PREFIXES.get(_prefix(part), "tenant")


def _check_name(name: str) -> None:
    if not name or "/" in name or _prefix(name) or not _is_text(name):
        prefixes = ", ".join(_PREFIXES)
        raise UsageError(
            f"a tenant, team, user, agent or run needs a name without '/', control characters and {prefixes}, "
            f"not {name!r}"
        )


def _is_text(name: str) -> bool:
    """Whether every store can keep it and every terminal show it."""
    return name.isprintable() or not any(category(letter) in ("Cc", "Cs") for letter in name)
