"""The mail server in `bursar.yaml`, for those who are told by e-mail."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, Field, model_validator

from bursar.budget.alerts.mailboxes import ADDRESS, Security, Smtp, check_address
from bursar.budget.errors import ConfigError
from bursar.runtime.config_fields import SECTION, Text, VariableName
from bursar.runtime.config_problems import Problem, Problems

__all__ = ["MailAddress", "SmtpConfig"]

HERE = ("localhost", "127.0.0.1", "::1")


def _address(value: str) -> str:
    try:
        check_address(value)
    except ConfigError:
        raise ValueError("expected an e-mail address such as dana@example.com") from None
    return value


MailAddress = Annotated[str, AfterValidator(_address), Field(json_schema_extra={"pattern": ADDRESS})]
"""One plain address."""


class SmtpConfig(BaseModel):
    """The server that takes mail to people."""

    model_config = SECTION

    host: Text
    """Its name."""

    port: Annotated[int, Field(ge=1, le=65_535)] = 587
    """The port that it listens at."""

    security: Security = "starttls"
    """`starttls`: the connection turns to TLS before anything is said; `tls`: it is TLS from its first byte, mostly at
    port 465; `none`: in the clear, for a server on this machine only."""

    sender: MailAddress
    """The address that mail comes from."""

    user: Text | None = None
    """Who logs in; without it nobody does."""

    password_env: VariableName | None = None
    """The environment variable that holds the user's password."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.security == "none" and self.host not in HERE:
            text = "expected starttls or tls: none is for a server on this machine only (localhost, 127.0.0.1, ::1)"
            raise Problems([Problem(path=("security",), text=text)])
        if (self.user is None) != (self.password_env is None):
            raise Problems([Problem(path=("password_env",), text="expected it where user is given, and only there")])
        return self

    def server(self, password: str | None) -> Smtp:
        """The server, ready to be logged in to."""
        given = self.model_dump(exclude={"password_env"})
        return Smtp(**given, password=password)
