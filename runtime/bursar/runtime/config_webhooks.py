"""Webhooks in `bursar.yaml`: who is told of a tenant's or an organisation's alerts."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field

from bursar.budget.alerts.endpoints import AlertKind, check_url
from bursar.budget.errors import ConfigError
from bursar.runtime.config_fields import SECTION, VariableName
from bursar.runtime.config_problems import Problem, Problems

__all__ = ["WebhookConfig", "Webhooks"]

_URL = r"^(https://|http://(localhost|127\.|\[::1\]))"


def _url(value: str) -> str:
    try:
        check_url(value)
    except ConfigError as error:
        # Many services put a token into the URL, so it is never shown.
        text = error.message.removeprefix("the url of a webhook: ")
        raise Problems([Problem(path=(), text=text, at_key=True)]) from None
    return value


class WebhookConfig(BaseModel):
    """One endpoint that is told of alerts by signed webhooks, after the Standard Webhooks specification."""

    model_config = SECTION

    url: Annotated[str, AfterValidator(_url), Field(json_schema_extra={"pattern": _URL})]
    """Where alerts are posted: `https://...`, or `http://` on this machine."""

    secret_env: VariableName
    """The environment variable that holds the secret that signs them: `whsec_` and 24 to 64 random bytes in base64."""

    kinds: Annotated[list[AlertKind], Field(min_length=1)] | None = None
    """The kinds of alert that it is told of; without it all of them."""


def _each_once(webhooks: list[WebhookConfig]) -> list[WebhookConfig]:
    first: dict[str, int] = {}
    problems = [
        Problem(path=(index, "url"), text=f"the same URL is in webhook [{first[one.url]}] already", at_key=True)
        for index, one in enumerate(webhooks)
        if first.setdefault(one.url, index) != index
    ]
    if problems:
        raise Problems(problems)
    return webhooks


Webhooks = Annotated[list[WebhookConfig], AfterValidator(_each_once)]
