"""`bursar budget policy`: what becomes of a tenant's calls of models without a price."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from bursar.budget.errors import UsageError
from bursar.budget.policies import Policy, Unpriced
from bursar.runtime.cli.books import open_books, require_known
from bursar.runtime.cli.options import CONFIG_FILE, AsJson, By, ConfigFile, DryRun, Reason, Usd, author
from bursar.runtime.cli.output import console, print_json
from bursar.runtime.cli.words import plain, rates_text

if TYPE_CHECKING:
    from bursar.budget.pricing.prices import Price

__all__ = ["policy"]


def policy(
    tenant: Annotated[str, Parameter(name="TENANT", help="A tenant, such as acme.")],
    /,
    *,
    unpriced: Annotated[
        Unpriced | None, Parameter(help="What becomes of such a call; without it the policy is only shown.")
    ] = None,
    input_usd_per_mtok: Annotated[Usd, Parameter(help="What a million tokens of input cost at ceiling_price.")] = None,
    output_usd_per_mtok: Annotated[Usd, Parameter(help="What a million tokens of output cost then.")] = None,
    by: By = None,
    reason: Reason = "",
    config: ConfigFile = CONFIG_FILE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Say what becomes of a tenant's calls of models without a price."""
    ceiling = _ceiling(tenant, input_usd_per_mtok, output_usd_per_mtok)
    if unpriced is None and ceiling is not None:
        raise UsageError("a price for the unknown belongs to ceiling_price", next_step=_ceiling_command(tenant))
    with open_books(config) as books:
        require_known(books.config, tenant)
        policies = books.ledger.policies
        holds = policies.ls().get(tenant, Policy())
        if unpriced is not None and not dry_run:
            holds = policies.set(tenant, unpriced=unpriced, ceiling=ceiling, author=author(by), note=reason)
    if as_json:
        wanted = {"dry_run": True, "set": unpriced} if dry_run else {}
        return print_json({**wanted, **_as_json(tenant, holds)})
    if dry_run and unpriced is not None:
        console().print(f"would set {plain(tenant)} to {unpriced}; nothing was changed", soft_wrap=True)
    return console().print(f"{plain(tenant)}: a model without a price {_words(holds)}", soft_wrap=True)


def _ceiling(tenant: str, reads: Decimal | None, writes: Decimal | None) -> Price | None:
    from bursar.budget.pricing.prices import Price

    if reads is None and writes is None:
        return None
    if reads is None or writes is None:
        raise UsageError("a price for the unknown has both input and output", next_step=_ceiling_command(tenant))
    return Price(
        id="ceiling",
        source=f"the policy of {tenant}",
        effective=date.min,
        input_usd_per_mtok=reads,
        output_usd_per_mtok=writes,
    )


def _ceiling_command(tenant: str) -> str:
    options = "--unpriced ceiling_price --input-usd-per-mtok 20 --output-usd-per-mtok 100"
    return f"bursar budget policy {tenant} {options}"


def _words(policy: Policy) -> str:
    if policy.ceiling is not None:
        return f"costs {rates_text(policy.ceiling)} (ceiling_price)"
    if policy.unpriced == "allow_and_alert":
        return "is called, nothing is posted for it, and somebody is told (allow_and_alert)"
    return "is refused where money is limited (refuse)"


def _as_json(tenant: str, policy: Policy) -> dict[str, Any]:
    return {
        "tenant": tenant,
        "unpriced": policy.unpriced,
        "ceiling_price": policy.ceiling and policy.ceiling.to_record(),
    }
