"""From a letter to the bytes of a message.

In the shape that mail clients expect:

multipart/mixed                  (only with attachments)
├─ multipart/alternative         (only with HTML)
│  ├─ text/plain
│  └─ multipart/related          (only with images)
│     ├─ text/html
│     └─ image/png …             inline, by Content-ID
└─ attachments
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

from batchd import __version__
from batchd.mail.addresses import Mailbox, unique
from batchd.mail.headers import address_line, text_line, token_line

# Everything in seven bits: no server on the way has to know 8BITMIME, and none rewrites a body.
_POLICY = SMTP.clone(cte_type="7bit")
_NOT_AN_ID = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Image:
    """A PNG that the HTML shows as `<img src="cid:NAME">`."""

    name: str
    png: bytes


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that comes with the message. `media_type` is like "text/csv"."""

    filename: str
    media_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Letter:
    """What a person would say about a message. `message_id` is without the angle brackets; `list_id` names a series."""

    sender: Mailbox
    subject: str
    text: str
    message_id: str
    date: datetime
    to: tuple[Mailbox, ...] = ()
    cc: tuple[Mailbox, ...] = ()
    bcc: tuple[Mailbox, ...] = ()
    reply_to: tuple[Mailbox, ...] = ()
    html: str | None = None
    images: tuple[Image, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    list_id: str | None = None


@dataclass(frozen=True, slots=True)
class Parcel:
    """A message ready to go. `recipients` is the envelope: everybody, the bcc too, each once."""

    message_id: str
    sender: str
    recipients: tuple[str, ...]
    needs_utf8: bool
    content: bytes = field(repr=False)


def message_id(store_id: str, run_id: int, domain: str) -> str:
    """Return the id of the message that a run sends: the same on every attempt, another one for every other run."""
    return f"batchd.{run_id}.{store_id}@{domain}"


def list_id(name: str, domain: str) -> str:
    """Return the List-Id (RFC 2919) of a job's messages, so that people can file them by it."""
    return f"{_NOT_AN_ID.sub('-', name).strip('-') or 'job'}.batchd.{domain}"


def compose(letter: Letter) -> Parcel:
    """Return the letter as a parcel; raises ValueError for a header that could not be one."""
    everybody = unique((*letter.to, *letter.cc, *letter.bcc))
    named = (letter.sender, *letter.to, *letter.cc, *letter.reply_to)
    needs_utf8 = any(mailbox.needs_utf8 for mailbox in (*named, *everybody))
    head = "".join(_headers(letter))
    return Parcel(
        message_id=letter.message_id,
        sender=letter.sender.address,
        recipients=tuple(mailbox.address for mailbox in everybody),
        needs_utf8=needs_utf8,
        content=head.encode("utf-8") + _body(letter).as_bytes(policy=_POLICY),
    )


def _headers(letter: Letter) -> list[str]:
    lines = [
        address_line("From", [letter.sender]),
        address_line("To", letter.to) if letter.to else "To: undisclosed-recipients:;\r\n",
    ]
    lines += [address_line("Cc", letter.cc)] if letter.cc else []
    lines += [address_line("Reply-To", letter.reply_to)] if letter.reply_to else []
    lines += [
        text_line("Subject", letter.subject),
        token_line("Date", format_datetime(letter.date)),
        token_line("Message-ID", f"<{letter.message_id}>"),
    ]
    lines += [token_line("List-Id", f"<{letter.list_id}>")] if letter.list_id else []
    # RFC 3834, and what Exchange understands: no out-of-office notes to a machine.
    lines += [
        token_line("Auto-Submitted", "auto-generated"),
        token_line("X-Auto-Response-Suppress", "All"),
        token_line("X-Mailer", f"batchd/{__version__}"),
    ]
    return lines


def _body(letter: Letter) -> EmailMessage:
    body = EmailMessage(policy=_POLICY)
    body.set_content(_with_newline(letter.text))
    if letter.html is not None:
        body.add_alternative(_with_newline(letter.html), subtype="html", cte="quoted-printable")
        *_, html = body.iter_parts()
        for image in letter.images:
            html.add_related(
                image.png,
                maintype="image",
                subtype="png",
                cid=f"<{image.name}>",
                disposition="inline",
                filename=f"{image.name}.png",
            )
    for attachment in letter.attachments:
        main, _, sub = attachment.media_type.partition("/")
        body.add_attachment(attachment.content, maintype=main, subtype=sub, filename=attachment.filename)
    return body


def _with_newline(text: str) -> str:
    """Return the text with unix line ends and one at its end, without what cannot be encoded."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n")
    return lines.encode("utf-8", "replace").decode("utf-8").replace("\x00", "") + "\n"
