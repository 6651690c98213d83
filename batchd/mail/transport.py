"""Which transport the settings mean."""

from __future__ import annotations

from batchd.mail.delivery import MailSettings, Transport
from batchd.mail.folder import FolderTransport
from batchd.mail.smtp import SmtpTransport


def transport_of(settings: MailSettings) -> Transport:
    """Return the folder when one is named, else the server."""
    return SmtpTransport(settings) if settings.folder is None else FolderTransport(settings.folder)
