"""`bursar price import`."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from bursar.budget.errors import UsageError
from bursar.budget.pricing.book import ModelFacts
from bursar.budget.pricing.files import read_price_file
from bursar.runtime.cli.books import open_books
from bursar.runtime.cli.options import CONFIG_FILE, AsJson, By, ConfigFile, DryRun, author
from bursar.runtime.cli.output import Column, console, print_json, print_table
from bursar.runtime.cli.price_changes import PriceChange, changed
from bursar.runtime.cli.words import counted

if TYPE_CHECKING:
    from bursar.budget.pricing.pricelist import PriceList

__all__ = ["effective_day", "import_"]

ROWS_SHOWN_MAX = 40

_COLUMNS: tuple[Column, ...] = ("model", "", "change")


def import_(
    file: Annotated[Path, Parameter(name="FILE", help="litellm's map, OpenRouter's models, or a table as CSV.")],
    /,
    *,
    effective: Annotated[str | None, Parameter(help="The day from which the prices hold, as 2026-11-20.")] = None,
    only: Annotated[str, Parameter(help="Import only models with this in their provider/model.")] = "",
    reason: Annotated[str, Parameter(help="Why, for the record.")] = "",
    by: By = None,
    dry_run: DryRun = False,
    config: ConfigFile = CONFIG_FILE,
    as_json: AsJson = False,
) -> None:
    """List the prices of a file, from a day on."""
    day = effective_day(effective)
    read = read_price_file(file, effective=day)
    wanted = {name: facts for name, facts in read.prices.items() if only.lower() in name.lower()}
    if not wanted:
        raise UsageError(f"no model of {file} has {only!r} in its name", next_step="leave --only away")
    with open_books(config) as books:
        prices = books.ledger.prices
        changes = changed({name: _known(prices, name, facts) for name, facts in wanted.items()}, wanted)
        if changes and not dry_run:
            prices.add(
                {change.name: wanted[change.name] for change in changes}, author=author(by), note=reason or file.name
            )
    if as_json:
        return print_json(_json(changes, wanted, dry_run=dry_run))
    return _tell(changes, wanted, read.kind, dry_run=dry_run)


def effective_day(text: str | None) -> date:
    """The day that is meant, today where none is; raises UsageError."""
    try:
        return date.fromisoformat(text) if text else datetime.now(UTC).date()
    except ValueError:
        raise UsageError(f"{text!r} is no day", next_step="--effective 2026-11-20") from None


def _known(prices: PriceList, name: str, facts: ModelFacts) -> ModelFacts | None:
    provider, _, model = name.partition("/")
    return prices.lookup(provider, model, facts.price.effective)


def _json(changes: list[PriceChange], wanted: dict[str, ModelFacts], *, dry_run: bool) -> object:
    return {
        "changed": [
            {
                "model": change.name,
                "kind": change.kind,
                "before": change.before.to_record() if change.before else None,
                "after": change.after.to_record(),
            }
            for change in changes
        ],
        "unchanged": len(wanted) - len(changes),
        "dry_run": dry_run,
    }


def _tell(changes: list[PriceChange], wanted: dict[str, ModelFacts], kind: str, *, dry_run: bool) -> None:
    if changes:
        shown = changes[:ROWS_SHOWN_MAX]
        print_table(_COLUMNS, [(change.name, change.kind, change.text()) for change in shown])
        if len(shown) < len(changes):
            console().print(f"... and {len(changes) - len(shown):,} more: --json shows all", style="dim")
    what = "would change; nothing was written" if dry_run else "listed" if changes else "to list"
    unchanged = counted(len(wanted) - len(changes), "price")
    console().print(f"{kind}: {counted(len(changes), 'price')} {what}, {unchanged} as before", soft_wrap=True)
