from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from bursar.budget import Store
from bursar.budget.audit.verify import verify
from bursar.budget.errors import UsageError
from bursar.budget.policies import Policies, Policy
from bursar.budget.testing import PRICE, Clock
from tests.support.journaled import entries_of


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """Each kind of store in turn; whatever a test did to it, its journal is sound at the end."""
    store = Store(store_url)
    yield store
    assert not verify(store).findings
    store.close()


@pytest.fixture
def policies(store: Store, clock: Clock) -> Policies:
    return Policies(store, clock)


def of(policies: Policies, store: Store, tenant: str) -> Policy:
    with store.read() as connection:
        return policies.of(connection, tenant)


def test_an_unpriced_model_is_refused_unless_a_tenant_says_otherwise(policies: Policies, store: Store) -> None:
    assert of(policies, store, "acme") == Policy(unpriced="refuse", ceiling=None)
    policies.set("acme", unpriced="allow_and_alert", author="dana")
    assert of(policies, store, "acme") == Policy(unpriced="allow_and_alert")
    assert of(policies, store, "other") == Policy(), "a policy is one tenant's"
    assert policies.ls() == {"acme": Policy(unpriced="allow_and_alert")}


def test_a_ceiling_price_is_kept_under_an_id_of_the_tenant(policies: Policies, store: Store) -> None:
    set_ = policies.set("acme", unpriced="ceiling_price", ceiling=PRICE, author="dana")
    assert set_.ceiling is not None
    assert set_.ceiling.id.startswith("ceiling:acme#")
    assert set_.ceiling.input_usd_per_mtok == Decimal(1)
    assert of(policies, store, "acme") == set_


def test_a_change_is_journaled_and_a_repetition_is_not(policies: Policies, store: Store) -> None:
    for _ in range(2):
        policies.set("acme", unpriced="ceiling_price", ceiling=PRICE, author="dana", note="asked for")
    (entry,) = entries_of(store, "policy")
    assert (entry["chain"], entry["author"], entry["note"]) == ("acme", "dana", "asked for")
    assert '"unpriced":"ceiling_price"' in entry["detail"]


def test_what_the_command_set_is_not_changed_by_the_configuration(policies: Policies, store: Store) -> None:
    policies.set("acme", unpriced="allow_and_alert", author="bursar.yaml", source="config")
    policies.set("acme", unpriced="refuse", author="dana")
    policies.set("acme", unpriced="allow_and_alert", author="bursar.yaml", source="config")
    assert of(policies, store, "acme") == Policy(unpriced="refuse")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"path": "acme/support"}, "only a tenant has one"),
        ({"path": "org:globex"}, "only a tenant has one"),
        ({"unpriced": "free"}, "expected one of refuse, ceiling_price, allow_and_alert"),
        ({"unpriced": "ceiling_price"}, "a ceiling belongs to ceiling_price"),
        ({"ceiling": PRICE}, "a ceiling belongs to ceiling_price"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(policies: Policies, change: dict[str, Any], said: str) -> None:
    asked = {"path": "acme", "unpriced": "refuse", "author": "dana", **change}
    with pytest.raises(UsageError, match=said):
        policies.set(**asked)
