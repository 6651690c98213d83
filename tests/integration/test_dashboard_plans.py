"""What a page asks the store costs what the page shows, however long the ledger is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from batchd.db.engine import Database
from batchd.domain.run import RunState
from batchd.store.job_history import amounts_of, days_of, parts_of
from batchd.store.job_lists import find_job, job_page
from batchd.store.overview import overview
from batchd.store.run_lists import ListFilter, count_runs, run_page
from tests.support.databases import open_database
from tests.support.long_ledger import Ledger, fill, job_name
from tests.support.plans import plan_of, rows_read, statements
from tests.support.postgres import PostgresServer, fresh_database

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
    "dead letters": (
        lambda store: run_page(store, ListFilter(states=frozenset({RunState.FAILED, RunState.QUARANTINED}))),
        260,
    ),
    "failed of a job": (
        lambda store: run_page(store, ListFilter(job=job_name(7), states=frozenset({RunState.FAILED}))),
        A_JOBS_RUNS + 110,
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
