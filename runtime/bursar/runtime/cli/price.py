"""`bursar price ls`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from itertools import chain, islice
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from bursar.budget.pricing.book import PriceBook
from bursar.budget.pricing.prices import Price
from bursar.runtime.cli.options import CONFIG_FILE, AsJson, ConfigFile
from bursar.runtime.cli.output import Column, console, print_json, print_table
from bursar.runtime.cli.price_source import prices_of
from bursar.runtime.cli.shapes import price_json
from bursar.runtime.cli.words import rate_text
from bursar.runtime.config import load_config
from bursar.runtime.models.catalog import Catalog

__all__ = ["ls"]

_COLUMNS: tuple[Column, ...] = ("model", ("input", "right"), ("cached", "right"), ("output", "right"), "source")


def ls(
    filter: Annotated[
        str | None, Parameter(name="FILTER", help="A part of provider/model, in the store's list and the price book.")
    ] = None,
    /,
    *,
    limit: Annotated[int, Parameter(help="At most so many.", validator=Number(gte=1, lte=10_000))] = 40,
    config: ConfigFile = CONFIG_FILE,
    as_json: AsJson = False,
) -> None:
    """List the prices of your models, or search what is listed and in the price book."""
    book = PriceBook.builtin()
    prices: list[tuple[str, Price | None]]
    if filter is None:
        read = load_config(config)
        with prices_of(read) as listed:
            catalog = Catalog(read, prices=listed)
            prices = [(name, catalog.price(name)) for name in read.models]
    else:
        of_the_book = ((name, facts.price) for name, facts in book.entries(filter))
        prices = [*islice(chain(_listed(config, filter), of_the_book), limit)]
    if as_json:
        rows = [{"model": name, "price": price_json(price) if price else None} for name, price in prices]
        return print_json(rows)
    if prices:
        print_table(_COLUMNS, [_row(name, price) for name, price in prices])
    found = sum(1 for _ in book.entries(filter or ""))
    more = "models of the book match" if filter else "models are in the book: bursar price ls FILTER"
    console().print(f"USD per million tokens; {found:,} {more}", style="dim", soft_wrap=True)
    return console().print(f"book: {book.source}, taken {book.taken}", style="dim", soft_wrap=True)


def _listed(config: Path, filter: str) -> Iterator[tuple[str, Price]]:
    """The prices that were imported or measured, by name and day; none where there is no configuration."""
    if not config.exists():
        return
    with prices_of(load_config(config)) as found:
        for one in [] if isinstance(found, PriceBook) else found.ls(filter):
            yield one.name, one.facts.price


def _row(name: str, price: Price | None) -> tuple[str, ...]:
    if price is None:
        return name, "-", "-", "-", "no price"
    source = "book" if price.id.startswith("book:") else price.source
    if source != "book" and price.effective != date.min:
        source = f"{source}, from {price.effective}"
    if price.is_free:
        return name, "free", "free", "free", source
    plain_input, cached = price.input_usd_per_mtok, price.cache_read_usd_per_mtok
    rates = (plain_input, plain_input if cached is None else cached, price.output_usd_per_mtok)
    return name, *map(rate_text, rates), source
