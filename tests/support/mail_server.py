"""A real SMTP server that keeps what it was sent."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword

__all__ = ["MailServer", "self_signed"]


@dataclass
class MailServer:
    """Listens on a free port of 127.0.0.1 while entered; `then` answers recipients once each, before all is well."""

    then: list[str] = field(default_factory=list)
    received: list[EmailMessage] = field(default_factory=list)
    logins: list[tuple[str, str]] = field(default_factory=list)
    certificate: Path | None = None
    """With its key in one file; then STARTTLS and a login are required."""

    port: int = 0

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Envelope, address: str, _options: Any) -> str:
        """Answer one recipient."""
        if self.then:
            return self.then.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Envelope) -> str:
        """Keep one message."""
        content = cast(bytes, envelope.content)
        self.received.append(message_from_bytes(content, policy=default))
        return "250 OK"

    def __enter__(self) -> Self:
        how: dict[str, Any] = {}
        if self.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate)
            how = {
                "tls_context": context,
                "require_starttls": True,
                "auth_required": True,
                "authenticator": self._authenticated,
            }
        self._controller = Controller(self, hostname="127.0.0.1", port=_free_port(), **how)
        self._controller.start()
        self.port = self._controller.port
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._controller.stop()

    def _authenticated(self, *given: Any) -> AuthResult:
        login = cast(LoginPassword, given[-1])
        self.logins.append((login.login.decode(), login.password.decode()))
        return AuthResult(success=self.logins[-1] == ("bursar", "s3cret"))


def self_signed(folder: Path) -> Path:
    """A certificate of localhost with its key."""
    file = folder / "localhost.pem"
    made = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    named = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    into = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")]
    subprocess.run(["openssl", "req", *made, *named, *into], check=True, capture_output=True)
    file.write_text((folder / "key.pem").read_text() + (folder / "certificate.pem").read_text())
    return file


def _free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        return cast(int, listener.getsockname()[1])
