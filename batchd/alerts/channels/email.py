"""email: one message to some people, by the config's `[mail]`."""

from __future__ import annotations

from html import escape
from typing import Any

from pydantic import Field

from batchd.alerts.channel import (
    ChannelSettings,
    ChannelType,
    Entry,
    Handover,
    Message,
    Surroundings,
    Undelivered,
)
from batchd.alerts.message_text import headline, lines_of, text, title
from batchd.domain.alert import Told
from batchd.jobs.params import Addresses
from batchd.mail.addresses import AddressInvalid, parse_mailbox
from batchd.mail.delivery import MailRefused, MailUnavailable
from batchd.mail.headers import one_line
from batchd.mail.message import Letter, compose, list_id

_MOST_ENTRIES = 20
_COLORS = {Told.RECOVERED: "#1a7f37", Told.TEST: "#57606a"}
_WRONG = "#b42318"


class EmailSettings(ChannelSettings):
    """Who gets the mail."""

    to: Addresses = Field(min_length=1, description="Who gets it: one address or a list of them.")
    subject_prefix: str = Field("[batchd] ", max_length=80, description="What the subject begins with.")


class EmailChannel:
    """See `Channel`. The Message-ID is the message's own id, so that a copy sent again can be told as one."""

    def __init__(self, settings: EmailSettings, around: Surroundings) -> None:
        self._settings = settings
        self._around = around

    def send(self, message: Message, handover: Handover) -> str:
        """Send one mail to all who do not have it yet; who is refused for good is told of in the answer."""
        mail = self._around.mail
        if mail is None:
            raise Undelivered("there is no [mail] in the config", hint="write one with `host` (or `folder`) and `from`")
        # Imported here: a daemon whose channels are all webhooks needs no SMTP.
        from batchd.mail.transport import transport_of  # noqa: PLC0415

        parcel = compose(
            Letter(
                sender=mail.sender,
                to=tuple(
                    mailbox
                    for mailbox in (parse_mailbox(each) for each in self._settings.to)
                    if mailbox.address not in handover.reached
                ),
                subject=one_line(self._settings.subject_prefix + title(message)),
                text=text(message),
                html=_html(message),
                message_id=f"batchd.alert.{message.id}.{message.store_id}@{mail.sender.domain}",
                date=message.made_at,
                list_id=list_id("alerts", mail.sender.domain),
            )
        )
        try:
            outcome = transport_of(mail).send(parcel, handover.confirm)
        except MailUnavailable as error:
            raise Undelivered(error.message, hint=error.hint, may_have_gone=error.in_doubt) from error
        except MailRefused as error:
            raise Undelivered(error.message, hint=error.hint) from error
        reached = handover.reached | {*outcome.accepted}
        if outcome.deferred or not reached:
            left = {**outcome.refused, **outcome.deferred}
            raise Undelivered("; ".join(f"{who}: {said}" for who, said in left.items()), reached=reached)
        refused = "".join(f"; {who} was refused: {said}" for who, said in outcome.refused.items())
        return f"{mail.place}: {outcome.receipt}{refused}"


def _html(message: Message) -> str:
    parts = [_entry_html(entry) for entry in message.entries[:_MOST_ENTRIES]]
    left = len(message.entries) - len(parts)
    if left > 0:
        parts.append(f"<p>… and {left} more; <code>batchd alerts</code> lists what is open.</p>")
    style = "font-family:system-ui,-apple-system,Segoe UI,sans-serif;font-size:15px;line-height:1.45;color:#1f2328"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>batchd</title></head>'
        f'<body style="{style};margin:16px;max-width:640px">{"".join(parts)}</body></html>'
    )


def _entry_html(entry: Entry) -> str:
    color = _COLORS.get(entry.told, _WRONG)
    lines = "".join(f'<div style="overflow-wrap:anywhere">{escape(line)}</div>' for line in lines_of(entry))
    if entry.link is not None:
        lines += f'<div style="overflow-wrap:anywhere"><a href="{escape(entry.link)}">{escape(entry.link)}</a></div>'
    return (
        f'<div style="border-left:4px solid {color};padding:4px 12px;margin:0 0 16px">'
        f'<div style="font-weight:600;color:{color}">{escape(headline(entry))}</div>{lines}</div>'
    )


def _check(settings: EmailSettings, has_mail: bool) -> list[tuple[str, str]]:  # noqa: FBT001 (its type's shape)
    found = [] if has_mail else [("type", "sends mail, and there is no [mail]; write one with `host` and `from`")]
    return found + [problem for each in settings.to if (problem := _address_problem(each)) is not None]


def _address_problem(address: str) -> tuple[str, str] | None:
    try:
        parse_mailbox(address)
    except AddressInvalid as error:
        return "to", str(error)
    return None


CHANNEL: ChannelType[Any] = ChannelType(
    name="email",
    summary="A mail to some people, by the config's `[mail]`.",
    settings=EmailSettings,
    build=EmailChannel,
    example="""\
[alerts.channels.ops]
type = "email"
to = ["Operations <ops@example.com>"]
""",
    check=_check,
)
