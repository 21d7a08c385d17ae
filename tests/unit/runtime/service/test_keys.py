"""Keys of the gateway, on each kind of store: their text, their hash, their terms and their end."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar.budget.admission import ToolQuote
from bursar.budget.errors import ConfigError, ConflictError, LedgerUnavailable, NotFoundError, UsageError
from bursar.budget.ledger import Ledger
from bursar.budget.limits import Limits
from bursar.budget.refusal import Refusal
from bursar.budget.reservations import Call
from bursar.budget.stores.migrate import migrate
from bursar.runtime.config import Config, parse_config
from bursar.runtime.runs.records import MIGRATIONS
from bursar.runtime.service.key_secret import key_secret
from bursar.runtime.service.key_text import HINT_CHARACTERS, hash_of_key, is_key, new_key
from bursar.runtime.service.keys import Keys, KeyTerms

NOW = datetime(2026, 11, 20, tzinfo=UTC)
SECRET = b"s" * 32
TERMS = KeyTerms(tenant="acme")

CONFIG = """
database: {database}
models: {{demo: {{provider: sim, scenario: support}}}}
tiers: {{small: [demo]}}
{more}
"""


@pytest.fixture
def ledger(store_url: str) -> Iterator[Ledger]:
    """A ledger with the tables of runs beside it."""
    opened = Ledger.open(store_url)
    migrate(opened.store, scripts=MIGRATIONS, version_table="bursar_runs_version")
    yield opened
    opened.close()


@pytest.fixture
def keys(ledger: Ledger) -> Keys:
    return Keys(ledger, SECRET, clock=lambda: NOW)


def test_a_key_is_found_by_its_text_and_says_whose_it_is(keys: Keys) -> None:
    terms = KeyTerms(
        tenant="acme",
        agent="support",
        team="red",
        user="dana",
        name="notebook",
        asks_for=("small", "agent:support"),
        limits=Limits(cost_usd="5"),
        requests_per_minute=60,
        tokens_per_minute=10_000,
        expires_at=NOW + timedelta(days=1),
    )
    made, text = keys.create(terms, by="dana")
    found = keys.find(text)
    assert found == made
    assert made.terms == replace(terms, limits=replace(Limits.unlimited(), cost_usd="5"))
    assert (made.created_by, made.hint) == ("dana", text[:HINT_CHARACTERS])
    assert keys.find(new_key()) is None
    assert keys.ls("globex") == []


def test_a_key_of_another_secret_is_not_found(keys: Keys, ledger: Ledger) -> None:
    _, text = keys.create(TERMS, by="dana")
    assert Keys(ledger, b"t" * 32).find(text) is None
    with pytest.raises(UsageError):
        Keys(ledger, None).find(text)


def test_a_key_may_be_used_until_it_expires(keys: Keys) -> None:
    made, _ = keys.create(KeyTerms(tenant="acme", expires_at=NOW + timedelta(hours=1)), by="dana")
    assert made.is_valid(NOW + timedelta(minutes=59))
    assert not made.is_valid(NOW + timedelta(hours=1))
    with pytest.raises(UsageError):
        keys.create(KeyTerms(tenant="acme", expires_at=NOW), by="dana")


def test_a_revoked_key_may_not_be_used_and_the_ledger_refuses_its_calls(keys: Keys, ledger: Ledger) -> None:
    made, text = keys.create(TERMS, by="dana")
    revoked = keys.revoke(made.id, by="eve")
    assert (revoked.revoked_by, revoked.is_valid(NOW)) == ("eve", False)
    found = keys.find(text)
    assert found == revoked
    refused = ledger.charge(Call(id="call_1", scope=TERMS.scope(made.id, None), epoch=0, node="-"), ToolQuote())
    assert isinstance(refused, Refusal)
    assert refused.cause == "cancelled"
    with pytest.raises(ConflictError):
        keys.revoke(made.id, by="eve")
    with pytest.raises(NotFoundError):
        keys.revoke("key_none", by="eve")


def test_a_revocation_that_was_cut_off_can_be_made_again(
    keys: Keys, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(path: str, *, author: str) -> None:
        raise LedgerUnavailable("away")

    made, _ = keys.create(TERMS, by="dana")
    with monkeypatch.context() as cut_off:
        cut_off.setattr(ledger.gates, "cancel", away)
        with pytest.raises(LedgerUnavailable):
            keys.revoke(made.id, by="eve")
    keys.revoke(made.id, by="eve")
    assert ledger.gates.is_cancelled(TERMS.scope(made.id, None).run_path)


def test_a_keys_text_tells_a_typing_error_by_itself() -> None:
    text = new_key()
    assert is_key(text)
    for place in (4, 20, len(text) - 1):
        other = "a" if text[place] != "a" else "b"
        assert not is_key(text[:place] + other + text[place + 1 :])


@given(st.text())
def test_no_other_text_is_taken_for_a_key(text: str) -> None:
    assert not is_key(text)


def test_two_keys_never_have_the_same_text_or_hash() -> None:
    texts = {new_key() for _ in range(100)}
    assert len({hash_of_key(text, SECRET) for text in texts}) == 100


def config(folder: Path, database: str = "sqlite:///bursar.db", more: str = "") -> Config:
    return parse_config(CONFIG.format(database=database, more=more), file=folder / "bursar.yaml")


def test_the_secrets_file_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        key_secret(config(tmp_path), env={})
    made = key_secret(config(tmp_path), env={}, make=True)
    assert key_secret(config(tmp_path), env={}, make=True) == key_secret(config(tmp_path), env={}) == made
    assert stat.S_IMODE((tmp_path / "bursar.keysecret").stat().st_mode) == 0o600


def test_of_two_who_make_the_secret_at_once_both_read_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def behind_another(draft: str, path: Path) -> None:
        path.write_text("f" * 64)
        link(draft, path)

    monkeypatch.setattr(os, "link", behind_another)
    assert key_secret(config(tmp_path), env={}, make=True) == b"f" * 64
    assert [found.name for found in tmp_path.glob("*keysecret*")] == ["bursar.keysecret"]


def test_a_named_secret_goes_before_the_file_and_postgresql_needs_one(tmp_path: Path) -> None:
    named = config(tmp_path, more="gateway: {key_secret_env: THE_SECRET}")
    assert key_secret(named, env={"THE_SECRET": "x" * 32}, make=True) == b"x" * 32
    assert not (tmp_path / "bursar.keysecret").exists()
    with pytest.raises(ConfigError, match="at least 32 characters"):
        key_secret(named, env={"THE_SECRET": "short"})
    with pytest.raises(ConfigError, match="key_secret_env is needed"):
        key_secret(config(tmp_path, database="postgresql+psycopg://u@h/d"), env={}, make=True)
