"""What the tests of report and email share: a context with mail, and the mail that came of it."""

from __future__ import annotations

import email.policy
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from typing import Any

from batchd.db.engine import Database
from batchd.mail.addresses import parse_mailbox
from batchd.mail.delivery import MailSettings, Security
from tests.support.databases import open_database
from tests.support.job_context import DirectContext
from tests.support.smtp_sink import SmtpSink

UNTIL = datetime(2026, 11, 25, 7, 0, tzinfo=UTC)


def mail_to(folder: Path | None, sink: SmtpSink | None = None) -> MailSettings:
    """The settings of a folder, or of a sink."""
    return MailSettings(
        sender=parse_mailbox("batchd <batchd@example.org>"),
        host=None if sink is None else "127.0.0.1",
        port=0 if sink is None else sink.port,
        security=Security.NONE,
        user=None,
        password=None,
        timeout=timedelta(seconds=5),
        ca_file=None,
        folder=folder if sink is None else None,
    )


def context_on(databases: dict[str, Database], folder: Path, **changes: Any) -> DirectContext:
    """A context whose run is scheduled for `UNTIL`, whose mail goes to `folder`/mail, with a store of its own."""
    fields: dict[str, Any] = {
        "scheduled_for": UNTIL,
        "mail": mail_to(folder / "mail"),
        "store": open_database(f"sqlite:///{folder / 'store.db'}", name="store"),
    }
    return DirectContext(databases, **(fields | changes))


def mails(folder: Path) -> list[EmailMessage]:
    """The messages in `folder`/mail, the oldest first."""
    found = []
    for file in sorted((folder / "mail").glob("*.eml"), key=lambda each: each.stat().st_mtime_ns):
        message = BytesParser(policy=email.policy.default).parsebytes(file.read_bytes())
        assert isinstance(message, EmailMessage)
        found.append(message)
    return found


def body(message: EmailMessage, kind: str) -> str:
    """The "html" or the "plain" part."""
    part = message.get_body((kind,))  # type: ignore[arg-type]
    assert part is not None
    content = part.get_content()
    assert isinstance(content, str)
    return content
