"""Reported runs: a row from the first moment, a heartbeat, an ending; and the work goes on whatever the store does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text, update

import batchd
from batchd.db.engine import Database
from batchd.domain.run import CreatedBy, RunState
from batchd.errors import UsageError
from batchd.monitoring import recorder
from batchd.store import control, leases, reported, workers
from batchd.store.migrate import migrate
from batchd.store.queries import RunFilter, list_runs, run_detail
from batchd.store.reported import LEASE, ReportedEnd
from batchd.store.schedules import reconcile
from batchd.store.schema import outbox, runs, schedules
from tests.support.databases import open_database
from tests.support.definitions import job
from tests.support.store_rows import add_schedule, run_row
from tests.support.waiting import wait_until

JOB = "nightly-backup"


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def url(request: pytest.FixtureRequest) -> str:
    """The URL of a migrated store."""
    found: str = request.getfixturevalue(request.param)
    opened = open_database(found)
    migrate(opened)
    opened.close()
    return found


@pytest.fixture
def store(url: str) -> Iterator[Database]:
    """The store."""
    opened = open_database(url)
    yield opened
    opened.close()


def only_run(store: Database) -> dict[str, Any]:
    """The one run of the ledger."""
    (run,) = list_runs(store, RunFilter())
    return run_row(store, run.id)


def events(store: Database) -> list[tuple[str, Any]]:
    """The outbox: event and state."""
    with store.reading() as connection:
        rows = connection.execute(select(outbox.c.event, outbox.c.payload).order_by(outbox.c.id)).all()
    return [(row.event, row.payload.get("state")) for row in rows]


def test_a_block_is_a_run(url: str, store: Database) -> None:
    """Running while it lasts, with progress and lines; succeeded at its end, with its result."""
    with batchd.monitor(JOB, store=url, metadata={"host": "db1"}) as run:
        during = only_run(store)
        run.progress(3, 10, "tables")
        run.log("dumping users", table="users")
        run.result["bytes"] = 42
    after = only_run(store)
    assert run.run_id == after["id"]
    assert (during["state"], during["schedule_id"], during["kind"], during["attempt"]) == (
        "running",
        JOB,
        "external",
        1,
    )
    assert during["lease_until"] > datetime.now(UTC)
    assert (after["state"], after["params"], after["result"]) == ("succeeded", {"host": "db1"}, {"bytes": 42})
    assert (after["progress_done"], after["progress_total"], after["progress_note"]) == (3, 10, "tables")
    detail = run_detail(store, after["id"])
    assert detail is not None
    assert [(line.message, line.fields.get("table")) for line in detail.log_lines] == [("dumping users", "users")]
    assert [attempt.outcome for attempt in detail.attempts] == ["succeeded"]
    assert events(store) == [("run.finished", "succeeded")]


def test_an_exception_is_recorded_and_goes_on_its_way(url: str, store: Database) -> None:
    """With its traceback."""
    with pytest.raises(ZeroDivisionError), batchd.monitor(JOB, store=url):
        _ = 1 / 0
    run = only_run(store)
    assert (run["state"], run["reason"], run["error"]) == ("failed", "error", "division by zero")
    detail = run_detail(store, run["id"])
    assert detail is not None
    assert "_ = 1 / 0" in str(detail.attempts[0].error_traceback)


@pytest.mark.parametrize(
    ("code", "state"), [(0, "succeeded"), (None, "succeeded"), (3, "failed"), ("no disk", "failed")]
)
def test_sys_exit_means_what_it_says(sqlite_url: str, code: Any, state: str) -> None:
    """A script that ends with sys.exit(0) has not failed."""
    opened = open_database(sqlite_url)
    migrate(opened)
    with pytest.raises(SystemExit), batchd.monitor(JOB, store=sqlite_url):
        raise SystemExit(code)
    assert only_run(opened)["state"] == state
    opened.close()


def test_each_call_of_a_decorated_function_is_a_run(url: str, store: Database) -> None:
    """And the function's result comes back."""

    @batchd.monitor(JOB, store=url)
    def backup(size: int) -> int:
        return size

    assert [backup(1), backup(2)] == [1, 2]
    assert [run.state for run in list_runs(store, RunFilter())] == ["succeeded", "succeeded"]


def test_a_store_that_cannot_be_reached_stops_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The block runs; stderr says, without the password, that it is not recorded."""
    done = []
    with batchd.monitor(JOB, store="postgresql://me:hidden@127.0.0.1:1/none") as run:
        done.append(run.run_id)
        recorder_limit = recorder.END_WITHIN
        recorder.END_WITHIN = timedelta(seconds=0.5)  # type: ignore[misc]
    recorder.END_WITHIN = recorder_limit  # type: ignore[misc]
    said = capsys.readouterr().err
    assert done == [None]
    assert "goes on without being recorded" in said
    assert f"how this run of {JOB} ended is not recorded" in said
    assert "hidden" not in said


def test_a_store_that_comes_back_has_the_whole_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Begun when it began, although its beginning could not be recorded then."""
    url = f"sqlite:///{tmp_path / 'late.db'}"
    with batchd.monitor(JOB, store=url) as run:
        assert run.run_id is None
        opened = open_database(url)
        migrate(opened)
        wait_until(lambda: run.run_id is not None, seconds=30)
    row = only_run(opened)
    assert row["state"] == "succeeded"
    assert row["created_at"] - row["started_at"] > timedelta(seconds=0.5)
    opened.close()


def test_the_name_of_a_job_that_batchd_runs_is_refused(url: str, store: Database, capsys: Any) -> None:
    """On stderr: the script goes on."""
    add_schedule(store, "cleanup-logs")
    with batchd.monitor("cleanup-logs", store=url):
        pass
    assert "which batchd runs itself" in capsys.readouterr().err
    assert list_runs(store, RunFilter()) == ()


def test_a_name_that_no_config_would_take_is_refused(sqlite_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr, too: names stand in shells and URLs."""
    opened = open_database(sqlite_url)
    migrate(opened)
    with batchd.monitor("nightly backup/1", store=sqlite_url):
        pass
    assert "is no name for a job" in capsys.readouterr().err
    opened.close()


def test_a_script_that_falls_silent_is_failed_and_never_run_again(store: Database) -> None:
    """By the reaper, once its lease is over; nobody can claim it, nobody can retry it."""
    run_id = reported.begin(store, JOB, {}, "gone", timedelta(0))
    assert leases.reap_expired(store, mine={}) == ()
    expire(store, run_id)
    assert leases.reap_expired(store, mine={}) == (run_id,)
    run = run_row(store, run_id)
    assert (run["state"], run["reason"], run["attempt"]) == ("failed", "lost", 1)
    assert "died or fell silent" in run["error"]
    assert events(store) == [("run.lost", "failed")]
    with pytest.raises(UsageError, match="only reported"):
        control.retry(store, run_id, created_by=CreatedBy.CLI)
    with pytest.raises(UsageError, match="runs elsewhere"):
        control.trigger(store, JOB, {}, created_by=CreatedBy.CLI)


def test_a_beginning_whose_answer_got_lost_is_recorded_once(store: Database) -> None:
    """Or there would be a second run, and an alert of the first, which nobody reports any more."""
    first = reported.begin(store, JOB, {}, "script-1", timedelta(0))
    assert reported.begin(store, JOB, {}, "script-1", timedelta(seconds=1)) == first
    assert reported.begin(store, JOB, {}, "script-2", timedelta(0)) != first


def expire(store: Database, run_id: int) -> None:
    """Let the run's lease be over."""
    with store.writing() as connection:
        connection.execute(update(runs).where(runs.c.id == run_id).values(lease_until=store.dialect.now_plus(-1)))


@pytest.mark.parametrize("word", ["beat", "finish"])
def test_a_script_that_comes_back_knows_better(store: Database, word: str) -> None:
    """A laptop that slept: what was recorded as lost runs on, or ended well."""
    run_id = reported.begin(store, JOB, {}, "asleep", timedelta(0))
    expire(store, run_id)
    leases.reap_expired(store, mine={})
    if word == "beat":
        assert reported.beat(store, run_id).is_running
        assert run_row(store, run_id)["state"] == "running"
    assert reported.finish(store, run_id, ReportedEnd(RunState.SUCCEEDED, None, {}), None)
    run = run_row(store, run_id)
    assert (run["state"], run["reason"], run["error"]) == ("succeeded", None, None)
    assert not reported.finish(store, run_id, ReportedEnd(RunState.FAILED, None, {}), None)
    detail = run_detail(store, run_id)
    assert detail is not None
    assert [attempt.outcome for attempt in detail.attempts] == ["succeeded"]


def test_the_heartbeat_keeps_the_lease(url: str, store: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread of the script's own renews it, and hears of a request to cancel."""
    monkeypatch.setattr(recorder, "HEARTBEAT", timedelta(seconds=0.1))
    with pytest.raises(RuntimeError), batchd.monitor(JOB, store=url) as run:
        assert run.run_id is not None
        run_id = run.run_id
        expire(store, run_id)
        wait_until(lambda: run_row(store, run_id)["lease_until"] > datetime.now(UTC) + LEASE / 2, seconds=30)
        assert not run.cancel_requested
        assert control.request_cancel(store, run_id) is control.Cancelled.REQUESTED
        wait_until(lambda: run.cancel_requested, seconds=30)
        raise RuntimeError("stopped half way")
    assert run_row(store, run_id)["state"] == "cancelled"


def test_a_daemon_that_starts_takes_no_reported_run_back(store: Database) -> None:
    """On SQLite it takes back what any other worker holds, since there can be no other daemon; a script is none."""
    run_id = reported.begin(store, JOB, {}, "script-1", timedelta(0))
    me = workers.this_process()
    workers.register(store, me, slots=1)
    assert "script-1" not in workers.provably_dead(store, me, all_others=True)
    assert run_row(store, run_id)["state"] == "running"


def test_a_job_that_is_only_reported_survives_the_next_start(store: Database) -> None:
    """The config does not have it; it is no less a job."""
    reported.begin(store, JOB, {}, "script-1", timedelta(0))
    report = reconcile(store, [job("tick")], datetime.now(UTC))
    assert (report.added, report.removed) == (1, 0)
    with store.reading() as connection:
        assert connection.execute(select(schedules.c.removed_at).where(schedules.c.id == JOB)).scalar_one() is None


def test_a_reported_success_is_followed_by_then(store: Database) -> None:
    """A chain may begin outside."""
    add_schedule(store, "tell", kind="noop", params={})
    add_schedule(store, JOB, kind="external", then_run={"job": "tell", "params": {"bytes": "{result.bytes}"}})
    run_id = reported.begin(store, JOB, {}, "script-1", timedelta(0))
    reported.finish(store, run_id, ReportedEnd(RunState.SUCCEEDED, None, {"bytes": 5}), None)
    with store.reading() as connection:
        following = connection.execute(select(runs).where(runs.c.after_id == run_id)).one()
    assert (following.schedule_id, following.params, following.state) == ("tell", {"bytes": 5}, "queued")


def test_of_many_lines_the_first_and_the_last_are_kept(url: str, store: Database) -> None:
    """With a word between them on how many are not."""
    with batchd.monitor(JOB, store=url) as run:
        for number in range(2_000):
            run.log(f"line {number}")
    with store.reading() as connection:
        lines = connection.execute(text("SELECT message FROM batchd_log_lines ORDER BY id")).scalars().all()
    assert lines[:2] == ["line 0", "line 1"]
    assert (lines[199], lines[201], lines[-1], len(lines)) == ("line 199", "line 1700", "line 1999", 501)
    assert lines[200] == "… 1,500 lines are not kept …"


def test_many_threads_may_report_at_once(url: str, store: Database) -> None:
    """No line is lost below the bound, none comes twice."""
    with batchd.monitor(JOB, store=url) as run:

        def say(number: int) -> None:
            for turn in range(20):
                run.log(f"{number}-{turn}")
                run.progress(turn)

        threads = [threading.Thread(target=say, args=(number,)) for number in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with store.reading() as connection:
        lines = connection.execute(text("SELECT message FROM batchd_log_lines")).scalars().all()
    assert sorted(lines) == sorted(f"{number}-{turn}" for number in range(5) for turn in range(20))
