"""What a test looks at in a store while a daemon works on it."""

from __future__ import annotations

from collections.abc import Sequence

from batchd.db.engine import Database
from batchd.domain.run import RunState
from batchd.store.queries import RunDetail, RunFilter, RunView, list_runs, run_detail
from tests.support.waiting import wait_until


def runs_of(store: Database, job: str) -> Sequence[RunView]:
    """Return the job's runs, the newest first."""
    return list_runs(store, RunFilter(job=job, limit=1_000))


def detail_of(store: Database, run_id: int) -> RunDetail:
    """Return a run with its attempts and lines; fails when there is none."""
    detail = run_detail(store, run_id)
    assert detail is not None
    return detail


def wait_for_state(store: Database, run_id: int, *states: RunState, seconds: float = 20) -> RunDetail:
    """Wait until the run is in one of the states and return it."""

    def arrived() -> RunDetail | None:
        detail = detail_of(store, run_id)
        return detail if detail.run.state in states else None

    found = wait_until(arrived, seconds=seconds, what=f"run {run_id} {' or '.join(states)}")
    assert found is not None
    return found
