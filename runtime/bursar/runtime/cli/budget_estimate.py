"""`bursar budget estimate`: what a run of an agent will probably come to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from bursar.budget.amounts import DIMENSIONS
from bursar.budget.errors import UsageError
from bursar.runtime.cli.books import Books, open_books
from bursar.runtime.cli.options import CONFIG_FILE, AsJson, ConfigFile
from bursar.runtime.cli.output import Column, console, print_json, print_next, print_table
from bursar.runtime.cli.shapes import amounts_json, money
from bursar.runtime.cli.words import counted, plain, shown

if TYPE_CHECKING:
    from bursar.budget.whatif.estimate import Estimate, Range

__all__ = ["estimate", "estimate_json", "interrupted"]


def estimate(
    agent: Annotated[str, Parameter(name="AGENT", help="An agent's name.")],
    /,
    *,
    tenant: Annotated[str | None, Parameter(help="Whose runs; needed where there are several tenants.")] = None,
    percent: Annotated[
        int, Parameter(help="How many of a hundred runs the interval shall hold.", validator=Number(gte=1, lte=99))
    ] = 80,
    config: ConfigFile = CONFIG_FILE,
    as_json: AsJson = False,
) -> None:
    """Estimate what a run will come to, from its agent's last runs."""
    with open_books(config) as books:
        of_tenant = _tenant(books, agent, tenant)
        waiting = interrupted(books, of_tenant)
        found = books.ledger.estimates.before(of_tenant, agent, percent=percent, unfinished=waiting)
    if as_json:
        return print_json(estimate_json(found))
    _print(found)
    return None if found.runs else print_next([f"bursar runs ls --tenant {found.tenant}"], config)


def interrupted(books: Books, tenant: str) -> list[str]:
    """The runs of a tenant that wait for a person: let go, and not finished."""
    from bursar.budget.whatif.estimate import RUNS_MAX

    return [run.id for run in books.records.ls(tenant=tenant, status="interrupted", limit=RUNS_MAX)]


def estimate_json(found: Estimate) -> dict[str, Any]:
    """An estimate; what is not known is null."""
    return {
        "tenant": found.tenant,
        "agent": found.agent,
        "percent": found.percent,
        "runs": found.runs,
        "runs_needed": found.needed,
        "spent": amounts_json(found.spent),
        **{"cost_usd" if name == "nanousd" else name: _range_json(name, of) for name, of in _ranges(found)},
        "words": found.words(),
    }


def _tenant(books: Books, agent: str, given: str | None) -> str:
    from bursar.runtime.tenants import tenant_of

    if given is not None:
        tenant_of(books.config, given)
        return given
    tenants = [*books.config.tenants]
    if len(tenants) != 1:
        first = tenants[0] if tenants else "TENANT"
        raise UsageError(
            f"name the tenant whose runs of {agent} count", next_step=f"bursar budget estimate {agent} --tenant {first}"
        )
    return tenants[0]


def _ranges(found: Estimate) -> Iterator[tuple[str, Range]]:
    for name in DIMENSIONS:
        yield name, getattr(found, name)


def _range_json(name: str, found: Range) -> dict[str, Any]:
    values = asdict(found)
    worst_is = values.pop("worst_is")
    amounts = {key: money(value) if name == "nanousd" and value is not None else value for key, value in values.items()}
    return {**amounts, "worst_is": worst_is}


def _print(found: Estimate) -> None:
    seen = f"from its last {counted(found.runs, 'finished run')}" if found.runs else "no finished run seen"
    console().print(plain(f"{found.tenant}/{found.agent}, {seen}"), soft_wrap=True)
    columns: Sequence[Column] = (
        "",
        ("average", "right"),
        ("median", "right"),
        (f"{found.percent} % of runs", "right"),
        ("at most", "right"),
    )
    print_table(columns, [_row(name, of) for name, of in _ranges(found)])
    if found.runs < found.needed:
        few = f"the {found.percent} % interval needs {counted(found.needed, 'run')}"
        console().print(f"{counted(found.runs, 'run')} seen, {few}", style="dim", soft_wrap=True)


def _row(name: str, found: Range) -> tuple[str, ...]:
    between = "-" if found.low is None else f"{_bare(name, found.low)} to {_bare(name, found.high)}"
    worst = "-" if found.worst is None else f"{_bare(name, found.worst)} ({found.worst_is})"
    label = "cost" if name == "nanousd" else name.replace("_", " ")
    return label, _bare(name, found.expected), _bare(name, found.median), between, worst


def _bare(name: str, amount: int | None) -> str:
    return shown(name, amount).partition(" ")[0]
