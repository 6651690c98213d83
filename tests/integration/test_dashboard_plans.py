"""What a page asks the store costs what the page shows, however long the ledger is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from batchd.db.engine import Database
from batchd.domain.run import RunState
from batchd.store import run_lists
from batchd.store.job_history import amounts_of, days_of, parts_of
from batchd.store.job_lists import find_job, job_page
from batchd.store.overview import overview
from batchd.store.queries import RunFilter, list_runs
from batchd.store.run_lists import ListFilter, count_runs, run_page
from tests.support.databases import open_database
from tests.support.long_ledger import Ledger, fill, job_name
from tests.support.plans import plan_of, rows_read, statements, whole_scans
from tests.support.postgres import PostgresServer, fresh_database
from tests.support.web import opened_surface

RUNS = 30_000
JOBS = 30
DAY = timedelta(days=1)
A_JOBS_RUNS = RUNS // JOBS
A_DAYS_RUNS = RUNS // 90


@pytest.fixture(scope="module")
def postgres_store(postgres_server: PostgresServer) -> Iterator[Database]:
    """A long ledger on PostgreSQL."""
    with fresh_database(postgres_server) as url, closing(open_database(url)) as store:
        fill(store, Ledger(RUNS, JOBS))
        yield store


@pytest.fixture(scope="module")
def sqlite_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A long ledger on SQLite."""
    with closing(open_database(f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'batchd.db'}")) as store:
        fill(store, Ledger(RUNS, JOBS))
        yield store


@pytest.fixture(params=["postgresql", "sqlite"])
def store(request: pytest.FixtureRequest) -> Database:
    """Each of them."""
    name = "postgres_store" if request.param == "postgresql" else "sqlite_store"
    found: Database = request.getfixturevalue(name)
    return found


def edges(days: int, parts: int) -> list[datetime]:
    """Equal parts of the last days."""
    now = datetime.now(UTC)
    return [now - days * DAY + place * days * DAY / parts for place in range(parts + 1)]


QUESTIONS: dict[str, tuple[Callable[[Database], Any], int]] = {
    "overview": (overview, 3 * A_DAYS_RUNS + 1_000),
    "jobs": (job_page, 2 * A_DAYS_RUNS + 500),
    "jobs, by name": (lambda store: job_page(store, search="JOB-00"), 2 * A_DAYS_RUNS + 500),
    "a job": (lambda store: find_job(store, job_name(7)), 0),
    "durations of a month": (lambda store: parts_of(store, job_name(7), edges(30, 30)), A_JOBS_RUNS // 3 + 20),
    "days": (lambda store: days_of(store, job_name(7), edges(60, 60)), 2 * A_JOBS_RUNS // 3 + 20),
    "rows of a month": (lambda store: amounts_of(store, job_name(7), "cleanup", edges(30, 1)[0]), 510),
    "runs": (lambda store: run_page(store, ListFilter()), 110),
    "runs, a later page": (lambda store: run_page(store, ListFilter(before_id=RUNS // 2)), 110),
    "runs of a job": (lambda store: run_page(store, ListFilter(job=job_name(7))), 110),
    "runs that failed": (lambda store: run_page(store, ListFilter(states=frozenset({RunState.FAILED}))), 110),
    "runs that failed, for a program": (
        lambda store: list_runs(store, RunFilter(states=frozenset({"failed", "missed"}), limit=100)),
        410,
    ),
    "dead letters": (
        lambda store: run_page(store, ListFilter(states=frozenset({RunState.FAILED, RunState.QUARANTINED}))),
        260,
    ),
    "failed of a job": (
        lambda store: run_page(store, ListFilter(job=job_name(7), states=frozenset({RunState.FAILED}))),
        110,
    ),
    "how many failed of a job": (
        lambda store: count_runs(store, ListFilter(job=job_name(7), states=frozenset({RunState.FAILED}))),
        A_JOBS_RUNS,
    ),
    "runs of a day": (lambda store: run_page(store, ListFilter(since=edges(80, 1)[0], until=edges(79, 1)[0])), 200),
    "runs that wait": (lambda store: run_page(store, ListFilter(states=frozenset({RunState.QUEUED}))), 600),
    "how many": (lambda store: count_runs(store, ListFilter()), 10_100),
    "how many failed": (lambda store: count_runs(store, ListFilter(states=frozenset({RunState.FAILED}))), RUNS // 90),
}


WALKS = {"runs", "how many"}
"""What goes over the newest rows by the table's own key, and stops at a bound; SQLite calls that a scan."""


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_page_reads_about_what_it_shows(store: Database, question: str) -> None:
    """No statement reads the ledger as a whole: rows read on PostgreSQL, an index in each step on SQLite."""
    ask, most = QUESTIONS[question]
    with statements(store) as seen:
        ask(store)
    assert seen or question == "a job"
    for statement, parameters in seen:
        if store.dialect.name == "postgresql":
            assert rows_read(store, statement, parameters) <= most, statement
        else:
            steps = [step for step in plan_of(store, statement, parameters) if "batchd_runs" in step]
            assert question in WALKS or all(step.startswith("SEARCH") or "USING" in step for step in steps), steps


PAGES = (
    "/",
    "/jobs",
    "/jobs?q=job-01",
    f"/jobs/{job_name(7)}",
    f"/jobs/{job_name(7)}?range=90d",
    "/runs",
    f"/runs?job={job_name(7)}&state=failed",
    f"/runs?job={job_name(7)}&state=succeeded&state=failed",
    "/runs?state=failed&state=cancelled",
    "/runs?state=queued",
    "/runs?period=24h",
    "/runs?before=9000",
    "/runs/500",
    "/dead-letter",
    f"/dead-letter?job={job_name(7)}",
    "/queues",
    "/exports",
    "/incidents",
    "/audit",
)


def test_no_page_reads_the_ledger(store: Database) -> None:
    """Each statement of each page, as it is planned there: no walk over all runs, no more rows than counts stop at."""
    with opened_surface(store) as surface:
        headers = surface.sign_in()
        for page in PAGES:
            with statements(store) as seen:
                assert surface.get(page, headers=headers).status_code == 200
            for statement, parameters in seen:
                if store.dialect.name == "postgresql":
                    assert not whole_scans(store, statement, parameters), (page, statement)
                    assert rows_read(store, statement, parameters, in_order=False) <= 10_100, (page, statement)
                else:
                    steps = [step for step in plan_of(store, statement, parameters) if "batchd_runs" in step]
                    walks = [step for step in steps if not step.startswith("SEARCH") and "USING" not in step]
                    assert page == "/runs" or not walks, (page, statement, walks)


@pytest.mark.parametrize("wanted", [ListFilter(queue="rare"), ListFilter(tag="rare")], ids=["queue", "tag"])
def test_a_list_without_an_index_looks_so_far_back(
    store: Database, wanted: ListFilter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page of nothing goes on where it stopped, down to the first run; a count says that there may be more."""
    monkeypatch.setattr(run_lists, "LOOKED_AT", RUNS // 3)
    with statements(store) as seen:
        assert str(count_runs(store, wanted)) == "0+"
        pages = [run_page(store, wanted)]
        while (before := pages[-1].next_before) is not None:
            pages.append(run_page(store, replace(wanted, before_id=before)))
    assert [len(page.lines) for page in pages] == [0, 0, 0, 0]
    if store.dialect.name == "postgresql":
        for statement, parameters in seen:
            assert rows_read(store, statement, parameters, in_order=False) <= RUNS // 3, statement
