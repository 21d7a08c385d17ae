"""`bursar price ls`."""

from __future__ import annotations

from itertools import islice
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
    filter: Annotated[str | None, Parameter(name="FILTER", help="A part of provider/model in the price book.")] = None,
    /,
    *,
    limit: Annotated[int, Parameter(help="At most so many.", validator=Number(gte=1, lte=10_000))] = 40,
    config: ConfigFile = CONFIG_FILE,
    as_json: AsJson = False,
) -> None:
    """List the prices of your models, or search the price book."""
    book = PriceBook.builtin()
    if filter is None:
        read = load_config(config)
        with prices_of(read) as listed:
            catalog = Catalog(read, prices=listed)
            prices = {name: catalog.price(name) for name in read.models}
    else:
        prices = {name: facts.price for name, facts in islice(book.entries(filter), limit)}
    if as_json:
        rows = [{"model": name, "price": price_json(price) if price else None} for name, price in prices.items()]
        return print_json(rows)
    if prices:
        print_table(_COLUMNS, [_row(name, price) for name, price in prices.items()])
    found = sum(1 for _ in book.entries(filter or ""))
    more = "models of the book match" if filter else "models are in the book: bursar price ls FILTER"
    console().print(f"USD per million tokens; {found:,} {more}", style="dim", soft_wrap=True)
    return console().print(f"book: {book.source}, taken {book.taken}", style="dim", soft_wrap=True)


def _row(name: str, price: Price | None) -> tuple[str, ...]:
    if price is None:
        return name, "-", "-", "-", "no price"
    source = "book" if price.id.startswith("book:") else price.source
    if price.is_free:
        return name, "free", "free", "free", source
    plain_input, cached = price.input_usd_per_mtok, price.cache_read_usd_per_mtok
    rates = (plain_input, plain_input if cached is None else cached, price.output_usd_per_mtok)
    return name, *map(rate_text, rates), source
