"""An alert as a plain e-mail: what it says, and one attempt to hand it to the server."""

from __future__ import annotations

import asyncio
import json
import smtplib
import ssl
from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

from bursar.budget.alerts.mailboxes import Mailbox, Smtp
from bursar.budget.alerts.webhooks import Answer
from bursar.budget.plain_text import plain

__all__ = ["TIMEOUT_S", "composed", "send"]

TIMEOUT_S = 10.0
"""How long the server may take for each of its answers."""

SUBJECT_MAX = 120


async def send(mailbox: Mailbox, message_id: str, payload: str, at: datetime) -> Answer:
    """Make one attempt, in a thread. No failure of the server raises; a refused address is not tried again."""
    return await asyncio.to_thread(_send, mailbox.smtp, composed(mailbox, message_id, payload, at))


def composed(mailbox: Mailbox, message_id: str, payload: str, at: datetime) -> EmailMessage:
    """The mail about an alert: text alone, and no link, since what agents write is part of it."""
    told = json.loads(payload)
    data, said = told["data"], plain(told["data"]["message"])
    first = " ".join(said.split())
    mail = EmailMessage(policy=SMTP)
    mail["From"], mail["To"] = mailbox.smtp.sender, mailbox.address
    mail["Subject"] = f"[bursar {mailbox.tenant}] " + (
        first if len(first) <= SUBJECT_MAX else f"{first[:SUBJECT_MAX]}..."
    )
    mail["Date"] = format_datetime(at)
    mail["Message-ID"] = f"<{message_id}@{mailbox.smtp.sender.partition('@')[2]}>"  # of each attempt the same
    mail["Auto-Submitted"] = "auto-generated"  # so that no absence note comes back
    lines = [said, "", *([f"Next: {plain(data['next'])}", ""] if data.get("next") else [])]
    lines += [f"{told['type']} of {told['timestamp']}, for {mailbox.person} of {mailbox.tenant}."]
    mail.set_content("\n".join(lines))
    return mail


def _send(smtp: Smtp, mail: EmailMessage) -> Answer:
    try:
        with _connected(smtp) as server:
            if smtp.user:
                server.login(smtp.user, smtp.password or "")
            server.send_message(mail)
    except smtplib.SMTPRecipientsRefused as error:
        code = next(iter(error.recipients.values()))[0]
        return Answer(gone=code >= 500, note=f"the address was refused: {code}")
    except smtplib.SMTPResponseException as error:
        return Answer(note=f"answered {error.smtp_code}")
    except (OSError, smtplib.SMTPException) as error:
        return Answer(note=type(error).__name__)
    return Answer(delivered=True, note="taken by the server")


def _connected(smtp: Smtp) -> smtplib.SMTP:
    trusted = ssl.create_default_context()
    if smtp.security == "tls":
        return smtplib.SMTP_SSL(smtp.host, smtp.port, timeout=TIMEOUT_S, context=trusted)
    server = smtplib.SMTP(smtp.host, smtp.port, timeout=TIMEOUT_S)
    if smtp.security == "starttls":
        try:
            server.starttls(context=trusted)
        except BaseException:
            server.close()
            raise
    return server
