"""Keys of the gateway: made, listed, found by their hash, and revoked. Each pays by a run of its own in the ledger."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.engine import RowMapping

from bursar.budget.errors import ConflictError, NotFoundError, UsageError
from bursar.budget.ledger import Ledger
from bursar.budget.limits import Limits
from bursar.budget.scope import Scope
from bursar.budget.windows import from_us, to_us, utc_now
from bursar.runtime.runs.schema import gateway_key
from bursar.runtime.service.key_text import HINT_CHARACTERS, hash_of_key, new_key

__all__ = ["NOBODYS_AGENT", "Key", "KeyTerms", "Keys"]

NOBODYS_AGENT = "gateway"
"""Who pays beside the tenant for the calls of a key that belongs to no agent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyTerms:
    """Whose a key is, and what it may be used for."""

    tenant: str
    agent: str | None = None
    team: str | None = None
    user: str | None = None
    name: str | None = None
    """For people."""

    asks_for: Sequence[str] | None = None
    """Tiers, models and `agent:NAME`; None = whatever the tenant may use."""

    limits: Limits | None = None
    """What all calls by the key together may come to; of these only what is written down counts."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    expires_at: datetime | None = None

    def scope(self, key_id: str, organisation: str | None) -> Scope:
        """Who pays for the calls by the key of this id."""
        return Scope(
            tenant=self.tenant,
            agents=(self.agent or NOBODYS_AGENT,),
            run_id=key_id,
            organisation=organisation,
            team=self.team,
            user=self.user,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key as it is kept; its text is not."""

    id: str
    hint: str
    """The beginning of its text."""

    terms: KeyTerms
    created_at: datetime
    created_by: str
    revoked_at: datetime | None
    revoked_by: str | None

    def is_valid(self, now: datetime) -> bool:
        """Whether it may be used."""
        expires = self.terms.expires_at
        return self.revoked_at is None and (expires is None or now < expires)


class Keys:
    """The keys of one store. Blocking, and safe to use from several threads."""

    def __init__(self, ledger: Ledger, secret: bytes | None, *, clock: Callable[[], datetime] = utc_now) -> None:
        """Without the secret keys can be listed and revoked, and neither made nor found."""
        self._ledger = ledger
        self._store = ledger.store
        self._secret = secret
        self._clock = clock

    def create(self, terms: KeyTerms, *, organisation: str | None = None, by: str) -> tuple[Key, str]:
        """Make a key; returns it with its text, which nobody can read again."""
        now = self._clock()
        if terms.expires_at is not None and terms.expires_at <= now:
            raise UsageError(f"a key that expires at {terms.expires_at.isoformat()} could not be used any more")
        text, key_id = new_key(), f"key_{secrets.token_hex(6)}"
        limits = _only_given(terms.limits or Limits.unlimited())
        # The limits first: a key without them must not exist, while limits without a key bound nothing.
        self._ledger.gates.open(terms.scope(key_id, organisation), limits)
        row = {
            "id": key_id,
            "hash": hash_of_key(text, self._required_secret()),
            "hint": text[:HINT_CHARACTERS],
            "name": terms.name,
            "tenant": terms.tenant,
            "agent": terms.agent,
            "team": terms.team,
            "user": terms.user,
            "asks_for": None if terms.asks_for is None else json.dumps(list(terms.asks_for)),
            "limits": json.dumps(limits.to_record()),
            "requests_per_minute": terms.requests_per_minute,
            "tokens_per_minute": terms.tokens_per_minute,
            "created_us": to_us(now),
            "created_by": by,
            "expires_us": None if terms.expires_at is None else to_us(terms.expires_at),
        }
        with self._store.write(durable=True) as connection:
            connection.execute(insert(gateway_key).values(row))
        return self.get(key_id), text

    def ls(self, tenant: str | None = None) -> list[Key]:
        """The keys, the newest first; of one tenant, where it is named."""
        query = select(gateway_key).order_by(gateway_key.c.created_us.desc(), gateway_key.c.id)
        if tenant is not None:
            query = query.where(gateway_key.c.tenant == tenant)
        with self._store.read() as connection:
            return [_key(row) for row in connection.execute(query).mappings()]

    def get(self, key_id: str) -> Key:
        """A key by its id; raises NotFoundError."""
        found = self._one(gateway_key.c.id == key_id)
        if found is None:
            raise NotFoundError(f"there is no key {key_id}", next_step="bursar key ls")
        return found

    def find(self, text: str) -> Key | None:
        """The key of this text, valid or not."""
        return self._one(gateway_key.c.hash == hash_of_key(text, self._required_secret()))

    def revoke(self, key_id: str, *, by: str) -> Key:
        """Revoke a key at once: from here on the ledger refuses its calls, also one that passed the gateway's door.

        Raises NotFoundError, and ConflictError for a key that is revoked already.
        """
        found, now = self.get(key_id), to_us(self._clock())
        if found.revoked_at is None:  # the ledger first: a key that is revoked must not pay, whatever happens here
            self._ledger.gates.cancel(found.terms.scope(key_id, None).run_path, author=by)
        valid = (gateway_key.c.id == key_id) & gateway_key.c.revoked_us.is_(None)
        with self._store.write(durable=True) as connection:
            changed = connection.execute(update(gateway_key).where(valid).values(revoked_us=now, revoked_by=by))
        if not changed.rowcount:
            raise ConflictError(f"key {key_id} is revoked already", next_step="bursar key ls")
        return self.get(key_id)

    def _one(self, which: Any) -> Key | None:
        with self._store.read() as connection:
            found = connection.execute(select(gateway_key).where(which)).mappings().first()
        return None if found is None else _key(found)

    def _required_secret(self) -> bytes:
        if self._secret is None:
            raise UsageError("keys cannot be made or found without the secret under which they are hashed")
        return self._secret


def _only_given(limits: Limits) -> Limits:
    """The limits that were written down; a run's safe defaults are not a key's."""
    return Limits.unlimited().tightened(limits)


def _key(row: RowMapping) -> Key:
    terms = KeyTerms(
        tenant=row["tenant"],
        agent=row["agent"],
        team=row["team"],
        user=row["user"],
        name=row["name"],
        asks_for=None if row["asks_for"] is None else tuple(json.loads(row["asks_for"])),
        limits=Limits.from_record(json.loads(row["limits"])),
        requests_per_minute=row["requests_per_minute"],
        tokens_per_minute=row["tokens_per_minute"],
        expires_at=_time(row["expires_us"]),
    )
    return Key(
        id=row["id"],
        hint=row["hint"],
        terms=terms,
        created_at=from_us(row["created_us"]),
        created_by=row["created_by"],
        revoked_at=_time(row["revoked_us"]),
        revoked_by=row["revoked_by"],
    )


def _time(at_us: int | None) -> datetime | None:
    return None if at_us is None else from_us(at_us)
