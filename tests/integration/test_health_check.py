"""health_check: what it finds, when it fails, and that a database that hangs cannot hang it."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from batchd.db.engine import Database
from batchd.domain.job import JsonObject
from batchd.errors import JobError
from batchd.jobs.kinds.health_check import KIND
from tests.support.databases import open_database
from tests.support.job_context import DirectContext
from tests.support.postgres import start_server
from tests.support.waiting import wait_until


def check(context: DirectContext, **params: object) -> JsonObject:
    """Run the kind once."""
    return KIND.run(KIND.params.model_validate(params), context)


def report(result: JsonObject, name: str = "app") -> dict[str, object]:
    """Return one database's report."""
    databases = result["databases"]
    assert isinstance(databases, dict)
    found = databases[name]
    assert isinstance(found, dict)
    return found


def states(result: JsonObject, name: str = "app") -> dict[str, str]:
    """Return each check's state."""
    checks = report(result, name)["checks"]
    assert isinstance(checks, list)
    return {each["check"]: each["state"] for each in checks}  # type: ignore[call-overload,index,misc]


@pytest.fixture
def context(database: Database) -> DirectContext:
    """A context with one healthy database named app."""
    with database.reading():
        pass
    return DirectContext({"app": database})


def test_a_healthy_database_has_every_check_with_value_and_threshold(
    context: DirectContext, database: Database
) -> None:
    """As much as its dialect can tell."""
    result = check(context, free_disk={"warn": 1, "fail": 0})
    expected = {"latency", "connections", "oldest_transaction", "transaction_age", "size"}
    if database.dialect.name == "sqlite":
        expected = {"latency", "free_disk", "size", "quick_check"}
    assert set(states(result)) == expected
    assert report(result)["state"] == "ok"


def test_a_crossed_threshold_warns_and_then_fails(context: DirectContext) -> None:
    """Warnings do not fail the run; failures do, after so many in a row."""
    result = check(context, size={"warn": 1})
    assert states(result)["size"] == "warn"
    assert "health.degraded" in context.log.events("warning")
    with pytest.raises(JobError, match="size is") as raised:
        check(context, size={"fail": 1}, fail_after=1)
    assert not raised.value.retryable
    assert raised.value.result is not None
    assert report(raised.value.result)["state"] == "fail"


def test_only_so_many_failures_in_a_row_fail_the_run_and_recovery_is_noticed(context: DirectContext) -> None:
    """The count goes from run to run in the result."""
    context.previous_result = check(context, size={"fail": 1}, fail_after=2)
    assert report(dict(context.previous_result))["failures"] == 1
    with pytest.raises(JobError, match="2 times in a row"):
        check(context, size={"fail": 1}, fail_after=2)
    well = check(context, fail_after=2)
    assert report(well)["failures"] == 0
    assert "health.recovered" in context.log.events("info")


@pytest.fixture
def silent_server() -> Iterator[int]:
    """A server that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=20) as server:
        yield server.getsockname()[1]


def test_a_database_that_never_answers_fails_within_its_deadline(silent_server: int) -> None:
    """And leaves no thread behind."""
    before = threading.active_count()
    database = open_database(f"postgresql://u@127.0.0.1:{silent_server}/d")
    started = time.monotonic()
    with pytest.raises(JobError, match="for the first time"):
        check(DirectContext({"app": database}), deadline="2s", fail_after=1)
    assert time.monotonic() - started < 3
    wait_until(lambda: threading.active_count() <= before, what="threads ended")


def test_a_deadline_holds_for_all_addresses_together(silent_server: int) -> None:
    """The driver waits two seconds for each; the check does not, and the thread that does ends by itself."""
    before = threading.active_count()
    hosts, ports = ",".join(["127.0.0.1"] * 2), ",".join([str(silent_server)] * 2)
    database = open_database(f"postgresql://u@/d?host={hosts}&port={ports}")
    started = time.monotonic()
    with pytest.raises(JobError, match="no answer within 1 s"):
        check(DirectContext({"app": database}), deadline="1s", fail_after=1)
    assert time.monotonic() - started < 2
    wait_until(lambda: threading.active_count() <= before, seconds=20, what="threads ended")


def test_a_server_that_freezes_after_connecting_fails_within_its_deadline(tmp_path: Path) -> None:
    """SIGSTOP to every process of a real server: nothing answers, not even a cancel request."""
    with start_server(tmp_path, "18") as server:
        database = open_database(server.admin_url)
        assert server.data is not None
        postmaster = int((server.data / "postmaster.pid").read_text().splitlines()[0])
        os.kill(postmaster, signal.SIGSTOP)
        try:
            before = threading.active_count()
            started = time.monotonic()
            with pytest.raises(JobError):
                check(DirectContext({"app": database}), deadline="2s", fail_after=1)
            assert time.monotonic() - started < 4
            wait_until(lambda: threading.active_count() <= before, what="threads ended")
        finally:
            os.kill(postmaster, signal.SIGCONT)


def test_a_missing_sqlite_file_fails_and_is_not_made(tmp_path: Path) -> None:
    """A check must not create what it checks."""
    file = tmp_path / "gone.db"
    with pytest.raises(JobError, match="no file"):
        check(DirectContext({"app": open_database(f"sqlite:///{file}")}), fail_after=1)
    assert not file.exists()


def test_a_sick_database_does_not_hide_a_healthy_one(sqlite_url: str, silent_server: int) -> None:
    """Both are asked at once and reported side by side."""
    good = open_database(sqlite_url)
    with good.reading():
        pass
    bad = open_database(f"postgresql://u@127.0.0.1:{silent_server}/d")
    result = check(DirectContext({"good": good, "bad": bad}), deadline="1s", free_disk={"warn": 1})
    assert (report(result, "good")["state"], report(result, "bad")["state"]) == ("ok", "fail")


def test_connections_and_old_transactions_are_seen(postgres_url: str) -> None:
    """An open transaction of another session shows."""
    with psycopg.connect(postgres_url) as other:
        other.execute("SELECT 1")
        context = DirectContext({"app": open_database(postgres_url)})
        result = check(context, oldest_transaction={"warn": "1ms"}, connections={"warn": 0})
    assert states(result)["oldest_transaction"] == "warn"
    assert states(result)["connections"] == "warn"
