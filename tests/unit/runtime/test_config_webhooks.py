"""bursar.yaml: who is told of alerts, and no secret of theirs in any message."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from bursar.budget.alerts.endpoints import Endpoint
from bursar.budget.errors import ConfigError
from bursar.runtime.config import Config
from tests.unit.runtime.config_texts import MINIMAL, mistakes, parse

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
HOOK = '{url: "https://hooks.example.com/s3cret", secret_env: HOOK_SECRET}'


def configured(*webhooks: str) -> str:
    return f"{MINIMAL}tenants:\n  acme:\n    webhooks: [{', '.join(webhooks)}]\n"


def refused(config: Config, env: Mapping[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        config.endpoints(env)
    return str(caught.value)


def test_webhooks_of_tenants_and_organisations_become_endpoints_with_their_secrets() -> None:
    text = f"""{MINIMAL}
organisations:
  globex: {{budgets: [{{usd: 5}}], webhooks: [{HOOK}]}}
tenants:
  acme: {{webhooks: [{HOOK.replace("}", ", kinds: [run.loop]}")}]}}
"""
    url = "https://hooks.example.com/s3cret"
    assert parse(text).endpoints({"HOOK_SECRET": SECRET}) == [
        Endpoint(url=url, secret=SECRET, tenant="org:globex"),
        Endpoint(url=url, secret=SECRET, tenant="acme", kinds=["run.loop"]),
    ]


def test_a_secret_that_is_not_there_is_named_by_its_variable_at_its_place() -> None:
    assert refused(parse(configured(HOOK)), {}) == (
        'bursar.yaml:6:70: tenants.acme.webhooks[0].secret_env = "HOOK_SECRET": the environment variable HOOK_SECRET is'
        " not set, and the webhook needs it -> export HOOK_SECRET=..."
    )


def test_a_secret_that_signs_nothing_is_not_shown() -> None:
    said = refused(parse(configured(HOOK)), {"HOOK_SECRET": "hunter2"})
    assert "HOOK_SECRET holds no secret" in said
    assert "24 to 64 random bytes in base64" in said
    assert "hunter2" not in said


@pytest.mark.parametrize(
    ("webhook", "expected"),
    [
        (HOOK.replace("https", "http"), "url: the url of a webhook: expected https: http:// is for this machine only"),
        (HOOK.replace("hooks", "dana:pw@hooks"), "without user or fragment"),
        (HOOK.replace("HOOK_SECRET", SECRET), "expected the name of an environment variable"),
        (HOOK.replace("}", ", kinds: [run.lop]}"), "kinds[0]"),
        (HOOK.replace("}", ", kinds: []}"), "must not be empty"),
        ("{url: https://example.com/}", "secret_env: this key is required"),
    ],
)
def test_a_webhook_that_cannot_be_is_refused_without_its_url_or_secret(webhook: str, expected: str) -> None:
    (said,) = mistakes(configured(webhook))
    assert expected.removeprefix("url: the url of a webhook: ") in said
    assert "s3cret" not in said
    assert SECRET not in said


def test_one_url_is_told_once() -> None:
    (said,) = mistakes(configured(HOOK, HOOK))
    assert "webhooks[1].url: the same URL is in webhook [0] already" in said
