"""Which pots a call draws on, all at once: tenant > agent > run."""

from __future__ import annotations

from dataclasses import dataclass, field

from bursar.budget.errors import UsageError

__all__ = ["Scope"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """A tenant, the chain of agents that work, and the run with the sub-runs of agents used as tools.

    Raises UsageError for an empty chain, and for a name that is empty or has a '/' in it.

    Every agent of the chain pays: an agent cannot get around its own budget by handing its work to another.
    """

    tenant: str
    agents: tuple[str, ...]
    """The run's agent first, the one that calls last; never empty."""

    run_id: str
    sub_runs: tuple[str, ...] = ()
    """One name for each agent used as a tool on the way, outermost first."""

    paths: tuple[str, ...] = field(init=False)
    """The paths of all pots: tenant, agents, run and sub-runs, the run's last."""

    def __post_init__(self) -> None:
        if not self.agents:
            raise UsageError(f"run {self.run_id!r} of tenant {self.tenant!r} needs an agent that pays for it")
        for name in (self.tenant, *self.agents, self.run_id, *self.sub_runs):
            if not name or "/" in name:
                raise UsageError(f"a tenant, agent or run needs a name without '/', not {name!r}")
        agents = dict.fromkeys(f"{self.tenant}/{agent}" for agent in self.agents)
        object.__setattr__(self, "paths", (self.tenant, *agents, *self.run_paths))

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

    def child(self, agent: str, name: str) -> Scope:
        """The scope of an agent that is used as a tool here."""
        return Scope(
            tenant=self.tenant,
            agents=(*self.agents, agent),
            run_id=self.run_id,
            sub_runs=(*self.sub_runs, name),
        )
