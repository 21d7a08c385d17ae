"""`bursar price gpu`."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from bursar.budget.errors import UsageError
from bursar.budget.pricing.book import ModelFacts, PriceBook
from bursar.budget.pricing.gpu import OUTPUT_WEIGHT, GpuTime
from bursar.budget.pricing.prices import Price
from bursar.runtime.cli.books import open_books
from bursar.runtime.cli.moments import moment
from bursar.runtime.cli.options import CONFIG_FILE, AsJson, By, ConfigFile, DryRun, author, flag, read_usd
from bursar.runtime.cli.output import console, print_json
from bursar.runtime.cli.price_import import effective_day
from bursar.runtime.cli.words import counted, plain, rate_text

if TYPE_CHECKING:
    from bursar.budget.pricing.measured import Measured

__all__ = ["gpu"]


def gpu(
    model: Annotated[str, Parameter(name="MODEL", help="A model of bursar.yaml.")],
    /,
    *,
    usd_per_hour: Annotated[Decimal, Parameter(help="What one GPU costs for an hour.", converter=read_usd)],
    gpus: Annotated[int, Parameter(help="How many GPUs serve the model.", validator=Number(gte=1, lte=10**6))] = 1,
    since: Annotated[str, Parameter(help="The span to spread the cost over: 7d, or a day.")] = "7d",
    output_weight: Annotated[
        Decimal, Parameter(help="How many input tokens an output token is worth.", converter=read_usd)
    ] = OUTPUT_WEIGHT,
    busy_only: Annotated[bool, flag("--busy-only", "Spread only the time in which a call was in flight.")] = False,
    effective: Annotated[str | None, Parameter(help="The day from which the price holds, as 2026-11-20.")] = None,
    reason: Annotated[str, Parameter(help="Why, for the record.")] = "",
    by: By = None,
    dry_run: DryRun = False,
    config: ConfigFile = CONFIG_FILE,
    as_json: AsJson = False,
) -> None:
    """Price a model of your own by the time of its GPUs."""
    from bursar.budget.pricing.measured import measure  # with SQLAlchemy

    day, now = effective_day(effective), datetime.now(UTC)
    with open_books(config) as books:
        section = books.config.models.get(model)
        if section is None:
            raise UsageError(f"there is no model {model!r}", next_step=f"use one of {', '.join(books.config.models)}")
        measured = measure(books.ledger.store, model, since=moment(since, "UTC", now), until=now)
        if section.price is not None and not dry_run:
            raise UsageError(
                f"bursar.yaml declares a price for {model}, which goes before any that is listed",
                next_step="take its `price:` out, or --dry-run",
            )
        name = PriceBook.name_of(section.provider, section.model or section.scenario or model)
        price = _price(GpuTime(usd_per_hour=usd_per_hour, gpus=gpus), measured, name, day, output_weight, busy_only)
        if not dry_run:
            listed = {name: ModelFacts(price=price, context_window=None, max_output_tokens=None)}
            price = books.ledger.prices.add(listed, author=author(by), note=reason)[0].facts.price
    if as_json:
        return print_json({"model": model, "price": price.to_record(), "dry_run": dry_run, **_json(measured)})
    return _tell(model, price, measured, dry_run=dry_run)


def _price(gpus: GpuTime, measured: Measured, name: str, day: date, weight: Decimal, busy_only: bool) -> Price:
    try:
        return gpus.spread_over(
            measured, id=f"gpu:{name}@{day}", effective=day, output_weight=weight, busy_only=busy_only
        )
    except ValueError as error:
        raise UsageError(
            f"{name} cannot be priced: {error}", next_step="--since 30d, or run some calls first"
        ) from None


def _json(measured: Measured) -> dict[str, object]:
    return {
        "since": measured.since.isoformat(),
        "until": measured.until.isoformat(),
        "calls": measured.calls,
        "input_tokens": measured.input_tokens,
        "output_tokens": measured.output_tokens,
        "busy_seconds": str(measured.busy_s),
        "span_seconds": str(measured.span_s),
    }


def _tell(model: str, price: Price, measured: Measured, *, dry_run: bool) -> None:
    out = console()
    tokens = f"{measured.input_tokens:,} input and {measured.output_tokens:,} output tokens"
    busy = measured.busy_s / measured.span_s * 100
    out.print(f"measured: {counted(measured.calls, 'call')}, {tokens}; busy {busy:.1f} % of the time", soft_wrap=True)
    rates = rate_text(price.input_usd_per_mtok), rate_text(price.output_usd_per_mtok)
    out.print(plain(f"{model}: ${rates[0]} in, ${rates[1]} out per million tokens ({price.source})"), soft_wrap=True)
    written = "nothing was written" if dry_run else f"listed as {price.id}, from {price.effective} on"
    out.print(plain(written), style="dim", soft_wrap=True)
