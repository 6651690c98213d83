"""What channels make of a message: signatures, the forms of chats, mails, pings."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from batchd.alerts.catalog import channel_types
from batchd.alerts.channel import Entry, Message
from batchd.alerts.channels.ping import PingSettings, url_for
from batchd.alerts.channels.webhook import discord_body, json_body, signed_headers, slack_body, teams_body
from batchd.alerts.links import page_of
from batchd.alerts.message_text import text, title
from batchd.domain.alert import Told

NOW = datetime(2026, 11, 25, 3, 0, tzinfo=UTC)


def entry(told: Told = Told.OPENED, **changes: Any) -> Entry:
    """A failure of a job, and whatever the test changes."""
    facts = {
        "told": told,
        "rule": "failed",
        "subject": "nightly",
        "job": "nightly",
        "run_id": 42,
        "incident_id": 7,
        "summary": "<!channel> no disk",
        "details": {},
        "count": 1,
        "opened_at": NOW,
        "closed_at": None,
    }
    return Entry(**{**facts, **changes})


def message(*entries: Entry) -> Message:
    """A message of these entries, or of one."""
    return Message("m-1", "store-1", NOW, entries or (entry(),))


@pytest.mark.parametrize("secret", ["sixteen letters!", "whsec_" + base64.b64encode(b"k" * 24).decode()])
def test_the_signature_is_over_id_time_and_body(secret: str) -> None:
    """As standardwebhooks.com says, so that its libraries verify it."""
    headers = signed_headers("m-1", NOW, b'{"a":1}', secret)
    key = base64.b64decode(secret[6:]) if secret.startswith("whsec_") else secret.encode()
    stamp = str(int(NOW.timestamp()))
    wanted = hmac.new(key, f'm-1.{stamp}.{{"a":1}}'.encode(), hashlib.sha256).digest()
    assert headers == {
        "webhook-id": "m-1",
        "webhook-timestamp": stamp,
        "webhook-signature": "v1," + base64.b64encode(wanted).decode(),
    }
    assert "webhook-signature" not in signed_headers("m-1", NOW, b"", None)


def test_the_code_in_the_documentation_verifies_a_signature() -> None:
    """And refuses another body, another key, and a message that is played again."""
    page = (Path(__file__).parents[3] / "docs" / "alerts.md").read_text()
    names: dict[str, Any] = {}
    exec(page.partition("```python\n")[2].partition("```")[0], names)
    verify, secret, now = names["is_from_batchd"], "sixteen letters!", datetime.now(UTC)
    headers = signed_headers("m-1", now, b"{}", secret)
    assert verify(headers, b"{}", secret)
    assert not verify(headers, b"{ }", secret)
    assert not verify(headers, b"{}", "another key here")
    assert not verify(signed_headers("m-1", now - timedelta(minutes=6), b"{}", secret), b"{}", secret)


def test_what_a_job_says_mentions_nobody_in_a_chat() -> None:
    """Slack's and Discord's mentions stay text."""
    said = slack_body(message())
    assert "<!channel>" not in str(said)
    assert "&lt;!channel&gt; no disk" in said["blocks"][0]["text"]["text"]
    assert discord_body(message())["allowed_mentions"] == {"parse": []}


def test_the_forms_hold_what_happened() -> None:
    """Each in its own place."""
    assert json_body(message())["alerts"][0]["headline"] == "nightly failed"
    assert json_body(message())["alerts"][0]["opened_at"] == "2026-11-25T03:00:00Z"
    card = teams_body(message(entry(Told.RECOVERED)))["attachments"][0]["content"]
    assert card["body"][1]["text"] == "recovered: nightly failed"
    assert discord_body(message())["embeds"][0]["title"] == "nightly failed"


def test_whoever_reads_is_led_to_the_page() -> None:
    """In each form, as a link and not as words; without a public URL there is none."""
    link = page_of("https://batch.example.com", run_id=42, job="nightly", incident_id=7)
    told = message(entry(link=link))
    assert link == "https://batch.example.com/runs/42"
    assert f"\n  {link}\n" in text(told)
    assert json_body(told)["alerts"][0]["url"] == link
    assert f"<{link}|Open>" in slack_body(told)["blocks"][0]["text"]["text"]
    assert discord_body(told)["embeds"][0]["url"] == link
    card = teams_body(told)["attachments"][0]["content"]["body"]
    assert card[-1]["actions"][0] == {"type": "Action.OpenUrl", "title": "Open", "url": link}
    assert "Open" not in str(slack_body(message()))
    assert "url" not in discord_body(message())["embeds"][0]


def test_a_link_leads_to_the_run_the_job_or_the_incident() -> None:
    """Whatever of them there is, first the run; a job's name cannot lead elsewhere."""
    site = "https://b.example"
    assert page_of(site, run_id=None, job="a/../b?<x>", incident_id=7) == f"{site}/jobs/a%2F..%2Fb%3F%3Cx%3E"
    of_incident = f"{site}/incidents?which=all&before=8#incident-7"
    assert page_of(site, run_id=None, job=None, incident_id=7) == of_incident
    assert page_of(site, run_id=None, job=None, incident_id=None) == f"{site}/"
    assert page_of(None, run_id=42, job=None, incident_id=None) is None


def test_many_things_are_one_message_with_a_title_that_counts() -> None:
    """The first ones are shown, the rest is counted; limits of chats hold."""
    many = message(
        *(entry(subject=f"job-{number}", summary="x" * 5_000) for number in range(150)), entry(Told.RECOVERED)
    )
    assert title(many) == "150 alerts, 1 recovered: job-0 failed, …"
    assert "and 131 more" in text(many)
    assert len(slack_body(many)["blocks"]) <= 50
    assert all(len(block["text"]["text"]) <= 3_000 for block in slack_body(many)["blocks"][:-1])
    assert len(discord_body(many)["content"]) <= 2_000
    assert sum(len(each["description"]) for each in discord_body(many)["embeds"]) <= 6_000


def test_the_text_says_since_when_how_often_and_where_to_look() -> None:
    """And when it is over, how long it lasted."""
    over = entry(Told.RECOVERED, count=3, closed_at=NOW + timedelta(minutes=61), details={"closing": "a run succeeded"})
    said = text(message(over))
    assert "from 2026-11-25 03:00:00 UTC to 2026-11-25 04:01:00 UTC (1h1m), seen 3 times" in said
    assert "a run succeeded" in said
    assert "batchd show 42" in said


def test_pings_go_behind_the_url_and_pair_by_run() -> None:
    """`/start` and `/fail` as Healthchecks has them, a test to `/log`; own URLs stay as they are."""
    settings = PingSettings.model_validate({"url": "https://hc.example.com/ping/abc/?k=1"})
    urls = {
        told: url_for(settings, entry(told), "store-1") for told in (Told.START, Told.SUCCESS, Told.FAIL, Told.TEST)
    }
    heads = {told: str(url).partition("?")[0] for told, url in urls.items()}
    assert heads == {
        Told.START: "https://hc.example.com/ping/abc/start",
        Told.SUCCESS: "https://hc.example.com/ping/abc",
        Told.FAIL: "https://hc.example.com/ping/abc/fail",
        Told.TEST: "https://hc.example.com/ping/abc/log",
    }
    assert len({str(url).rpartition("rid=")[2] for url in urls.values()}) == 1
    own = PingSettings.model_validate({"fail": "https://x.example.com/f"})
    assert url_for(own, entry(Told.FAIL), "s") == "https://x.example.com/f"
    assert url_for(own, entry(Told.SUCCESS), "s") is None


@pytest.mark.parametrize("name", sorted(channel_types()))
def test_each_type_has_settings_that_are_explained_and_an_example(name: str) -> None:
    """A new channel is one file; this is what it owes."""
    kind = channel_types()[name]
    assert kind.summary.endswith(".")
    assert "[" in kind.example
    assert all(field.description for field in kind.settings.model_fields.values())
