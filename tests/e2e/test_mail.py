"""Mail of the real daemon: killed, stopped, and with a server that makes trouble; counted where it arrives."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from batchd.db.engine import Database
from batchd.domain.run import CreatedBy, RunState
from batchd.store import control
from tests.e2e.conftest import Urls
from tests.support.app_table import opened
from tests.support.daemon import Daemon, batchd, write_config
from tests.support.kind_contract import kills_of
from tests.support.smtp_sink import PASSWORD, USER, SmtpSink
from tests.support.store_reading import detail_of, runs_of, wait_for_state
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(300)

_KILLS = 20
_CALM_EVERY = 4
"""Every so many daemons finish what is there first: a run that is lost ten times without a word counts as poisoned."""

_QUICK_RETRY = {"max_attempts": 5, "delay": "200ms", "max_delay": "1s"}
_MAIL = {"kind": "email", "to": ["ann@example.com"], "subject": "Hello", "text": "Hi", "retry": _QUICK_RETRY}


def configured(folder: Path, urls: Urls, sink: SmtpSink, jobs: dict[str, Any], **mail: Any) -> Path:
    """Write a config whose mail goes to the sink."""
    with opened(urls.app) as app, app.writing() as connection:
        connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS orders (id integer PRIMARY KEY)")
    return write_config(
        folder,
        {
            "mail": sink.config(**mail),
            "store": {"url": urls.store},
            "databases": {"app": {"url": urls.app}},
            "jobs": jobs,
        },
    )


def ids_of(sink: SmtpSink) -> Counter[str]:
    """How often each message arrived, by its Message-ID."""
    return Counter(str(message.message["Message-ID"]) for message in sink.messages)


def wait_for_all_so_far(store: Database, jobs: list[str]) -> None:
    """Wait until the runs that the jobs have now are final."""
    ids = {run.id for job in jobs for run in runs_of(store, job)}
    wait_until(
        lambda: all(run.is_final for job in jobs for run in runs_of(store, job) if run.id in ids),
        seconds=90,
        what="the runs so far ended",
    )


def has_ended(store: Database, jobs: list[str]) -> bool:
    """Whether no run of the jobs is unfinished."""
    return all(run.is_final for job in jobs for run in runs_of(store, job))


def test_killed_at_random_moments_each_mail_arrives_and_hardly_any_twice(tmp_path: Path, urls: Urls) -> None:
    """Kill after kill: every run's mail arrives, and a second copy only where an attempt died while it sent."""
    dice = random.Random(11)
    report = {
        "kind": "report",
        "database": "app",
        "to": ["team@example.com"],
        "queries": {"orders": "SELECT count(*) AS orders FROM orders"},
        "schedule": "every 1s",
        "overlap": "allow",
        "retry": _QUICK_RETRY,
    }
    with SmtpSink() as sink, opened(urls.store) as store:
        config = configured(tmp_path, urls, sink, {"mail": {**_MAIL, "schedule": "every 1s"}, "report": report})
        kills = kills_of(_KILLS).count
        for number in range(kills):
            with Daemon(config) as daemon:
                if number % 2 == 0:
                    daemon.ready(90)
                if number % _CALM_EVERY == 0:
                    wait_for_all_so_far(store, ["mail", "report"])
                time.sleep(dice.uniform(0.1, 1.2))
        with Daemon(config) as daemon:
            daemon.ready(90)
            batchd(config, "pause", "mail")
            batchd(config, "pause", "report")
            wait_until(lambda: has_ended(store, ["mail", "report"]), seconds=90, what="all runs ended")
            assert daemon.stop() == 0
        runs = [run for job in ("mail", "report") for run in runs_of(store, job)]
        done = {run.id for run in runs if run.state == RunState.SUCCEEDED}
        copies = ids_of(sink)
        arrived = {int(name.split(".")[1]) for name in copies}
        lost = {run_id: sum(each.outcome == "lost" for each in detail_of(store, run_id).attempts) for run_id in arrived}
        fine = {RunState.SUCCEEDED, RunState.MISSED, RunState.SKIPPED}
        assert [(run.id, run.state, run.reason, run.error) for run in runs if run.state not in fine] == []
        assert done == arrived, "each run that succeeded has its mail, and no other has one"
        assert len(done) >= kills
        # A copy too many needs an attempt that was killed between the server's answer and the record of it.
        for name, count in copies.items():
            assert count <= 1 + lost[int(name.split(".")[1])], name
        assert sum(copies.values()) - len(copies) <= max(2, kills // 3), "such an attempt is rare"


def test_killed_after_the_server_has_the_mail_the_next_attempt_says_so(tmp_path: Path, urls: Urls) -> None:
    """The documented window, on purpose: one copy more, the same Message-ID, and a warning."""
    with SmtpSink() as sink, opened(urls.store) as store:
        config = configured(tmp_path, urls, sink, {"mail": _MAIL})
        sink.before_data_reply.clear()
        with Daemon(config) as daemon:
            daemon.ready(90)
            run_id = control.trigger(store, "mail", {}, created_by=CreatedBy.CLI)
            wait_until(lambda: sink.messages, seconds=20, what="the mail is with the server")
        sink.before_data_reply.set()
        with Daemon(config) as daemon:
            daemon.wait_for_event("mail.in_doubt", seconds=60)
            wait_for_state(store, run_id, RunState.SUCCEEDED, seconds=60)
            daemon.stop()
    assert list(ids_of(sink).values()) == [2]


def test_killed_after_the_record_nothing_is_sent_again(tmp_path: Path, urls: Urls) -> None:
    """Some recipients have it, one was put off: the next daemon asks for that one only."""
    with SmtpSink() as sink, opened(urls.store) as store:
        sink.refuse("bob@example.com", "451 greylisted")
        patient = {**_MAIL, "to": ["ann@example.com", "bob@example.com"]}
        config = configured(tmp_path, urls, sink, {"mail": patient | {"retry": {"max_attempts": 50, "delay": "100ms"}}})
        with Daemon(config) as daemon:
            daemon.ready(90)
            run_id = control.trigger(store, "mail", {}, created_by=CreatedBy.CLI)
            daemon.wait_for_event("run.retrying")
        sink.refuse("bob@example.com", None)
        with Daemon(config) as daemon:
            wait_for_state(store, run_id, RunState.SUCCEEDED, seconds=60)
            daemon.stop()
    assert [message.recipients for message in sink.messages] == [("ann@example.com",), ("bob@example.com",)]


def test_sigterm_waits_for_a_mail_on_its_way(tmp_path: Path, urls: Urls) -> None:
    """The server answers within the grace: the run ends, nothing is sent twice."""
    with SmtpSink() as sink, opened(urls.store) as store:
        config = configured(tmp_path, urls, sink, {"mail": _MAIL})
        sink.before_data_reply.clear()
        with Daemon(config) as daemon:
            daemon.ready(90)
            run_id = control.trigger(store, "mail", {}, created_by=CreatedBy.CLI)
            wait_until(lambda: sink.messages, seconds=20, what="the mail is with the server")
            daemon.signal(signal.SIGTERM)
            daemon.wait_for_event("service.draining")
            sink.before_data_reply.set()
            assert daemon.wait() == 0
        assert detail_of(store, run_id).run.state == RunState.SUCCEEDED
    assert len(sink.messages) == 1


def test_sigterm_in_the_middle_of_a_query_sends_nothing_yet(tmp_path: Path, urls: Urls) -> None:
    """The report starts anew with the next daemon, over the same period, and one mail goes out."""
    slow = {
        "postgresql": "SELECT 1 AS a FROM pg_sleep(2)",
        "sqlite": "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000000) "
        "SELECT max(i) AS a FROM n",
    }
    report = {
        "kind": "report",
        "database": "app",
        "to": "team@example.com",
        "queries": {"slow": slow[urls.dialect], "after": "SELECT count(*) AS orders FROM orders"},
    }
    with SmtpSink() as sink, opened(urls.store) as store:
        config = configured(tmp_path, urls, sink, {"report": report})
        with Daemon(config) as daemon:
            daemon.ready(90)
            run_id = control.trigger(store, "report", {}, created_by=CreatedBy.CLI)
            daemon.wait_for_event("run.started")
            assert daemon.stop() == 0
        assert detail_of(store, run_id).run.state == RunState.QUEUED
        assert not sink.messages
        with Daemon(config) as daemon:
            found = wait_for_state(store, run_id, RunState.SUCCEEDED, seconds=60)
            daemon.stop()
    assert found.run.attempt == 1, "a stop uses up no attempt"
    assert len(sink.messages) == 1


def test_what_passes_is_tried_again_and_what_does_not_fails_at_once(tmp_path: Path, urls: Urls) -> None:
    """4xx to the message goes on to the next attempts; 5xx and a wrong address end the run."""
    jobs = {
        "later": _MAIL,
        "never": {**_MAIL, "to": ["gone@example.com"]},
        "nobody": {**_MAIL, "to": []},
    }
    with SmtpSink() as sink, opened(urls.store) as store:
        sink.refuse("gone@example.com", "550 no such user")
        sink.data_replies = ["451 later"] * 4
        config = configured(tmp_path, urls, sink, jobs)
        with Daemon(config) as daemon:
            daemon.ready(90)
            later, never = (control.trigger(store, job, {}, created_by=CreatedBy.CLI) for job in ("later", "never"))
            wrong = batchd(config, "trigger", "nobody", "-p", "to=not an address", "--wait", "--timeout", "30s")
            found = wait_for_state(store, later, RunState.SUCCEEDED, seconds=60)
            refused = wait_for_state(store, never, RunState.FAILED, seconds=60)
            daemon.stop()
    assert len(found.attempts) == 2
    assert len(refused.attempts) == 1
    assert "gone@example.com was refused (550 no such user)" in (refused.run.error or "")
    assert wrong.returncode == 10
    assert "'not an address' is not a mail address" in wrong.stdout + wrong.stderr
    assert len(sink.messages) == 1


def test_a_login_over_starttls_leaves_no_password_anywhere(tmp_path: Path, urls: Urls) -> None:
    """A real CA, a real login, the password from the environment; `check --connect` lets itself in as well."""
    with SmtpSink("starttls", auth=True) as sink, opened(urls.store) as store:
        config = configured(
            tmp_path,
            urls,
            sink,
            {"mail": _MAIL, "daily": {"kind": "report", "ready": "daily", "to": ["team@example.com"]}},
            user=USER,
            password="${MAIL_PASSWORD}",
            ca_file=sink.write_ca(tmp_path),
        )
        environment = {"MAIL_PASSWORD": PASSWORD}
        checked = batchd(config, "check", "--connect", environment=environment)
        with Daemon(config, environment=environment) as daemon:
            daemon.ready(90)
            ids = [control.trigger(store, job, {}, created_by=CreatedBy.CLI) for job in ("mail", "daily")]
            shown = [batchd(config, "show", str(run_id), environment=environment) for run_id in ids]
            for run_id in ids:
                wait_for_state(store, run_id, RunState.SUCCEEDED, seconds=60)
            daemon.stop()
    assert "sink.example.org" in checked.stdout
    assert len(sink.messages) == 2
    said = [daemon.output, checked.stdout, checked.stderr, *(each.stdout + each.stderr for each in shown)]
    assert PASSWORD not in "\n".join(said)
