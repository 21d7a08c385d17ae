"""People who are told of alerts by e-mail, and the server that takes their mail."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from bursar.budget.alerts.endpoints import AlertKind, Reader, check_kinds
from bursar.budget.errors import ConfigError

__all__ = ["ADDRESS", "Mailbox", "Security", "Smtp", "check_address"]

Security = Literal[
    "starttls",  # the connection turns to TLS before anything is said
    "tls",  # the connection is TLS from its first byte
    "none",  # in the clear
]

ADDRESS = r"^[A-Za-z0-9._%+=-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*$"
"""The addresses that any two mail servers take to be the same: no quotes, no comments, no names beside them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Smtp:
    """A server that takes mail."""

    host: str
    port: int = 587
    security: Security = "starttls"
    sender: str
    """The address that mail comes from."""

    user: str | None = None
    password: str | None = field(default=None, repr=False)
    """Never shown."""

    def __post_init__(self) -> None:
        check_address(self.sender)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mailbox:
    """One person's address; raises ConfigError for one that cannot be used."""

    address: str
    person: str
    """Who is told of what is for them, and of what is for everybody."""

    tenant: str
    smtp: Smtp
    kinds: Sequence[AlertKind] | None = None
    """Which kinds of alert; None for all."""

    def __post_init__(self) -> None:
        check_address(self.address)
        check_kinds(self.kinds or ())

    @property
    def url(self) -> str:
        """What deliveries to it are known by."""
        return f"mailto:{self.address}"

    @property
    def reader(self) -> Reader:
        """What it reads of the outbox."""
        return Reader(name=self.url, tenant=self.tenant, kinds=self.kinds, person=self.person)


def check_address(address: str) -> None:
    """Raise ConfigError for what is no e-mail address, or not one that every server reads alike."""
    if not re.fullmatch(ADDRESS, address):
        raise ConfigError(f"{address!r} is no e-mail address such as dana@example.com")
