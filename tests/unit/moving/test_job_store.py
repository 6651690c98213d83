"""APScheduler's job stores: what stands in columns is shown, and a pickle is never loaded."""

from __future__ import annotations

import os
import pickle
import sqlite3
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from apscheduler.job import Job
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger

from batchd.db.job_stores import job_store_rows
from batchd.errors import UsageError
from batchd.moving.found import Findings
from batchd.moving.python_source.job_store import read_job_store, texts_in
from tests.unit.moving.golden import OPTIONS


class _Trap:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self._path),)


def _store(path: Path, rows: list[tuple[str, float | None, bytes]]) -> Path:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE apscheduler_jobs (id TEXT PRIMARY KEY, next_run_time REAL, job_state BLOB)")
        connection.executemany("INSERT INTO apscheduler_jobs VALUES (?, ?, ?)", rows)
    connection.close()
    return path


def _blob() -> bytes:
    job = Job(BackgroundScheduler(), id="nightly")
    job._modify(
        trigger=CronTrigger(hour=3, timezone=ZoneInfo("Europe/Berlin")), executor="default", func=os.getcwd, args=(),
        kwargs={}, name="nightly", misfire_grace_time=1, coalesce=True, max_instances=1,
        next_run_time=datetime(2027, 1, 1, tzinfo=ZoneInfo("UTC")),
    )  # fmt: skip
    return pickle.dumps(job.__getstate__(), 4)


def test_a_store_shows_ids_next_runs_and_what_cannot_be_known(tmp_path: Path) -> None:
    """Each row becomes a disabled job without a schedule, with its next run and probably its function."""
    path = _store(tmp_path / "jobs.sqlite", [("nightly", 1_798_761_600.0, _blob()), ("paused", None, b"\x00junk")])
    before = path.read_bytes()
    findings = Findings()
    read_job_store("jobs.sqlite", job_store_rows(str(path)), OPTIONS, findings)
    assert path.read_bytes() == before
    jobs = {job.name: job for job in findings.with_unique_names().jobs}
    assert "2027-01-01T00:00:00Z" in jobs["nightly"].original
    assert "a cron trigger" in jobs["nightly"].meaning
    assert "posix:getcwd" in jobs["nightly"].checks[1]
    assert all(job.settings["enabled"] is False and "schedule" not in job.settings for job in jobs.values())
    assert "never (paused)" in jobs["paused"].checks[0]
    assert any("can only be read by running it" in said for said in findings.remarks["APScheduler"])


def test_a_pickle_that_would_run_something_does_not(tmp_path: Path) -> None:
    """A blob that makes a folder when loaded makes none; its texts are listed."""
    trap = tmp_path / "sprung"
    path = _store(tmp_path / "jobs.sqlite", [("evil", 1.0, pickle.dumps(_Trap(trap), 2))])
    findings = Findings()
    read_job_store("jobs.sqlite", job_store_rows(str(path)), OPTIONS, findings)
    assert len(findings.jobs) == 1
    assert not trap.exists()
    assert str(trap) in texts_in(pickle.dumps(_Trap(trap), 2))


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\x00 and no more"])
def test_what_is_no_store_is_said_so(tmp_path: Path, content: bytes) -> None:
    """A file without the table, or a broken one, is answered with one message."""
    path = tmp_path / "jobs.sqlite"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="no job store"):
        job_store_rows(str(path))
