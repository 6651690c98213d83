"""Alerts of the real daemon, with a real SMTP server and a real HTTP server at the other end."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import select, update

from batchd.domain.run import CreatedBy, RunState
from batchd.store import control
from batchd.store.schema import runs, schedules
from tests.e2e.conftest import Urls
from tests.support.app_table import opened
from tests.support.daemon import Daemon, batchd, write_config
from tests.support.http_sink import HttpSink, Posted
from tests.support.smtp_sink import SmtpSink
from tests.support.store_reading import wait_for_state
from tests.support.waiting import wait_until

_SECRET = "canary-webhook-secret-77aa"
_WHILE_FILE = {"kind": "command", "command": ["test", "-e", "well"], "retry": {"max_attempts": 1}}


def configured(folder: Path, urls: Urls, jobs: dict[str, Any], channels: dict[str, Any], **alerts: Any) -> Path:
    """Write a config with channels; alerts look often and do not wait for each other."""
    usual = {"check_every": "1s", "group_wait": "100ms", "on": ["failed", "missed", "too_long", "recovered"]}
    sections = {"store": {"url": urls.store}, "jobs": jobs, "alerts": usual | alerts | {"channels": channels}}
    return write_config(folder, sections)


def hook(sink: HttpSink, **more: Any) -> dict[str, Any]:
    """A channel that posts batchd's own JSON to the sink."""
    return {"type": "webhook", "url": sink.url("/hook"), **more}


def trigger(urls: Urls, job: str, *states: RunState) -> int:
    """Run the job and wait until it is in one of the states."""
    with opened(urls.store) as store:
        run_id = control.trigger(store, job, {}, created_by=CreatedBy.CLI)
        wait_for_state(store, run_id, *states, seconds=60)
    return run_id


def is_signed(posted: Posted, secret: str) -> bool:
    """Verify as docs/alerts.md tells receivers to."""
    signed = f"{posted.headers['webhook-id']}.{posted.headers['webhook-timestamp']}.".encode() + posted.body
    digest = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
    return hmac.compare_digest(posted.headers["webhook-signature"], f"v1,{base64.b64encode(digest).decode()}")


def test_a_failure_its_end_and_a_run_too_long_are_told_by_mail_and_webhook(tmp_path: Path, urls: Urls) -> None:
    """One failure is told once however often it comes, by a broken channel's neighbour too; pings tell each run."""
    with SmtpSink() as smtp, HttpSink() as sink, HttpSink() as gone:
        gone.stop()
        jobs = {
            "flaky": {**_WHILE_FILE, "alerts": {"ping": sink.url("/ping/abc")}},
            "slow": {"kind": "sleep", "time": "6s", "alerts": {"max_duration": "1s", "to": ["web"]}},
        }
        channels = {
            "ops": {"type": "email", "to": ["ann@example.com"]},
            "web": hook(sink, secret=_SECRET),
            "down": hook(gone),
        }
        config = configured(tmp_path, urls, jobs, channels)
        config.write_text(
            config.read_text() + "[mail]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in smtp.config().items())
        )
        tested = batchd(config, "alerts", "test", "ops")
        assert tested.returncode == 0, tested.stderr
        assert batchd(config, "alerts", "test", "down").returncode == 69
        with Daemon(config) as daemon:
            daemon.ready(90)
            with opened(urls.store) as store:
                control.trigger(store, "slow", {}, created_by=CreatedBy.CLI)
            for _ in range(3):
                trigger(urls, "flaky", RunState.FAILED)
            wait_until(lambda: len(smtp.messages) >= 2, seconds=60, what="the mail about the failure")
            (tmp_path / "well").touch()
            trigger(urls, "flaky", RunState.SUCCEEDED)
            wait_until(lambda: len(smtp.messages) >= 3, seconds=60, what="the mail about the recovery")
            wait_until(lambda: len(hooked(sink)) >= 3, seconds=60, what="what the webhook is told")
            wait_until(lambda: pings(sink).count("/ping/abc") == 1, seconds=60, what="the pings")
            daemon.wait_for_event("alert.failed", channel="down", seconds=60)
            listed = json.loads(batchd(config, "alerts", "--all", "--json").stdout)
            status = json.loads(batchd(config, "status", "--json").stdout)
            assert daemon.stop() == 0
        said = daemon.output + json.dumps([listed, status])
    subjects = [message.message["Subject"] for message in smtp.messages]
    assert subjects == [
        "[batchd] a test: alerts of batchd arrive here",
        "[batchd] flaky failed",
        "[batchd] recovered: flaky failed",
    ]
    told = sorted((alert["job"], alert["rule"], alert["event"]) for alert in hooked(sink))
    assert told == [("flaky", "failed", "opened"), ("flaky", "failed", "recovered"), ("slow", "too_long", "opened")]
    assert all(is_signed(each, _SECRET) for each in sink.received if each.path == "/hook")
    assert [each for each in pings(sink) if each != "/ping/abc"] == ["/ping/abc/start", "/ping/abc/fail"] * 3 + [
        "/ping/abc/start"
    ]
    failed = next(each for each in listed["incidents"] if each["rule"] == "failed")
    assert (failed["state"], failed["count"], failed["closed_because"]) == ("closed", 3, "recovered")
    assert any("'down'" in complaint for complaint in status["degraded"])
    assert _SECRET not in said
    assert "/ping/abc" not in said


def hooked(sink: HttpSink) -> list[dict[str, Any]]:
    """What the webhook was told."""
    return [alert for each in sink.received if each.path == "/hook" for alert in each.json["alerts"]]


def pings(sink: HttpSink) -> list[str]:
    """The pings, in order."""
    return [path for path in sink.paths() if path.startswith("/ping")]


def test_what_was_missed_while_the_daemon_was_down_is_told_by_the_next(tmp_path: Path, urls: Urls) -> None:
    """Five hours without a daemon: the first thing that it tells, although the run is caught up at once."""
    with HttpSink() as sink:
        jobs = {"hourly": {"kind": "noop", "schedule": "every 1h"}, "idle": {"kind": "noop"}}
        config = configured(tmp_path, urls, jobs, {"web": hook(sink)})
        with Daemon(config) as daemon:
            daemon.ready(90)
            trigger(urls, "hourly", RunState.SUCCEEDED)
            assert daemon.stop() == 0
        with opened(urls.store) as store, store.writing() as connection:
            earlier = timedelta(hours=5)
            for table, columns in ((runs, ["started_at", "finished_at"]), (schedules, ["updated_at", "next_run_at"])):
                for row in connection.execute(select(table.c.id, *(table.c[name] for name in columns))).all():
                    moved = {name: value - earlier for name, value in zip(columns, row[1:], strict=True) if value}
                    connection.execute(update(table).where(table.c.id == row.id).values(moved))
        assert sink.received == []
        with Daemon(config) as daemon:
            daemon.ready(90)
            wait_until(lambda: len(sink.alerts()) >= 2, seconds=60, what="missed, and its end")
            assert daemon.stop() == 0
    told = [(alert["job"], alert["rule"], alert["event"]) for alert in sink.alerts()]
    assert told == [("hourly", "missed", "opened"), ("hourly", "missed", "recovered")]


def test_killed_between_the_commit_and_the_delivery_it_is_told_once(tmp_path: Path, urls: Urls) -> None:
    """The incident is committed and nothing sent: once after the restart. Killed while it sends: again, the same id."""
    with HttpSink() as sink:
        config = configured(tmp_path, urls, {"bad": _WHILE_FILE}, {"web": hook(sink)}, group_wait="4s")
        with Daemon(config) as daemon:
            daemon.ready(90)
            trigger(urls, "bad", RunState.FAILED)
            daemon.wait_for_event("incident.opened", seconds=60)
            daemon.kill()
        assert sink.received == []
        sink.may_answer.clear()
        with Daemon(config) as daemon:
            wait_until(lambda: sink.received, seconds=60, what="the delivery")
            daemon.kill()
        sink.may_answer.set()
        with Daemon(config) as daemon:
            daemon.wait_for_event("alert.sent", seconds=60)
            trigger(urls, "bad", RunState.FAILED)
            assert daemon.stop() == 0
    assert [alert["event"] for alert in sink.alerts()] == ["opened", "opened"]
    assert len({each.headers["webhook-id"] for each in sink.received}) == 1
    assert sink.received[0].body == sink.received[1].body


def test_what_a_channel_refused_for_a_while_is_told_later_and_once(tmp_path: Path, urls: Urls) -> None:
    """Failures of two jobs while it answers 503: one message tells both when it is back."""
    with HttpSink() as sink:
        sink.status = 503
        config = configured(tmp_path, urls, {"bad": _WHILE_FILE, "worse": _WHILE_FILE}, {"web": hook(sink)})
        with Daemon(config) as daemon:
            daemon.ready(90)
            trigger(urls, "bad", RunState.FAILED)
            daemon.wait_for_event("alert.failed", seconds=60)
            trigger(urls, "worse", RunState.FAILED)
            daemon.wait_for_event("incident.opened", key="failed:worse", seconds=60)
            shown = batchd(config, "alerts")
            said = [
                batchd(config, "alerts", *words)
                for words in (("ack", "1"), ("show", "1"), ("close", "1"), ("show", "99"))
            ]
            sink.status = 200
            daemon.wait_for_event("alert.recovered", seconds=60)
            assert daemon.stop() == 0
    assert sink.refused
    assert sorted(alert["job"] for alert in sink.alerts()) == ["bad", "worse"]
    assert len(sink.received) == 1
    assert "503" in shown.stdout
    assert "failing" in shown.stdout
    assert [each.returncode for each in said] == [0, 0, 0, 2]
    assert "acknowledged" in said[1].stdout
    assert "there is no incident 99" in said[3].stderr
