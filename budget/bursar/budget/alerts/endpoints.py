"""Who reads the outbox, and the URLs that are told of alerts, each with the secret that signs what is sent to it."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args
from urllib.parse import urlsplit

from bursar.budget.errors import ConfigError

__all__ = ["ALERT_KINDS", "NOTICES", "AlertKind", "Endpoint", "Reader", "check_kinds", "check_secret", "check_url"]

AlertKind = Literal[
    "limit.percent",  # a percent of a limit is used up
    "limit.forecast",  # at the present pace a limit is used up before its window ends
    "call.overage",  # a provider billed more than the bound it was given
    "price.missing",  # a call was made at a model without a price, as the tenant's policy allows
    "run.burn_rate",  # a run spends many times faster than its agent usually does
    "run.loop",  # a run made the same call again and again
    "run.cost_growth",  # the steps of a run become dearer and dearer
    "escalation.opened",  # a run waits for a person
    "escalation.reminder",  # it still does
    "escalation.raised",  # nobody decided in time, and more people may now
    "escalation.assigned",  # somebody was asked to decide
    "escalation.decided",  # somebody did
    "escalation.expired",  # nobody did, and its rule has
    "test",  # somebody tries whether alerts arrive
]
ALERT_KINDS: tuple[AlertKind, ...] = get_args(AlertKind)

NOTICES = frozenset(kind for kind in ALERT_KINDS if kind.startswith("escalation."))
"""What is as it should be, and not for the log of what is not."""


SECRET_BYTES = range(24, 65)
"""How long a secret may be, after the Standard Webhooks specification."""

_URL = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+(/[!-~]*)?(\?[!-~]*)?")
"""What any two readers of URLs take to be the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Which alerts somebody is to be told of."""

    name: str
    """What deliveries to it are known by."""

    tenant: str | None = None
    kinds: Sequence[AlertKind] | None = None
    person: str | None = None
    """Only alerts that are for this person, or for everybody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A URL that is told of a tenant's alerts; raises ConfigError for a URL or a secret that cannot be used."""

    url: str
    """`https://...`, or `http://` on this machine; also what deliveries to it are known by."""

    secret: str = field(repr=False)
    """`whsec_` and 24 to 64 random bytes in base64; never shown."""

    tenant: str
    """Whose alerts; for those about an organisation's budgets, its path: `org:globex`."""

    kinds: Sequence[AlertKind] | None = None
    """Which kinds of alert; None for all."""

    def __post_init__(self) -> None:
        check_url(self.url)
        check_secret(self.secret)
        check_kinds(self.kinds or ())

    @property
    def reader(self) -> Reader:
        """What it reads of the outbox."""
        return Reader(name=self.url, tenant=self.tenant, kinds=self.kinds)


def check_url(url: str) -> None:
    """Raise ConfigError for a URL that alerts must not be sent to.

    The error does not show it: many services put a token into it.
    """
    if not _URL.fullmatch(url) or "\\" in url:
        raise _refused("url", "expected a URL such as https://hooks.example.com/bursar, without user or fragment")
    try:
        parsed = urlsplit(url)
        host, _ = parsed.hostname or "", parsed.port
    except ValueError:
        raise _refused("url", "expected a URL such as https://hooks.example.com/bursar") from None
    if parsed.fragment:
        raise _refused("url", "expected a URL without a fragment")
    if parsed.scheme == "http" and not _is_this_machine(host):
        raise _refused("url", "expected https: http:// is for this machine only (localhost, 127.0.0.1, [::1])")


def check_secret(secret: str) -> None:
    """Raise ConfigError for a secret that signs nothing, without showing it."""
    try:
        size = len(base64.b64decode(secret.removeprefix("whsec_") + "==")) if secret.startswith("whsec_") else 0
    except binascii.Error:
        size = 0
    if size not in SECRET_BYTES:
        text = f"expected whsec_ and {SECRET_BYTES[0]} to {SECRET_BYTES[-1]} random bytes in base64"
        raise _refused("secret_env", text, next_step='export NAME="whsec_$(openssl rand -base64 32)"')


def check_kinds(kinds: Sequence[str]) -> None:
    """Raise ConfigError for a kind of alert that does not exist."""
    if unknown := sorted(set(kinds) - set(ALERT_KINDS)):
        raise _refused("kinds", f"got {unknown[0]!r}, expected some of {', '.join(ALERT_KINDS)}")


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _refused(key: str, text: str, *, next_step: str | None = None) -> ConfigError:
    return ConfigError(f"the {key} of a webhook: {text}", key=f"webhooks.{key}", next_step=next_step)
