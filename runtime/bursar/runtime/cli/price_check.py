"""`bursar price check`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from bursar.budget.pricing.book import PriceBook
from bursar.budget.pricing.prices import Price
from bursar.runtime.cli.exits import Exit
from bursar.runtime.cli.options import CONFIG_FILE, AsJson, ConfigFile
from bursar.runtime.cli.output import console, print_error, print_json
from bursar.runtime.cli.price_changes import PriceChange, changed, differing
from bursar.runtime.cli.price_source import prices_of
from bursar.runtime.cli.words import counted, plain, rates_text
from bursar.runtime.config import Config, load_config
from bursar.runtime.models.catalog import Catalog

if TYPE_CHECKING:
    from bursar.budget.pricing.book import ModelFacts
    from bursar.budget.pricing.pricelist import PriceList

__all__ = ["check"]

NAMES_SHOWN_MAX = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What there is to say about the prices in force, by the name of a configuration's model."""

    unpriced: list[str]
    stale: dict[str, str]
    differing: dict[str, str]
    listed: dict[str, str]
    """What the store lists otherwise than the book, by `provider/model`, in use here or not."""

    book: str


def check(
    file: Annotated[Path | None, Parameter(name="FILE", help="A file of prices to compare with.")] = None,
    /,
    *,
    days: Annotated[int, Parameter(help="Prices older than this are stale.", validator=Number(gte=1))] = 90,
    config: ConfigFile = CONFIG_FILE,
    as_json: AsJson = False,
) -> int:
    """Find models without a price, with an old one, or with another than the book or a file says."""
    read, book, today = load_config(config), PriceBook.builtin(), datetime.now(UTC).date()
    with prices_of(read) as listed:
        catalog = Catalog(read, prices=listed)
        prices = {name: catalog.price(name) for name in read.models}
        changes = _listed(listed, book)
    others = {f"the book of {book.taken}": _by_name(read, book), **_of_file(read, file, today)}
    found = _Found(
        unpriced=[name for name, price in prices.items() if price is None],
        stale={name: text for name, price in prices.items() if price and (text := _age(price, today, days))},
        differing={
            name: "; ".join(texts)
            for name, price in prices.items()
            if price and (texts := [text for who, other in others.items() if (text := _said(price, other[name], who))])
        },
        listed={change.name: change.text() for change in changes if change.before is not None},
        book=book.taken.isoformat(),
    )
    if as_json:
        print_json(asdict(found))
    else:
        _tell(found, len(prices))
    _tell_unpriced(read, book, found.unpriced)
    return Exit.ERROR if found.unpriced else Exit.OK


def _listed(prices: PriceBook | PriceList, book: PriceBook) -> list[PriceChange]:
    """The latest row of each model that the store lists, against the book's."""
    if isinstance(prices, PriceBook):
        return []
    latest = {row.name: row.facts for row in prices.ls()}
    return changed({name: book.lookup(*_parted(name)) for name in latest}, latest)


def _parted(name: str) -> tuple[str, str]:
    provider, _, model = name.partition("/")
    return provider, model


def _by_name(config: Config, prices: PriceBook) -> Mapping[str, Price | None]:
    found = {name: prices.lookup(section.provider, section.model or "") for name, section in config.models.items()}
    return {name: facts.price if facts else None for name, facts in found.items()}


def _of_file(config: Config, file: Path | None, today: date) -> Mapping[str, Mapping[str, Price | None]]:
    if file is None:
        return {}
    from bursar.budget.pricing.files import read_price_file  # only where there is a file to read

    prices: Mapping[str, ModelFacts] = read_price_file(file, effective=today).prices
    names = {name: PriceBook.name_of(section.provider, section.model or "") for name, section in config.models.items()}
    return {str(file): {name: prices[key].price if key in prices else None for name, key in names.items()}}


def _age(price: Price, today: date, days: int) -> str | None:
    """Since when a price is believed, if that is too long; what the configuration declares has no day."""
    age = (today - price.effective).days
    return f"its price is of {price.effective}, {age} days ago" if days < age and price.effective != date.min else None


def _said(own: Price, other: Price | None, who: str) -> str | None:
    if other is None or not differing(own, other):
        return None
    mine, theirs = rates_text(own), rates_text(other)
    if mine != theirs:
        return f"{mine}; {who} says {theirs}"
    return f"{mine}; {who} says otherwise: {', '.join(PriceChange(name='', before=own, after=other).lines())}"


def _tell(found: _Found, count: int) -> None:
    for name, text in [*found.differing.items(), *found.stale.items()]:
        console().print(plain(f"{name}: {text}"), soft_wrap=True)
    if found.listed:
        names = ", ".join([*found.listed][:NAMES_SHOWN_MAX])
        more = f" and {len(found.listed) - NAMES_SHOWN_MAX:,} more" if len(found.listed) > NAMES_SHOWN_MAX else ""
        text = f"the store lists {counted(len(found.listed), 'price')} otherwise than the book: {names}{more}"
        console().print(plain(text), soft_wrap=True)
    if not found.unpriced:
        console().print(f"every model has a price ({counted(count, 'model')}; book of {found.book})", soft_wrap=True)


def _tell_unpriced(config: Config, book: PriceBook, unpriced: list[str]) -> None:
    for name in unpriced:
        near = book.near(config.models[name].provider, config.models[name].model or "")
        hint = f"; the book has {', '.join(near)}" if near else ""
        print_error(
            f"model {name} has no price{hint}",
            next_step='price: {input_usd_per_mtok: "...", output_usd_per_mtok: "..."}, price: free, '
            "or bursar price import FILE",
        )
