"""`bursar key create | ls | revoke`: who may call the gateway, and up to what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from bursar.budget.errors import UsageError
from bursar.budget.limits import Limits
from bursar.runtime.cli.books import Books, open_books
from bursar.runtime.cli.moments import ahead
from bursar.runtime.cli.options import CONFIG_FILE, AsJson, By, ConfigFile, Count, DryRun, Tenant, author
from bursar.runtime.cli.output import Column, console, print_json, print_next, print_table
from bursar.runtime.cli.shapes import money, time_json
from bursar.runtime.cli.words import plain, shown_time
from bursar.runtime.config_problems import nearest

if TYPE_CHECKING:
    from bursar.budget.amounts import Amounts
    from bursar.runtime.config import Config
    from bursar.runtime.service.keys import Key, KeyTerms

__all__ = ["create", "ls", "revoke"]

_COLUMNS: Sequence[Column] = (
    ("key", "whole"),
    ("begins", "whole"),
    "for",
    ("spent", "right"),
    "limits",
    ("state", "whole"),
    "name",
)

KeyId = Annotated[str, Parameter(name="KEY", help="A key's id, such as key_0198c2f4b7a3.")]


def create(
    *,
    tenant: Annotated[str, Parameter(help="Who pays.")],
    agent: Annotated[str | None, Parameter(help="The agent that pays beside the tenant; calls name no other.")] = None,
    team: Annotated[str | None, Parameter(help="Whose budget pays too, inside the tenant's.")] = None,
    user: Annotated[str | None, Parameter(help="Whose budget pays too, of the tenant and of the team.")] = None,
    tiers: Annotated[str | None, Parameter(help="Only these tiers: small,auto.")] = None,
    models: Annotated[str | None, Parameter(help="Only these models and agents: mini,agent:support.")] = None,
    limits: Annotated[
        str | None, Parameter(help="What all its calls together may come to: usd=5,steps=100,tokens=200000.")
    ] = None,
    rpm: Annotated[Count, Parameter(help="At most so many requests a minute.")] = None,
    tpm: Annotated[Count, Parameter(help="At most so many tokens a minute.")] = None,
    expires: Annotated[str | None, Parameter(help="Until when it may be used: 30d, 12h, 2026-12-01.")] = None,
    name: Annotated[str | None, Parameter(help="What people know it by.")] = None,
    by: By = None,
    config: ConfigFile = CONFIG_FILE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Make a key for the gateway, and show it this once."""
    from bursar.runtime.service.key_secret import key_secret
    from bursar.runtime.service.keys import Keys, KeyTerms
    from bursar.runtime.tenants import organisation_of, require_team

    with open_books(config) as books:
        organisation = organisation_of(books.config, tenant)
        require_team(books.config, tenant, team)
        terms = KeyTerms(
            tenant=tenant,
            agent=agent,
            team=team,
            user=user,
            name=name,
            asks_for=_asks_for(books.config, tiers, models),
            limits=_limits(limits),
            requests_per_minute=_rate("--rpm", rpm),
            tokens_per_minute=_rate("--tpm", tpm),
            expires_at=None if expires is None else ahead(expires, "UTC"),
        )
        terms.scope("key_of_nobody", organisation)  # refuses names that cannot be
        if dry_run:
            return print_json({"dry_run": True, **_terms_json(terms)}) if as_json else _print_would(terms)
        keys = Keys(books.ledger, key_secret(books.config, make=True))
        made, text = keys.create(terms, organisation=organisation, by=author(by))
    if as_json:
        return print_json({"key": text, **_key_json(made)})
    console().print(text, soft_wrap=True)
    notes = console(stderr=True)
    notes.print(f"{made.id} for {_whose(terms)}; the key is shown this once, and only its hash is kept", soft_wrap=True)
    return None


def ls(
    *,
    tenant: Tenant = None,
    everything: Annotated[
        bool, Parameter(name="--all", help="Those too that are revoked or expired.", negative="")
    ] = False,
    config: ConfigFile = CONFIG_FILE,
    as_json: AsJson = False,
) -> None:
    """List keys, the newest first, with what they spent."""
    now = datetime.now(UTC)
    with open_books(config) as books:
        found = [(key, _spent(books, key)) for key in _keys(books).ls(tenant) if everything or key.is_valid(now)]
    if as_json:
        print_json([{**_key_json(key), "spent_usd": money(spent.nanousd)} for key, spent in found])
    elif not found:
        console().print("no keys")
        print_next(["bursar key create --tenant TENANT"], config)
    else:
        print_table(_COLUMNS, [_row(key, spent, now) for key, spent in found])


def revoke(
    key: KeyId, /, *, by: By = None, config: ConfigFile = CONFIG_FILE, dry_run: DryRun = False, as_json: AsJson = False
) -> None:
    """Revoke a key at once; its calls are refused from then on."""
    with open_books(config) as books:
        keys = _keys(books)
        found = keys.get(key) if dry_run else keys.revoke(key, by=author(by))
    if as_json:
        return print_json({**({"dry_run": True} if dry_run else {}), **_key_json(found)})
    said = "would be revoked; nothing was changed" if dry_run else "is revoked: its calls are refused from now on"
    return console().print(f"{found.id} of {_whose(found.terms)} {said}", soft_wrap=True)


def _keys(books: Books) -> Any:
    from bursar.runtime.service.keys import Keys

    return Keys(books.ledger, None)


def _spent(books: Books, key: Key) -> Amounts:
    return books.ledger.reports.spent(key.terms.scope(key.id, None).run_path)


def _asks_for(config: Config, tiers: str | None, models: str | None) -> tuple[str, ...] | None:
    """The names that the key may ask for; raises UsageError for one that stands for nothing."""
    if tiers is None and models is None:
        return None
    agents = [f"agent:{name}" for name in config.agents]
    return (
        *_known("--tiers", tiers, "tier", [*config.tiers, "auto"]),
        *_known("--models", models, "model", [*config.models, *agents]),
    )


def _known(option: str, given: str | None, noun: str, known: Iterable[str]) -> list[str]:
    names = [name.strip() for name in (given or "").split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise UsageError(f"{option} {name!r}: there is no such {noun}{nearest(name, list(known))}")
    return names


_LIMITS = {"usd": "cost_usd", "steps": "steps", "tokens": "tokens"}


def _limits(given: str | None) -> Limits | None:
    if given is None:
        return None
    expected = "--limits usd=5,steps=100,tokens=200000"
    found: dict[str, Any] = {}
    for part in given.split(","):
        name, _, value = part.strip().partition("=")
        if name not in _LIMITS or not value or _LIMITS[name] in found:
            raise UsageError(f"--limits {part.strip()!r}: expected some of {', '.join(_LIMITS)}", next_step=expected)
        if name != "usd" and not (value.isascii() and value.isdigit()):
            raise UsageError(f"--limits {name}={value!r}: expected a whole number", next_step=expected)
        found[_LIMITS[name]] = value if name == "usd" else int(value)
    return Limits.unlimited().tightened(Limits(**found))


def _rate(option: str, given: int | None) -> int | None:
    if given == 0:
        raise UsageError(f"{option} 0 would let nothing through", next_step="bursar key revoke KEY")
    return given


def _print_would(terms: KeyTerms) -> None:
    console().print(f"would make a key for {_whose(terms)}, {_limits_text(terms)}; nothing was changed", soft_wrap=True)


def _whose(terms: KeyTerms) -> str:
    return plain(f"{terms.tenant}/{terms.agent}" if terms.agent else terms.tenant)


def _limits_text(terms: KeyTerms) -> str:
    limits, said = terms.limits, []
    if limits is not None and limits.cost_usd is not None:
        said.append(f"${limits.cost_usd}")
    if limits is not None:
        said += [f"{count:,} {unit}" for unit in ("steps", "tokens") if (count := getattr(limits, unit)) is not None]
    said += [f"{terms.requests_per_minute:,} requests/min"] if terms.requests_per_minute else []
    said += [f"{terms.tokens_per_minute:,} tokens/min"] if terms.tokens_per_minute else []
    return ", ".join(said) or "no limits of its own"


def _row(key: Key, spent: Amounts, now: datetime) -> tuple[str, ...]:
    from bursar.budget.money import format_usd

    state = "revoked" if key.revoked_at else "valid" if key.is_valid(now) else "expired"
    if state == "valid" and key.terms.expires_at:
        state = f"until {shown_time(key.terms.expires_at)}"
    asks = "" if key.terms.asks_for is None else f"; only {', '.join(key.terms.asks_for)}"
    limits = f"{_limits_text(key.terms)}{asks}"
    return key.id, key.hint, _whose(key.terms), format_usd(spent.nanousd), limits, state, key.terms.name or "-"


def _terms_json(terms: KeyTerms) -> dict[str, Any]:
    limits = terms.limits or Limits.unlimited()
    return {
        "tenant": terms.tenant,
        "agent": terms.agent,
        "team": terms.team,
        "user": terms.user,
        "name": terms.name,
        "asks_for": None if terms.asks_for is None else list(terms.asks_for),
        "limits": {
            name: None if (limit := getattr(limits, key)) is None else str(limit) if name == "usd" else limit
            for name, key in _LIMITS.items()
            if key in limits.to_record()
        },
        "requests_per_minute": terms.requests_per_minute,
        "tokens_per_minute": terms.tokens_per_minute,
        "expires_at": time_json(terms.expires_at),
    }


def _key_json(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "begins": key.hint,
        **_terms_json(key.terms),
        "created_at": time_json(key.created_at),
        "created_by": key.created_by,
        "revoked_at": time_json(key.revoked_at),
        "revoked_by": key.revoked_by,
    }
