"""webhook: a POST of JSON: batchd's own, signed, or in the form that Slack, Teams or Discord show.

The signature is that of standardwebhooks.com, which many languages have a library for:

    webhook-id         the message's id, the same whenever it is sent again
    webhook-timestamp  seconds since 1970 of this try
    webhook-signature  v1,BASE64(HMAC-SHA256(secret, "{id}.{timestamp}.{body}"))

A receiver compares in constant time, refuses a timestamp that is more than five minutes off, and remembers ids.
"""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any

from pydantic import Field

from batchd.alerts.channel import ChannelSettings, ChannelType, Entry, Handover, Message, Surroundings
from batchd.alerts.http_post import post, url_problem
from batchd.alerts.message_text import headline, lines_of, text, title
from batchd.domain.alert import Told
from batchd.jobs.params import Duration, Secret

_PREFIX = "whsec_"
_SHORTEST_SECRET = 16
_VERSION = 1
_MOST_BLOCKS = 20
_SLACK_TEXT = 2_900
_DISCORD_TEXT = 1_700
_OWN_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature", "content-type", "content-length", "host")
_GREEN, _GREY, _RED = 0x1A7F37, 0x57606A, 0xB42318


class Format(enum.StrEnum):
    """Whose JSON it is."""

    JSON = "json"
    SLACK = "slack"
    TEAMS = "teams"
    DISCORD = "discord"


class WebhookSettings(ChannelSettings):
    """Where to post what."""

    url: Secret = Field(description="Where to POST; a secret, for whoever has it can write there.")
    format: Format = Field(Format.JSON, description="`json` is batchd's own; `slack`, `teams`, `discord` are theirs.")
    secret: Secret | None = Field(
        None,
        description="Key of the signature, `whsec_` with base64 behind it or any text of at least 16 characters. "
        "Only with `json`.",
    )
    headers: dict[str, str] = Field(default_factory=dict, description='More headers: {Authorization = "${TOKEN}"}.')
    timeout: Annotated[Duration, Field(gt=timedelta(0), le=timedelta(seconds=30))] = Field(
        timedelta(seconds=10), description="Longest wait for the connection, and for each part of the answer."
    )


class WebhookChannel:
    """See `Channel`."""

    def __init__(self, settings: WebhookSettings, around: Surroundings) -> None:
        self._settings = settings
        self._around = around

    def send(self, message: Message, handover: Handover) -> str:
        """POST the message."""
        settings = self._settings
        body = json.dumps(_BODIES[settings.format](message), ensure_ascii=False, separators=(",", ":")).encode()
        headers = dict(settings.headers) | {"Content-Type": "application/json"}
        if settings.format is Format.JSON:
            key = None if settings.secret is None else settings.secret.get_secret_value()
            headers |= signed_headers(message.id, self._around.clock.now(), body, key)
        handover.confirm()
        return post(settings.url.get_secret_value(), body, headers, settings.timeout, self._around)


def signed_headers(message_id: str, now: datetime, body: bytes, secret: str | None) -> dict[str, str]:
    """Return the headers of a delivery; without a secret there is no signature."""
    stamp = str(int(now.timestamp()))
    headers = {"webhook-id": message_id, "webhook-timestamp": stamp}
    if secret is not None:
        signed = f"{message_id}.{stamp}.".encode() + body
        digest = hmac.new(_key(secret), signed, hashlib.sha256).digest()
        headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return headers


def json_body(message: Message) -> dict[str, Any]:
    """Return batchd's own form: keys stay, new ones may be added."""
    return {
        "type": "batchd.alert",
        "version": _VERSION,
        "id": message.id,
        "store": message.store_id,
        "made_at": _moment(message.made_at),
        "title": title(message),
        "text": text(message),
        "alerts": [
            {
                "event": entry.told.value,
                "rule": entry.rule or None,
                "subject": entry.subject,
                "job": entry.job,
                "run_id": entry.run_id,
                "incident_id": entry.incident_id,
                "headline": headline(entry),
                "summary": entry.summary,
                "details": dict(entry.details),
                "count": entry.count,
                "opened_at": _moment(entry.opened_at),
                "closed_at": _moment(entry.closed_at),
                "url": entry.link,
            }
            for entry in message.entries
        ],
    }


def slack_body(message: Message) -> dict[str, Any]:
    """Return Slack's form: a text for notifications, and a section an entry."""
    blocks: list[dict[str, Any]] = [
        {
            "type": "section",
            "text": {"type": "mrkdwn", "text": _slack_entry(entry)[:_SLACK_TEXT]},
        }
        for entry in message.entries[:_MOST_BLOCKS]
    ]
    left = len(message.entries) - len(blocks)
    if left > 0:
        blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": f"… and {left} more"}]})
    return {"text": _slack(title(message)), "blocks": blocks}


def teams_body(message: Message) -> dict[str, Any]:
    """Return an Adaptive Card, as Teams' workflows take it."""
    body: list[dict[str, Any]] = [
        {"type": "TextBlock", "size": "Medium", "weight": "Bolder", "wrap": True, "text": title(message)}
    ]
    for entry in message.entries[:_MOST_BLOCKS]:
        color = {Told.RECOVERED: "Good", Told.TEST: "Default"}.get(entry.told, "Attention")
        body.append({"type": "TextBlock", "weight": "Bolder", "wrap": True, "color": color, "text": headline(entry)})
        body += [{"type": "TextBlock", "wrap": True, "spacing": "None", "text": line} for line in lines_of(entry)]
        if entry.link is not None:
            opening = {"type": "Action.OpenUrl", "title": "Open", "url": entry.link}
            body.append({"type": "ActionSet", "actions": [opening]})
    card: dict[str, Any] = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": body,
    }
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    return {"type": "message", "attachments": [attachment]}


def discord_body(message: Message) -> dict[str, Any]:
    """Return Discord's form; nobody is mentioned, whatever a job's error says."""
    embeds = [
        {
            "title": headline(entry)[:250],
            "description": "\n".join(lines_of(entry))[:_DISCORD_TEXT],
            "color": {Told.RECOVERED: _GREEN, Told.TEST: _GREY}.get(entry.told, _RED),
            **({} if entry.link is None else {"url": entry.link}),
        }
        for entry in message.entries[:3]
    ]
    return {"content": title(message), "embeds": embeds, "allowed_mentions": {"parse": []}}


_BODIES = {
    Format.JSON: json_body,
    Format.SLACK: slack_body,
    Format.TEAMS: teams_body,
    Format.DISCORD: discord_body,
}


def _slack_entry(entry: Entry) -> str:
    sign = {Told.RECOVERED: ":white_check_mark:", Told.TEST: ":wave:"}.get(entry.told, ":red_circle:")
    link = [] if entry.link is None else [f"<{_slack(entry.link)}|Open>"]  # first: what is too long loses its end
    return "\n".join([f"{sign} *{_slack(headline(entry))}*", *link, *(_slack(line) for line in lines_of(entry))])


def _slack(written: str) -> str:
    """Return the text without what Slack would read as a link or a mention."""
    return written.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")


def _key(secret: str) -> bytes:
    if secret.startswith(_PREFIX):
        return base64.b64decode(secret.removeprefix(_PREFIX))
    return secret.encode()


def _check(settings: WebhookSettings, has_mail: bool) -> list[tuple[str, str]]:  # noqa: ARG001, FBT001 (its shape)
    found = []
    wrong = url_problem(settings.url.get_secret_value())
    if wrong is not None:
        found.append(("url", wrong))
    if settings.secret is not None:
        found += [("secret", said) for said in _secret_problems(settings)]
    found += [("headers", f"{name}: batchd sets it") for name in settings.headers if name.lower() in _OWN_HEADERS]
    found += _header_problems(settings.headers)
    return found


def _secret_problems(settings: WebhookSettings) -> list[str]:
    assert settings.secret is not None
    if settings.format is not Format.JSON:
        return [f"{settings.format.value} checks no signature; leave it out"]
    secret = settings.secret.get_secret_value()
    try:
        key = _key(secret)
    except (binascii.Error, ValueError):
        return ["what stands behind whsec_ is no base64"]
    return [] if len(key) >= _SHORTEST_SECRET else [f"must have at least {_SHORTEST_SECRET} characters"]


def _header_problems(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    is_bad = [name for name, value in headers.items() if not f"{name}{value}".isprintable() or not name.isascii()]
    return [("headers", f"{name!r} is no header") for name in is_bad]


CHANNEL: ChannelType[Any] = ChannelType(
    name="webhook",
    summary="A POST of JSON: batchd's own, signed, or as Slack, Teams or Discord show it.",
    settings=WebhookSettings,
    build=WebhookChannel,
    example="""\
[alerts.channels.chat]
type = "webhook"
format = "slack"                        # "teams", "discord", or "json" for a program of yours
url = "${SLACK_WEBHOOK}"
""",
    check=_check,
)
